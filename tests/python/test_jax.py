"""rapt.jax: the foreign function alone, under jit and under vmap, has the bits of rapt.attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rapt.jax
from random_cases import case

STATIC = ("causal", "window", "softcap", "scale", "chunk", "prefix", "return_lse", "layout", "threads")


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
