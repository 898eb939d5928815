"""What may be passed: arrays of many kinds and layouts, read in place; what may not, and what is said then."""

import array
import resource
import threading

import jax
import libraries
import ml_dtypes
import numpy as np
import pytest
import rapt
import torch

RNG = np.random.default_rng(0)
Q, K, V = (2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6)


def arrays(library="numpy", type_name="float32", shapes=(Q, K, V), scale=1.0):
    return [libraries.make(library, RNG.standard_normal(shape) * scale, type_name) for shape in shapes]


@pytest.mark.parametrize("library", libraries.LIBRARIES)
@pytest.mark.parametrize("type_name", libraries.FLOATS)
def test_the_result_is_of_the_callers_library_and_type(library, type_name):
    q, k, v = arrays(library, type_name)
    out, lse = rapt.attention(q, k, v, return_lse=True)
    assert type(out) is type(q) and out.dtype == q.dtype and out.shape == (2, 4, 5, 6)
    assert type(lse) is type(q) and libraries.type_name(lse) == "float32" and lse.shape == (2, 4, 5)


def test_libraries_mix_and_the_library_of_q_decides():
    q, k, v = arrays()
    want = rapt.attention(q, k, v)
    got = rapt.attention(torch.from_numpy(q), jax.device_put(k), v)
    assert isinstance(got, torch.Tensor) and np.array_equal(got.numpy(), want)


def test_anything_with_the_buffer_protocol():
    numbers = array.array("f", range(6))
    q = memoryview(numbers).cast("B").cast("f", (1, 2, 3))
    out = rapt.attention(q, q, q)
    assert isinstance(out, np.ndarray)
    assert np.array_equal(out, rapt.attention(*[np.arange(6, dtype=np.float32).reshape(1, 2, 3)] * 3))


def test_anything_with_dlpack():
    class Foreign:
        def __init__(self, of):
            self.of = of

        def __dlpack__(self, **options):
            return self.of.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.of.__dlpack_device__()

    q, k, v = arrays()
    out = rapt.attention(*(Foreign(x) for x in (q, k, v)))
    assert isinstance(out, np.ndarray) and np.array_equal(out, rapt.attention(q, k, v))


def test_subclasses_of_tensors():
    q, k, v = (torch.nn.Parameter(x, requires_grad=False) for x in arrays("torch"))
    assert isinstance(rapt.attention(q, k, v), torch.Tensor)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_inputs_are_read_in_place(library):
    """K and V of 256 TiB: one row of numbers, seen as many pages. A copy would not fit."""
    row = np.ones((1, 1, 1, 64), np.float32)
    if library == "numpy":
        pool = np.broadcast_to(row, (2**31 - 1, 1, 512, 64))
        table = np.array([[2**31 - 2, 5]])
    else:
        pool = torch.from_numpy(row).expand(2**31 - 1, 1, 512, 64)
        table = torch.tensor([[2**31 - 2, 5]])
    q = libraries.make(library, np.ones((1, 1, 1, 64)), "float32")
    out = rapt.attention(q, pool, pool, kv_lengths=700, block_table=table)
    torch.testing.assert_close(libraries.to_torch(out), torch.ones(1, 1, 1, 64))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("type_name", libraries.FLOATS)
def test_out(library, type_name):
    q, k, v = arrays(library)
    out = libraries.make(library, np.full((2, 4, 5, 6), np.nan), type_name, np.random.default_rng(3))
    assert rapt.attention(q, k, v, out=out) is out
    want = libraries.to_torch(rapt.attention(q, k, v)).to(getattr(torch, type_name))
    assert torch.equal(libraries.to_torch(out), want)


def test_out_stays_as_it_was_when_the_call_fails():
    q, k, v = arrays()
    out = np.full((2, 4, 5, 6), 7, np.float32)
    with pytest.raises(ValueError, match="axis seq_kv"):
        rapt.attention(q, k[:, :, :3], v, out=out)
    assert (out == 7).all()


def test_a_result_outlives_the_call_and_is_writable():
    q, k, v = arrays()
    out = rapt.attention(q, k, v)
    want = out.copy()
    del q, k, v
    for _ in range(20):
        rapt.attention(*arrays())
    assert np.array_equal(out, want)
    out += 1


def test_no_memory_is_lost():
    q, k, v = arrays(shapes=((1, 8, 256, 64),) * 3)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]

    def work(n):
        for _ in range(n):
            rapt.attention(q, k, v, return_lse=True)
            rapt.attention(*tensors, mask=torch.ones(256, 256, dtype=torch.bool), q_offset=torch.tensor([3]))
            with pytest.raises(ValueError):
                rapt.attention(q, k, v[:, :3])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = work(20)
    assert work(100) - before < 30_000  # KiB; 100 lost results would be 100 MiB


