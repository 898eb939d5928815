"""What rapt takes as an array, for type hints."""

import array
import typing


class SupportsDLPack(typing.Protocol):
    """An array of NumPy, PyTorch, JAX or another library."""

    def __dlpack__(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any: ...


Array: typing.TypeAlias = SupportsDLPack | memoryview | array.array
