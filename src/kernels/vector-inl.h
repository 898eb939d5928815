// The vector that all kernels use, and its tails. Per-target header: see kernels.cc.
#include "hwy/highway.h"

#if defined(RAPT_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_VECTOR_INL_H_
#undef RAPT_KERNELS_VECTOR_INL_H_
#else
#define RAPT_KERNELS_VECTOR_INL_H_
#endif

#include <cstddef>

#include "kernels/kernels.hpp"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 64 lanes are SVE's longest vector; longer ones (RVV) would only make panels too wide for the
// caches.
using F32 = hn::CappedTag<float, 64>;
using V32 = hn::Vec<F32>;

HWY_INLINE Index Lanes() { return static_cast<Index>(hn::Lanes(F32())); }

// The first n of a vector's lanes, n < Lanes(): lanes beyond are 0 when read, untouched when
// written.
HWY_INLINE V32 LoadTail(const float* from, Index n) {
  return hn::LoadN(F32(), from, static_cast<size_t>(n));
}
HWY_INLINE void StoreTail(V32 v, float* to, Index n) {
  hn::StoreN(v, F32(), to, static_cast<size_t>(n));
}

// Asks for a cache line that is needed soon, but not at once: into L2, where there is room for many
// requests at a time. (Into L1, CPUs drop those that are too many.)
HWY_INLINE void PrefetchToL2(const void* at) { __builtin_prefetch(at, 0, 2); }
// The same for few lines, and into L1.
HWY_INLINE void PrefetchToWrite(const void* at) { __builtin_prefetch(at, 1, 3); }

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