def test_other_threads_of_python_run_meanwhile():
    """While rapt computes, this thread counts. A call that kept the GIL would let it count at most once in a while."""
    q = np.ones((1, 8, 2048, 64), np.float32)
    done = threading.Event()

    def call():
        rapt.attention(q, q, q, threads=1)
        done.set()

    thread = threading.Thread(target=call)
    thread.start()
    turns = 0
    while not done.wait(0.0005):
        turns += 1
    thread.join()
    assert turns > 3


def test_from_many_threads_at_once():
    q, k, v = arrays(shapes=((2, 4, 60, 16), (2, 2, 70, 16), (2, 2, 70, 16)))
    want = rapt.attention(q, k, v, causal=True)
    wrong = []

    def call():
        for _ in range(30):
            if not np.array_equal(rapt.attention(q, k, v, causal=True), want):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


WRONG_VALUES = {
    "not a multiple of the 3 kv_heads": lambda q, k, v: rapt.attention(q, np.repeat(k[:, :1], 3, 1), v),
    "axis d_k: q has 8, but k has 6": lambda q, k, v: rapt.attention(q, v, v),
    "axis seq_kv: k has 7, but v has 6": lambda q, k, v: rapt.attention(q, k, v[:, :, :6]),
    "axis batch 0: q has 2, but k has 1": lambda q, k, v: rapt.attention(q, k[:1], v),
    "axis seq_kv: mask has 8, but k has 7": lambda q, k, v: rapt.attention(q, k, v, mask=np.ones((5, 8), bool)),
    "axis seq_q: bias has 6, but q has 5": lambda q, k, v: rapt.attention(q, k, v, bias=np.ones((6, 7))),
    "axis heads: sinks has 3, but q has 4": lambda q, k, v: rapt.attention(q, k, v, sinks=np.ones(3)),
    "window_left is -2": lambda q, k, v: rapt.attention(q, k, v, window=(-2, 0)),
    "softcap is -1": lambda q, k, v: rapt.attention(q, k, v, softcap=-1.0),
    "scale is": lambda q, k, v: rapt.attention(q, k, v, scale=float("nan")),
    r"kv_lengths\[1\] is 8": lambda q, k, v: rapt.attention(q, k, v, kv_lengths=np.array([7, 8])),
    "kv_lengths is 4294967296, but must fit int32": lambda q, k, v: rapt.attention(q, k, v, kv_lengths=2**32),
    "block_table is given, but needs kv_lengths": lambda q, k, v: rapt.attention(
        q, k, v, block_table=np.zeros((2, 1), np.int32)
    ),
    "q_segments is given, but kv_segments is not": lambda q, k, v: rapt.attention(
        q, k, v, q_segments=np.zeros((2, 5), np.int32)
    ),
    "layout is hdbs, but must be bhsd or bshd": lambda q, k, v: rapt.attention(q, k, v, layout="hdbs"),
    "threads is 0, but must be at least 1": lambda q, k, v: rapt.attention(q, k, v, threads=0),
    "q: .* takes 3 to 7 extents, but 2 were given": lambda q, k, v: rapt.attention(q[0, 0], k, v),
    "q: an array has more than 8 axes": lambda q, k, v: rapt.attention(q[(None,) * 5], k, v),
    "axis d_v: v has 6, but out has 5": lambda q, k, v: rapt.attention(
        q, k, v, out=np.empty((2, 4, 5, 5), np.float32)
    ),
    "the stride of axis heads of out is 0": lambda q, k, v: rapt.attention(
        q, k, v, out=torch.empty(2, 1, 5, 6).expand(2, 4, 5, 6)
    ),
    "k_scales is given, but k is not int8": lambda q, k, v: rapt.attention(
        q, k, v, k_scales=np.ones((2, 2, 7), np.float32)
    ),
    "k_scales is missing": lambda q, k, v: rapt.attention(q, k.astype(np.int8), v),
    "the type of q is int8": lambda q, k, v: rapt.attention(q.astype(np.int8), k, v),
    "the last extent of k is 8 bytes": lambda q, k, v: rapt.attention(q, k.astype(np.uint8), v),
    r"cu_seqlens_q\[1\] is 9": lambda q, k, v: rapt.attention_varlen(
        q[0].swapaxes(0, 1), k[0].swapaxes(0, 1), v[0].swapaxes(0, 1), np.array([0, 9]), np.array([0, 7])
    ),
    "beta is 2.*, but out": lambda q, k, v: rapt.gemm(q, v[:, :1].swapaxes(-1, -2), beta=2.0),
    "axis k: a has 8, but b has 7": lambda q, k, v: rapt.gemm(q, v),
    "activation is tanh, but must be none or relu or gelu": lambda q, k, v: rapt.gemm(q, q, activation="tanh"),
    "parts is empty": lambda q, k, v: rapt.merge([]),
    "type is int2, but must be int8 or int4": lambda q, k, v: rapt.quantize_kv(k, type="int2"),
    "kv_lengths.* 1 new keys at most": lambda q, k, v: rapt.append_kv(k[:, :, :1], v[:, :, :1], k, v, 7),
    "NOSUCH": lambda q, k, v: rapt.set_target("NOSUCH"),
    "line 1": lambda q, k, v: rapt.load_config("no config"),
    "parameter w_k has shape": lambda q, k, v: rapt.MultiHeadAttention(
        w_q=np.ones((2, 6, 3)), w_k=np.ones((2, 5, 3)), w_v=np.ones((2, 6, 4)), output=np.ones((2, 4, 6))
    ),
}


