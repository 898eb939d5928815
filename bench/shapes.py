"""Reads shapes.txt: for Python what shapes.hpp is for C++."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SHAPES = Path(__file__).with_name("shapes.txt")

# How many sizes a line gives, and what they are called.
AXES = {
    "gemm": ("m", "n", "k"),
    "prefill": ("batch", "heads", "seq", "depth"),
    "causal": ("batch", "heads", "seq", "depth"),
    "decode": ("batch", "heads", "kv_heads", "seq", "depth"),
    "layer": ("batch", "seq", "embedding", "heads", "depth"),
}


@dataclass(frozen=True)
class Attention:
    """q, out [batch, heads, seq_q, depth]; k, v [batch, kv_heads, seq_kv, depth]."""

    batch: int
    heads: int
    kv_heads: int
    seq_q: int
    seq_kv: int
    depth: int
    causal: bool


@dataclass(frozen=True)
class Shape:
    operation: str
    sizes: tuple[int, ...]
    tags: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.operation}/{','.join(map(str, self.sizes))}"

    @property
    def is_attention(self) -> bool:
        return self.operation in ("prefill", "causal", "decode")

    @property
    def attention(self) -> Attention:
        if self.operation == "decode":
            batch, heads, kv_heads, seq, depth = self.sizes
            return Attention(batch, heads, kv_heads, 1, seq, depth, False)
        batch, heads, seq, depth = self.sizes
        return Attention(batch, heads, heads, seq, seq, depth, self.operation == "causal")

    @property
    def flops(self) -> float:
        """Operations of the products that are needed: causal counts half."""
        if self.operation == "gemm":
            m, n, k = self.sizes
            return 2.0 * m * n * k
        if self.operation == "layer":
            batch, seq, embedding, heads, depth = self.sizes
            return 8.0 * batch * seq * embedding * heads * depth + 4.0 * batch * seq * seq * heads * depth
        a = self.attention
        return 4.0 * a.batch * a.heads * a.seq_q * a.seq_kv * a.depth * (0.5 if a.causal else 1.0)

    @property
    def streamed_bytes(self) -> float:
        """Bytes of what is large and read by everyone: K and V, or b. 0 for the layer."""
        if self.operation == "layer":
            return 0.0
        if self.operation == "gemm":
            _, n, k = self.sizes
            return 4.0 * n * k
        a = self.attention
        return 8.0 * a.batch * a.kv_heads * a.seq_kv * a.depth

    @property
    def is_streaming(self) -> bool:
        """Whether there is so little arithmetic for each of these bytes that reading may be the limit."""
        return self.flops < 8 * self.streamed_bytes


def read_shapes(path: Path = SHAPES) -> list[Shape]:
    shapes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            operation, sizes, *tags = words
            shape = Shape(operation, tuple(int(s) for s in sizes.split(",")), frozenset(tags))
            if len(shape.sizes) != len(AXES[operation]) or min(shape.sizes) < 1:
                raise ValueError(f"{operation} takes {', '.join(AXES[operation])}")
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        shapes.append(shape)
    return shapes
