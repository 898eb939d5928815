// The online softmax, written once (contract step 5). Per-target header: see kernels.cc.
//
// A row of attention has a running maximum m and a running sum l. A block of new scores s raises m
// to m', gives p = e^(scale (s - m')), and everything gathered under the old maximum is multiplied
// by rescale = e^(scale (m - m')). Two layouts, one body: either each lane is a row of its own
// (kLanes), or all lanes belong to one row (kRows) and maximum and sum go across them at the end.
#include "kernels/exp-inl.h"
#include "kernels/round-inl.h"
#include "kernels/tanh-inl.h"

#if defined(RAPT_KERNELS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_SOFTMAX_INL_H_
#undef RAPT_KERNELS_SOFTMAX_INL_H_
#else
#define RAPT_KERNELS_SOFTMAX_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Lanes that are rows of their own: nothing to do across them.
struct EachLane {
  static HWY_INLINE V32 Max(V32 v) { return v; }
  static HWY_INLINE V32 Sum(V32 v) { return v; }
  static HWY_INLINE V32 Load(const float* state) { return hn::LoadU(F32(), state); }
  static HWY_INLINE void Store(V32 v, float* state) { hn::StoreU(v, F32(), state); }
  static HWY_INLINE V32 Pairs(V32 first, V32 second) { return PairsOf(first, second); }
};

// Lanes that share a row: all of them hold the row's value.
struct AcrossLanes {
  static HWY_INLINE V32 Max(V32 v) {
#if HWY_ARCH_RISCV
    // Highway's reduction starts from the lowest finite number there, also where all lanes are
    // -inf.
    const F32 d;
    const V32 minus_inf = hn::Neg(hn::Inf(d));
    if (hn::AllTrue(d, hn::Eq(v, minus_inf))) return minus_inf;
#endif
    return hn::MaxOfLanes(F32(), v);
  }
  static HWY_INLINE V32 Sum(V32 v) { return hn::SumOfLanes(F32(), v); }
  static HWY_INLINE V32 Load(const float* state) { return hn::Set(F32(), *state); }
  static HWY_INLINE void Store(V32 v, float* state) { *state = hn::GetLane(v); }
  static HWY_INLINE V32 Pairs(V32 first, V32 second) { return PairsAcross(first, second); }
};

// Contract steps 2 to 4: s = softcap(pre_scale * s) + bias, or -inf where bias is -inf: a select,
// so that what a row does not attend cannot reach it, NaN or not.
HWY_INLINE void Prepare(float* s, const float* bias, Index vectors, Index stride,
                        const SoftmaxStep& p) {
  const F32 d;
  const V32 scale = hn::Set(d, p.pre_scale);
  const V32 cap = hn::Set(d, p.softcap), per_cap = hn::Set(d, 1.0f / p.softcap);
  const V32 minus_inf = hn::Neg(hn::Inf(d));
  for (Index j = 0; j < vectors; ++j) {
    const V32 b = bias == nullptr ? hn::Zero(d) : hn::LoadU(d, bias + j * stride);
    V32 score = hn::LoadU(d, s + j * stride);
    if (p.softcap > 0) {
      score = hn::MulAdd(Tanh(hn::Mul(hn::Mul(score, scale), per_cap)), cap, b);
    } else {
      score = hn::MulAdd(score, scale, b);
    }
    hn::StoreU(hn::IfThenElse(hn::Eq(b, minus_inf), b, score), d, s + j * stride);
  }
}

// What remains of the weights: floats in the place of the scores, or pairs, in half of it.
enum class Weights { kFloats, kPairs };

