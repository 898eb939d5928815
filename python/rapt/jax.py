"""rapt as a foreign function of XLA: rapt.jax.attention works under jax.jit and jax.vmap, on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np

from . import _core

if not hasattr(_core, "_jax_attention"):
    raise ImportError("rapt was built without jaxlib's headers: install jaxlib, then build rapt again")

jax.ffi.register_ffi_target("rapt_attention", _core._jax_attention(), platform="cpu")

_BYTES_OF_32 = 18  # of 4-bit numbers, in an array of uint8


def attention(
    q,
    k,
    v,
    *,
    causal: bool = False,
    q_offset=None,
    window: tuple[int, int] = (-1, -1),
    mask=None,
    bias=None,
    softcap: float = 0.0,
    alibi_slopes=None,
    sinks=None,
    scale: float | None = None,
    kv_lengths=None,
    block_table=None,
    chunk: int = 0,
    prefix: int = 0,
    q_segments=None,
    kv_segments=None,
    tree=None,
    k_scales=None,
    v_scales=None,
    return_lse: bool = False,
    layout: str = "bhsd",
    threads: int | None = None,
):
    """rapt.attention, which says what the arguments are, inside jax.jit and jax.vmap.

    causal, window, softcap, scale, chunk, prefix, return_lse, layout and threads are static; all else may be
    traced. Not differentiable. What rapt refuses is an error of JAX with rapt's message when it runs.
    """
    q, k, v = jnp.asarray(q), jnp.asarray(k), jnp.asarray(v)
    batch = q.ndim - 3
    operands, names = [], []

    def operand(name, array, axes, dtype=None):
        if array is None:
            return
        array = jnp.asarray(array, dtype)
        # All leading axes are there, so that the one that vmap adds stands before the same ones everywhere.
        operands.append(array.reshape((1,) * (batch + axes - array.ndim) + array.shape))
        names.append(name)

    operand("q_offset", q_offset, 0, jnp.int32)
    operand("mask", mask, 3)
    operand("bias", bias, 3)
    operand("alibi_slopes", alibi_slopes, 1)
    operand("sinks", sinks, 1)
    operand("kv_lengths", kv_lengths, 0, jnp.int32)
    operand("block_table", block_table, 1, jnp.int32)
    operand("q_segments", q_segments, 1, jnp.int32)
    operand("kv_segments", kv_segments, 1, jnp.int32)
    operand("tree", tree, 2)
    operand("k_scales", k_scales, 2)
    operand("v_scales", v_scales, 2)

    attributes = {
        "operands": ",".join(names),
        "causal": bool(causal),
        "window": np.array(window, np.int64),
        "softcap": np.float32(softcap),
        "chunk": np.int64(chunk),
        "prefix": np.int64(prefix),
        "layout": layout,
    }
    if scale is not None:
        attributes["scale"] = np.float32(scale)
    if threads is not None:
        attributes["threads"] = np.int64(threads)

    d_v = v.shape[-1] // _BYTES_OF_32 * 32 if v.dtype == jnp.uint8 else v.shape[-1]
    results = [jax.ShapeDtypeStruct((*q.shape[:-1], d_v), q.dtype)]
    if return_lse:
        rows = q.shape[:-1] if layout == "bhsd" else (*q.shape[:-3], q.shape[-2], q.shape[-3])
        results.append(jax.ShapeDtypeStruct(rows, jnp.float32))
    # A pool of pages has no axis of the batch, so that vmap cannot add another.
    vmap_method = "expand_dims" if block_table is None else "sequential"
    call = jax.ffi.ffi_call("rapt_attention", results, vmap_method=vmap_method)
    results = call(q, k, v, *operands, **attributes)
    return tuple(results) if return_lse else results[0]
