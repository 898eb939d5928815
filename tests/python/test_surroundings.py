"""Everything but attention: gemm, merge, the cache, salience, the layer, explain, the machine."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import libraries
import numpy as np
import pytest
import rapt
import reference
import torch
from random_cases import Generator, case


def f64(array):
    return libraries.to_torch(array).double()


@pytest.mark.parametrize("seed", range(150))
def test_gemm(seed):
    g = Generator(seed)
    m, n, k = (g.number(0 if seed < 20 else 1, 40) for _ in range(3))
    batch = g.choose(((), (3,), (2, 3)))
    a_batch = g.choose((batch, batch[1:], (1,) * len(batch)))
    a, a_numbers = g.floats(g.normal(*a_batch, m, k))
    b_numbers = g.normal(*batch, k, n)
    options, scales = {}, 1.0
    if g.chance(0.3):
        b_numbers = g.rng.integers(-127, 128, b_numbers.shape)
        b, scales = g.array(b_numbers, "int8"), np.float32(g.rng.random(n))
        options["b_scales"] = g.array(scales, "float32")
    else:
        b, b_numbers = g.floats(b_numbers)
    a64, b64 = torch.from_numpy(a_numbers), torch.from_numpy(b_numbers * np.float64(scales))
    want, size = a64 @ b64, a64.abs() @ b64.abs()
    if g.chance(0.4):
        options["alpha"] = 0.5
        want, size = want / 2, size / 2
    if g.library != "jax" and g.chance(0.4):
        old = np.float32(g.normal(*batch, m, n))
        options |= {"out": g.array(old, "float32"), "beta": 2.0}
        want, size = want + 2 * f64(old), size + 2 * f64(old).abs()
    if g.chance(0.4):
        options["bias"], bias = g.small_array(g.normal(n))
        bias = torch.from_numpy(libraries.rounded(bias, "float32"))
        want, size = want + bias, size + bias.abs()
    activation = g.choose(("none", "relu", "gelu"))
    if activation != "none":
        options["activation"] = activation
        want = torch.nn.functional.relu(want) if activation == "relu" else torch.nn.functional.gelu(want)
    if g.chance(0.3):
        options["threads"] = 1
    c = rapt.gemm(a, b, **options)
    assert libraries.library_of(c) == g.library
    assert "out" not in options or c is options["out"]
    bound = 1.2 * reference.sum_error(k + 6) * size + (4e-7 * size.clamp(max=1) if activation == "gelu" else 0)
    reference.assert_within(libraries.to_torch(c), want, bound + 8 * reference.U * want.abs())


@pytest.mark.parametrize("library", libraries.LIBRARIES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("type_name", libraries.FLOATS)
def test_parts_merge_to_the_whole(library, layout, type_name):
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal(shape) for shape in ((2, 4, 5, 8), (2, 2, 12, 8), (2, 2, 12, 6)))
    cuts = [(0, 3), (3, 3), (3, 12)]

    def array(numbers):
        return libraries.make(library, numbers.swapaxes(1, 2) if layout == "bshd" else numbers, "float32")

    parts = []
    for begin, end in cuts:
        out, lse = rapt.attention(
            array(q), array(k[:, :, begin:end]), array(v[:, :, begin:end]), return_lse=True, layout=layout
        )
        parts.append((libraries.make(library, np.asarray(f64(out)), type_name), lse))
    out, lse = rapt.merge(parts, layout=layout)
    assert libraries.library_of(out) == library and libraries.type_name(out) == type_name
    want, want_lse = rapt.attention(array(q), array(k), array(v), return_lse=True, layout=layout)
    tolerance = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[type_name]
    torch.testing.assert_close(f64(out), f64(want), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(f64(lse), f64(want_lse), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("library", libraries.LIBRARIES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("options", [{}, {"scale_per": "head"}, {"type": "int4"}])
def test_quantize_and_back(library, layout, options):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 7, 64)).astype(np.float32)
    given = libraries.make(library, x.swapaxes(1, 2) if layout == "bshd" else x, "float32")
    stored, scales = rapt.quantize_kv(given, layout=layout, **options)
    assert libraries.library_of(stored) == library
    back = f64(rapt.dequantize_kv(stored, scales, layout=layout))
    back = back.transpose(1, 2) if layout == "bshd" else back
    levels = 7 if options.get("type") == "int4" else 127
    groups = x.reshape(2, 3, 7, -1, 32) if levels == 7 else x[..., None]
    axes = (-1,) if levels == 7 else (-3, -2, -1) if "scale_per" in options else (-2, -1)
    step = np.abs(groups).max(axes, keepdims=True) / levels
    assert (np.abs(np.asarray(back).reshape(groups.shape) - groups) <= step * 0.505).all()
    if scales is not None:
        assert scales.shape == ((2, 3, 1) if "scale_per" in options else (2, 3, 7))


def test_quantized_keys_attend():
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4, 5, 32), (2, 2, 9, 32), (2, 2, 9, 64)))
    (k8, k_scales), (v4, _) = rapt.quantize_kv(k), rapt.quantize_kv(v, type="int4")
    got = rapt.attention(q, k8, v4, k_scales=k_scales)
    want = rapt.attention(q, rapt.dequantize_kv(k8, k_scales), rapt.dequantize_kv(v4))
    np.testing.assert_allclose(got, want, atol=1e-6)


def rotated(x, positions, base=10000.0, pairing="interleaved"):
    dims = x.shape[-1]
    i = np.arange(dims // 2)
    angle = positions[:, None] * base ** (-2 * i / dims)
    first, second = (2 * i, 2 * i + 1) if pairing == "interleaved" else (i, i + dims // 2)
    result = x.astype(float)
    result[..., first] = x[..., first] * np.cos(angle) - x[..., second] * np.sin(angle)
    result[..., second] = x[..., second] * np.cos(angle) + x[..., first] * np.sin(angle)
    return result


@pytest.mark.parametrize("pairing", ["interleaved", "half"])
def test_rope(pairing):
    x = np.random.default_rng(4).standard_normal((2, 3, 5, 8)).astype(np.float32)
    got = rapt.rope(x, pairing=pairing, first_positions=np.array([0, 11]), base=500.0)
    for b, first in enumerate((0, 11)):
        np.testing.assert_allclose(got[b], rotated(x[b], first + np.arange(5), 500.0, pairing), atol=2e-6)
    kept = rapt.rope(x, dims=4)
    assert np.array_equal(kept[..., 4:], x[..., 4:]) and not np.array_equal(kept[..., :4], x[..., :4])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("type_name", libraries.FLOATS)
def test_append(library, layout, type_name):
    rng = np.random.default_rng(5)

    def array(numbers, name="float32"):
        return libraries.make(library, numbers.swapaxes(1, 2) if layout == "bshd" else numbers, name, rng)

    k_new, v_new = rng.standard_normal((2, 3, 2, 8)), rng.standard_normal((2, 3, 2, 6))
    k_cache, v_cache = array(np.zeros((2, 3, 9, 8)), type_name), array(np.zeros((2, 3, 9, 6)), type_name)
    lengths = np.array([4, 0])
    rapt.append_kv(array(k_new), array(v_new), k_cache, v_cache, lengths, layout=layout, rope={"pairing": "half"})
    for cache, new, turned in ((k_cache, k_new, True), (v_cache, v_new, False)):
        want = np.zeros((2, 3, 9, new.shape[-1]))
        for b, length in enumerate(lengths):
            numbers = np.float32(new[b])
            want[b, :, length : length + 2] = (
                rotated(numbers, length + np.arange(2), pairing="half") if turned else numbers
            )
        got = np.asarray(f64(cache))
        got = got.swapaxes(1, 2) if layout == "bshd" else got
        tolerance = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[type_name]
        np.testing.assert_allclose(got, want, atol=tolerance, rtol=tolerance)


def test_append_to_pages_of_int8():
    rng = np.random.default_rng(6)
    k_new = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    pool, scales = np.zeros((6, 3, 4, 8), np.int8), np.zeros((6, 3, 4), np.float32)
    table = np.array([[5, 0], [3, 1]])
    rapt.append_kv(
        k_new, k_new, pool, pool.copy(), 2, block_table=table, k_scales=scales, v_scales=scales.copy()
    )
    for b in range(2):
        for n in range(5):
            page, at = table[b, (n + 2) // 4], (n + 2) % 4
            back = pool[page, :, at] * scales[page, :, at, None]
            np.testing.assert_allclose(back, k_new[b, :, n], atol=0.02)


@pytest.mark.parametrize("seed", range(60))
def test_salience_map(seed):
    c = case(seed, modes=("dense",), stored=("float",))
    for name in ("return_lse", "out", "threads"):
        c.options.pop(name, None)
    salience = libraries.to_torch(rapt.salience_map(c.q, c.k, **c.options))
    salience = salience.reshape(len(c.elements), *salience.shape[len(c.batch) :])
    for got, element in zip(salience, c.elements, strict=True):
        weights = reference.attention(element).weights
        n = weights.shape[-1]
        torch.testing.assert_close(got[..., :n].double(), weights, atol=1e-6, rtol=1e-6)
        assert (got[..., n:] == 0).all()


def test_another_activation():
    rng = np.random.default_rng(7)
    q, k = (rng.standard_normal((2, 5, 8)).astype(np.float32) for _ in range(2))

    def squares(scores):
        return scores**2

    got = rapt.salience_map(q, k, causal=True, activation=squares)
    want = np.tril((q @ k.swapaxes(-1, -2) / np.sqrt(8)) ** 2)
    np.testing.assert_allclose(got, want, atol=1e-6)
    with pytest.raises(ZeroDivisionError):
        rapt.salience_map(q, k, activation=lambda scores: 1 / 0)
    with pytest.raises(ValueError, match="another shape"):
        rapt.salience_map(q, k, activation=lambda scores: [1.0, 2.0])


@pytest.mark.parametrize("library", libraries.LIBRARIES)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("d_model", [0, 11])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_layer(library, batch, d_model, biases, causal):
    rng = np.random.default_rng(8)
    embedding, heads, d_k, d_v, seq_q, seq_kv = 13, 3, 5, 7, 11, 17
    width = d_model or embedding
    p = {
        "w_q": rng.standard_normal((heads, width, d_k)) / 3,
        "w_k": rng.standard_normal((heads, width, d_k)) / 3,
        "w_v": rng.standard_normal((heads, width, d_v)) / 3,
        "output": rng.standard_normal((heads, d_v, embedding)) / 3,
    }
    if d_model:
        p["qkv"] = rng.standard_normal((3, embedding, d_model)) / 3
    if biases:
        for name, shape in (("b_q", (heads, d_k)), ("b_k", (heads, d_k)), ("b_v", (heads, d_v))):
            p[name] = rng.standard_normal(shape)
        p["b_output"] = rng.standard_normal(embedding)
    layer = rapt.MultiHeadAttention(**p)
    tokens = [rng.standard_normal((*batch, seq, embedding)) for seq in (seq_q, seq_kv, seq_kv)]
    result = layer(*(libraries.make(library, t, "float32") for t in tokens), causal=causal)
    assert libraries.library_of(result) == library

    t = [torch.from_numpy(np.float64(np.float32(x))) for x in tokens]
    p = {name: torch.from_numpy(value) for name, value in p.items()}
    if d_model:
        t = [x @ p["qkv"][i] for i, x in enumerate(t)]
    q, k, v = (
        x[..., None, :, :] @ p["w_" + n] + (p["b_" + n][:, None] if biases else 0)
        for n, x in zip("qkv", t, strict=True)
    )
    mask = torch.ones(seq_q, seq_kv, dtype=torch.bool).tril(seq_kv - seq_q) if causal else None
    heads_out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    want = (heads_out @ p["output"]).sum(-3) + (p["b_output"] if biases else 0)
    torch.testing.assert_close(f64(result), want, atol=2e-5, rtol=1e-4)


def test_explain():
    q = np.ones((1, 8, 1, 64), np.float32)
    k = np.ones((1, 2, 500, 64), np.float32)
    explanation = rapt.explain(q, k, k, causal=True)
    assert explanation.target == rapt.target()
    assert explanation.cuts[0].algorithm == "flash_rows" and explanation.cuts[0].seq_kv == 500
    refused = explanation.cuts[0].refused
    assert [one.algorithm for one in refused] == ["flash_pairs", "flash_lanes", "flash_rows_pairs"]
    assert all(one.reason for one in refused)
    assert explanation.flops > 0 and explanation.tasks >= 1
    assert "flash_rows" in str(explanation)
    packed = np.ones((10, 8, 64), np.float32)
    lengths = np.array([0, 4, 10])
    text = str(rapt.explain(packed, packed, packed, cu_seqlens_q=lengths, cu_seqlens_kv=lengths, layout="bshd"))
    assert "seq_q 6" in text

    q = np.ones((1, 2, 300, 64), np.float32)
    sinks = np.zeros(2, np.float32)
    out, lse = rapt.attention(q, q, q, sinks=sinks, return_lse=True)
    explanation = rapt.explain_backward(q, q, q, out, lse, out, sinks=sinks, return_grad_sinks=True)
    (cut,) = explanation.cuts
    assert cut.algorithm == "flash_backward" and cut.parts * cut.part_rows >= 300 and explanation.sum_tasks > 0
    assert f"then {explanation.sum_tasks} for gradients" in str(explanation)
    assert explanation.config_refused == []


def test_targets():
    names = rapt.targets()
    q = np.random.default_rng(9).standard_normal((1, 2, 9, 16)).astype(np.float32)
    want = rapt.attention(q, q, q)
    try:
        for name in names:
            rapt.set_target(name)
            assert rapt.target() == name and rapt.explain(q, q, q).target == name
            np.testing.assert_allclose(rapt.attention(q, q, q), want, atol=1e-5)
    finally:
        rapt.set_target("")
    assert rapt.target() in names


def test_config():
    before = rapt.config_text()
    q = np.ones((1, 8, 64, 64), np.float32)
    row = rapt.explain(q, q, q).config_row
    changed = re.sub(r"block_kv=\d+", "block_kv=32", row)
    try:
        report = rapt.load_config(changed + "\n")
        assert (report.read, report.used, report.source) == (1, 1, "load_config")
        assert str(rapt.config_report()) == str(report)
        explanation = rapt.explain(q, q, q)
        assert explanation.tuned and "block_kv=32" in explanation.config_row
    finally:
        rapt.load_config("")
    assert rapt.config_text() == before


def test_version():
    assert rapt.__version__ == importlib.metadata.version("rapt")


def test_everything_public_is_documented():
    for name in rapt.__all__:
        assert name == "__version__" or getattr(rapt, name).__doc__


def test_the_example_of_the_readme():
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["out"].shape == (1, 8, 5, 64) and names["lse"].shape == (1, 8, 5)


def test_the_stubs_have_everything():
    stubs = ast.parse((pathlib.Path(rapt.__file__).parent / "_core.pyi").read_text())
    names = {node.name for node in stubs.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert set(rapt.__all__) - {"__version__"} <= names
    attention = next(node for node in stubs.body if getattr(node, "name", "") == "attention")
    first = "causal q_offset window mask bias softcap alibi_slopes sinks scale kv_lengths block_table".split()
    assert [argument.arg for argument in attention.args.args] == ["q", "k", "v"]
    assert [argument.arg for argument in attention.args.kwonlyargs][: len(first)] == first


def test_doctor():
    test = pathlib.Path(__file__).parents[1] / "doctor_test.sh"
    subprocess.run(["sh", test, sys.executable, "-m", "rapt"], check=True)
