"""rapt.torch: the operator under PyTorch's own checks, compiled, and in the place of its attention."""

import itertools

import pytest
import rapt.torch
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch.utils._python_dispatch import TorchDispatchMode


def tensors(seed, heads=4, kv_heads=4, seq_q=5, seq_kv=7, d_k=8, d_v=6, batch=(2,), dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*batch, *shape, generator=g).to(dtype)

    return normal(heads, seq_q, d_k), normal(kv_heads, seq_kv, d_k), normal(kv_heads, seq_kv, d_v)


def exact(q, k, v, mask=None, **options):
    """PyTorch's own, in f64."""
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.double()
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask, **options)


TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
MASKS = {
    "none": lambda q, k: None,
    "bool": lambda q, k: torch.rand(q.shape[-2], k.shape[-2]) < 0.8,
    "bool of each head": lambda q, k: torch.rand(*q.shape[:-1], k.shape[-2]) < 0.8,
    "float": lambda q, k: torch.randn(q.shape[-2], k.shape[-2]).to(q.dtype),
    "float of each batch element": lambda q, k: torch.randn(q.shape[0], 1, 1, k.shape[-2]).to(q.dtype),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("sizes", [(5, 7), (7, 5), (1, 9), (6, 6)])
def test_takes_the_place_of_scaled_dot_product_attention(monkeypatch, dtype, mask, sizes):
    torch.manual_seed(1)
    for kv_heads, scale, is_causal in itertools.product((4, 2), (None, 0.3), (False, True)):
        q, k, v = tensors(2, kv_heads=kv_heads, seq_q=sizes[0], seq_kv=sizes[1], dtype=dtype)
        attn_mask = MASKS[mask](q, k)
        if is_causal and attn_mask is not None:
            continue  # PyTorch refuses both at once
        options = {"scale": scale, "is_causal": is_causal, "enable_gqa": kv_heads != 4}
        want = exact(q, k, v, attn_mask, **options)
        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", rapt.torch.attention)
            got = F.scaled_dot_product_attention(q, k, v, attn_mask, **options)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_mask_and_causal_together():
    q, k, v = tensors(3)
    mask = torch.rand(5, 7) < 0.7
    want = exact(q, k, v, mask & torch.ones(5, 7, dtype=torch.bool).tril())
    got = rapt.torch.attention(q, k, v, mask, is_causal=True)
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_leading_axes(batch):
    q, k, v = tensors(4, batch=batch)
    torch.testing.assert_close(rapt.torch.attention(q, k, v).double(), exact(q, k, v), atol=2e-6, rtol=2e-6)


def test_one_head_without_an_axis():
    q, k, v = (x[0, 0] for x in tensors(5))
    torch.testing.assert_close(rapt.torch.attention(q, k, v).double(), exact(q, k, v), atol=2e-6, rtol=2e-6)


def test_batch_axes_broadcast():
    q, k, v = tensors(6)
    want = exact(q, k[:1].expand_as(k), v[:1].expand_as(v))
    got = rapt.torch.attention(q, k[:1], v[:1])
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"softcap": 5.0}])
def test_opcheck(dtype, options):
    q, k, v = tensors(7, kv_heads=2, dtype=dtype)
    torch.library.opcheck(torch.ops.rapt.attention.default, (q, k, v), options)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    torch.library.opcheck(torch.ops.rapt.attention.default, (q, k, v), options)


def test_compiled():
    def layer(x, mask):
        q, k, v = (x * factor for factor in (1.0, 0.5, 2.0))
        return rapt.torch.attention(q, k, v, mask).relu() + 1

    x, mask = torch.randn(2, 4, 6, 8), torch.rand(6, 6) < 0.8
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(x, mask), layer(x, mask))
        x = torch.randn(3, 4, 9, 8)  # another shape: the shape function is asked again
        mask = torch.rand(9, 9) < 0.8
        assert torch.equal(compiled(x, mask), layer(x, mask))


def test_on_meta_tensors_only_the_shape_is_computed():
    q, k, v = (x.to("meta") for x in tensors(8))
    assert rapt.torch.attention(q, k, v).shape == (2, 4, 5, 6)


def test_modes_see_the_operator():
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operators.append(func)
            return func(*args, **(kwargs or {}))

    operators = []
    with Seen():
        rapt.torch.attention(*tensors(8))
    assert torch.ops.rapt.attention.default in operators


def test_no_gradient_is_lost_silently():
    q, k, v = tensors(9)
    q.requires_grad_()
    with pytest.raises(TypeError, match="q requires a gradient"):
        rapt.attention(q, k, v)
    with torch.no_grad():
        assert torch.equal(rapt.attention(q, k, v), rapt.torch.attention(q, k, v))


