"""Arrays of three libraries with the same numbers, laid out in memory in many ways."""

import jax
import ml_dtypes
import numpy
import torch

LIBRARIES = ("numpy", "torch", "jax")
FLOATS = ("float32", "float16", "bfloat16")
NUMPY_TYPES = {"bfloat16": ml_dtypes.bfloat16}


def numpy_type(name):
    return numpy.dtype(NUMPY_TYPES.get(name, name))


def rounded(numbers, type_name):
    """The numbers as this type holds them, as float64."""
    return numbers.astype(numpy_type(type_name)).astype(numpy.float64)


def make(library, numbers, type_name, rng=None):
    """An array of the library. With rng: of any layout in memory, with other numbers in between."""
    numbers = numpy.asarray(numbers).astype(numpy_type(type_name))
    if library == "jax":  # has one layout
        return jax.device_put(numbers)  # compiles nothing, unlike jax.numpy.asarray
    axes = numbers.ndim
    order = list(range(axes))
    steps, starts = [1] * axes, [0] * axes
    if rng is not None:
        if rng.random() < 0.5:
            order = [int(axis) for axis in rng.permutation(axes)]
        if rng.random() < 0.5:
            steps = [int(step) for step in rng.integers(1, 3, axes)]
            starts = [int(start) for start in rng.integers(0, 3, axes)]
    shape = [starts[axis] + steps[axis] * numbers.shape[axis] for axis in order]
    if library == "torch":
        base = torch.ones(shape, dtype=getattr(torch, type_name))
        back = base.permute([order.index(axis) for axis in range(axes)])
        window = back[tuple(slice(starts[i], None, steps[i]) for i in range(axes))]
        window.copy_(to_torch(numbers))
        return window
    base = numpy.ones(shape, numbers.dtype)
    back = base.transpose([order.index(axis) for axis in range(axes)])
    window = back[(..., *(slice(starts[i], None, steps[i]) for i in range(axes)))]
    if rng is not None and axes > 0 and rng.random() < 0.2:
        window = numpy.flip(window, int(rng.integers(0, axes)))
    window[...] = numbers
    return window


def to_torch(array):
    """Any array as a tensor of PyTorch, its own numbers, for comparing."""
    if isinstance(array, torch.Tensor):
        return array
    array = numpy.array(array)  # a copy, which PyTorch may write to
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(numpy.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def library_of(array):
    if isinstance(array, torch.Tensor):
        return "torch"
    return "jax" if isinstance(array, jax.Array) else "numpy"


def type_name(array):
    return str(array.dtype).removeprefix("torch.")
