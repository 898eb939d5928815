"""Attention of one batch element in PyTorch's f64, in its plainest form, and how far from it a result may
lie: the bound of tests/support/bounds.cpp, from the problem and the number formats alone."""

import dataclasses
import math

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


@dataclasses.dataclass
class Expected:
    out: torch.Tensor
    out_bound: torch.Tensor
    lse: torch.Tensor
    lse_bound: torch.Tensor
    weights: torch.Tensor


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
    if e.softcap > 0:
        s = e.softcap * torch.tanh(s / e.softcap)
        r += 13 * U * s.abs()
    for added in (
        None if e.alibi_slopes is None else e.alibi_slopes[:, None, None] * (j - x),
        None if e.bias is None else torch.where(e.bias == -math.inf, 0.0, e.bias),
    ):
        if added is not None:
            s = s + added
            r = r + U * (3 * added.abs() + s.abs())
    here = attended(e, x, j)
    s = torch.where(here, s, -math.inf)
    sink = torch.full((heads,), -math.inf, dtype=torch.float64) if e.sinks is None else e.sinks
    rows = torch.cat([s, sink[:, None, None].expand(-1, seq_q, 1)], -1)
    lse = rows.logsumexp(-1)
    weights = torch.where(here, (s - torch.where(lse == -math.inf, 0.0, lse)[..., None]).exp(), 0.0)
    out = weights @ v

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
    m, m_r = weights @ v.abs(), (weights * r[..., :-1]) @ v.abs()
    bound = 1.01 * (m_r + out.abs() * mean_r + sums * (m + out.abs()) + 2 * U * out.abs())
    bound += (n + 2) * SMALLEST_NORMAL * (1 + v.abs().amax((-1, -2), keepdim=True) if v.numel() else 1)
    lse_bound = 1.01 * (mean_r + sums)[..., 0] + 2 * U * (finite_top[..., 0].abs() + lse.abs())
    empty = n[..., 0] == 0
    return Expected(
        torch.where(empty[..., None], 0.0, out),
        torch.where(empty[..., None], 0.0, bound),
        lse,
        torch.where(lse == -math.inf, 0.0, lse_bound),
        weights,
    )


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
