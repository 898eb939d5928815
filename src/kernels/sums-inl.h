// Sums across lanes, by fours. Per-target header: see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_SUMS_INL_H_
#undef RAPT_KERNELS_SUMS_INL_H_
#else
#define RAPT_KERNELS_SUMS_INL_H_
#endif

#undef RAPT_BLOCKS_OF_FOUR
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
#define RAPT_BLOCKS_OF_FOUR 0
#else
#define RAPT_BLOCKS_OF_FOUR 1
#endif

#if RAPT_BLOCKS_OF_FOUR

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

using Four = hn::FixedTag<float, 4>;

// In each block of four lanes: the block's sum of each of the four.
HWY_INLINE V32 BlocksOfFour(V32 v0, V32 v1, V32 v2, V32 v3) {
  const F32 d;
  const hn::RepartitionToWide<F32> dw;
  const auto a =
      hn::BitCast(dw, hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1)));
  const auto b =
      hn::BitCast(dw, hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3)));
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(dw, a, b)),
                 hn::BitCast(d, hn::InterleaveUpper(dw, a, b)));
}

// The sum of a vector's blocks of four lanes.
template <class D>
HWY_INLINE hn::Vec<Four> AddBlocks([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return AddBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// The four sums across lanes.
HWY_INLINE hn::Vec<Four> SumsOfFour(V32 v0, V32 v1, V32 v2, V32 v3) {
  return AddBlocks(F32(), BlocksOfFour(v0, v1, v2, v3));
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RAPT_BLOCKS_OF_FOUR
#endif  // toggle
