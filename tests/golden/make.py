"""Makes tests/golden/data: results of another implementation, PyTorch in f64, for small problems of odd sizes.

usage: make.py   (needs torch, pip install torch==2.13.0; the data is committed, so the tests do not)

Every case is a folder: .npy files of inputs (f32, f16, bf16 as uint16, int32, uint64, bool) and f64 results, and
case.txt with its options, one "name value" a line, which golden_test.cpp reads. New cases go last, so that the
random numbers of the others stay.
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


def attention(q, k, v, scale, offset=0, causal=False, mask=None, bias=None, softcap=0, slopes=None, sinks=None,
              window_left=-1, window_right=-1, chunk=0, prefix=0, q_segments=None, kv_segments=None, tree=None):
    """[..., heads, seq, depth] in f64; heads a multiple of kv_heads. Returns out and lse.

    Every mask is written out as its definition says, a truth value for each pair of position x and key j.
    """
    q, k, v = q.double(), k.double(), v.double()
    group = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(group, dim=-3) for x in (k, v))
    scores = torch.einsum("...hid,...hjd->...hij", q, k) * scale
    seq_q, seq_kv = scores.shape[-2:]
    x = torch.arange(seq_q)[:, None] + offset
    j = torch.arange(seq_kv)[None, :]
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if slopes is not None:
        scores = scores + slopes.double()[..., None, None] * (j - x)
    if bias is not None:
        scores = scores + bias.double()
    near = torch.ones(seq_q, seq_kv, dtype=torch.bool)  # by position
    if causal:
        near &= j <= x
    if window_left >= 0:
        near &= j >= x - window_left
    if window_right >= 0:
        near &= j <= x + window_right
    if chunk:
        near &= torch.floor(x / chunk) == torch.floor(j / chunk)
    attended = near | (j < prefix)
    if q_segments is not None:
        attended = attended & (q_segments[:, None] == kv_segments[None, :])
    if tree is not None:  # [seq_q, tree_keys], of the last keys
        attended = attended & torch.cat([torch.ones(seq_q, seq_kv - tree.shape[1], dtype=torch.bool), tree], dim=1)
    if mask is not None:
        attended = attended & mask
    scores = scores.masked_fill(~attended, -torch.inf)
    if sinks is not None:  # a last key that all attend, whose value is 0
        sink = sinks.double()[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sink], dim=-1)
        v = torch.nn.functional.pad(v, (0, 0, 0, 1))
    if scores.shape[-1]:  # a row without keys has no logsumexp that could be differentiated
        empty = (scores == -torch.inf).all(dim=-1)
        lse = torch.logsumexp(scores.masked_fill(empty[..., None], 0), dim=-1).masked_fill(empty, -torch.inf)
    else:
        lse = torch.full(scores.shape[:-1], -torch.inf).double()
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
        mask = bias = None
        offset = c.get("offset", seq_kv - seq_q)
        if "mask" in c:
            mask = torch.rand(c["mask"], generator=generator) < 0.7
            arrays["mask"] = mask
        if "bias" in c:
            bias = normal(*c["bias"])
            if c.get("holes"):
                bias[torch.rand(c["bias"], generator=generator) < 0.2] = -torch.inf
            arrays["bias"] = bias
        if c.get("causal"):
            options["causal"] = 1
            if "offset" in c:
                options["q_offset"] = offset
        if "scale" in c:
            options["scale"] = c["scale"]
        scale = float(numpy.float32(c["scale"])) if "scale" in c else d_k**-0.5
        arrays["out"], arrays["lse"] = attention(q, k, v, scale, offset, c.get("causal"), mask, bias)
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
        out, _ = attention(q, k, v, d_k**-0.5, seq_kv - seq_q, c.get("causal"))
        # Step 5
        result = torch.einsum("...htd,hde->...te", out, p["output"])
        if c.get("biases"):
            result = result + p["b_output"]
        options = dict(kind="layer", embedding=embedding, d_model=d_model, heads=heads, d_k=d_k, d_v=d_v)
        if c.get("causal"):
            options["causal"] = 1
        save(f"layer_{name}", dict(q_tokens=q_tokens, k_tokens=k_tokens, v_tokens=v_tokens, result=result, **p), options)


def words_of(tree):
    """[seq_q, tree_keys] of truth values as rapt reads them: key n is bit n % 64 of word n / 64."""
    words = numpy.zeros((tree.shape[0], (tree.shape[1] + 63) // 64), dtype=numpy.uint64)
    for i, n in tree.nonzero().tolist():
        words[i, n // 64] |= numpy.uint64(1 << (n % 64))
    return torch.from_numpy(words)


def stored(x, kind):
    """What a storage type makes of f32 values, and how it is saved: bf16 as its 16 bits, which NumPy has no type for."""
    if kind == "bf16":
        return x.bfloat16(), x.bfloat16().view(torch.uint16)
    if kind == "f16":
        return x.half(), x.half()
    return x, x


SEQ_Q, SEQ_KV, D_K, D_V = 7, 17, 5, 3


def option_cases():
    """One sequence, or batch elements alike: each option by itself, then together."""
    documents = torch.tensor([0] * 4 + [3] * 6 + [1] * 7)
    pair = (SEQ_Q, SEQ_KV)
    combined = dict(softcap=4.0, sinks=True, window_left=5, window_right=0)
    # A tree of two branches: each draft sees itself and its ancestors.
    parents = [-1, 0, 0, 1, 2, 4, 3]
    branches = torch.eye(SEQ_Q, dtype=torch.bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            branches[i] |= branches[parent]
    cases = {
        "softcap": dict(softcap=2.5, large=4.0),
        "alibi": dict(slopes=True),
        "alibi_causal_bias": dict(slopes=True, causal=1, bias=True, q_offset=3),
        "sinks": dict(sinks=True),
        "sinks_empty_rows": dict(sinks=True, causal=1, q_offset=-3),
        "window_left": dict(window_left=3),
        "window_right": dict(window_right=2),
        "window_both": dict(window_left=2, window_right=1, q_offset=5),
        "window_negative_positions": dict(window_left=2, window_right=1, q_offset=-4),
        "window_prefix": dict(window_left=1, window_right=1, prefix=3),
        "chunk": dict(chunk=4),
        "chunk_negative_positions": dict(chunk=4, q_offset=-5),
        "chunk_causal": dict(chunk=5, causal=1, q_offset=6),
        "prefix_causal": dict(prefix=6, causal=1, q_offset=0),
        "prefix_longer_than_the_keys": dict(prefix=40, causal=1),
        "documents": dict(q_segments=documents[-SEQ_Q:], kv_segments=documents),
        "documents_causal": dict(q_segments=documents[3:3 + SEQ_Q], kv_segments=documents, causal=1, q_offset=3),
        "tree": dict(tree=branches),
        "tree_two_words": dict(tree=torch.rand(SEQ_Q, 70, generator=generator) < 0.5, seq_kv=75, heads=1, kv_heads=1),
        "tree_all_keys": dict(tree=torch.rand(SEQ_Q, SEQ_KV, generator=generator) < 0.5),
        "mask_and_bias": dict(mask=torch.rand(pair, generator=generator) < 0.6, bias=True),
        "everything": dict(softcap=3.0, slopes=True, sinks=True, bias=True, causal=1, window_left=9, prefix=2,
                           mask=torch.rand(pair, generator=generator) < 0.8, tree=branches, batch=(2,),
                           q_segments=documents[-SEQ_Q:] // 2, kv_segments=documents // 2, scale=0.75),
        "group_1": dict(combined, heads=2, kv_heads=2),
        "group_4": dict(combined, heads=4, kv_heads=1, q_offset=6),
        "group_8": dict(combined, heads=8, kv_heads=1, seq_q=2),
        "group_8_decode": dict(combined, heads=8, kv_heads=1, seq_q=1, bias=True),
        "bf16": dict(types=("bf16", "bf16", "bf16"), causal=1),
        "f16": dict(types=("f16", "f16", "f16"), causal=1),
        "mixed_types": dict(types=("f32", "f16", "bf16"), seq_q=1),
        "latent": dict(heads=2, kv_heads=1, seq_q=1, seq_kv=5, d_k=576, d_v=512),
        "latent_bf16": dict(heads=2, kv_heads=1, seq_q=1, seq_kv=5, d_k=576, d_v=512, types=("bf16",) * 3),
    }
    for name, c in cases.items():
        c = dict(c)
        heads, kv_heads, batch = c.pop("heads", 2), c.pop("kv_heads", 1), c.pop("batch", ())
        seq_q, seq_kv = c.pop("seq_q", SEQ_Q), c.pop("seq_kv", SEQ_KV)
        d_k, d_v = c.pop("d_k", D_K), c.pop("d_v", D_V)
        options, arrays = dict(kind="attention"), dict()
        inputs = [normal(*batch, heads, seq_q, d_k, scale=c.pop("large", 1.0)), normal(*batch, kv_heads, seq_kv, d_k)]
        if d_k > 500:  # the latent shape: a value is the start of its key
            options["v_in_k"] = d_v
        else:
            inputs.append(normal(*batch, kv_heads, seq_kv, d_v))
        both = [stored(x, kind) for x, kind in zip(inputs, c.pop("types", ("f32",) * 3))]
        q, k, v = [x for x, _ in both] if len(both) == 3 else [both[0][0], both[1][0], both[1][0][..., :d_v]]
        arrays |= dict(zip("qkv", [file for _, file in both]))
        scale = c.pop("scale", None)
        if scale:
            options["scale"] = scale
        if c.pop("slopes", False):
            c["slopes"] = arrays["slopes"] = 2.0 ** -torch.arange(1, heads + 1, dtype=torch.float32)
        if c.pop("sinks", False):
            c["sinks"] = arrays["sinks"] = normal(heads)
        if c.pop("bias", False):
            c["bias"] = arrays["bias"] = normal(heads, seq_q, seq_kv)
        for key in ("q_segments", "kv_segments"):
            if key in c:
                arrays[key] = c[key].to(torch.int32)
        if "mask" in c:
            c["mask"] = arrays["mask"] = c["mask"][None]
        if "tree" in c:
            arrays["tree"], options["tree_keys"] = words_of(c["tree"]), c["tree"].shape[1]
        options |= {key: value for key, value in c.items() if not torch.is_tensor(value)}
        offset = c.pop("q_offset", seq_kv - seq_q)
        arrays["out"], arrays["lse"] = attention(q, k, v, scale or d_k**-0.5, offset, **c)
        save(f"attention_{name}", arrays, options)


def sequence_cases():
    """Sequences of unequal length, each computed by itself: cut out of what is packed, gathered from its pages."""
    ints = lambda *x: torch.tensor(x, dtype=torch.int32)
    heads, kv_heads = 2, 1
    cu_q, cu_kv = ints(0, 4, 4, 9, 16), ints(0, 6, 9, 9, 23)  # one without queries, one without keys
    lengths, offsets = ints(17, 6, 0, 9), ints(-2, 4, 0, 9)
    # Four sequences of at most 5 pages of 4 keys; the first two share a page; what lies beyond a length is no page.
    table = torch.tensor([[3, 1, 4, 8, 5], [3, 6, -1, 999, -7], [-1] * 5, [7, 0, 2, -1, 11]], dtype=torch.int32)
    cases = {
        "lengths": dict(kv_lengths=lengths),
        "lengths_causal": dict(kv_lengths=lengths, causal=1, bias=True),
        "lengths_offsets": dict(kv_lengths=lengths, q_offsets=offsets, causal=1, window_left=6),
        "offsets": dict(q_offsets=offsets, causal=1, slopes=True),
        "packed": dict(cu_seqlens_q=cu_q, cu_seqlens_kv=cu_kv),
        "packed_causal_bias": dict(cu_seqlens_q=cu_q, cu_seqlens_kv=cu_kv, causal=1, bias=True, sinks=True),
        "packed_offsets_documents": dict(cu_seqlens_q=cu_q, cu_seqlens_kv=cu_kv, q_offsets=offsets, causal=1, prefix=2,
                                         documents=True),
        "packed_queries_lengths": dict(cu_seqlens_q=cu_q, kv_lengths=lengths, causal=1),
        "packed_keys": dict(cu_seqlens_kv=cu_kv, window_left=4),
        "paged": dict(block_table=table, kv_lengths=lengths),
        "paged_causal_window": dict(block_table=table, kv_lengths=lengths, causal=1, window_left=5, softcap=2.0),
        "paged_packed_queries": dict(block_table=table, kv_lengths=lengths, cu_seqlens_q=cu_q, causal=1, bias=True),
        "paged_decode_f16": dict(block_table=table, kv_lengths=lengths, seq_q=1, types="f16"),
    }
    for name, c in cases.items():
        options = {"kind": "attention"} | {key: value for key, value in c.items() if type(value) in (int, float) and key != "seq_q"}
        arrays = {key: value for key, value in c.items() if torch.is_tensor(value)}
        seq_q, packed_q, packed_kv = c.get("seq_q", SEQ_Q), "cu_seqlens_q" in c, "cu_seqlens_kv" in c
        paged = "block_table" in c
        # The longest, which bias is as wide as.
        capacity = 14 if packed_kv else 20 if paged else SEQ_KV
        q_shape = lambda depth: (heads, 16, depth) if packed_q else (4, heads, seq_q, depth)
        kv_shape = lambda depth: (kv_heads, 23, depth) if packed_kv else (9, kv_heads, 4, depth) if paged else (4, kv_heads, SEQ_KV, depth)
        (q, arrays["q"]), (k, arrays["k"]), (v, arrays["v"]) = [
            stored(normal(*shape), c.get("types", "f32")) for shape in (q_shape(D_K), kv_shape(D_K), kv_shape(D_V))]
        bias = q_segments = kv_segments = slopes = sinks = None
        if c.get("bias"):
            bias = arrays["bias"] = normal(*((1, 16) if packed_q else (4, 1, seq_q)), capacity)
        if c.get("documents"):
            q_segments = arrays["q_segments"] = (torch.arange(16) // 3 % 2).to(torch.int32)
            kv_segments = arrays["kv_segments"] = (torch.arange(23) // 3 % 2).to(torch.int32)
        if c.get("slopes"):
            slopes = arrays["slopes"] = 2.0 ** -torch.arange(1, heads + 1, dtype=torch.float32)
        if c.get("sinks"):
            sinks = arrays["sinks"] = normal(heads)
        outs, lses = [], []
        for b in range(4):
            queries = slice(cu_q[b], cu_q[b + 1])  # where packed
            keys = slice(cu_kv[b], cu_kv[b + 1])
            one_q = q[:, queries] if packed_q else q[b]
            if packed_kv:
                one_k, one_v = k[:, keys], v[:, keys]
            else:
                n = int(lengths[b]) if "kv_lengths" in c else SEQ_KV
                if paged:
                    pages = table[b, :(n + 3) // 4].tolist()
                    one_k, one_v = ([x[page] for page in pages] for x in (k, v))
                    one_k, one_v = (torch.cat(x, dim=1) if x else torch.zeros(kv_heads, 0, depth)
                                    for x, depth in ((one_k, D_K), (one_v, D_V)))
                else:
                    one_k, one_v = k[b], v[b]
                one_k, one_v = one_k[:, :n], one_v[:, :n]
            n_q, n = one_q.shape[1], one_k.shape[1]
            out, lse = attention(
                one_q, one_k, one_v, D_K**-0.5, int(offsets[b]) if "q_offsets" in c else n - n_q,
                bias=None if bias is None else (bias[:, queries] if packed_q else bias[b])[..., :n],
                q_segments=None if q_segments is None else q_segments[queries],
                kv_segments=None if kv_segments is None else kv_segments[keys],
                slopes=slopes, sinks=sinks,
                **{key: c[key] for key in ("causal", "window_left", "prefix", "softcap") if key in c})
            outs.append(out)
            lses.append(lse)
        join = (lambda x: torch.cat(x, dim=1)) if packed_q else torch.stack
        arrays["out"], arrays["lse"] = join(outs), join(lses)
        save(f"attention_{name}", arrays, options)


def backward_cases():
    """The gradients of sum(out * dout) + sum(lse * dlse) by autograd, of all that each case has."""
    causal = dict(causal=1)
    cases = {
        "plain": dict(),
        "no_dlse": dict(dlse=False),
        "gqa_batched": dict(heads=6, kv_heads=2, batch=(2,)),
        "causal": causal,
        "causal_more_queries": dict(causal, seq_q=23),
        "window": dict(window_left=3, window_right=1, q_offset=8),
        "window_empty_rows": dict(window_left=2, window_right=1, q_offset=-4),
        "prefix_chunk": dict(prefix=3, chunk=4),
        "softcap": dict(softcap=2.5, large=4.0),
        "slopes": dict(causal, slopes=(2,)),
        "slopes_batch": dict(slopes=(3, 2), batch=(3,)),
        "sinks": dict(sinks=True),
        "sinks_empty_rows": dict(causal, sinks=True, q_offset=-3),
        "bias": dict(bias=(2, SEQ_Q, SEQ_KV)),
        "bias_heads": dict(bias=(1, SEQ_Q, SEQ_KV), holes=True, batch=(2,)),
        "bias_queries": dict(bias=(2, 1, 2, 1, SEQ_KV), batch=(2, 3)),
        "bias_keys": dict(bias=(2, SEQ_Q, 1), softcap=3.0),
        "mask": dict(mask=(1, SEQ_Q, SEQ_KV)),
        "everything": dict(causal, softcap=3.0, slopes=(4,), sinks=True, bias=(4, SEQ_Q, SEQ_KV), window_left=9, prefix=2,
                           mask=(2, 1, SEQ_Q, SEQ_KV), batch=(2,), heads=4, kv_heads=2, scale=0.75),
    }
    for name, c in cases.items():
        c = dict(c)
        heads, kv_heads, batch, seq_q = c.pop("heads", 2), c.pop("kv_heads", 1), c.pop("batch", ()), c.pop("seq_q", SEQ_Q)
        scale, holes, large = c.pop("scale", D_K**-0.5), c.pop("holes", False), c.pop("large", 1.0)
        arrays = dict(q=normal(*batch, heads, seq_q, D_K, scale=large), k=normal(*batch, kv_heads, SEQ_KV, D_K),
                      v=normal(*batch, kv_heads, SEQ_KV, D_V), dout=normal(*batch, heads, seq_q, D_V))
        if c.pop("dlse", True):
            arrays["dlse"] = normal(*batch, heads, seq_q)
        if "slopes" in c:
            arrays["slopes"] = 2.0 ** -torch.arange(1, numpy.prod(c["slopes"]) + 1, dtype=torch.float32).reshape(c["slopes"])
        if c.pop("sinks", False):
            arrays["sinks"] = normal(heads)
        if "bias" in c:
            arrays["bias"] = normal(*c["bias"])
            if holes:
                arrays["bias"][torch.rand(c["bias"], generator=generator) < 0.2] = -torch.inf
        if "mask" in c:
            arrays["mask"] = torch.rand(c["mask"], generator=generator) < 0.7
        options = dict(kind="backward", scale=scale) | {x: c[x] for x in c if type(c[x]) in (int, float)}
        named = {x: arrays[x].double().requires_grad_() for x in ("q", "k", "v", "bias", "slopes", "sinks") if x in arrays}
        given = c | {x: named[x] for x in ("bias", "slopes", "sinks") if x in named}
        given |= {"mask": arrays["mask"]} if "mask" in arrays else {}
        offset = given.pop("q_offset", SEQ_KV - seq_q)
        out, lse = attention(named["q"], named["k"], named["v"], float(numpy.float32(scale)), offset, **given)
        loss = (out * arrays["dout"].double()).sum()
        if "dlse" in arrays:
            loss = loss + (lse.masked_fill(lse == -torch.inf, 0) * arrays["dlse"].double()).sum()
        loss.backward()
        arrays |= dict(out=out.detach(), lse=lse.detach()) | {f"d{x}": y.grad for x, y in named.items()}
        save(f"backward_{name}", arrays, options)


for folder in DATA.glob("*"):
    if not folder.name.startswith(("gradients_", "train_toy_")):  # of make_layer_gradients.py
        shutil.rmtree(folder)
attention_cases()
gemm_cases()
layer_cases()
option_cases()
sequence_cases()
backward_cases()
print(sum(f.stat().st_size for f in DATA.rglob("*.*")), "bytes in", len(list(DATA.iterdir())), "cases")
