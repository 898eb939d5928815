// Weights and gradients of scores rounded to bf16, for products of pairs. Per-target header: see
// kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_ROUND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_ROUND_INL_H_
#undef RAPT_KERNELS_ROUND_INL_H_
#else
#define RAPT_KERNELS_ROUND_INL_H_
#endif

#include <array>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Two numbers of each lane, rounded to bf16, as a pair.
HWY_INLINE V32 PairsOf(V32 first, V32 second) {
#if HWY_TARGET == HWY_AVX3_ZEN4  // one instruction rounds both, one mixes them
  const hn::Repartition<hwy::bfloat16_t, F32> d_pairs;
  const hn::RebindToUnsigned<decltype(d_pairs)> d_bits;
  constexpr size_t kHalf = hn::MaxLanes(F32());
  alignas(64) static constexpr auto kMix = [] {
    std::array<std::uint16_t, 2 * kHalf> mix{};
    for (size_t i = 0; i < 2 * kHalf; ++i)
      mix[i] = static_cast<std::uint16_t>(i / 2 + i % 2 * kHalf);
    return mix;
  }();
  const auto rounded = hn::BitCast(d_bits, hn::OrderedDemote2To(d_pairs, first, second));
  return hn::BitCast(
      F32(),
      hn::TableLookupLanes(rounded, hn::IndicesFromVec(d_bits, hn::Load(d_bits, kMix.data()))));
#else
  const hn::RebindToUnsigned<F32> d;
  const hn::Rebind<hwy::bfloat16_t, F32> d_bf16;
  const hn::Rebind<std::uint16_t, F32> d16;
  const auto bits = [&](V32 v) HWY_ATTR {
    return hn::PromoteTo(d, hn::BitCast(d16, hn::DemoteTo(d_bf16, v)));
  };
  return hn::BitCast(F32(), hn::Or(bits(first), hn::ShiftLeft<16>(bits(second))));
#endif
}

// The numbers of two vectors, rounded to bf16: neighbours, of the first and then of the second, as
// pairs.
HWY_INLINE V32 PairsAcross(V32 first, V32 second) {
#if HWY_TARGET == HWY_SCALAR
  return PairsOf(first, second);
#else
  const hn::Repartition<hwy::bfloat16_t, F32> d_pairs;
  return hn::BitCast(F32(), hn::OrderedDemote2To(d_pairs, first, second));
#endif
}

HWY_INLINE void StoreRounded(V32 v, BFloat16* to) {
  const hn::Rebind<hwy::bfloat16_t, F32> d;
  hn::StoreU(hn::DemoteTo(d, v), d, reinterpret_cast<hwy::bfloat16_t*>(to));
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
