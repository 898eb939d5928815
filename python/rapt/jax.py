"""rapt as a foreign function of XLA: rapt.jax.attention works under jax.jit, jax.grad and jax.vmap, on the CPU."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from . import _core

if not hasattr(_core, "_jax_attention"):
    raise ImportError("rapt was built without jaxlib's headers: install jaxlib, then build rapt again")

jax.ffi.register_ffi_target("rapt_attention", _core._jax_attention(), platform="cpu")
jax.ffi.register_ffi_target("rapt_attention_backward", _core._jax_attention_backward(), platform="cpu")

_BYTES_OF_32 = 18  # of 4-bit numbers, in an array of uint8


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    causal: bool = False,
    q_offset: ArrayLike | None = None,
    window: tuple[int, int] = (-1, -1),
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    softcap: float = 0.0,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    scale: float | None = None,
    kv_lengths: ArrayLike | None = None,
    block_table: ArrayLike | None = None,
    chunk: int = 0,
    prefix: int = 0,
    q_segments: ArrayLike | None = None,
    kv_segments: ArrayLike | None = None,
    tree: ArrayLike | None = None,
    k_scales: ArrayLike | None = None,
    v_scales: ArrayLike | None = None,
    dropout_p: float = 0.0,
    dropout_seed: ArrayLike = 0,
    dropout_offset: ArrayLike = 0,
    round_weights: bool | None = None,
    return_lse: bool = False,
    layout: str = "bhsd",
    threads: int | None = None,
) -> typing.Any:
    """rapt.attention, which says what the arguments are, inside jax.jit, jax.grad and jax.vmap.

    causal, window, softcap, scale, chunk, prefix, dropout_p, round_weights, return_lse, layout and threads are
    static; all else may be traced. Reverse mode, once, gives gradients of q, k, v, bias, alibi_slopes and sinks, through out and
    lse. dropout_seed may be an array of 32 bits or of two times 32 (jax.random.key_data); it is the same for the
    whole of a vmap, whose elements drop different weights. What rapt refuses is an error of JAX with rapt's
    message when it runs.
    """
    q, k, v = jnp.asarray(q), jnp.asarray(k), jnp.asarray(v)
    batch = q.ndim - 3
    arrays = {"q": q, "k": k, "v": v}

    def operand(name, array, axes, dtype=None):
        if array is None:
            return
        array = jnp.asarray(array, dtype)
        # All leading axes are there, so that the one that vmap adds stands before the same ones everywhere.
        arrays[name] = array.reshape((1,) * (batch + axes - array.ndim) + array.shape)

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
    if dropout_p > 0:
        operand("dropout_seed", _words(dropout_seed, 2), 1)
        operand("dropout_offset", _words(dropout_offset, 1), 1)

    attributes = {
        "causal": bool(causal),
        "window": np.array(window, np.int64),
        "softcap": np.float32(softcap),
        "chunk": np.int64(chunk),
        "prefix": np.int64(prefix),
        "dropout_p": np.float32(dropout_p),
        "layout": layout,
    }
    if scale is not None:
        attributes["scale"] = np.float32(scale)
    if round_weights is not None:
        attributes["round_weights"] = bool(round_weights)
    if threads is not None:
        attributes["threads"] = np.int64(threads)
    out, lse = _attend(attributes, arrays)
    return (out, lse) if return_lse else out


def _words(number, n):
    """A number of n * 32 bits as int32, the lowest first: operands of XLA have no more bits."""
    if isinstance(number, int):
        if not 0 <= number < 2 ** (32 * n):
            raise ValueError(f"{number} is not a number of {32 * n} bits")
        number = np.array([number >> 32 * i & 0xFFFFFFFF for i in range(n)], np.uint32)
    number = jnp.asarray(number).reshape(-1)
    if number.dtype != jnp.uint32:
        number = number.astype(jnp.int32)
    number = jax.lax.bitcast_convert_type(number, jnp.int32)
    return jnp.concatenate([number, jnp.zeros(n - number.size, jnp.int32)]) if number.size < n else number


def _foreign(name, results, attributes, positional, arrays):
    """A call of the foreign function with these arrays, and those of `arrays` that are no part of attributes."""
    # A pool of pages has no axis of the batch, so that vmap cannot add another.
    vmap_method = "sequential" if "block_table" in arrays else "expand_dims"
    names = [name for name in arrays if name not in ("q", "k", "v")]
    call = jax.ffi.ffi_call(name, results, vmap_method=vmap_method)
    return call(*positional, *(arrays[name] for name in names), operands=",".join(names), **attributes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(attributes, arrays):
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    d_v = v.shape[-1] // _BYTES_OF_32 * 32 if v.dtype == jnp.uint8 else v.shape[-1]
    rows = q.shape[:-1] if attributes["layout"] == "bhsd" else (*q.shape[:-3], q.shape[-2], q.shape[-3])
    results = (jax.ShapeDtypeStruct((*q.shape[:-1], d_v), q.dtype), jax.ShapeDtypeStruct(rows, jnp.float32))
    return tuple(_foreign("rapt_attention", results, attributes, (q, k, v), arrays))


def _forward(attributes, arrays):
    wanted = {name: () for name in ("bias", "alibi_slopes", "sinks") if name in arrays and arrays[name].perturbed}
    arrays = {name: array.value for name, array in arrays.items()}
    out, lse = _attend(attributes, arrays)
    return (out, lse), (arrays, out, lse, wanted)


def _backward(attributes, residuals, gradients):
    arrays, out, lse, wanted = residuals
    grad_out, grad_lse = gradients
    if isinstance(grad_out, SymbolicZero):
        grad_out = jnp.zeros(out.shape, out.dtype)
    operands = dict(arrays)
    if not isinstance(grad_lse, SymbolicZero):
        operands["grad_lse"] = grad_lse
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    results += [jax.ShapeDtypeStruct(arrays[name].shape, jnp.float32) for name in wanted]
    computed = _foreign(
        "rapt_attention_backward",
        tuple(results),
        attributes | {"gradients": ",".join(wanted)},
        (q, k, v, out, lse, grad_out),
        operands,
    )
    of = ("q", "k", "v", *wanted)
    grads = {name: grad.astype(arrays[name].dtype) for name, grad in zip(of, computed, strict=True)}
    return ({name: grads.get(name) for name in arrays},)


_attend.defvjp(_forward, _backward, symbolic_zeros=True)
