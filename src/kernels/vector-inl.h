// The vector that all kernels use, and its tails. Per-target header: see kernels.cc.
#include "hwy/highway.h"

#if defined(RAPT_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_VECTOR_INL_H_
#undef RAPT_KERNELS_VECTOR_INL_H_
#else
#define RAPT_KERNELS_VECTOR_INL_H_
#endif

#include <cstddef>
#include <cstring>
#include <type_traits>

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

// How elements are read and multiplied; those in digits are digit_dot-inl.h's.
struct Pair {};
struct Digit {};
// Where the CPU multiplies no pairs they are for tests and for who asks for them: the body of low
// tiles will do, and costs less to compile.
template <class Element>
inline constexpr bool kLowTiles = std::is_same_v<Element, Pair> && !HWY_NATIVE_DOT_BF16;
template <class Element>
struct Arithmetic;
template <>
struct Arithmetic<float> {
  static HWY_INLINE V32 Broadcast(const float* a) { return hn::Set(F32(), *a); }
  static HWY_INLINE V32 MulAdd(V32 a, V32 b, V32 sum) { return hn::MulAdd(a, b, sum); }
};
template <>
struct Arithmetic<Pair> {
  // As LoadTail() of floats, but at any address.
  static HWY_INLINE V32 LoadTail(const float* from, Index n) {
#if HWY_NATIVE_DOT_BF16
    const hn::Repartition<std::uint16_t, F32> d16;
    const auto* first = reinterpret_cast<const std::uint16_t*>(from);
    return hn::BitCast(F32(), hn::LoadN(d16, first, static_cast<size_t>(2 * n)));
#else
    float copy[hn::MaxLanes(F32())];
    std::memcpy(copy, reinterpret_cast<const char*>(from), static_cast<size_t>(n) * sizeof(float));
    return rapt::kernels::HWY_NAMESPACE::LoadTail(copy, n);
#endif
  }
  static HWY_INLINE V32 Broadcast(const float* a) {
    std::uint32_t pair;
    std::memcpy(&pair, reinterpret_cast<const char*>(a), sizeof(pair));  // not aligned to floats
    return hn::BitCast(F32(), hn::Set(hn::RebindToUnsigned<F32>(), pair));
  }
  static HWY_INLINE V32 MulAdd(V32 a, V32 b, V32 sum) {
    const F32 d;
#if HWY_NATIVE_DOT_BF16
    const hn::Repartition<hwy::bfloat16_t, F32> db;
    V32 unused = hn::Zero(d);
    return hn::ReorderWidenMulAccumulate(d, hn::BitCast(db, a), hn::BitCast(db, b), sum, unused);
#else
    const hn::RebindToUnsigned<F32> du;
    const auto first = [&](V32 v) HWY_ATTR {
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::BitCast(du, v)));
    };
    const auto second = [&](V32 v) HWY_ATTR {
      return hn::BitCast(d, hn::And(hn::BitCast(du, v), hn::Set(du, 0xffff0000u)));
    };
    return hn::MulAdd(second(a), second(b), hn::MulAdd(first(a), first(b), sum));
#endif
  }
};

// Asks for a cache line that is needed soon, but not at once: into L2, where there is room for many
// requests at a time. (Into L1, CPUs drop those that are too many.)
HWY_INLINE void PrefetchToL2(const void* at) { __builtin_prefetch(at, 0, 2); }
// The same for few lines, and into L1.
HWY_INLINE void PrefetchToRead(const void* at) { __builtin_prefetch(at, 0, 3); }
HWY_INLINE void PrefetchToWrite(const void* at) { __builtin_prefetch(at, 1, 3); }

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
