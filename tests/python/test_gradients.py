"""Gradients of random problems: rapt.attention_backward against PyTorch's f64, and the ways to it through the
automatic differentiation of PyTorch and JAX, which have its bits."""

import os

import jax
import libraries
import numpy
import pytest
import rapt
import rapt.jax
import rapt.torch
import reference
import torch
from random_cases import Generator, case
from test_attention_random import arguments_of
from test_jax import equal

N_CASES = int(os.environ.get("RAPT_TEST_CASES", 1500))
OPTIONAL = ("bias", "alibi_slopes", "sinks")


def problem(seed, library=None, modes=("dense", "dense", "packed")):
    """(case, what attention gave, gradients by out and lse): arguments of rapt.attention_backward."""
    c = case(seed, library, modes, stored=("float",))
    c.options.pop("return_lse", None)
    if library is not None:
        c.options.pop("out", None)
    function = rapt.attention_varlen if c.packed else rapt.attention
    out, lse = function(c.q, c.k, c.v, *c.boundaries, **c.options, return_lse=True)
    c.options.pop("out", None)
    c.options.setdefault("layout", c.layout)
    g = Generator(seed + 10**6, libraries.library_of(c.q))
    grad_out, _ = g.floats(g.normal(*out.shape))
    grad_lse = g.array(g.normal(*lse.shape), "float32") if g.chance(0.5) else None
    return c, out, lse, grad_out, grad_lse


def backward(c, out, lse, grad_out, grad_lse, **more):
    boundaries = dict(zip(("cu_seqlens_q", "cu_seqlens_kv"), c.boundaries, strict=False))
    wanted = {f"return_grad_{name}": name in c.options for name in OPTIONAL}
    return rapt.attention_backward(
        c.q, c.k, c.v, out, lse, grad_out, grad_lse=grad_lse, **boundaries, **c.options, **wanted, **more
    )


def of_elements(c, array, sizes, axis):
    """What each batch element has of q, k, v or out; sizes: along the axis, where packed."""
    array = libraries.to_torch(array)
    if axis == -2 and c.layout == "bshd":
        array = array.transpose(-2, -3)
    if c.packed:
        return array.split(sizes, axis)
    return array.reshape(len(c.elements), *array.shape[len(c.batch) :])


def reduced(full, shape):
    """A sum over what an argument of this shape was broadcast on."""
    while full.ndim > len(shape):
        full = full.sum(0)
    for axis, extent in enumerate(shape):
        if extent == 1:
            full = full.sum(axis, keepdim=True)
    return full


@pytest.mark.parametrize("seed", range(N_CASES))
def test_gradients(seed):
    c, out, lse, grad_out, grad_lse = problem(seed)
    gradients = backward(c, out, lse, grad_out, grad_lse)
    keys = [element.k.shape[1] for element in c.elements]
    grad_outs = of_elements(c, grad_out, c.rows, -2)
    n = len(c.elements)
    grad_lses = [torch.zeros(grad.shape[:-1]) for grad in grad_outs]
    if grad_lse is not None:
        grad_lses = of_elements(c, grad_lse, c.rows, -1)
    expected = [
        reference.gradients(element, grad.double(), grad_l.double(), libraries.type_name(out))
        for element, grad, grad_l in zip(c.elements, grad_outs, grad_lses, strict=True)
    ]
    heads = c.elements[0].q.shape[0]

    names = ["q", "k", "v", *(name for name in OPTIONAL if name in c.options)]
    given = [c.q, c.k, c.v, *(c.options[name] for name in names[3:])]
    assert len(gradients) == len(names)
    for name, of, got in zip(names, given, gradients, strict=True):
        assert libraries.library_of(got) == libraries.library_of(c.q)
        assert tuple(got.shape) == tuple(of.shape)
        assert libraries.type_name(got) == (libraries.type_name(of) if name in "qkv" else "float32")
    for name, got in zip("qkv", gradients, strict=False):
        rows = of_elements(c, got, c.rows if name == "q" else keys, -2)
        for b in range(n):
            want = expected[b][name]
            assert not rows[b][:, want.value.shape[1] :].any()  # keys that do not exist
            terms = keys[b] if name == "q" else heads * c.rows[b]
            reference.assert_gradient(rows[b][:, : want.value.shape[1]], want, terms, libraries.type_name(got))
    for name, of, got in zip(names[3:], given[3:], gradients[3:], strict=True):
        wants = [e[name] for e in expected]
        parts = []
        for attribute in ("value", "error", "magnitude"):
            values = [getattr(want, attribute) for want in wants]
            if name == "bias":
                capacity = max(keys) if c.packed else c.k.shape[-2 if c.layout == "bhsd" else -3]
                values = [torch.nn.functional.pad(value, (0, capacity - value.shape[-1])) for value in values]
            if c.packed:
                full = torch.cat(values, -2) if name == "bias" else torch.stack(values)
            else:
                full = torch.stack(values).reshape(*c.batch, *values[0].shape)
            parts.append(reduced(full, of.shape))
        terms = n * heads * max(c.rows) * max(keys, default=0) + 1
        reference.assert_gradient(libraries.to_torch(got), reference.Gradient(*parts), terms)


def test_the_cases_have_every_argument():
    seen = set()
    for seed in range(300):
        seen |= set(case(seed, modes=("dense", "packed"), stored=("float",)).options) - {"return_lse", "out"}
    never = {"block_table", "k_scales", "v_scales"}
    ours = {"cu_seqlens_q", "cu_seqlens_kv", "grad_lse", *(f"return_grad_{name}" for name in OPTIONAL)}
    assert seen == arguments_of(rapt.attention_backward) - ours - never


