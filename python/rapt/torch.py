"""rapt as an operator of PyTorch: rapt.torch.attention takes the place of scaled_dot_product_attention.

    torch.nn.functional.scaled_dot_product_attention = rapt.torch.attention

It is differentiable, and works under torch.compile, on CPU tensors of float32, bfloat16 and float16.
"""

import contextlib
import typing

import torch

from . import _core

# Where no gradient will be asked for, a call need not pass the operator's kernel for autograd: it is written in
# Python, and takes longer than everything else together.
_below_autograd = torch._C._AutoDispatchBelowAutograd

# The arguments of both operators, those that may have gradients first, the seldom ones last: defaults at the end cost
# no time.
_DIFFERENTIABLE = 6
_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor? bias=None, Tensor? alibi_slopes=None, Tensor? sinks=None, "
    "bool causal=False, SymInt? q_offset=None, float? scale=None, Tensor? mask=None, float softcap=0.0, "
    "SymInt[2] window=-1, SymInt chunk=0, SymInt prefix=0, Tensor? q_offsets=None, Tensor? kv_lengths=None, "
    "Tensor? q_segments=None, Tensor? kv_segments=None, Tensor? tree=None, Tensor? cu_seqlens_q=None, "
    "Tensor? cu_seqlens_kv=None, float dropout_p=0.0, Tensor? dropout_seed=None, SymInt dropout_offset=0, "
    "bool? round_weights=None"
)
_NAMES = [argument.split("=")[0].split()[-1] for argument in _ARGUMENTS.split(",")]
torch.library.define("rapt::attention", f"({_ARGUMENTS}) -> (Tensor out, Tensor lse)")
torch.library.define(
    "rapt::attention_backward",
    f"(Tensor? grad_out, Tensor? grad_lse, Tensor out, Tensor lse, bool[] wanted, {_ARGUMENTS}) -> Tensor[]",
)


def _keywords(options):
    """What stands behind q, k and v in the operators, as rapt's functions take it."""
    given = {name: value for name, value in zip(_NAMES[3:], options, strict=False) if value is not None}
    if "dropout_seed" in given:
        given["dropout_seed"] = int(given["dropout_seed"]) % 2**64
    if "q_offsets" in given:
        given["q_offset"] = given.pop("q_offsets")
    return given


def _attend(q, k, v, *options):
    given = _keywords(options)
    if "cu_seqlens_q" in given or "cu_seqlens_kv" in given:
        boundaries = given.pop("cu_seqlens_q", None), given.pop("cu_seqlens_kv", None)
        return _core.attention_varlen(q, k, v, *boundaries, return_lse=True, layout="bhsd", **given)
    return _core.attention(q, k, v, return_lse=True, **given)


def _attend_backward(grad_out, grad_lse, out, lse, wanted, q, k, v, *options):
    gradients = _core.attention_backward(
        q,
        k,
        v,
        out,
        lse,
        torch.zeros_like(out) if grad_out is None else grad_out,
        grad_lse=grad_lse,
        return_grad_bias=wanted[3],
        return_grad_alibi_slopes=wanted[4],
        return_grad_sinks=wanted[5],
        **_keywords(options),
    )
    given = (q, k, v, *options)
    computed = [i for i in range(_DIFFERENTIABLE) if i < 3 or wanted[i]]
    # Those of options are float32, whatever their own type.
    return [grad.to(given[i].dtype) for i, grad in zip(computed, gradients, strict=True) if wanted[i]]


def _shapes(q, k, v, *_):
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1], dtype=torch.float32)


