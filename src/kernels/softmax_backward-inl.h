// The backward pass of the softmax, and of what is done to scores before it (contract steps 5 to 2,
// backwards): from the products q k and dout v of a tile of pairs, their weights and the gradients
// of the former products. Nothing is online here: lse is known. Per-target header: see kernels.cc.
#include "kernels/exp-inl.h"
#include "kernels/round-inl.h"
#include "kernels/tanh-inl.h"

#if defined(RAPT_KERNELS_SOFTMAX_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_SOFTMAX_BACKWARD_INL_H_
#undef RAPT_KERNELS_SOFTMAX_BACKWARD_INL_H_
#else
#define RAPT_KERNELS_SOFTMAX_BACKWARD_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Keys [begin, end) of one vector of rows, whose first column is `col`.
template <bool kBias, bool kSoftcap, bool kStoreScores>
HWY_INLINE void BackwardColumn(const SoftmaxBackward& p, Index col, Index begin, Index end) {
  const F32 d;
  const V32 scale = hn::Set(d, p.scale), minus_inf = hn::Neg(hn::Inf(d));
  const V32 cap = hn::Set(d, p.softcap), per_cap = hn::Set(d, p.scale / p.softcap);
  const V32 lse = hn::LoadU(d, p.lse + col), delta = hn::LoadU(d, p.delta + col);
  const ExpScale exponent(1.0f);
  for (Index j = begin; j < end; ++j) {
    const Index at = j * p.row + col;
    const V32 product = hn::LoadU(d, p.s + at);
    V32 x, slope = scale;  // score - lse; the derivative of a score by its product
    if constexpr (kSoftcap) {
      const V32 t = Tanh(hn::Mul(product, per_cap));
      slope = hn::Mul(scale, hn::NegMulAdd(t, t, hn::Set(d, 1.0f)));
      x = hn::MulSub(t, cap, lse);
    } else {
      x = hn::MulSub(product, scale, lse);
    }
    // Last, so that a bias of 0 changes no bit.
    if constexpr (kBias) x = hn::Add(x, hn::LoadU(d, p.bias + at));
    V32 weight = ExpScaled(exponent, x);
    V32 ds = hn::Mul(weight, hn::Sub(hn::LoadU(d, p.dp + at), delta));
    if constexpr (kBias) {  // a select, whatever the products are
      const auto none = hn::Eq(hn::LoadU(d, p.bias + at), minus_inf);
      weight = hn::IfThenZeroElse(none, weight);
      ds = hn::IfThenZeroElse(none, ds);
      if constexpr (kSoftcap) slope = hn::IfThenZeroElse(none, slope);
    }
    if constexpr (kStoreScores) hn::StoreU(ds, d, p.dscores + at);
    hn::StoreU(weight, d, p.s + at);
    hn::StoreU(hn::Mul(ds, slope), d, p.dp + at);
  }
}

// The results of one vector of rows once more, as bf16.
HWY_INLINE void RoundColumn(const SoftmaxBackward& p, Index col) {
  const F32 d;
  for (Index j = 0; j < p.n; j += 2) {
    const Index at = j * p.row + col;
    const bool both = j + 1 < p.n;
    const V32 ds = hn::LoadU(d, p.dp + at);
    const V32 next = both ? hn::LoadU(d, p.dp + at + p.row) : hn::Zero(d);
    hn::StoreU(PairsOf(ds, next), d, p.dp_pairs + j / 2 * p.row + col);
    StoreRounded(ds, p.dp_rounded + at);
    StoreRounded(hn::LoadU(d, p.s + at), p.p_rounded + at);
    if (!both) return;
    StoreRounded(next, p.dp_rounded + at + p.row);
    StoreRounded(hn::LoadU(d, p.s + at + p.row), p.p_rounded + at + p.row);
  }
}

template <bool kSoftcap, bool kStoreScores>
HWY_INLINE void BackwardColumns(const SoftmaxBackward& p) {
  const Index plain = p.bias == nullptr ? p.n : p.bias_begin;
  for (Index col = 0; col < p.rows; col += Lanes()) {
    BackwardColumn<false, kSoftcap, kStoreScores>(p, col, 0, plain);
    BackwardColumn<true, kSoftcap, kStoreScores>(p, col, plain, p.n);
    if (p.dp_pairs != nullptr) RoundColumn(p, col);
  }
}

inline void SoftmaxBackwardOf(const SoftmaxBackward& p) {
  if (p.softcap > 0) {
    p.dscores == nullptr ? BackwardColumns<true, false>(p) : BackwardColumns<true, true>(p);
  } else {
    p.dscores == nullptr ? BackwardColumns<false, false>(p) : BackwardColumns<false, true>(p);
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
