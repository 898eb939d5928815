"""rapt.jax: the foreign function alone, under jit and under vmap, has the bits of rapt.attention; and its gradients,
which test_gradients.py has at random, against those of JAX's own arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rapt.jax
from random_cases import case

STATIC = ("causal", "window", "softcap", "scale", "chunk", "prefix", "dropout_p", "round_weights")
STATIC += ("return_lse", "layout", "threads")


def equal(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert one.dtype == other.dtype


@pytest.mark.parametrize("seed", range(100))
def test_random_cases_eager_and_jitted(seed):
    c = case(seed, library="jax", modes=("dense", "paged"))
    want = rapt.attention(c.q, c.k, c.v, **c.options)
    equal(rapt.jax.attention(c.q, c.k, c.v, **c.options), want)
    static = {name: value for name, value in c.options.items() if name in STATIC}
    traced = {name: value for name, value in c.options.items() if name not in STATIC}
    jitted = jax.jit(lambda q, k, v, traced: rapt.jax.attention(q, k, v, **static, **traced))
    equal(jitted(c.q, c.k, c.v, traced), want)


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jax.device_put(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


Q, K, V = (2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6)


@pytest.mark.parametrize("jit", [False, True])
def test_vmap_of_everything(jit):
    q, k, v = arrays(1, (3, *Q), (3, *K), (3, *V))
    rng = np.random.default_rng(2)
    mask = jnp.asarray(rng.random((3, 5, 7)) < 0.8)
    lengths = jnp.asarray([[7, 3], [1, 6], [5, 5]], jnp.int32)
    slopes = jnp.asarray(rng.random((3, 4)), jnp.float32)

    def call(q, k, v, mask, lengths, slopes):
        return rapt.jax.attention(
            q, k, v, causal=True, mask=mask, kv_lengths=lengths, alibi_slopes=slopes, return_lse=True
        )

    mapped = jax.vmap(call)
    out, lse = (jax.jit(mapped) if jit else mapped)(q, k, v, mask, lengths, slopes)
    for i in range(3):
        equal((out[i], lse[i]), call(q[i], k[i], v[i], mask[i], lengths[i], slopes[i]))


@pytest.mark.parametrize("in_axes", [(0, None, None), (1, None, None), (None, 0, 0), (0, 2, None)])
def test_vmap_of_some(in_axes):
    """What is not mapped is shared, not repeated in memory."""
    shapes = [list(shape) for shape in (Q, K, V)]
    for shape, axis in zip(shapes, in_axes, strict=True):
        if axis is not None:
            shape.insert(axis, 3)
    q, k, v = arrays(3, *shapes)
    out = jax.vmap(rapt.jax.attention, in_axes)(q, k, v)
    for i in range(3):
        one = [x if axis is None else jnp.take(x, i, axis) for x, axis in zip((q, k, v), in_axes, strict=True)]
        equal(out[i], rapt.attention(*one))


def test_vmap_twice_and_of_a_mask_alone():
    q, k, v = arrays(4, (3, 2, *Q[1:]), (3, 2, *K[1:]), (3, 2, *V[1:]))
    equal(jax.vmap(jax.vmap(rapt.jax.attention))(q, k, v), rapt.attention(q, k, v))
    masks = jnp.asarray(np.random.default_rng(5).random((3, 5, 7)) < 0.8)
    out = jax.vmap(lambda mask: rapt.jax.attention(q[0], k[0], v[0], mask=mask))(masks)
    for i in range(3):
        equal(out[i], rapt.attention(q[0], k[0], v[0], mask=masks[i]))


def test_vmap_of_pages():
    q, pool = arrays(6, (3, 2, 4, 1, 8), (9, 2, 4, 8))
    table = jnp.asarray(np.random.default_rng(7).permutation(9)[:8].reshape(2, 4), jnp.int32)
    lengths = jnp.asarray([13, 6], jnp.int32)

    def call(q):
        return rapt.jax.attention(q, pool, pool, kv_lengths=lengths, block_table=table)

    out = jax.vmap(call)(q)
    for i in range(3):
        equal(out[i], rapt.attention(q[i], pool, pool, kv_lengths=lengths, block_table=table))


def test_errors_have_the_message():
    q, k, v = arrays(8, Q, K, (2, 2, 9, 6))
    with pytest.raises(Exception, match="axis seq_kv: k has 7, but v has 9"):
        jax.block_until_ready(jax.jit(rapt.jax.attention)(q, k, v))


def test_what_is_still_being_computed_is_waited_for():
    x = arrays(9, (1500, 1500))[0]
    heavy = jax.jit(lambda x: (x @ x @ x @ x / 1e6)[:64].reshape(1, 1, 64, -1)[..., :64])
    pending = heavy(x)
    got = rapt.attention(pending, pending, pending)
    equal(got, rapt.attention(*[jax.block_until_ready(heavy(x))] * 3))


def plain(q, k, v, bias, alibi_slopes, sinks):
    """(out, lse) of causal attention by JAX's own functions."""
    group = q.shape[-3] // k.shape[-3]
    k, v = jnp.repeat(k, group, -3), jnp.repeat(v, group, -3)
    x, j = jnp.arange(q.shape[-2])[:, None] + k.shape[-2] - q.shape[-2], jnp.arange(k.shape[-2])
    s = q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]) + alibi_slopes[:, None, None] * (j - x) + bias
    s = jnp.where(j <= x, s, -jnp.inf)
    sink = jnp.broadcast_to(sinks[:, None, None], (*s.shape[:-1], 1))
    lse = jax.scipy.special.logsumexp(jnp.concatenate([s, sink], -1), -1)
    return jnp.exp(s - lse[..., None]) @ v, lse


