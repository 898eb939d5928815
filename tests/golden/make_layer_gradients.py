"""Makes the cases gradients_* and train_toy_* of tests/golden/data: the gradients of the multi-head attention layer by JAX's
automatic differentiation in f64.

usage: make_layer_gradients.py   (needs jax, pip install jax==0.10.2; the data is committed, so the tests do not)

The files are those of make.py, which leaves these alone.
"""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy

jax.config.update("jax_enable_x64", True)
DATA = pathlib.Path(__file__).parent / "data"
random = numpy.random.default_rng(20240229)
D_K, D_V, HEADS, EMBEDDING, D_MODEL = 5, 7, 3, 11, 13


def normal(*shape, fan_in=2):
    """He-normal where fan_in says so."""
    return random.normal(size=shape) * (2 / fan_in) ** 0.5


def parameters(d_model, biases):
    width = d_model or EMBEDDING
    p = dict(w_q=normal(HEADS, width, D_K, fan_in=width), w_k=normal(HEADS, width, D_K, fan_in=width),
             w_v=normal(HEADS, width, D_V, fan_in=width), output=normal(HEADS, D_V, EMBEDDING, fan_in=HEADS * D_V))
    if d_model:
        p["qkv"] = normal(3, EMBEDDING, d_model, fan_in=EMBEDDING)
    if biases:
        p |= dict(b_q=normal(HEADS, D_K), b_k=normal(HEADS, D_K), b_v=normal(HEADS, D_V), b_output=normal(EMBEDDING))
    return p


def attended(seq_q, seq_kv, causal):
    """[seq_q, seq_kv]: the last query sees the last key."""
    i, j = numpy.arange(seq_q)[:, None], numpy.arange(seq_kv)[None, :]
    return (j <= i + seq_kv - seq_q) | (not causal)


def layer(p, q_tokens, k_tokens, v_tokens, causal):
    """The five steps, axes as letters: batch b, head h, query i, key j, token t, embedding e, d_model m, depth d."""
    tokens = [q_tokens, k_tokens, v_tokens]
    if "qkv" in p:
        tokens = [jnp.einsum("bte,em->btm", t, w) for t, w in zip(tokens, p["qkv"])]
    q, k, v = (jnp.einsum("btm,hmd->bhtd", t, p[f"w_{x}"]) + p.get(f"b_{x}", jnp.zeros((HEADS, 1)))[:, None, :]
               for t, x in zip(tokens, "qkv"))
    scores = jnp.einsum("bhid,bhjd->bhij", q, k) * D_K**-0.5
    scores = jnp.where(attended(*scores.shape[-2:], causal), scores, -jnp.inf)
    out = jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(scores, axis=-1), v)
    return jnp.einsum("bhid,hde->bie", out, p["output"]) + p.get("b_output", 0)


def save(name, arrays, options):
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for key, array in arrays.items():
        numpy.save(folder / f"{key}.npy", numpy.ascontiguousarray(array))
    options = dict(embedding=EMBEDDING, heads=HEADS, d_k=D_K, d_v=D_V) | options
    (folder / "case.txt").write_text("".join(f"{key} {value}\n" for key, value in options.items()))


def gradient_cases():
    """The gradients of sum(result * dresult)."""
    cases = {
        "self": dict(cross=False),
        "cross_causal": dict(causal=True),
        "biases": dict(biases=True),
        "no_first_projection": dict(d_model=0),
        "no_first_projection_biases_causal": dict(d_model=0, biases=True, causal=True),
    }
    for name, c in cases.items():
        d_model, causal = c.get("d_model", D_MODEL), c.get("causal", False)
        p = parameters(d_model, c.get("biases"))
        q = normal(2, 17, EMBEDDING).astype(numpy.float32)
        k, v = (normal(2, 19, EMBEDDING).astype(numpy.float32) if c.get("cross", True) else q for _ in "kv")
        dresult = normal(*q.shape).astype(numpy.float32)

        def loss(p, *tokens):
            return (layer(p, *tokens, causal) * dresult).sum()

        of_p, *of_tokens = jax.grad(loss, range(4))(p, *(x.astype(numpy.float64) for x in (q, k, v)))
        arrays = p | dict(q_tokens=q, k_tokens=k, v_tokens=v, dresult=dresult)
        arrays |= {f"d{x}": y for x, y in of_p.items()}
        arrays |= {f"d{x}_tokens": y for x, y in zip("qkv", of_tokens)}
        save(f"gradients_{name}", arrays, dict(kind="gradients", d_model=d_model) | ({"causal": 1} if causal else {}))


def train_toy():
    """A step of examples/train_toy: keys and values are 13 tokens, queries the last 11 of these; the target is the mean
    of all tokens so far."""
    tokens = normal(32, 13, EMBEDDING).astype(numpy.float32)
    so_far = attended(11, 13, True)
    target = jnp.einsum("ij,bje->bie", so_far / so_far.sum(axis=1, keepdims=True), tokens)

    def loss(p):
        x = tokens.astype(numpy.float64)
        return ((layer(p, x[:, 2:], x, x, True) - target) ** 2).mean()

    p = parameters(D_MODEL, False)
    value, gradients = jax.value_and_grad(loss)(p)
    arrays = p | dict(tokens=tokens, loss=value) | {f"d{x}": y for x, y in gradients.items()}
    save("train_toy_step", arrays, dict(kind="train_toy", d_model=D_MODEL))


gradient_cases()
train_toy()
