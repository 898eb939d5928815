// The end of a matrix product: a row of c gets its bias and its activation. Per-target header: see
// kernels.cc.
#include "kernels/exp-inl.h"

#if defined(RAPT_KERNELS_FINISH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_FINISH_INL_H_
#undef RAPT_KERNELS_FINISH_INL_H_
#else
#define RAPT_KERNELS_FINISH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

struct Identity {
  static HWY_INLINE V32 Of(V32 x) { return x; }
};

struct Relu {
  static HWY_INLINE V32 Of(V32 x) {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(F32())), hn::Zero(F32()), x);
  }
};

// x Phi(x) = x erfc(-x / sqrt 2) / 2, with erfc(z) = t e^(-z^2 + q(t)), t = 1 / (1 + z/2) for z >=
// 0 and erfc(-z) = 2 - erfc(z). q: a Chebyshev fit with fractional error 1.2e-7 (Press et al.,
// Numerical Recipes, 6.2).
struct Gelu {
  static HWY_INLINE V32 Of(V32 x) {
    const F32 d;
    const V32 half = hn::Set(d, 0.5f);
    // Beyond 15 the tail is far below the smallest float; it also keeps inf - inf out of the
    // exponent.
    const V32 z = hn::Min(hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678f)), hn::Set(d, 15.0f));
    const V32 t = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(z, half, hn::Set(d, 1.0f)));
    V32 q = hn::Set(d, 0.17087277f);
    q = hn::MulAdd(q, t, hn::Set(d, -0.82215223f));
    q = hn::MulAdd(q, t, hn::Set(d, 1.48851587f));
    q = hn::MulAdd(q, t, hn::Set(d, -1.13520398f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.27886807f));
    q = hn::MulAdd(q, t, hn::Set(d, -0.18628806f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.09678418f));
    q = hn::MulAdd(q, t, hn::Set(d, 0.37409196f));
    q = hn::MulAdd(q, t, hn::Set(d, 1.00002368f));
    q = hn::MulAdd(q, t, hn::Set(d, -1.26551223f));
    const V32 tail =
        hn::Mul(hn::Mul(half, t), ExpScaled(ExpScale(1.0f), hn::NegMulAdd(z, z, q)));  // Phi(-|x|)
    const V32 phi = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0f), tail));
    // NaN stays; at -inf the tail is 0, and 0 times -inf would not be.
    return hn::IfThenElse(hn::Lt(x, hn::Set(d, -20.0f)), hn::Zero(d), hn::Mul(x, phi));
  }
};

template <class Activation>
HWY_INLINE void FinishRow(float* row, const float* bias, Index count) {
  const F32 d;
  const Index n = Lanes();
  Index i = 0;
  for (; i + n <= count; i += n) {
    V32 x = hn::LoadU(d, row + i);
    if (bias != nullptr) x = hn::Add(x, hn::LoadU(d, bias + i));
    hn::StoreU(Activation::Of(x), d, row + i);
  }
  if (i < count) {
    V32 x = LoadTail(row + i, count - i);
    if (bias != nullptr) x = hn::Add(x, LoadTail(bias + i, count - i));
    StoreTail(Activation::Of(x), row + i, count - i);
  }
}

inline void FinishOf(float* row, const float* bias, Index n, Finish finish) {
  switch (finish) {
    case Finish::none:
      return FinishRow<Identity>(row, bias, n);
    case Finish::relu:
      return FinishRow<Relu>(row, bias, n);
    case Finish::gelu:
      return FinishRow<Gelu>(row, bias, n);
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