def test_threads_do_not_change_a_bit():
    for seed in range(40):
        c, *arguments = problem(seed)
        c.options.pop("threads", None)
        one, two = ([libraries.to_torch(x) for x in backward(c, *arguments, threads=n)] for n in (1, 2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("seed", range(min(N_CASES, 600)))
def test_through_pytorch(seed):
    """rapt.torch.attention gives what rapt gives, to those tensors that want it."""
    c, out, lse, grad_out, grad_lse = problem(seed, "torch")
    options = {**c.options, **dict(zip(("cu_seqlens_q", "cu_seqlens_kv"), c.boundaries, strict=False))}
    for name in ("layout", "threads"):
        options.pop(name, None)
    tensors = {"query": c.q, "key": c.k, "value": c.v}
    if c.layout == "bshd":
        tensors = {name: x.transpose(-2, -3) for name, x in tensors.items()}
        grad_out = grad_out.transpose(-2, -3)
    names = [*tensors, *(name for name in OPTIONAL if name in options)]
    rng = numpy.random.default_rng(seed)
    tensors |= options
    leaves = {name: tensors[name].detach().requires_grad_() for name in names if rng.random() < 0.7}
    options = tensors | leaves
    causal, mask = options.pop("causal", False), options.pop("mask", None)
    if causal and not c.packed:  # rapt's rule, not PyTorch's
        offsets = [element.k.shape[1] - c.rows[0] for element in c.elements]
        options.setdefault("q_offset", torch.tensor(offsets).reshape(c.batch))
    got, got_lse = rapt.torch.attention(attn_mask=mask, is_causal=causal, enable_gqa=True, return_lse=True, **options)
    if c.layout == "bshd":
        out, c.q, c.k, c.v = (x.transpose(-2, -3) for x in (out, c.q, c.k, c.v))
        c.options["layout"] = "bhsd"
    assert torch.equal(got, out) and torch.equal(got_lse, lse)
    if not leaves:
        assert not got.requires_grad
        return
    grad_out = grad_out.to(out.dtype)
    grads = torch.autograd.grad(
        (got, got_lse) if grad_lse is not None else got,
        leaves.values(),
        (grad_out, grad_lse) if grad_lse is not None else grad_out,
    )
    wants = backward(c, out, lse, grad_out, grad_lse)
    wants = dict(zip(names, wants, strict=True))
    for name, grad in zip(leaves, grads, strict=True):
        assert grad.dtype == leaves[name].dtype
        assert torch.equal(grad, wants[name].to(grad.dtype)), name


@pytest.mark.parametrize("seed", range(min(N_CASES, 100)))
def test_through_jax(seed):
    c, out, lse, grad_out, grad_lse = problem(seed, "jax", modes=("dense",))
    names = [name for name in OPTIONAL if name in c.options]
    options = {name: value for name, value in c.options.items() if name not in names}

    def call(q, k, v, named):
        return rapt.jax.attention(q, k, v, **options, **named, return_lse=True)

    if grad_lse is None:
        grad_lse = jax.numpy.zeros_like(lse)

    def pulled_back(arguments, grads):
        return jax.vjp(call, *arguments)[1](grads)

    arguments = (c.q, c.k, c.v, {name: c.options[name] for name in names})
    grads = (grad_out.astype(out.dtype), grad_lse)
    wants = backward(c, out, lse, grads[0], grad_lse)
    for function in (pulled_back, jax.jit(pulled_back)):
        *of_qkv, of_named = function(arguments, grads)
        equal(of_qkv, wants[:3])
        for name, want in zip(names, wants[3:], strict=True):
            equal(of_named[name], want.astype(c.options[name].dtype))


Q, K, V = ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6))
ERRORS = {
    "return_grad_bias is True, but bias is not given": {"return_grad_bias": True},
    r"attention_backward\(\) has no argument cusal": {"cusal": True},
    "axis seq_q: q has 5, but grad_lse has 4": {"grad_lse": numpy.zeros((2, 4, 4), numpy.float32)},
    "block_table .*a paged cache has no gradients": {"block_table": numpy.zeros((2, 1), int), "kv_lengths": 2},
    "dropout.probability is -0.1": {"dropout_p": -0.1},
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    q, k, v, out = (numpy.zeros(shape, numpy.float32) for shape in (Q, K, V, (2, 4, 5, 6)))
    with pytest.raises((ValueError, TypeError), match=message):
        rapt.attention_backward(q, k, v, out, out[..., 0], out, **ERRORS[message])


def test_arguments_of_the_wrong_kind():
    q, k, v, out = (numpy.zeros(shape, numpy.float32) for shape in (Q, K, V, (2, 4, 5, 6)))
    with pytest.raises(TypeError, match="the type of grad_out is float64"):
        rapt.attention_backward(q, k, v, out, out[..., 0], out.astype(float))
    with pytest.raises(TypeError, match="dropout_seed is -1, but must be an int of 64 bits, not negative"):
        rapt.attention_backward(q, k, v, out, out[..., 0], out, dropout_p=0.1, dropout_seed=-1)
    with pytest.raises(ValueError, match="axis d_v: v has 6, but out has 5"):
        rapt.attention_backward(q, k, v, out[..., :5], out[..., 0], out)
