"""Worker processes of which only one computes at a time: the others are stopped, so that no pool of theirs
spins beside it, and each library may wait for work in the way that is fastest for itself."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_PATIENCE = 120.0  # seconds until a worker that does not answer is given up
_WORKER = Path(__file__).with_name("worker.py")

# Settings of the user's that would change what the libraries choose by themselves.
_CLEARED = (
    "BLIS_ARCH_TYPE",
    "BLIS_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_MAIN_FREE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_THREADING_LAYER",
    "GOMP_CPU_AFFINITY",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "RAPT_TARGET",
)
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Absent(Exception):
    """The peer cannot do this here; the message says why."""


class Turns:
    """A worker, stopped except while it answers."""

    def __init__(self, name: str, threads: int, log: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in _CLEARED}
        environment.update({k: str(threads) for k in _COUNTS})
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            env=environment,
        )
        os.kill(self._process.pid, signal.SIGSTOP)

    def call(self, method: str, *arguments):
        process = self._process
        if process.poll() is not None:
            raise Absent("its process ended")
        os.kill(process.pid, signal.SIGCONT)
        try:
            process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            line = b""
        if not line:
            self.end()
            raise Absent("its process ended" if ready else f"no answer within {_PATIENCE:.0f} s")
        os.kill(process.pid, signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise Absent(answer["error"])
        return answer["value"]

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
