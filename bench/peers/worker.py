"""One peer with one number of threads, in a process of its own: python worker.py PEER THREADS.

Reads one JSON request a line from standard input, and answers each with one line. What libraries print goes
to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import numpy as np
from peer import Operands, Peer, Variant

from shapes import Shape, parse_shape

PEERS = {
    "rapt": ("peer_rapt", "Rapt"),
    "torch": ("peer_torch", "Torch"),
    "onnxruntime": ("peer_onnxruntime", "OnnxRuntime"),
    "openvino": ("peer_openvino", "OpenVino"),
    "mkl": ("peer_blas", "Mkl"),
    "openblas": ("peer_blas", "OpenBlas"),
    "blis": ("peer_blas", "Blis"),
    "onednn": ("peer_onednn", "OneDnn"),
}


class Worker:
    def __init__(self, name: str, threads: int) -> None:
        module, peer_class = PEERS[name]
        self.peer: Peer = getattr(importlib.import_module(module), peer_class)(threads)
        self.shape: Shape | None = None
        self.operands: Operands = {}
        self.variants: dict[str, Variant] = {}

    def prepare(self, name: str, folder: str) -> list[str]:
        """Takes the operands from <folder>/<name>.npy, runs each variant once and leaves what it computed in
        <folder>/result-<i>.npy; returns the variants' names."""
        self.variants = {}
        self.shape = parse_shape(name)
        if self.shape.has_gradients and not self.peer.trains:
            return []
        self.operands = {
            path.stem: np.load(path) for path in Path(folder).glob("*.npy") if not path.stem.startswith("result")
        }
        for variant in self.peer.variants(self.shape, self.operands):
            variant.run()
            np.save(Path(folder) / f"result-{len(self.variants)}.npy", np.ascontiguousarray(variant.result()))
            self.variants[variant.name] = variant
        return list(self.variants)

    def time(self, variant: str, budget: float) -> list[float]:
        return self.variants[variant].seconds(budget)

    def limits(self, seconds: float) -> dict[str, float]:
        return self.peer.limits(self.shape, self.operands, seconds)  # rapt's worker only

    def check(self, result: str, between: float) -> str:
        return self.peer.check(self.shape, self.operands, np.load(result), between)  # rapt's worker only

    def version(self) -> str:
        return self.peer.version


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = None
    name, threads = sys.argv[1], int(sys.argv[2])
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            if worker is None:
                worker = Worker(name, threads)
            answer = {"value": getattr(worker, method)(*arguments)}
        except Exception as error:  # the driver names it in the table, and goes on
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
