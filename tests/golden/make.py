"""Makes tests/golden/data: results of another implementation, PyTorch in f64, for small problems of prime sizes.

usage: make.py   (needs torch; the data is committed, so the tests do not)

Every case is a folder: .npy files of f32 inputs and f64 results, and case.txt with its options, one "name value"
a line, which golden_test.cpp reads.
"""

import pathlib
import shutil

import numpy
import torch

DATA = pathlib.Path(__file__).parent / "data"
generator = torch.Generator().manual_seed(20240229)


def normal(*shape, scale=1.0):
    """f32 values, as rapt will read them."""
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(torch.float32)


def he_normal(*shape, fan_in):
    """Parameters of the layer, kept in f64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5


def save(name, arrays, options):
    folder = DATA / name
    folder.mkdir(parents=True)
    for key, array in arrays.items():
        numpy.save(folder / f"{key}.npy", numpy.ascontiguousarray(array.numpy()))
    (folder / "case.txt").write_text("".join(f"{key} {value}\n" for key, value in options.items()))


def attention(q, k, v, scale, causal_offset=None, mask=None, bias=None):
    """[..., heads, seq, depth] in f64; heads a multiple of kv_heads. Returns out and lse."""
    q, k, v = q.double(), k.double(), v.double()
    group = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(group, dim=-3) for x in (k, v))
    scores = torch.einsum("...hid,...hjd->...hij", q, k) * scale
    if bias is not None:
        scores = scores + bias.double()
    if causal_offset is not None:
        i = torch.arange(scores.shape[-2])[:, None]
        j = torch.arange(scores.shape[-1])[None, :]
        scores = scores.masked_fill(j > i + causal_offset, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0)[..., None])
    return torch.einsum("...hij,...hjd->...hid", weights, v), lse


def attention_cases():
    cases = {
        "plain": dict(),
        "batched": dict(batch=(2, 3), seq_q=5, seq_kv=7),
        "gqa": dict(heads=6, kv_heads=2, batch=(2,)),
        "mqa_decode": dict(heads=7, kv_heads=1, seq_q=1, seq_kv=53, causal=True),
        "causal": dict(causal=True),
        "causal_more_queries": dict(causal=True, seq_q=23, seq_kv=17),
        "causal_offset": dict(causal=True, offset=3),
        "causal_negative_offset": dict(causal=True, offset=-4),
        "scaled": dict(scale=0.0625),
        "mask": dict(mask=(3, 13, 19)),
        "mask_broadcast_heads": dict(mask=(1, 13, 19), batch=(2,)),
        "mask_batch": dict(mask=(2, 1, 1, 19), batch=(2,)),
        "bias": dict(bias=(3, 13, 19)),
        "bias_minus_infinity": dict(bias=(1, 13, 19), holes=True),
        "all_at_once": dict(mask=(2, 1, 13, 19), bias=(3, 1, 19), causal=True, offset=5, scale=0.3, batch=(2,),
                            holes=True),
        "wide_values": dict(d_k=3, d_v=67),
        "deep_keys": dict(d_k=131, d_v=2),
        "long": dict(seq_q=31, seq_kv=331, heads=1, kv_heads=1, d_k=16, d_v=16, large=4.0),
    }
    for name, c in cases.items():
        batch, heads, kv_heads = c.get("batch", ()), c.get("heads", 3), c.get("kv_heads", 3)
        seq_q, seq_kv, d_k, d_v = c.get("seq_q", 13), c.get("seq_kv", 19), c.get("d_k", 11), c.get("d_v", 5)
        q = normal(*batch, heads, seq_q, d_k, scale=c.get("large", 1.0))
        k, v = normal(*batch, kv_heads, seq_kv, d_k), normal(*batch, kv_heads, seq_kv, d_v)
        arrays, options = dict(q=q, k=k, v=v), dict(kind="attention")
        mask = bias = offset = None
        if "mask" in c:
            mask = torch.rand(c["mask"], generator=generator) < 0.7
            arrays["mask"] = mask
        if "bias" in c:
            bias = normal(*c["bias"])
            if c.get("holes"):
                bias[torch.rand(c["bias"], generator=generator) < 0.2] = -torch.inf
            arrays["bias"] = bias
        if c.get("causal"):
            offset = c.get("offset", seq_kv - seq_q)
            options["causal"] = 1
            if "offset" in c:
                options["q_offset"] = offset
        if "scale" in c:
            options["scale"] = c["scale"]
        scale = float(numpy.float32(c["scale"])) if "scale" in c else d_k**-0.5
        arrays["out"], arrays["lse"] = attention(q, k, v, scale, offset, mask, bias)
        save(f"attention_{name}", arrays, options)


def gemm_cases():
    activations = {"none": lambda x: x, "relu": torch.relu, "gelu": torch.nn.functional.gelu}
    cases = {
        "plain": dict(m=13, n=19, k=17),
        "batched": dict(batch=(2, 3), m=5, n=7, k=11),
        "one_row": dict(m=1, n=67, k=53),
        "one_column": dict(m=61, n=1, k=31),
        "alpha_beta": dict(m=23, n=29, k=7, alpha=0.5, beta=-2.0),
        "bias_relu": dict(m=11, n=37, k=13, bias=True, activation="relu"),
        "bias_gelu": dict(m=11, n=37, k=13, bias=True, activation="gelu"),
        "large": dict(m=53, n=71, k=97),
    }
    for name, g in cases.items():
        batch = g.get("batch", ())
        a, b = normal(*batch, g["m"], g["k"]), normal(g["k"], g["n"])
        alpha, beta = g.get("alpha", 1.0), g.get("beta", 0.0)
        arrays = dict(a=a, b=b)
        result = alpha * (a.double() @ b.double())
        options = dict(kind="gemm", alpha=alpha, beta=beta, activation=list(activations).index(g.get("activation", "none")))
        if beta != 0:
            arrays["c"] = normal(*batch, g["m"], g["n"])
            result = result + beta * arrays["c"].double()
        if g.get("bias"):
            arrays["bias"] = normal(g["n"])
            result = result + arrays["bias"].double()
        arrays["result"] = activations[g.get("activation", "none")](result)
        save(f"gemm_{name}", arrays, options)


def layer_cases():
    cases = {
        "self": dict(cross=False),
        "cross": dict(cross=True),
        "cross_causal": dict(cross=True, causal=True),
        "self_causal_batched": dict(cross=False, causal=True, batch=(2, 3)),
        "no_first_projection": dict(cross=True, d_model=0),
        "biases": dict(cross=True, d_model=0, biases=True, batch=(2,)),
        "biases_with_first_projection": dict(cross=False, biases=True),
    }
    embedding, heads, d_k, d_v = 11, 3, 5, 7
    for name, c in cases.items():
        batch, d_model = c.get("batch", ()), c.get("d_model", 13)
        seq_q, seq_kv = 17, 19 if c["cross"] else 17
        width = d_model or embedding
        p = dict(w_q=he_normal(heads, width, d_k, fan_in=width), w_k=he_normal(heads, width, d_k, fan_in=width),
                 w_v=he_normal(heads, width, d_v, fan_in=width), output=he_normal(heads, d_v, embedding, fan_in=heads * d_v))
        if d_model:
            p["qkv"] = he_normal(3, embedding, d_model, fan_in=embedding)
        if c.get("biases"):
            p |= dict(b_q=he_normal(heads, d_k, fan_in=8), b_k=he_normal(heads, d_k, fan_in=8), b_v=he_normal(heads, d_v, fan_in=8),
                      b_output=he_normal(embedding, fan_in=8))
        q_tokens = normal(*batch, seq_q, embedding)
        k_tokens = normal(*batch, seq_kv, embedding) if c["cross"] else q_tokens
        v_tokens = normal(*batch, seq_kv, embedding) if c["cross"] else q_tokens
        # Step 1
        tokens = [t.double() for t in (q_tokens, k_tokens, v_tokens)]
        if d_model:
            tokens = [torch.einsum("...te,em->...tm", t, w) for t, w in zip(tokens, p["qkv"])]
        # Step 2
        q, k, v = (torch.einsum("...tm,hmd->...htd", t, p[w]) for t, w in zip(tokens, ("w_q", "w_k", "w_v")))
        if c.get("biases"):
            q, k, v = (x + p[b][:, None, :] for x, b in zip((q, k, v), ("b_q", "b_k", "b_v")))
        # Steps 3 and 4
        out, _ = attention(q, k, v, d_k**-0.5, seq_kv - seq_q if c.get("causal") else None)
        # Step 5
        result = torch.einsum("...htd,hde->...te", out, p["output"])
        if c.get("biases"):
            result = result + p["b_output"]
        options = dict(kind="layer", embedding=embedding, d_model=d_model, heads=heads, d_k=d_k, d_v=d_v)
        if c.get("causal"):
            options["causal"] = 1
        save(f"layer_{name}", dict(q_tokens=q_tokens, k_tokens=k_tokens, v_tokens=v_tokens, result=result, **p), options)


shutil.rmtree(DATA, ignore_errors=True)
attention_cases()
gemm_cases()
layer_cases()
print(sum(f.stat().st_size for f in DATA.rglob("*.*")), "bytes in", len(list(DATA.iterdir())), "cases")
