// e^x for x <= 0, as the softmax needs it. Per-target header: see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_EXP_INL_H_
#undef RAPT_KERNELS_EXP_INL_H_
#else
#define RAPT_KERNELS_EXP_INL_H_
#endif

#include <limits>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// a where a < b, else b: unlike hn::Max on some ISAs, a NaN in b stays.
HWY_INLINE V32 MaxKeepNaN(V32 a, V32 b) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSE2
  return hn::Max(a, b);  // maxps returns its second operand when either is NaN
#else
  return hn::IfThenElse(hn::Lt(b, a), a, b);
#endif
}

// The constants of e^(scale * x), in registers.
struct ExpScale {
  float log2;    // scale * log2(e): e^(scale x) = 2^(log2 x)
  float lowest;  // below this x the result is 0
  explicit ExpScale(float scale) {
    log2 = scale * 1.44269504f;
    // At 2^-127 the exponent's bits are all zero: the result is exactly 0. (Below 2^-126.5, that
    // is: the last half step is rounded to it.)
    lowest = HWY_MAX(-127.0f / log2, std::numeric_limits<float>::lowest());
  }
};

// e^(scale * x), x <= 0. Relative error below 2^-22.4 + |scale x| 2^-22.8 (the second part:
// log2(e), its product with scale, equal for all x, and without FMA the product with x are
// rounded), 0 instead of a denormal. Exact at 0; -inf gives +0; NaN stays NaN.
//
// 2^t with t = n + f, n the nearest integer, |f| <= 1/2: a polynomial for 2^f, and n put into the
// exponent by adding a constant that leaves n in the low bits of a float. 12 instructions, 7 of
// them FMA or multiply.
HWY_INLINE V32 ExpScaled(ExpScale scale, V32 x) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const V32 log2 = hn::Set(d, scale.log2);
  x = MaxKeepNaN(hn::Set(d, scale.lowest), x);
  // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits. 127: the
  // exponent's bias.
  const V32 magic = hn::Set(d, 12582912.0f + 127.0f);
  const V32 shifted = hn::MulAdd(x, log2, magic);
  const V32 n = hn::Sub(shifted, magic);
  const V32 f = hn::MulSub(x, log2, n);
  // Minimax for the relative error on [-1/2, 1/2] with the constant term fixed at 1 (linear
  // program, coefficients rounded one after the other): 9.4e-8.
  V32 p = hn::Set(d, 0.0013269521296024323f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.009671291336417198f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.0555071085691452f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022246897220612f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931470036506653f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  // A multiplication, not an integer addition to the exponent, because that could turn a NaN into a
  // number.
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted))));
}

// The same with a CPU's own floor and 2^n: 10 instructions, all of which Intel's CPUs begin two of
// in a cycle (the shift above they do not).
HWY_INLINE V32 ExpByScaling(ExpScale scale, V32 x) {
#if HWY_TARGET == HWY_AVX3_ZEN4
  const F32 d;
  const V32 t = hn::Mul(x, hn::Set(d, scale.log2));
  const V32 f{_mm512_reduce_ps(t.raw, _MM_FROUND_TO_NEG_INF)};  // t - floor(t); of -inf 0
  // Minimax as above, on [0, 1]: 8.3e-8.
  V32 p = hn::Set(d, 0.001867130515165627f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.009017029777169228f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.05579991266131401f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24016444385051727f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931512951850891f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  // Not where the result would be denormal, or vanish: that takes Intel's CPUs a hundred cycles.
  const auto normal = _mm512_cmp_ps_mask(t.raw, hn::Set(d, -126.0f).raw, _CMP_NLT_UQ);  // or NaN
  return V32{_mm512_maskz_scalef_ps(normal, p.raw, t.raw)};
#else
  return ExpScaled(scale, x);
#endif
}

inline void ExpOf(const float* x, float* y, Index count) {
  const F32 d;
  const Index n = Lanes();
  const ExpScale scale(1.0f);
  Index i = 0;
  for (; i + n <= count; i += n) hn::StoreU(ExpScaled(scale, hn::LoadU(d, x + i)), d, y + i);
  if (i < count) StoreTail(ExpScaled(scale, LoadTail(x + i, count - i)), y + i, count - i);
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
