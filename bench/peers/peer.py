"""What every peer is to the driver: variants of one computation that can be run, read and timed."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shapes import Shape

STORED = {"f32": np.float32, "bf16": np.uint16, "f16": np.float16}
"""What NumPy holds the storage types in; of bf16, which it does not know, the bits."""

Operands = dict[str, np.ndarray]
"""Dense, f32 if nothing else is said. gemm, in the storage type of the shape: a [m, k], b [k, n]; the result is f32.
Attention, in that type: q [batch, heads, seq_q, depth], kv [2, batch, kv_heads, seq_kv, depth]; so is the result. Of
gradients also dout like q, and the result is [4, batch, heads, seq_q, depth]: out, and those of q, k and v.
layer: tokens [batch, seq, embedding], and in f64 w_q, w_k, w_v [heads, embedding, depth], w_o [heads, depth,
embedding]."""


def stored(x: np.ndarray, storage: str) -> np.ndarray:
    """f32 in a storage type."""
    if storage != "bf16":
        return x.astype(STORED[storage], copy=False)
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even


def file_of(distribution: str, start: str) -> str:
    """A wheel may install into the environment's lib folder: its list of files knows where."""
    for file in importlib.metadata.files(distribution) or []:
        if file.name.startswith(start):
            return str(Path(file.locate()).resolve())
    raise FileNotFoundError(f"{distribution} brings no {start}")


@dataclass
class Variant:
    """One way in which a peer computes a shape. The best of its variants is the peer's figure."""

    name: str
    run: Callable[[], object]
    result: Callable[[], np.ndarray]  # of the last run, laid out as rapt's
    time: Callable[[float], list[float]] | None = None  # a stopwatch of its own, for a budget in seconds

    def seconds(self, budget: float) -> list[float]:
        """Seconds of each of some runs, at least one, after one that warms up."""
        if self.time is not None:
            return self.time(budget)
        self.run()
        seconds = []
        clock = time.perf_counter
        end = clock() + budget
        while True:
            start = clock()
            self.run()
            now = clock()
            seconds.append(now - start)
            if now >= end:
                return seconds


class Peer:
    """A library in a process of its own. `threads` is how many it may use."""

    def __init__(self, threads: int) -> None:
        raise NotImplementedError

    version = ""
    trains = False
    """Whether it computes gradients."""

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        """Empty when the library does not compute this."""
        raise NotImplementedError
