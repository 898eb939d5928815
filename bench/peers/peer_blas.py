"""MKL, OpenBLAS and BLIS: cblas_sgemm, called and timed by the shim's C loop as rapt is."""

from __future__ import annotations

import ctypes
import importlib.metadata
from pathlib import Path

import numpy as np
from peer import Operands, Peer, Variant, file_of
from shim import Shim

from shapes import Shape


class Blas(Peer):
    sgemm: ctypes._CFuncPtr
    shim: Shim

    def variants(self, shape: Shape, operands: Operands) -> list[Variant]:
        if shape.operation != "gemm" or shape.storage != "f32":
            return []
        a, b = operands["a"], operands["b"]
        c = np.empty((a.shape[0], b.shape[1]), np.float32)

        def time(budget: float) -> list[float]:
            return self.shim.time_sgemm(self.sgemm, shape, a, b, c, budget)

        return [Variant("cblas_sgemm", lambda: time(0), lambda: c, time)]


class Mkl(Blas):
    def __init__(self, threads: int) -> None:
        self.shim = Shim()
        self.version = importlib.metadata.version("mkl")
        ctypes.CDLL(file_of("intel-openmp", "libiomp5.so"), mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(file_of("mkl", "libmkl_rt.so"), mode=ctypes.RTLD_GLOBAL)
        library.MKL_Set_Threading_Layer(0)  # Intel's OpenMP
        library.MKL_Set_Interface_Layer(0)  # 32-bit integers
        library.MKL_Set_Dynamic(0)
        library.MKL_Set_Num_Threads(threads)
        self.sgemm = library.cblas_sgemm


class OpenBlas(Blas):
    def __init__(self, threads: int) -> None:
        import scipy_openblas32

        self.shim = Shim()
        self.version = importlib.metadata.version("scipy-openblas32")
        folder = Path(scipy_openblas32.get_lib_dir())
        library = ctypes.CDLL(str(next(folder.glob("libscipy_openblas*.so"))))
        library.scipy_openblas_set_num_threads(threads)
        self.sgemm = library.scipy_cblas_sgemm


class Blis(Blas):
    def __init__(self, threads: int) -> None:
        self.shim = Shim()
        try:
            library = ctypes.CDLL("libblis.so.4")
        except OSError:
            raise FileNotFoundError("not in this system: Debian has it as libblis4-openmp") from None
        library.bli_info_get_version_str.restype = ctypes.c_char_p
        self.version = library.bli_info_get_version_str().decode()
        library.bli_thread_set_num_threads(ctypes.c_int64(threads))
        self.sgemm = library.cblas_sgemm
