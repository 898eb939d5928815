// A row times a matrix that comes from far: its rows are read whole, some of them in step, as
// prefetchers like it. Lanes hold columns. Per-target header: see kernels.cc.
#include "kernels/load-inl.h"

#if defined(RAPT_KERNELS_ROW_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_ROW_PRODUCT_INL_H_
#undef RAPT_KERNELS_ROW_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_ROW_PRODUCT_INL_H_
#endif

#include <type_traits>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Fewer than the eight ways of a set of L1, which they share where they lie a multiple of 4 KiB
// apart.
inline constexpr size_t kStreams = 6;

// Rows [x, x + streams) of b, whose elements of a are `factors`.
template <class T, size_t... I, class... V>
HWY_INLINE void AddRows(const RowProduct& p, Index x, std::index_sequence<I...>, V... factors) {
  const F32 d;
  const Index n = Lanes();
  constexpr Index kLine = 64;
  const T* const b[] = {RowAt<T>(p.b, x + static_cast<Index>(I))...};
  const auto ask_ahead = [&](Index row, Index col) HWY_ATTR {
    const Index next = row + static_cast<Index>(sizeof...(I));
    if (next < p.inner) PrefetchToL2(RowAt<T>(p.b, next), col);
  };
  float* HWY_RESTRICT c = p.c;
  Index col = 0;
  for (; col + n <= p.columns; col += n) {
    if (p.from_memory && BytesOf<T>(col) % kLine < BytesOf<T>(n))
      (ask_ahead(x + static_cast<Index>(I), col), ...);
    V32 sum = hn::LoadU(d, c + col);
    ((sum = hn::MulAdd(factors, LoadWide(b[I], col), sum)), ...);
    hn::StoreU(sum, d, c + col);
  }
  if (col == p.columns) return;
  V32 sum = LoadTail(c + col, p.columns - col);
  ((sum = hn::MulAdd(factors, LoadWideTail(b[I], col, p.columns - col), sum)), ...);
  StoreTail(sum, c + col, p.columns - col);
}

template <class T, size_t... I>
HWY_INLINE void AddRowsOf(const RowProduct& p, Index x, std::index_sequence<I...> streams) {
  AddRows<T>(p, x, streams, hn::Set(F32(), p.a[x + static_cast<Index>(I)])...);
}

inline void RowProductOf(const RowProduct& p) {
  ForType(p.b.type, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    if constexpr (!std::is_same_v<T, Int4Group>) {
      constexpr auto kStep = static_cast<Index>(kStreams);
      Index x = 0;
      for (; x + kStep <= p.inner; x += kStep)
        AddRowsOf<T>(p, x, std::make_index_sequence<kStreams>());
      for (; x < p.inner; ++x) AddRowsOf<T>(p, x, std::make_index_sequence<1>());
    }
  });
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
