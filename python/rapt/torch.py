"""rapt as an operator of PyTorch: rapt.torch.attention takes the place of scaled_dot_product_attention.

    torch.nn.functional.scaled_dot_product_attention = rapt.torch.attention

It works under torch.compile, on CPU tensors of float32, bfloat16 and float16, and computes no gradients.
"""

import contextlib

import torch

from ._core import attention as _attention

# Where no gradient will be asked for, a call need not pass the operator's kernel for autograd: it is written in
# Python, and takes longer than everything else together.
_below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", contextlib.nullcontext)

# register_autograd() takes no tensors that are keywords alone, so nothing is.
torch.library.define(
    "rapt::attention",
    "(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, "
    "bool is_causal=False, float? scale=None, bool enable_gqa=False, Tensor? bias=None, "
    "float softcap=0.0, Tensor? sinks=None) -> Tensor",
)


def _compute(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    bias=None,
    softcap=0.0,
    sinks=None,
):
    if dropout_p != 0.0:
        raise ValueError(f"dropout_p is {dropout_p}, but rapt drops nothing: it must be 0")
    if query.dim() == 2:  # one head
        options = {"scale": scale, "bias": bias, "softcap": softcap, "sinks": sinks}
        return _compute(query[None], key[None], value[None], attn_mask, is_causal=is_causal, **options)[0]
    leading = query.shape[:-2]  # batch axes, heads
    if key.shape[:-2] != leading or value.shape[:-2] != leading:
        if not enable_gqa and key.shape[-3:-2] != leading[-1:]:
            raise ValueError(
                f"axis heads: query has {leading[-1]}, but key has {key.shape[-3]}: is enable_gqa=True missing?"
            )
        key = key.expand(*leading[:-1], *key.shape[-3:])
        value = value.expand(*leading[:-1], *value.shape[-3:])
    mask = attn_mask if attn_mask is not None and attn_mask.dtype == torch.bool else None
    if attn_mask is not None and mask is None:
        bias = attn_mask if bias is None else attn_mask + bias
    return _attention(
        query,
        key,
        value,
        causal=is_causal,
        q_offset=0 if is_causal else None,  # PyTorch aligns the first query with the first key
        mask=mask,
        bias=bias,
        softcap=softcap,
        sinks=sinks,
        scale=scale,
    )


def _shape(query, key, value, *_, **__):
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def _no_backward(ctx, *_):
    raise NotImplementedError("rapt.torch.attention computes no gradients: call it under torch.no_grad()")


torch.library.impl("rapt::attention", "CPU", _compute)
torch.library.register_fake("rapt::attention", _shape)
torch.library.register_autograd("rapt::attention", _no_backward)
_operator = torch.ops.rapt.attention.default


def _wants_gradient(*tensors):
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    bias: torch.Tensor | None = None,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """torch.nn.functional.scaled_dot_product_attention, with its arguments and its rules.

    query [..., heads, L, E], key [..., heads, S, E], value [..., heads, S, Ev]; heads of key and value
    may be fewer with enable_gqa. attn_mask is bool (True = attend) or added to the scores, and broadcast.
    is_causal: query i attends keys j <= i (top-left, where rapt.attention's default is bottom-right); it may
    be given together with attn_mask. dropout_p must be 0. bias, softcap and sinks [heads] as in rapt.attention.
    """
    arguments = (query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, bias, softcap, sinks)
    if torch.compiler.is_compiling() or _wants_gradient(query, key, value, attn_mask, bias, sinks):
        return _operator(*arguments)
    with _below_autograd():
        return _operator(*arguments)
