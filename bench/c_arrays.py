"""rapt_array of rapt/rapt.h, for what is measured through ctypes."""

import ctypes

import numpy as np


class Array(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("extents", ctypes.c_int64 * 8),
        ("strides", ctypes.c_int64 * 8),
    ]


def dense(numbers: np.ndarray) -> Array:
    """Of f32. The numbers must outlive it."""
    strides = [stride // numbers.itemsize for stride in numbers.strides]
    return Array(numbers.ctypes.data, 0, numbers.ndim, numbers.shape, tuple(strides))