@pytest.mark.parametrize("message", WRONG_VALUES)
def test_wrong_values(message):
    with pytest.raises(ValueError, match=message):
        WRONG_VALUES[message](*arrays())


WRONG_TYPES = {
    "q is a list, but must be an array": lambda q, k, v: rapt.attention([[1.0]], k, v),
    "k is a dict": lambda q, k, v: rapt.attention(q, {}, v),
    "v is a str": lambda q, k, v: rapt.attention(q, k, "v"),
    "the type of q is float64, but must be float32": lambda q, k, v: rapt.attention(q.astype(float), k, v),
    "the type of k is int32": lambda q, k, v: rapt.attention(q, k.astype(np.int32), v),
    "the type of v is complex64": lambda q, k, v: rapt.attention(q, k, v.astype(np.complex64)),
    "the type of q is bool": lambda q, k, v: rapt.attention(q > 0, k, v),
    "the type of mask is uint8, but must be bool": lambda q, k, v: rapt.attention(
        q, k, v, mask=np.ones((5, 7), np.uint8)
    ),
    "the type of bias is int64": lambda q, k, v: rapt.attention(q, k, v, bias=np.ones((5, 7), np.int64)),
    "the type of kv_lengths is float32": lambda q, k, v: rapt.attention(
        q, k, v, kv_lengths=np.ones(2, np.float32)
    ),
    "causal is 1, but must be True or False": lambda q, k, v: rapt.attention(q, k, v, causal=1),
    "window is 3, but must be two ints": lambda q, k, v: rapt.attention(q, k, v, window=3),
    "softcap is 'x', but must be a float": lambda q, k, v: rapt.attention(q, k, v, softcap="x"),
    "threads is 1.5, but must be an int": lambda q, k, v: rapt.attention(q, k, v, threads=1.5),
    r"attention\(\) has no argument colour": lambda q, k, v: rapt.attention(q, k, v, colour=1),
    r"gemm\(\) has no argument causal": lambda q, k, v: rapt.gemm(q, q, causal=True),
    "incompatible function arguments": lambda q, k, v: rapt.attention(q, k),
    "out is a numpy.ndarray, but must be a writable array": lambda q, k, v: rapt.attention(
        q, k, v, out=np.broadcast_to(np.float32(0), (2, 4, 5, 6))
    ),
    "out is an array of JAX, which are never written": lambda q, k, v: rapt.attention(
        q, k, v, out=jax.numpy.zeros((2, 4, 5, 6))
    ),
    "q is a Tensor, but must be an array on the CPU": lambda q, k, v: rapt.attention(
        torch.empty(Q, device="meta"), k, v
    ),
    r"parts\[0\] must be": lambda q, k, v: rapt.merge([3]),
    r"the type of parts\[0\].lse is float64": lambda q, k, v: rapt.merge([(q, q[..., 0].astype(float))]),
    "activation is 3, but must be a function": lambda q, k, v: rapt.salience_map(q, k, activation=3),
    "parameter w_q is missing": lambda q, k, v: rapt.MultiHeadAttention(),
    "rope is 3, but must be a dict": lambda q, k, v: rapt.append_kv(k, v, k, v, 0, rope=3),
}


@pytest.mark.parametrize("message", WRONG_TYPES)
def test_wrong_types(message):
    with pytest.raises(TypeError, match=message):
        WRONG_TYPES[message](*arrays())


def test_inside_jit_only_the_foreign_function_works():
    with pytest.raises(TypeError, match="q is a .*Tracer, but must be an array"):
        jax.jit(lambda *qkv: rapt.attention(*qkv))(*arrays("jax"))


def test_numpy_bfloat16_that_may_not_be_written():
    q, k, v = arrays(type_name="bfloat16")
    want = rapt.attention(q, k, v)
    for x in (q, k, v):
        x.setflags(write=False)
    assert np.array_equal(rapt.attention(q, k, v), want)
    assert want.dtype == ml_dtypes.bfloat16
    out = np.zeros((2, 4, 5, 6), ml_dtypes.bfloat16)
    out.setflags(write=False)
    with pytest.raises(TypeError, match="writable"):
        rapt.attention(q, k, v, out=out)


@pytest.mark.parametrize("none", ["mask", "bias", "scale", "q_offset", "kv_lengths", "out", "threads", "sinks"])
def test_none_is_not_given(none):
    q, k, v = arrays()
    assert np.array_equal(rapt.attention(q, k, v, **{none: None}), rapt.attention(q, k, v))
