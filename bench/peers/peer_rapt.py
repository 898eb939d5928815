"""rapt, through the shim."""

from __future__ import annotations

import numpy as np
from peer import Operands, Peer, Variant
from shim import Shim

from shapes import Shape


class Rapt(Peer):
    trains = True

    def __init__(self, threads: int) -> None:
        self.shim = Shim()
        self.threads = threads
        self.version = self.shim.target()

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        time_runs, out = self.shim.stopwatch(shape, operands, self.threads)
        return [Variant("rapt", lambda: time_runs(0), lambda: out, time_runs)]

    def limits(self, shape: Shape, operands: Operands, seconds: float) -> dict[str, float]:
        """GFLOP/s of multiply-adds, and where reading may be the limit GB/s of reading."""
        found = {"fma": self.shim.fma_gflops(self.threads, seconds)}
        if self.shim.streamed_bytes(shape) > 0:
            streamed = operands["b" if shape.operation == "gemm" else "kv"]
            found["read"] = self.shim.read_gbytes(self.threads, streamed, seconds)
        return found

    def check(self, shape: Shape, operands: Operands, result: np.ndarray, between: float) -> str:
        return self.shim.check(shape, operands, result, between)
