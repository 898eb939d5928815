// A few rows times a matrix that comes from far: its rows are read whole, some of them in step, as
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

// A vector of columns of rows [x, x + streams) of b, times each row of a.
template <size_t... I, class... V>
HWY_INLINE void AddColumns(const RowProduct& p, Index x, float* c, std::index_sequence<I...>,
                           V... b) {
  const F32 d;
  const float* a = p.a + x;
  for (Index r = 0; r < p.rows; ++r, a += p.a_row, c += p.c_row) {
    V32 sum = hn::LoadU(d, c);
    ((sum = hn::MulAdd(hn::Set(d, a[I]), b, sum)), ...);
    hn::StoreU(sum, d, c);
  }
}

// Columns before the first whose b begins a vector's worth of bytes, where that is so in all rows:
// a vector that lies across lines asks for both.
template <class T>
HWY_INLINE Index ColumnsToAlign(const RowProduct& p) {
  const Index bytes = BytesOf<T>(Lanes());
  if (p.b.pages.table != nullptr || p.b.stride % bytes != 0) return 0;
  const auto beyond =
      static_cast<Index>(reinterpret_cast<std::uintptr_t>(p.b.first) % static_cast<size_t>(bytes));
  return beyond == 0 ? 0 : HWY_MIN((bytes - beyond) / BytesOf<T>(1), p.columns);
}

// Columns [col, col + columns), fewer than a vector, of rows [x, x + streams) of b. Not inlined, or
// the loop over whole vectors would have no registers for its pointers.
template <class T, size_t... I>
HWY_NOINLINE void AddFew(const RowProduct& p, Index x, Index col, Index columns,
                         std::index_sequence<I...>) {
  const F32 d;
  for (Index r = 0; r < p.rows; ++r) {
    const float* a = p.a + r * p.a_row + x;
    float* c = p.c + r * p.c_row + col;
    V32 sum = LoadTail(c, columns);
    ((sum = hn::MulAdd(hn::Set(d, a[I]),
                       LoadWideTail(RowAt<T>(p.b, x + static_cast<Index>(I)), col, columns), sum)),
     ...);
    StoreTail(sum, c, columns);
  }
}

// Rows [x, x + streams) of b times their elements of each row of a. Those of a single row,
// `factors`, stay in registers.
template <class T, size_t... I, class... V>
HWY_INLINE void AddRows(const RowProduct& p, Index x, std::index_sequence<I...> streams,
                        V... factors) {
  const F32 d;
  const Index n = Lanes();
  constexpr Index kLine = 64;
  const T* const b[] = {RowAt<T>(p.b, x + static_cast<Index>(I))...};
  const auto ask_ahead = [&](Index row, Index col) HWY_ATTR {
    const Index next = row + static_cast<Index>(sizeof...(I));
    if (next < p.inner) PrefetchToL2(RowAt<T>(p.b, next), col);
  };
  // Held here, since the compiler would read p's again after each store to c.
  float* const c = p.c;
  const Index columns = p.columns;
  const bool from_memory = p.from_memory;
  Index col = ColumnsToAlign<T>(p);
  if (col > 0) AddFew<T>(p, x, 0, col, streams);
  for (; col + n <= columns; col += n) {
    if (from_memory && BytesOf<T>(col) % kLine < BytesOf<T>(n))
      (ask_ahead(x + static_cast<Index>(I), col), ...);
    if constexpr (sizeof...(V) > 0) {
      V32 sum = hn::LoadU(d, c + col);
      ((sum = hn::MulAdd(factors, LoadWide(b[I], col), sum)), ...);
      hn::StoreU(sum, d, c + col);
    } else {
      AddColumns(p, x, c + col, std::index_sequence<I...>(), LoadWide(b[I], col)...);
    }
  }
  if (col < columns) AddFew<T>(p, x, col, columns - col, streams);
}

template <class T, size_t... I>
HWY_INLINE void AddRowsOf(const RowProduct& p, Index x, std::index_sequence<I...> streams) {
  if (p.rows == 1) {
    AddRows<T>(p, x, streams, hn::Set(F32(), p.a[x + static_cast<Index>(I)])...);
  } else {
    AddRows<T>(p, x, streams);
  }
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
