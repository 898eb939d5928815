// The tanh of the softcap. Per-target header: see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_TANH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_TANH_INL_H_
#undef RAPT_KERNELS_TANH_INL_H_
#else
#define RAPT_KERNELS_TANH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Relative error below 2^-21.3 (2^-21.5 with FMA, whole range), odd, within [-1, 1], NaN stays NaN.
//
// x P(x^2) / Q(x^2), minimax for the relative error up to 9.01 (2.1e-8; from there on tanh is 1 in
// f32), by Sanathanan and Koerner's iteration with Lawson's weights. All coefficients are positive,
// so nothing cancels.
HWY_INLINE V32 Tanh(V32 x) {
  const F32 d;
  const V32 one = hn::Set(d, 1.0f), most = hn::Set(d, 9.0109f);
  const V32 bounded = hn::Min(hn::Max(x, hn::Neg(most)), most);
  const V32 z = hn::Mul(bounded, bounded);
  V32 p = hn::Set(d, 1.3335186288543355e-08f), q = hn::Set(d, 7.768604177726957e-07f);
  p = hn::MulAdd(p, z, hn::Set(d, 2.0595078240148723e-05f));
  q = hn::MulAdd(q, z, hn::Set(d, 0.0003284244448877871f));
  p = hn::MulAdd(p, z, hn::Set(d, 0.003494738368317485f));
  q = hn::MulAdd(q, z, hn::Set(d, 0.02587375044822693f));
  p = hn::MulAdd(p, z, hn::Set(d, 0.1338030993938446f));
  q = hn::MulAdd(q, z, hn::Set(d, 0.4671362638473511f));
  p = hn::MulAdd(p, z, one);
  q = hn::MulAdd(q, z, one);
  const V32 y = hn::Div(hn::Mul(bounded, p), q);
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Min(hn::Max(y, hn::Neg(one)), one));
}

inline void TanhOf(const float* x, float* y, Index count) {
  const F32 d;
  const Index n = Lanes();
  Index i = 0;
  for (; i + n <= count; i += n) hn::StoreU(Tanh(hn::LoadU(d, x + i)), d, y + i);
  if (i < count) StoreTail(Tanh(LoadTail(x + i, count - i)), y + i, count - i);
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
