"""oneDNN's matmul primitive, through its C API; timed by the shim's C loop as rapt is.

onednn-cpu-gomp is the newest package that computes on the CPU by itself: to the later ones it is a SYCL device, which
needs more to be installed in the system."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_int, c_int64, c_size_t, c_void_p

import numpy as np
from peer import Operands, Peer, Variant, file_of
from shim import Shim

from shapes import Shape

# Numbers of dnnl_types.h.
_CPU, _IN_ORDER = 1, 1
_TYPES = {"f32": 3, "bf16": 2, "f16": 1}
_SOURCE, _WEIGHTS, _DESTINATION = 1, 33, 17
_UNIMPLEMENTED = 3


class _Argument(ctypes.Structure):
    _fields_ = [("which", c_int), ("memory", c_void_p)]


class OneDnn(Peer):
    def __init__(self, threads: int) -> None:  # OpenMP's environment says how many
        self.shim = Shim()
        self.library = ctypes.CDLL(file_of("onednn-cpu-gomp", "libdnnl.so.3"))
        self.library.dnnl_version.restype = POINTER(c_int)
        self.version = ".".join(map(str, self.library.dnnl_version()[:3]))
        self.engine = self._make("engine_create", _CPU, c_size_t(0))
        self.stream = self._make("stream_create", self.engine, _IN_ORDER)

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        """c is f32."""
        if shape.operation != "gemm":
            return []
        a, b = operands["a"], operands["b"]
        c = np.empty((a.shape[0], b.shape[1]), np.float32)
        layouts = [self._layout(x, kind) for x, kind in ((a, shape.storage), (b, shape.storage), (c, "f32"))]
        matmul = self._make("matmul_primitive_desc_create", self.engine, *layouts[:2], None, layouts[2], None)
        primitive = self._make("primitive_create", matmul)
        memories = [
            self._make("memory_create", layout, self.engine, c_void_p(x.ctypes.data))
            for layout, x in zip(layouts, (a, b, c))
        ]
        arguments = (_Argument * 3)(*zip((_SOURCE, _WEIGHTS, _DESTINATION), memories))
        execute = self.library.dnnl_primitive_execute

        def time(budget: float, _kept: object = (a, b)) -> list[float]:
            return self.shim.time_execute(execute, primitive, self.stream, arguments, budget)

        return [Variant("matmul", lambda: time(0), lambda: c, time)]

    def _layout(self, x: np.ndarray, kind: str) -> c_void_p:
        extents, strides = (c_int64 * 12)(*x.shape), (c_int64 * 12)(x.shape[1], 1)
        return self._make("memory_desc_create_with_strides", 2, extents, _TYPES[kind], strides)

    def _make(self, function: str, *arguments: object) -> c_void_p:
        made = c_void_p()
        status = getattr(self.library, f"dnnl_{function}")(byref(made), *arguments)
        if status == _UNIMPLEMENTED:
            raise RuntimeError("does not do this on this CPU")
        if status != 0:
            raise RuntimeError(f"dnnl_{function} returned {status}")
        return made
