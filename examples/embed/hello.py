"""Attention in ten lines of any language that calls C functions, here of Python with nothing but ctypes.

All keys are alike, so a query gets the mean of the values that it may see: with a causal mask 0, 0.5, 1 and 1.5.
"""

import ctypes as c

MAX_AXES, F32, OK = 8, 0, 0


class Array(c.Structure):
    _fields_ = [("data", c.c_void_p), ("type", c.c_int32), ("rank", c.c_int32),
                ("extents", c.c_int64 * MAX_AXES), ("strides", c.c_int64 * MAX_AXES)]


class AttentionOptions(c.Structure):  # its first fields: `size` says that the others have their defaults
    _fields_ = [("size", c.c_size_t), ("scale", c.c_void_p), ("alibi_slopes", c.c_void_p), ("sinks", c.c_void_p),
                ("softcap", c.c_float), ("causal", c.c_int32)]


rapt = c.CDLL("librapt.so.0")
rapt.rapt_dense.restype = Array
rapt.rapt_last_error.restype = c.c_char_p


def dense(data, *extents):
    """The array's memory is that of `data`, which must outlive it."""
    return rapt.rapt_dense(data, F32, len(extents), (c.c_int64 * len(extents))(*extents))


heads, seq, depth = 1, 4, 8
keys = (c.c_float * (heads * seq * depth))()
values = (c.c_float * (heads * seq))(0, 1, 2, 3)
result = (c.c_float * (heads * seq))()

q = k = dense(keys, heads, seq, depth)
v, out = dense(values, heads, seq, 1), dense(result, heads, seq, 1)
options = AttentionOptions(size=c.sizeof(AttentionOptions), causal=1)
if rapt.rapt_attention(c.byref(q), c.byref(k), c.byref(v), c.byref(out), c.byref(options)) != OK:
    raise SystemExit(rapt.rapt_last_error().decode())

for number in result:
    print(f"{number:g}")
