"""Attention of one batch element in PyTorch's f64, in its plainest form, and how far from it a result may
lie: the bound of tests/support/bounds.cpp, from the problem and the number formats alone."""

import dataclasses
import math

import numpy
import torch

U = 2.0**-24  # unit roundoff of f32
SMALLEST_NORMAL = 2.0**-126
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
FLOOR = {"float32": 0.0, "float16": 2.0**-25, "bfloat16": 0.0}  # half the smallest subnormal number


@dataclasses.dataclass
class Element:
    """q [heads, seq_q, d_k], k [kv_heads, seq_kv, d_k], v [kv_heads, seq_kv, d_v], f64, and the options."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    causal: bool = False
    q_offset: int | None = None
    window: tuple[int, int] = (-1, -1)
    mask: torch.Tensor | None = None  # [heads, seq_q, seq_kv], or broadcast
    bias: torch.Tensor | None = None
    softcap: float = 0.0
    alibi_slopes: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    scale: float | None = None
    chunk: int = 0
    prefix: int = 0
    q_segments: torch.Tensor | None = None
    kv_segments: torch.Tensor | None = None
    tree: torch.Tensor | None = None  # bool [seq_q, drafts]
    kept: torch.Tensor | None = None  # [heads, seq_q, seq_kv]: 0 or 1 / (1 - dropout_p)
    rounded: bool = False  # weights may be rounded to bfloat16


@dataclasses.dataclass
class Expected:
    out: torch.Tensor
    out_bound: torch.Tensor
    lse: torch.Tensor
    lse_bound: torch.Tensor
    weights: torch.Tensor
    scores: torch.Tensor  # -inf where not attended
    score_error: torch.Tensor
    slope: torch.Tensor  # of the softcap, at each score
    slope_error: torch.Tensor


def sum_error(n):
    n = torch.as_tensor(n, dtype=torch.float64)
    return torch.minimum(n * U / (1 - n * U), 6 * n.sqrt() * U)


def exp_error(x):
    return 2**-22.4 + x.abs() * 2**-22.8


def attended(e: Element, x, j):
    """bool [heads, seq_q, seq_kv]; x [seq_q, 1] positions, j [seq_kv] keys."""
    left, right = e.window
    here = torch.ones(x.shape[0], j.shape[0], dtype=torch.bool)
    if e.causal:
        here &= j <= x
    if left >= 0:
        here &= j >= x - left
    if right >= 0:
        here &= j <= x + right
    if e.chunk > 0:
        here &= j // e.chunk == x // e.chunk
    here |= j < e.prefix
    if e.q_segments is not None:
        here &= e.q_segments[:, None] == e.kv_segments
    if e.tree is not None:
        drafts = min(e.tree.shape[1], j.shape[0])
        here[:, j.shape[0] - drafts :] &= e.tree[:, e.tree.shape[1] - drafts :]
    here = here.expand(e.q.shape[0], -1, -1)
    if e.mask is not None:
        here = here & e.mask
    if e.bias is not None:
        here = here & (e.bias != -math.inf)
    return here


def attention(e: Element) -> Expected:
    heads, seq_q, d_k = e.q.shape
    seq_kv = e.k.shape[1]
    group = heads // max(e.k.shape[0], 1) if heads else 1
    k, v = e.k.repeat_interleave(group, 0), e.v.repeat_interleave(group, 0)
    scale = float(torch.tensor(1 / math.sqrt(d_k) if e.scale is None else e.scale, dtype=torch.float32))
    offset = seq_kv - seq_q if e.q_offset is None else e.q_offset
    x, j = torch.arange(seq_q)[:, None] + offset, torch.arange(seq_kv)

    s = scale * (e.q @ k.mT)
    r = sum_error(d_k + 3) * abs(scale) * (e.q.abs() @ k.abs().mT) + 2 * U * s.abs()
    slope, slope_error = torch.ones_like(s), torch.zeros_like(s)
    if e.softcap > 0:
        tanh = torch.tanh(s / e.softcap)
        s = e.softcap * tanh
        r += 13 * U * s.abs()
    for added in (
        None if e.alibi_slopes is None else e.alibi_slopes[:, None, None] * (j - x),
        None if e.bias is None else torch.where(e.bias == -math.inf, 0.0, e.bias),
    ):
        if added is not None:
            s = s + added
            r = r + U * (3 * added.abs() + s.abs())
    if e.softcap > 0:
        slope = 1 - tanh * tanh
        slope_error = 2 * tanh.abs() * (16 * U + r / e.softcap) + 2 * U
    score_error = r
    here = attended(e, x, j)
    s = torch.where(here, s, -math.inf)
    sink = torch.full((heads,), -math.inf, dtype=torch.float64) if e.sinks is None else e.sinks
    rows = torch.cat([s, sink[:, None, None].expand(-1, seq_q, 1)], -1)
    lse = rows.logsumexp(-1)
    weights = torch.where(here, (s - torch.where(lse == -math.inf, 0.0, lse)[..., None]).exp(), 0.0)
    kept = weights if e.kept is None else weights * e.kept
    out = kept @ v

    top = rows.amax(-1, keepdim=True)
    finite_top = torch.where(top == -math.inf, 0.0, top)
    below = torch.where(rows == -math.inf, 0.0, finite_top - rows)
    r = torch.where(here, r, 0.0)
    r = torch.cat([r, torch.zeros_like(r[..., :1])], -1) + U * below + exp_error(below)
    n = here.sum(-1, keepdim=True)
    p = torch.where(rows == -math.inf, 0.0, (rows - torch.where(lse == -math.inf, 0.0, lse)[..., None]).exp())
    # Every key may be a block and a part of its own, and raise the maximum.
    sums = sum_error(3 * n + 1) + (n + 2) * (exp_error(torch.zeros(())) + 2 * U)
    mean_r = (p * r).sum(-1, keepdim=True)
    m, m_r = kept @ v.abs(), (kept * r[..., :-1]) @ v.abs()
    if e.kept is not None:
        m_r = m_r + 3 * U * m  # of the factor and its product
    bound = 1.01 * (m_r + out.abs() * mean_r + sums * (m + out.abs()) + 2 * U * out.abs())
    bound += (n + 2) * SMALLEST_NORMAL * (1 + v.abs().amax((-1, -2), keepdim=True) if v.numel() else 1)
    if e.rounded:
        bound += 2.0**-8 * m
    lse_bound = 1.01 * (mean_r + sums)[..., 0] + 2 * U * (finite_top[..., 0].abs() + lse.abs())
    empty = n[..., 0] == 0
    return Expected(
        torch.where(empty[..., None], 0.0, out),
        torch.where(empty[..., None], 0.0, bound),
        lse,
        torch.where(lse == -math.inf, 0.0, lse_bound),
        weights,
        s,
        score_error,
        slope,
        slope_error,
    )


def philox(counter, key):
    """Philox 4x32-10 (Salmon et al. 2011): four words for each counter of four words, and a key of two."""
    c, mask = [numpy.asarray(word, numpy.uint64) for word in counter], numpy.uint64(0xFFFFFFFF)
    for n in range(10):
        k0, k1 = (numpy.uint64((k + n * weyl) % 2**32) for k, weyl in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True))
        a, b = c[0] * numpy.uint64(0xD2511F53), c[2] * numpy.uint64(0xCD9E8D57)
        c = [b >> 32 ^ c[1] ^ k0, b & mask, a >> 32 ^ c[3] ^ k1, a & mask]
    return numpy.stack(numpy.broadcast_arrays(*c))


def kept(element, heads, seq_q, seq_kv, probability, seed, offset):
    """The factors of the weights of batch element number `element`, [heads, seq_q, seq_kv]."""
    head, query, key = numpy.ogrid[:heads, :seq_q, :seq_kv]
    counter = key // 4, query, element * heads + head, offset
    words = philox(counter, (seed % 2**32, seed >> 32))
    word = numpy.take_along_axis(words, numpy.broadcast_to(key % 4, words.shape[1:])[None], 0)[0]
    dropped = word < numpy.uint64(math.floor(probability * 2**32))
    return torch.from_numpy(numpy.where(dropped, 0.0, 1 / (1 - probability)))


@dataclasses.dataclass
class Gradient:
    value: torch.Tensor
    error: torch.Tensor  # of the summands
    magnitude: torch.Tensor

    def map(self, function):
        return Gradient(function(self.value), function(self.error), function(self.magnitude))


def gradients(e: Element, grad_out, grad_lse, out_type) -> dict[str, Gradient]:
    """By autograd; how far from it a result may lie, as tests/support/backward_case.cpp has it."""
    names = [name for name in ("q", "k", "v", "bias", "alibi_slopes", "sinks") if getattr(e, name) is not None]
    inputs = {name: getattr(e, name).clone().requires_grad_() for name in names}
    expected = attention(dataclasses.replace(e, **inputs))
    values = torch.autograd.grad(
        (expected.out, expected.lse), inputs.values(), (grad_out, grad_lse), materialize_grads=True
    )
    with torch.no_grad():
        bounds = gradient_bounds(e, attention(e), grad_out, grad_lse, out_type)
        return {name: Gradient(value, *bounds[name]) for name, value in zip(names, values, strict=True)}


def gradient_bounds(e, forward, grad_out, grad_lse, out_type):
    heads, seq_q, d_k = e.q.shape
    kv_heads, seq_kv, d_v = e.v.shape
    group = heads // max(kv_heads, 1)
    k, v = e.k.repeat_interleave(group, 0).abs(), e.v.repeat_interleave(group, 0)
    scale = abs(1 / math.sqrt(d_k) if e.scale is None else e.scale)
    offset = seq_kv - seq_q if e.q_offset is None else e.q_offset
    distance = (torch.arange(seq_kv) - torch.arange(seq_q)[:, None] - offset).abs()
    kept = torch.ones(()) if e.kept is None else e.kept
    p, here = forward.weights, forward.scores != -math.inf
    lse = torch.where(forward.lse == -math.inf, 0.0, forward.lse)[..., None]
    lse_error = forward.lse_bound[..., None]

    delta = (grad_out * forward.out).sum(-1, keepdim=True) - grad_lse[..., None]
    delta_magnitude = (grad_out * forward.out).abs().sum(-1, keepdim=True) + grad_lse[..., None].abs()
    rounding = 2.0**-8 if e.rounded else 0.0  # of weights, and of gradients of scores
    out_error = FLOOR[out_type] + forward.out_bound
    out_error = out_error + ROUNDING[out_type] * (forward.out.abs() + out_error)
    delta_error = (grad_out.abs() * out_error).sum(-1, keepdim=True)
    delta_error += sum_error(d_v + 3) * (delta_magnitude + delta_error)
    below = torch.where(here, forward.scores - lse, 0.0)
    p_error = forward.score_error + lse_error + 2 * U * (below.abs() + lse.abs()) + exp_error(below)
    p_error = torch.where(here, p * 1.01 * p_error + 2 * SMALLEST_NORMAL, 0.0)
    dp, dp_magnitude = kept * (grad_out @ v.mT), kept * (grad_out.abs() @ v.abs().mT)
    dp_error = sum_error(d_v + 4) * dp_magnitude + delta_error + U * (dp.abs() + delta.abs())
    ds = (p * (dp - delta)).abs()
    error = p_error * ((dp - delta).abs() + dp_error) + p * dp_error + 2 * U * ds + SMALLEST_NORMAL
    error = torch.where(here, error, 0.0)

    def of_group(x):
        return x.reshape(kv_heads, group, *x.shape[1:]).sum(1) if kv_heads else x.reshape(0, *x.shape[1:])

    bounds = {
        "v": tuple(of_group((w * kept).mT @ grad_out.abs()) for w in (p_error + (3 * U + rounding) * p, p)),
        "bias": (error, ds),
        "alibi_slopes": tuple((distance * x).sum((-1, -2)) for x in (error, ds)),
    }
    inner = error * (forward.slope + forward.slope_error) + ds * forward.slope_error
    inner = inner + rounding * (ds * forward.slope + inner), ds * forward.slope
    bounds["q"] = tuple(scale * x @ k for x in inner)
    bounds["k"] = tuple(of_group(scale * x.mT @ e.q.abs()) for x in inner)
    if e.sinks is not None:
        x = e.sinks[:, None, None] - lse
        p = x.exp()
        p_error = p * (lse_error + 2 * U * (lse.abs() + x.abs()) + 4 * U)
        error = p_error * (delta.abs() + delta_error) + p * delta_error + SMALLEST_NORMAL
        bounds["sinks"] = error.sum((-1, -2)), (p * delta.abs()).sum((-1, -2))
    return bounds


def assert_gradient(got, want: Gradient, terms, stored_as="float32"):
    """terms: of how many the gradient is a sum."""
    bound = 1.01 * (want.error + sum_error(3 * terms + 4) * (want.magnitude + want.error))
    bound = bound + U * want.value.abs() + (terms + 2) * SMALLEST_NORMAL
    assert_within(got, want.value, bound, stored_as)


def assert_within(got, want, bound, stored_as="float32"):
    """got is want within the bound and a rounding to what it is stored as; infinities are equal."""
    assert got.shape == want.shape
    got = got.to(torch.float64)
    same = got == want  # infinities too
    allowed = bound + ROUNDING[stored_as] * (want.abs() + bound) + FLOOR[stored_as]
    wrong = ~(same | ((got - want).abs() <= allowed))
    if wrong.any():
        at = tuple(int(i) for i in wrong.nonzero()[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.numel()} elements are wrong, the first at {at}: "
            f"{got[at].item()} instead of {want[at].item()} within {allowed[at].item()}"
        )