def gradients(attention, arguments, **options):
    """Those of what requires one, of some function of the result."""
    out = attention(*arguments, **options)
    loss = (out.double() * torch.linspace(-1, 2, out.numel()).reshape(out.shape)).sum()
    return torch.autograd.grad(loss, [x for x in arguments if x is not None and x.requires_grad])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_gradients_in_the_place_of_scaled_dot_product_attention(dtype, mask, kv_heads):
    torch.manual_seed(1)
    q, k, v = tensors(12, kv_heads=kv_heads, dtype=dtype)
    attn_mask = MASKS[mask](q, k)
    arguments = [x.requires_grad_() for x in (q, k, v)] + [attn_mask]
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask.requires_grad_()
    for is_causal in (False, True) if attn_mask is None else (False,):
        options = {"is_causal": is_causal, "enable_gqa": True}
        got, want = (gradients(attention, arguments, **options) for attention in (rapt.torch.attention, exact))
        for one, other in zip(got, want, strict=True):
            assert one.dtype == dtype
            torch.testing.assert_close(one, other.to(dtype), atol=8 * TOLERANCE[dtype], rtol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("shapes", [((5, 8), (7, 8)), ((3, 2, 5, 8), (1, 2, 7, 8)), ((2, 2, 5, 8), (2, 2, 7, 8))])
def test_gradients_of_other_shapes(shapes):
    """One head without an axis, batch axes that broadcast, gradients that are broadcast themselves."""
    torch.manual_seed(2)
    q, k = (torch.randn(shape, requires_grad=True) for shape in shapes)
    want = torch.autograd.grad(exact(q, k.expand(*q.shape[:-2], -1, -1), k.expand(*q.shape[:-2], -1, -1)).sum(), (q, k))
    got = torch.autograd.grad(rapt.torch.attention(q, k, k).sum(), (q, k))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_opcheck_with_gradients(dtype):
    q, k, v = (x.requires_grad_() for x in tensors(13, kv_heads=2, dtype=dtype))
    bias, slopes, sinks = (torch.randn(shape).to(dtype).requires_grad_() for shape in ((4, 5, 7), (4,), (4,)))
    operators = torch.ops.rapt
    for options in (
        {"causal": True},
        {"bias": bias, "alibi_slopes": slopes.detach(), "sinks": sinks},
        {"alibi_slopes": slopes, "window": (3, 1), "dropout_p": 0.3, "dropout_seed": torch.tensor(7)},
    ):
        torch.library.opcheck(operators.attention.default, (q, k, v), options)
        with torch.no_grad():
            out, lse = operators.attention(q, k, v, **options)
            wanted = [True, False, True, "bias" in options, "alibi_slopes" in options, "sinks" in options]
            for grad_lse in (None, torch.randn_like(lse)):
                arguments = (torch.randn_like(out), grad_lse, out, lse, wanted, q, k, v)
                torch.library.opcheck(operators.attention_backward.default, arguments, options)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_gradients_compiled(backend, dropout_p):
    def layer(x, mask):
        q, k, v = (x * factor for factor in (1.0, 0.5, 2.0))
        return rapt.torch.attention(q, k, v, mask, dropout_p, dropout_seed=5, window=(3, -1)).relu() + 1

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for heads in (4, 3):
        x, mask = torch.randn(2, heads, 6, 8, requires_grad=True), torch.rand(6, 6) < 0.8
        got, want = (gradients(function, (x, mask)) for function in (compiled, layer))
        torch.testing.assert_close(got, want)


def test_dropout_follows_the_generator(monkeypatch):
    q, k, v = tensors(14, seq_kv=64)
    monkeypatch.setattr(F, "scaled_dot_product_attention", rapt.torch.attention)

    def drop():
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)

    torch.manual_seed(3)
    one, two = drop(), drop()
    torch.manual_seed(3)
    assert torch.equal(drop(), one) and torch.equal(drop(), two) and not torch.equal(one, two)
    given = [rapt.torch.attention(q, k, v, dropout_p=0.5, dropout_seed=2**64 - 9, dropout_offset=n) for n in (1, 1, 2)]
    assert torch.equal(given[0], given[1]) and not torch.equal(given[0], given[2])
    assert torch.equal(given[0], rapt.attention(q, k, v, dropout_p=0.5, dropout_seed=2**64 - 9, dropout_offset=1))
    # In the mean it changes nothing.
    mean = torch.stack([rapt.torch.attention(q, k, v, dropout_p=0.5, dropout_seed=n) for n in range(400)]).mean(0)
    torch.testing.assert_close(mean, rapt.torch.attention(q, k, v), atol=0.1, rtol=0)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_activation_checkpointing(use_reentrant, dropout_p):
    q, k, v = (x.requires_grad_() for x in tensors(15))

    def layer(q, k, v):
        return rapt.torch.attention(2 * q, k, v, dropout_p=dropout_p)

    def run(call):
        torch.manual_seed(4)
        for x in (q, k, v):
            x.grad = None
        call(q, k, v).square().sum().backward()
        return [x.grad for x in (q, k, v)]

    got = run(lambda *x: torch.utils.checkpoint.checkpoint(layer, *x, use_reentrant=use_reentrant))
    assert all(torch.equal(one, other) for one, other in zip(got, run(layer), strict=True))


def test_first_derivatives_alone():
    q, k, v = (x.requires_grad_() for x in tensors(16))
    (grad,) = torch.autograd.grad(rapt.torch.attention(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives alone"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("message", "change", "options"),
    [
        ("dropout.probability is 1.0", {}, {"dropout_p": 1.0}),
        ("enable_gqa=True missing", {"kv_heads": 2}, {}),
        ("not a multiple of the 3 kv_heads", {"kv_heads": 3}, {"enable_gqa": True}),
    ],
)
def test_errors(message, change, options):
    with pytest.raises(ValueError, match=message):
        rapt.torch.attention(*tensors(10, **change), **options)


def test_double_is_refused():
    with pytest.raises(TypeError, match="the type of q is float64"):
        rapt.torch.attention(*(x.double() for x in tensors(11)))