// One step for the row(s) whose scores are `vectors` vectors, `stride` apart.
template <class Lanes, Weights kWeights = Weights::kFloats>
HWY_INLINE void OnlineStep(float* s, Index vectors, Index stride, ExpScale scale, float* row_max,
                           float* row_sum, float* rescale) {
  const F32 d;
  const V32 minus_inf = hn::Neg(hn::Inf(d));
  const V32 old_max = Lanes::Load(row_max);

  // Several maxima and sums side by side, because one would be a chain of latencies.
  V32 max0 = old_max, max1 = old_max, max2 = old_max, max3 = old_max;
  Index j = 0;
  for (; j + 4 <= vectors; j += 4) {
    max0 = hn::Max(max0, hn::LoadU(d, s + j * stride));
    max1 = hn::Max(max1, hn::LoadU(d, s + (j + 1) * stride));
    max2 = hn::Max(max2, hn::LoadU(d, s + (j + 2) * stride));
    max3 = hn::Max(max3, hn::LoadU(d, s + (j + 3) * stride));
  }
  for (; j < vectors; ++j) max0 = hn::Max(max0, hn::LoadU(d, s + j * stride));
  V32 new_max = Lanes::Max(hn::Max(hn::Max(max0, max1), hn::Max(max2, max3)));
  if (kWeights == Weights::kPairs) {
    // Weights up to 2^8 are as precise. So a maximum that rises by no more than that stays what it
    // was, and with it all that was multiplied by it.
    const V32 enough = hn::Add(old_max, hn::Set(d, 8.0f / scale.log2));
    new_max = hn::IfThenElse(hn::Lt(new_max, enough), old_max, new_max);
  }
  // A row that attends nothing so far: subtract 0, since -inf - -inf would be NaN.
  const V32 reference = hn::IfThenZeroElse(hn::Eq(new_max, minus_inf), new_max);

  V32 sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  const auto probability = [&](Index at) HWY_ATTR {
    const V32 x = hn::Sub(hn::LoadU(d, s + at * stride), reference);
    if (kWeights == Weights::kPairs) return ExpByScaling(scale, x);
    const V32 p = ExpScaled(scale, x);
    hn::StoreU(p, d, s + at * stride);
    return p;
  };
  const auto store_pair = [&](Index at, V32 first, V32 second) HWY_ATTR {
    if (kWeights == Weights::kPairs)
      hn::StoreU(Lanes::Pairs(first, second), d, s + at / 2 * stride);
  };
  j = 0;
  for (; j + 4 <= vectors; j += 4) {
    const V32 p0 = probability(j), p1 = probability(j + 1);
    const V32 p2 = probability(j + 2), p3 = probability(j + 3);
    sum0 = hn::Add(sum0, p0);
    sum1 = hn::Add(sum1, p1);
    sum2 = hn::Add(sum2, p2);
    sum3 = hn::Add(sum3, p3);
    store_pair(j, p0, p1);
    store_pair(j + 2, p2, p3);
  }
  for (; j < vectors; j += 2) {
    const V32 p0 = probability(j), p1 = j + 1 < vectors ? probability(j + 1) : hn::Zero(d);
    sum0 = hn::Add(hn::Add(sum0, p0), p1);
    store_pair(j, p0, p1);
  }

  const V32 shrink = ExpScaled(scale, hn::Sub(old_max, reference));
  const V32 sum = Lanes::Sum(hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)));
  Lanes::Store(hn::MulAdd(Lanes::Load(row_sum), shrink, sum), row_sum);
  Lanes::Store(new_max, row_max);
  Lanes::Store(shrink, rescale);
}

// The weights of rows in lanes become parts of 1.
HWY_INLINE void Normalize(float* p, Index keys, Index stride, const float* row_sum) {
  const F32 d;
  const V32 sum = hn::LoadU(d, row_sum);
  const V32 part = hn::IfThenZeroElse(hn::Eq(sum, hn::Zero(d)), hn::Div(hn::Set(d, 1.0f), sum));
  for (Index j = 0; j < keys; ++j)
    hn::StoreU(hn::Mul(hn::LoadU(d, p + j * stride), part), d, p + j * stride);
}

// s [n, NR]: keys down, rows in lanes. Columns beyond p.rows in the last vector are computed and
// ignored.
inline void SoftmaxLanes(const SoftmaxStep& p) {
  const Index n = Lanes();
  const ExpScale scale(p.scale);
  const Index plain = p.bias == nullptr ? p.n : p.bias_begin;
  for (Index col = 0; col < p.rows; col += n) {
    if (p.pre_scale != 1.0f || p.softcap > 0) Prepare(p.s + col, nullptr, plain, p.s_row, p);
    if (plain < p.n) {
      const Index from = plain * p.s_row + col;
      Prepare(p.s + from, p.bias + from, p.n - plain, p.s_row, p);
    }
    const auto step = p.pairs ? OnlineStep<EachLane, Weights::kPairs> : OnlineStep<EachLane>;
    step(p.s + col, p.n, p.s_row, scale, p.row_max + col, p.row_sum + col, p.rescale + col);
    if (p.all) Normalize(p.s + col, p.n, p.s_row, p.row_sum + col);
  }
}

// s [rows, n]: rows of whole vectors: s_row is a multiple of Lanes(), and keys beyond n are ours to
// fill.
inline void SoftmaxRows(const SoftmaxStep& p) {
  const Index n = Lanes();
  const Index vectors = (p.n + n - 1) / n;
  const ExpScale scale(p.scale);
  for (Index row = 0; row < p.rows; ++row) {
    float* s = p.s + row * p.s_row;
    if (p.bias != nullptr || p.pre_scale != 1.0f || p.softcap > 0) {
      for (Index j = p.n; j < vectors * n; ++j) s[j] = 0.0f;
      Prepare(s, p.bias == nullptr ? nullptr : p.bias + row * p.s_row, vectors, n, p);
    }
    for (Index j = p.n; j < vectors * n; ++j) s[j] = -std::numeric_limits<float>::infinity();
    const auto step = p.pairs ? OnlineStep<AcrossLanes, Weights::kPairs> : OnlineStep<AcrossLanes>;
    step(s, vectors, n, scale, p.row_max + row, p.row_sum + row, p.rescale + row);
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
