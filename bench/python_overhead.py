"""What a call from Python costs on top of the C call: prints microseconds for each library of arrays.

usage: python bench/python_overhead.py build/clang/src/librapt.so

The smallest attention there is (one head, one query, one key), the fastest of many runs of it. The C call goes
through ctypes, whose own cost (that of rapt_version()) is taken off. Run it with the environment that has the
package: build/venv-python/bin/python, after `bash tests/run --python`.
"""

import ctypes
import sys
import timeit

import jax
import numpy as np
import rapt
import rapt.jax
import rapt.torch
import torch
from c_arrays import dense


def microseconds(call, runs=5000):
    return min(timeit.repeat(call, number=runs, repeat=9)) / runs * 1e6


def c_call(library):
    numbers = [np.ones((1, 1, 1, 8), np.float32) for _ in range(4)]
    pointers = [ctypes.byref(dense(x)) for x in numbers]
    assert library.rapt_attention(*pointers, None) == 0
    empty = microseconds(lambda: library.rapt_version())
    return microseconds(lambda: library.rapt_attention(*pointers, None)) - empty


def main():
    c = c_call(ctypes.CDLL(sys.argv[1]))
    x = np.ones((1, 1, 1, 8), np.float32)
    t, j = torch.from_numpy(x), jax.device_put(x)
    out = np.empty_like(x)
    jitted = jax.jit(rapt.jax.attention)
    calls = {
        "NumPy": lambda: rapt.attention(x, x, x),
        "NumPy, out given": lambda: rapt.attention(x, x, x, out=out),
        "PyTorch": lambda: rapt.attention(t, t, t),
        "PyTorch, rapt.torch.attention": lambda: rapt.torch.attention(t, t, t),
        "JAX": lambda: rapt.attention(j, j, j),
        "JAX, rapt.jax.attention under jit": lambda: jitted(j, j, j).block_until_ready(),
    }
    print(f"{'the C call':36}{c:8.1f} us")
    for name, call in calls.items():
        print(f"{name:36}{microseconds(call, 500 if 'JAX' in name else 5000) - c:8.1f} us more")


if __name__ == "__main__":
    main()
