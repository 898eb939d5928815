"""bench/rapt_shim.cpp through ctypes: rapt itself, its stopwatch, the machine's limits, the check."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_float, c_int64, c_void_p

import numpy as np

from shapes import Shape

ENVIRONMENT = "RAPT_SHIM"
"""The variable that says where the library is, for the worker processes."""

_CAPACITY = 100_000  # runs in one turn
_Floats = POINTER(c_float)


class _Stopwatch(Structure):
    _fields_ = [("budget", c_double), ("seconds", POINTER(c_double)), ("capacity", c_int64)]


class _Weights(Structure):
    _fields_ = [(name, POINTER(c_double)) for name in ("q", "k", "v", "output")]


def _floats(array: np.ndarray) -> ctypes._Pointer:
    assert array.dtype == np.float32 and array.flags.c_contiguous
    return array.ctypes.data_as(_Floats)


def _memory(array: np.ndarray) -> c_void_p:
    """Of any storage type: the name of the shape says which."""
    assert array.flags.c_contiguous
    return c_void_p(array.ctypes.data)


def _sizes(values: tuple[int, ...]) -> ctypes.Array:
    """LayerSizes of the C++ side: int64 fields in this order."""
    return (c_int64 * len(values))(*values)


def _weights(operands: dict[str, np.ndarray]) -> _Weights:
    return _Weights(*(operands[n].ctypes.data_as(POINTER(c_double)) for n in ("w_q", "w_k", "w_v", "w_o")))


class Shim:
    def __init__(self) -> None:
        self._lib = ctypes.CDLL(os.environ[ENVIRONMENT])
        for name in ("error", "target", "check_gemm", "check_attention", "check_backward", "check_layer"):
            getattr(self._lib, f"rapt_bench_{name}").restype = c_char_p
        for name in ("time_gemm", "time_sgemm", "time_execute", "time_attention", "time_backward", "time_layer"):
            getattr(self._lib, f"rapt_bench_{name}").restype = c_int64
        for name in ("fma_gflops", "read_gbytes", "flops", "streamed_bytes"):
            getattr(self._lib, f"rapt_bench_{name}").restype = c_double
        self._lib.rapt_bench_make_layer.restype = c_void_p

    def target(self) -> str:
        return self._lib.rapt_bench_target().decode()

    def all_threads(self) -> int:
        return self._lib.rapt_bench_all_threads()

    def flops(self, shape: Shape) -> float:
        """Operations of the products that are needed."""
        return self._needed(self._lib.rapt_bench_flops, shape)

    def streamed_bytes(self, shape: Shape) -> float:
        """Bytes of K and V, or of b. 0 where there is so much arithmetic for each that reading is no limit."""
        return self._needed(self._lib.rapt_bench_streamed_bytes, shape)

    def _needed(self, function: Callable[[bytes], float], shape: Shape) -> float:
        amount = function(shape.name.encode())
        if amount < 0:
            raise ValueError(self._lib.rapt_bench_error().decode())
        return amount

    def fma_gflops(self, threads: int, seconds: float) -> float:
        return self._lib.rapt_bench_fma_gflops(threads, c_double(seconds))

    def read_gbytes(self, threads: int, data: np.ndarray, seconds: float) -> float:
        floats = data.reshape(-1).view(np.float32)  # whatever the bits mean
        return self._lib.rapt_bench_read_gbytes(threads, _floats(floats), c_int64(floats.size), c_double(seconds))

    def check(self, shape: Shape, operands: dict[str, np.ndarray], result: np.ndarray, between: float) -> str:
        """Empty when the result is right, otherwise a sentence. `between`: the unit of a rounding that the peer may
        do, of scores and weights, or of c."""
        if shape.operation == "gemm":
            a, b = operands["a"], operands["b"]
            wrong = self._lib.rapt_bench_check_gemm(
                shape.name.encode(), _memory(a), _memory(b), _floats(result), c_double(between)
            )
        elif shape.operation == "layer":
            weights = _weights(operands)
            wrong = self._lib.rapt_bench_check_layer(
                _sizes(shape.sizes), _floats(operands["tokens"]), byref(weights), _floats(result)
            )
        elif shape.has_gradients:
            k, v = operands["kv"]
            wrong = self._lib.rapt_bench_check_backward(
                shape.name.encode(), *map(_memory, (operands["q"], k, v, operands["dout"], result)), c_double(between)
            )
        else:
            k, v = operands["kv"]
            wrong = self._lib.rapt_bench_check_attention(
                shape.name.encode(), *map(_memory, (operands["q"], k, v, result)), c_double(between)
            )
        return wrong.decode() if wrong else ""

    def time_sgemm(self, sgemm, shape: Shape, a, b, c, budget: float) -> list[float]:
        return self._timed(
            budget,
            lambda watch: self._lib.rapt_bench_time_sgemm(
                sgemm, shape.name.encode(), _floats(a), _floats(b), _floats(c), watch
            ),
        )

    def time_execute(self, execute, primitive, stream, arguments: ctypes.Array, budget: float) -> list[float]:
        """Of oneDNN."""
        return self._timed(
            budget,
            lambda watch: self._lib.rapt_bench_time_execute(
                execute, primitive, stream, len(arguments), arguments, watch
            ),
        )

    def stopwatch(
        self, shape: Shape, operands: dict[str, np.ndarray], threads: int, planned: bool = False
    ) -> tuple[Callable[[float], list[float]], np.ndarray]:
        """rapt on this shape: a function that times runs for a budget in seconds, and where their result is. Planned:
        of a plan of an attention that is made once."""
        count: tuple[int, ...] = (threads,)
        if shape.operation == "gemm":
            m, n, _ = shape.sizes
            out = np.empty((m, n), np.float32)
            arguments = (shape.name.encode(), _memory(operands["a"]), _memory(operands["b"]), _floats(out))
            function = self._lib.rapt_bench_time_gemm
        elif shape.operation == "layer":
            out = np.empty_like(operands["tokens"])
            weights = _weights(operands)
            layer = self._lib.rapt_bench_make_layer(_sizes(shape.sizes), byref(weights))
            if not layer:
                raise RuntimeError(self._lib.rapt_bench_error().decode())
            arguments = (c_void_p(layer), _sizes(shape.sizes), _floats(operands["tokens"]), _floats(out))
            function = self._lib.rapt_bench_time_layer
        elif shape.has_gradients:
            q, (k, v) = operands["q"], operands["kv"]
            out = np.empty((4, *q.shape), q.dtype)
            arguments = (shape.name.encode(), *map(_memory, (q, k, v, operands["dout"], out)))
            function = self._lib.rapt_bench_time_backward
        else:
            k, v = operands["kv"]
            out = np.empty_like(operands["q"])
            arguments = (shape.name.encode(), *map(_memory, (operands["q"], k, v, out)))
            function = self._lib.rapt_bench_time_attention
            count = (threads, int(planned))
        return lambda budget: self._timed(budget, lambda watch: function(*arguments, *count, watch)), out

    def _timed(self, budget: float, call: Callable[[object], int]) -> list[float]:
        seconds = np.empty(_CAPACITY)
        watch = _Stopwatch(budget, seconds.ctypes.data_as(POINTER(c_double)), _CAPACITY)
        runs = call(byref(watch))
        if runs < 0:
            raise RuntimeError(self._lib.rapt_bench_error().decode())
        return seconds[:runs].tolist()
