"""What needs a process of its own, as one line of JSON.

usage: alone.py long THREADS     how fast long causal attention is beside short, and the memory that it takes
       alone.py training THREADS the memory that a long forward and backward pass take beyond inputs, out and gradients
       alone.py load LIBRARY     milliseconds to load librapt.so, and what its first call takes
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import numpy as np
from c_arrays import dense
from main import make_operands
from shim import Shim

from shapes import parse_shape

LONG, SHORT = "causal/1,2,32768,64", "causal/1,2,4096,64"
LONG_TRAINING = "causal/1,8,16384,64/training"


def status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def beyond(run: Callable[[], object]) -> int:
    """Bytes at the peak of a run, beyond what was resident before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def long(threads: int) -> dict:
    shim = Shim()
    kept, run, rates = [], {}, {LONG: [], SHORT: []}
    for name in (LONG, SHORT):
        shape = parse_shape(name)
        operands = make_operands(shape)
        run[name], out = shim.stopwatch(shape, operands, threads)
        out.fill(0)  # its pages are there
        kept.append((operands, out))
        if name == LONG:
            taken = beyond(lambda: run[LONG](0))
    for _ in range(3):
        for name in (LONG, SHORT):
            rates[name].append(shim.flops(parse_shape(name)) / min(run[name](0.3)))
    ratios = [a / b for a, b in zip(rates[LONG], rates[SHORT])]
    return {"bytes": taken, "speed": statistics.median(ratios), "gflops": max(rates[LONG]) * 1e-9}


def training(threads: int) -> dict:
    shape = parse_shape(LONG_TRAINING)
    operands = make_operands(shape)
    run, out = Shim().stopwatch(shape, operands, threads)
    out.fill(0)  # its pages are there
    return {"shape": LONG_TRAINING, "bytes": beyond(lambda: run(0))}


def load(path: str) -> dict:
    for needed in ("libstdc++.so.6", "libtbb.so.12"):
        try:
            ctypes.CDLL(needed)
        except OSError:
            pass  # then librapt.so does not need it
    clock = time.perf_counter
    start = clock()
    library = ctypes.CDLL(path)
    loaded = clock()
    library.rapt_serial_executor.restype = ctypes.c_void_p
    options = (ctypes.c_int64 * 25)()  # rapt_attention_options up to its executor: all 0 but that and the size
    options[0], options[24] = ctypes.sizeof(options), library.rapt_serial_executor()
    numbers = [np.ones((1, 1, 64, 64), np.float32) for _ in range(4)]
    pointers = [ctypes.byref(dense(x)) for x in numbers]
    seconds = []
    for _ in range(200):
        begin = clock()
        result = library.rapt_attention(*pointers, options)
        seconds.append(clock() - begin)
        assert result == 0
    return {"load_ms": (loaded - start) * 1e3, "first_ms": (seconds[0] - min(seconds)) * 1e3}


if __name__ == "__main__":
    what, argument = sys.argv[1:]
    print(json.dumps(load(argument) if what == "load" else {"long": long, "training": training}[what](int(argument))))
