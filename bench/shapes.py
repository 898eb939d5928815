"""Reads shapes.txt: for Python what shapes.hpp is for C++. What a shape needs is asked of the shim."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SHAPES = Path(__file__).with_name("shapes.txt")

# How many sizes a line gives, and what they are called.
AXES = {
    "gemm": ("m", "n", "k"),
    "prefill": ("batch", "heads", "seq", "depth"),
    "causal": ("batch", "heads", "seq", "depth"),
    "decode": ("batch", "heads", "kv_heads", "seq", "depth"),
    "attention": ("batch", "heads", "kv_heads", "seq_q", "seq_kv", "d_k", "d_v"),
    "layer": ("batch", "seq", "embedding", "heads", "depth"),
}

# What may follow the sizes, by kind: one of each at most. These are what peers have to know of; every other modifier
# is a kind of its own, which they are not timed with.
MODIFIERS = {
    "storage": "f32|bf16|f16|int8|int4",
    "window": "window[1-9][0-9]*",
    "place": "page[1-9][0-9]*|ragged|padded",
    "sharing": "shared",
    "pass": "backward|training",
    "softcap": "softcap",
    "alibi": "alibi",
    "other": "[a-z]+[0-9+-]*",
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
    name: str
    """operation/sizes/modifier/modifier..."""
    operation: str
    sizes: tuple[int, ...]
    modifiers: dict[str, str]
    """By kind."""
    tags: frozenset[str] = frozenset()

    @property
    def is_attention(self) -> bool:
        return self.operation in ("prefill", "causal", "decode")

    @property
    def storage(self) -> str:
        return self.modifiers.get("storage", "f32")

    @property
    def has_gradients(self) -> bool:
        """Computed, with attention before them or alone."""
        return "pass" in self.modifiers

    @property
    def attention(self) -> Attention:
        if self.operation == "decode":
            batch, heads, kv_heads, seq, depth = self.sizes
            return Attention(batch, heads, kv_heads, 1, seq, depth, False)
        batch, heads, seq, depth = self.sizes
        return Attention(batch, heads, heads, seq, seq, depth, self.operation == "causal")


def parse_shape(name: str, tags: frozenset[str] = frozenset()) -> Shape:
    operation, sizes, *words = name.split("/")
    if operation not in AXES:
        raise ValueError(f"no operation is called {operation}")
    numbers = tuple(int(s) for s in sizes.split(","))
    if len(numbers) != len(AXES[operation]) or min(numbers) < 1:
        raise ValueError(f"{operation} takes {', '.join(AXES[operation])}")
    modifiers: dict[str, str] = {}
    for word in words:
        kind = next((k for k, pattern in MODIFIERS.items() if re.fullmatch(pattern, word)), None)
        if kind is None:
            raise ValueError(f"no modifier is called {word}")
        kind = word if kind == "other" else kind
        if kind in modifiers:
            raise ValueError(f"'{word}' is a second {kind}")
        modifiers[kind] = word
    shape = Shape(name, operation, numbers, modifiers, tags)
    if modifiers and (misfit := _misfit(shape)):
        raise ValueError(misfit)
    return shape


def _misfit(shape: Shape) -> str | None:
    """Why these modifiers are not of this shape."""
    m = shape.modifiers
    if not shape.is_attention:
        return None
    if "window" in m and shape.operation == "prefill":
        return "a window is of causal or of decode"
    if "sharing" in m and not m.get("place", "").startswith("page"):
        return "only pages are shared"
    if "sharing" in m and "window" in m:
        return "a window and shared pages are not counted together"
    if shape.storage == "int4" and shape.attention.depth % 32:
        return "int4 takes a depth that is a multiple of 32"
    return None


def read_shapes(path: Path = SHAPES) -> list[Shape]:
    shapes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            operation, sizes, *tags = words
            shapes.append(parse_shape(f"{operation}/{sizes}", frozenset(tags)))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return shapes
