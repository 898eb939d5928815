// A row of floats as numbers of 32 bits in four digits of 8,
//
//   x = unit * (d0 + 2^8 d1 + 2^16 d2 + 2^24 d3),  digits from -128 to 127,
//
// which are multiplied by integers of 8 bits as these are stored, and each digit's sum is exact.
// Per-target header: see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_DIGITS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_DIGITS_INL_H_
#undef RAPT_KERNELS_DIGITS_INL_H_
#else
#define RAPT_KERNELS_DIGITS_INL_H_
#endif

#include <cmath>

#if HWY_TARGET != HWY_SCALAR  // of which a vector has no four bytes to sort

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Calls f(a vector, where it begins), the last with zeros.
template <class F>
HWY_INLINE void EachVector(const float* row, Index n, const F& f) {
  Index x = 0;
  for (; x + Lanes() <= n; x += Lanes()) f(hn::LoadU(F32(), row + x), x);
  if (x < n) f(LoadTail(row + x, n - x), x);
}

// A power of two that makes the largest a number of 2^30 and more, but of four digits; 0 if there
// is none.
inline float UnitOf(const float* row, Index n) {
  const F32 d;
  V32 most = hn::Zero(d), sum = hn::Zero(d);
  EachVector(row, n, [&](V32 v, Index) HWY_ATTR {
    most = hn::Max(most, hn::Abs(v));
    sum = hn::MulAdd(v, hn::Zero(d), sum);  // NaN, if one is not finite
  });
  if (!hn::AllTrue(d, hn::Eq(sum, sum))) return 0.0f;
  const float largest = hn::ReduceMax(d, most);
  if (largest == 0.0f) return 1.0f;
  constexpr float kSmallest = 0x1p-90f, kMostNumber = 0x1p31f - 0x1p24f;
  if (largest < kSmallest) return 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &largest, sizeof bits);
  bits = (bits & 0x7f800000u) - (30u << 23);
  float unit;
  std::memcpy(&unit, &bits, sizeof unit);
  return largest > kMostNumber * unit ? 2.0f * unit : unit;
}

// Calls put(x, words) for each four numbers from x on: a word for each digit, of the four. After
// the n-th they are 0. Returns the unit; or 0 where digits do not say what the row is: each number
// with a relative error of at most 4 sqrt(n) 2^-24, less than that of sums of 32 and more floats.
// So it is with numbers of very unequal size, with NaN and infinity.
template <class Put>
HWY_INLINE float CutInDigits(const float* row, Index n, const Put& put) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Repartition<std::uint8_t, F32> d8;
  const float unit = UnitOf(row, n);
  if (unit == 0.0f) return 0.0f;
  const V32 inverse = hn::Set(d, 1.0f / unit);
  // What is rounded, by up to a half, must be so large.
  const V32 least = hn::Set(d, 0x1p21f / std::sqrt(static_cast<float>(n)));
  auto good = hn::Eq(inverse, inverse);
  // With 128 more a digit is not negative, so it borrows nothing of the next.
  const auto halves = hn::Set(di, static_cast<std::int32_t>(0x80808080u));
  alignas(16) static constexpr std::uint8_t kByDigit[16] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                            2, 6, 10, 14, 3, 7, 11, 15};
  const auto by_digit = hn::LoadDup128(d8, kByDigit);
  EachVector(row, n, [&](V32 v, Index x) HWY_ATTR {
    const V32 scaled = hn::Mul(v, inverse);
    const auto number = hn::NearestInt(scaled);
    good = hn::And(
        good, hn::Or(hn::Eq(hn::ConvertTo(d, number), scaled), hn::Ge(hn::Abs(scaled), least)));
    const auto digits = hn::Xor(hn::Add(number, halves), halves);
    HWY_ALIGN float words[hn::MaxLanes(F32())];
    hn::Store(hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, digits), by_digit)), d, words);
    const Index end = HWY_MIN(x + Lanes(), (n + 3) / 4 * 4);
    for (Index at = x; at < end; at += 4) put(at, words + (at - x));
  });
  return hn::AllTrue(d, good) ? unit : 0.0f;
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // HWY_SCALAR
#endif  // toggle