def with_rapt(q, k, v, bias, alibi_slopes, sinks):
    return rapt.jax.attention(q, k, v, causal=True, bias=bias, alibi_slopes=alibi_slopes, sinks=sinks, return_lse=True)


def loss_of(attention):
    def loss(*arguments):
        out, lse = attention(*arguments)
        return (out**2).sum() + jnp.sin(lse).sum()

    return loss


ALL = tuple(range(6))
SHAPES = (Q, K, V, (4, 5, 7), (4,), (4,))


def close(got, want):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize(
    "way",
    [
        lambda loss: jax.grad(loss, ALL),
        lambda loss: jax.jit(jax.grad(loss, ALL)),
        lambda loss: jax.grad(jax.jit(loss), ALL),
        lambda loss: jax.grad(jax.checkpoint(loss), ALL),
    ],
)
def test_gradients(way):
    arguments = arrays(10, *SHAPES)
    close(way(loss_of(with_rapt))(*arguments), jax.grad(loss_of(plain), ALL)(*arguments))


@pytest.mark.parametrize("mapped", [(0,), (1, 2), (3,), (0, 3, 5), ALL])
def test_gradients_under_vmap(mapped):
    """Of each element for itself, and of their sum, where those of what they share are added."""
    in_axes = [0 if i in mapped else None for i in ALL]
    arguments = arrays(11, *((3, *shape) if i in mapped else shape for i, shape in enumerate(SHAPES)))

    def of_each(attention):
        return jax.vmap(jax.grad(loss_of(attention), ALL), in_axes)

    def of_sum(attention):
        return jax.jit(jax.grad(lambda *a: jax.vmap(loss_of(attention), in_axes)(*a).sum(), ALL))

    for gradient in (of_each, of_sum):
        close(gradient(with_rapt)(*arguments), gradient(plain)(*arguments))


def test_a_jacobian():
    arguments = arrays(12, *SHAPES)

    def row(attention):
        return jax.jacrev(lambda q: attention(q, *arguments[1:])[0][0, 1, 2])(arguments[0])

    np.testing.assert_allclose(row(with_rapt), row(plain), atol=5e-5)


def test_dropout_and_its_seeds():
    q, k, v = arrays(13, Q, K, V)

    def call(q, seed, offset=0):
        return rapt.jax.attention(q, k, v, dropout_p=0.4, dropout_seed=seed, dropout_offset=offset)

    key = jax.random.key_data(jax.random.key(5))
    number = int(key[0]) | int(key[1]) << 32
    want = rapt.attention(q, k, v, dropout_p=0.4, dropout_seed=number, dropout_offset=3)
    equal(call(q, number, 3), want)
    equal(jax.jit(call)(q, key, 3), want)
    assert not np.array_equal(call(q, number, 4), want)
    # Dropped weights give no gradient, others more: out is linear in v.
    out, pullback = jax.vjp(lambda v: rapt.jax.attention(q, k, v, dropout_p=0.4, dropout_seed=7), v)
    (grad_v,) = pullback(jnp.ones_like(out))
    np.testing.assert_allclose((grad_v * v).sum(), out.sum(), rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="dropout_seed must be one number"):
        jax.block_until_ready(jax.vmap(call, (None, 0))(q, jnp.arange(3)))


def test_what_has_no_gradient_says_so():
    q, k, v = arrays(14, Q, K, V)
    with pytest.raises(Exception, match="cannot be differentiated"):
        jax.grad(lambda q: jax.grad(lambda q: rapt.jax.attention(q, k, v).sum())(q).sum())(q)
    cache, scales = (10 * k).astype(jnp.int8), jnp.ones(K[:-1])
    with pytest.raises(Exception, match="the type of k is int8"):
        jax.block_until_ready(jax.grad(lambda q: rapt.jax.attention(q, cache, v, k_scales=scales).sum())(q))


def test_denormals_count():
    """XLA takes them for zero in its own code."""
    q, k, v = arrays(15, Q, K, V)
    bias = jnp.full((4, 5, 7), 2.0**-24, jnp.float16).at[..., 0].set(-1e-7)
    equal(
        jax.jit(lambda bias: rapt.jax.attention(q * 0, k, v, bias=bias, return_lse=True))(bias),
        rapt.attention(q * 0, k, v, bias=bias, return_lse=True),
    )