def _shapes_backward(grad_out, grad_lse, out, lse, wanted, *arguments):
    return [
        argument.new_empty(argument.shape) for argument, is_wanted in zip(arguments, wanted, strict=False) if is_wanted
    ]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        with _below_autograd():
            out, lse = _operator(*inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(out, lse, *(x for x in inputs if isinstance(x, torch.Tensor)))
        ctx.inputs = [None if isinstance(x, torch.Tensor) else (x,) for x in inputs]
        return out, lse

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        out, lse, *tensors = ctx.saved_tensors
        saved = iter(tensors)
        inputs = [next(saved) if x is None else x[0] for x in ctx.inputs]
        wanted = [i < len(inputs) and ctx.needs_input_grad[i] for i in range(_DIFFERENTIABLE)]
        # With create_graph alone somebody may ask for second derivatives.
        with contextlib.nullcontext() if torch.is_grad_enabled() else _below_autograd():
            computed = iter(_backward_operator(grad_out, grad_lse, out, lse, wanted, *inputs))
        return tuple(next(computed) if needed else None for needed in ctx.needs_input_grad)


def _wants_gradient(*tensors):
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


# As torch.library.register_autograd() does it, but for its 0.3 ms for an operator of so many arguments.
def _attend_and_save(*inputs):
    if _wants_gradient(*inputs[:_DIFFERENTIABLE]):
        return _Attention.apply(*inputs)
    with _below_autograd():
        return _operator(*inputs)


def _no_second_backward(ctx, *_):
    raise NotImplementedError("rapt.torch.attention computes first derivatives alone, not derivatives of its gradients")


torch.library.impl("rapt::attention", "CPU", _attend)
torch.library.impl("rapt::attention", "Autograd", _attend_and_save)
torch.library.impl("rapt::attention_backward", "CPU", _attend_backward)
torch.library.register_fake("rapt::attention", _shapes)
torch.library.register_fake("rapt::attention_backward", _shapes_backward)
torch.library.register_autograd("rapt::attention_backward", _no_second_backward)
_operator = torch.ops.rapt.attention.default
_backward_operator = torch.ops.rapt.attention_backward.default


class Options(typing.TypedDict, total=False):
    """Further arguments of attention(), as rapt.attention has them."""

    window: tuple[int, int]
    chunk: int
    prefix: int
    kv_lengths: int | torch.Tensor
    q_segments: torch.Tensor
    kv_segments: torch.Tensor
    tree: torch.Tensor
    cu_seqlens_q: torch.Tensor
    cu_seqlens_kv: torch.Tensor
    dropout_offset: int
    round_weights: bool


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
    alibi_slopes: torch.Tensor | None = None,
    q_offset: int | torch.Tensor | None = None,
    dropout_seed: int | torch.Tensor | None = None,
    return_lse: bool = False,
    **options: typing.Unpack[Options],
) -> typing.Any:
    """torch.nn.functional.scaled_dot_product_attention, with its arguments and its rules.

    query [..., heads, L, E], key [..., heads, S, E], value [..., heads, S, Ev]; heads of key and value
    may be fewer with enable_gqa. attn_mask is bool (True = attend) or added to the scores, and broadcast.
    is_causal: query i attends keys j <= i (top-left, where rapt.attention's default is bottom-right); it may
    be given together with attn_mask. dropout_p > 0 drops weights: which ones, is drawn from PyTorch's generator
    (torch.manual_seed), unless dropout_seed is given.

    All else is as in rapt.attention: bias, softcap, sinks, alibi_slopes, q_offset, and of Options window, chunk,
    prefix, kv_lengths, q_segments, kv_segments, tree, dropout_offset, round_weights; with cu_seqlens_q and
    cu_seqlens_kv as in rapt.attention_varlen, query [heads, total_q, E]. Returns out, or (out, lse) with return_lse.

    Gradients go through both to query, key, value, attn_mask, bias, sinks and alibi_slopes; first derivatives alone.
    """
    one_head = query.dim() == 2
    if one_head:
        query, key, value = query[None], key[None], value[None]
    leading = query.shape[:-2]  # batch axes, heads
    packed = "cu_seqlens_q" in options or "cu_seqlens_kv" in options
    if not packed and (key.shape[:-2] != leading or value.shape[:-2] != leading):
        if not enable_gqa and key.shape[-3:-2] != leading[-1:]:
            raise ValueError(
                f"axis heads: query has {leading[-1]}, but key has {key.shape[-3]}: is enable_gqa=True missing?"
            )
        key = key.expand(*leading[:-1], *key.shape[-3:])
        value = value.expand(*leading[:-1], *value.shape[-3:])
    mask = None
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            mask = attn_mask
        else:
            bias = attn_mask if bias is None else attn_mask + bias
    more: dict[str, typing.Any] = {**options}
    if isinstance(more.get("kv_lengths"), int):
        more["kv_lengths"] = torch.tensor(more["kv_lengths"])
    if isinstance(q_offset, torch.Tensor):
        q_offset, more["q_offsets"] = None, q_offset
    elif is_causal and q_offset is None and not packed:
        q_offset = 0  # PyTorch aligns the first query with the first key
    if dropout_p != 0.0:
        if dropout_seed is None:
            dropout_seed = torch.randint(2**63 - 1, ())
        elif not isinstance(dropout_seed, torch.Tensor):
            dropout_seed = torch.tensor((dropout_seed + 2**63) % 2**64 - 2**63)  # the same bits in int64
        more |= {"dropout_p": dropout_p, "dropout_seed": dropout_seed}
    arguments = (query, key, value, bias, alibi_slopes, sinks, is_causal, q_offset, scale, mask, softcap)
    if torch.compiler.is_compiling() or _wants_gradient(*arguments[:_DIFFERENTIABLE]):
        out, lse = _operator(*arguments, **more)
    else:
        with _below_autograd():
            out, lse = _operator(*arguments, **more)
    if one_head:
        out, lse = out[0], lse[0]
    return (out, lse) if return_lse else out
