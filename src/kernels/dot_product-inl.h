// Products whose two operands both lie along k: lanes hold k. Per-target header: see kernels.cc.
//
// For few rows (decode, x W^T): each row of b is read once, in its own order and its own storage
// type, for up to kMaxDotRows rows of a. Three or four rows are read at once that lie a third or a
// quarter of b apart: few streams, each in order, is what the CPU's prefetchers follow to memory.
// With neighbours side by side they bring half as much.
#include "kernels/load-inl.h"

#if defined(RAPT_KERNELS_DOT_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_DOT_PRODUCT_INL_H_
#undef RAPT_KERNELS_DOT_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_DOT_PRODUCT_INL_H_
#endif

#include <array>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

inline constexpr int kMaxDotRows = 4;
// Rows of b at once: 4 x 3 accumulators, three vectors of b and one of a fill 16 registers.
inline constexpr Index DotColumns(Index rows) { return RAPT_MANY_REGISTERS || rows <= 2 ? 4 : 3; }
inline constexpr Index kDotAhead = 8;  // rows of a stream from asking to use

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
#define RAPT_BLOCKS_OF_FOUR 1
using Four = hn::FixedTag<float, 4>;

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
  const F32 d;
  const hn::RepartitionToWide<F32> dw;
  const auto a =
      hn::BitCast(dw, hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1)));
  const auto b =
      hn::BitCast(dw, hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3)));
  // In every block: a partial sum of each.
  return AddBlocks(d, hn::Add(hn::BitCast(d, hn::InterleaveLower(dw, a, b)),
                              hn::BitCast(d, hn::InterleaveUpper(dw, a, b))));
}
#endif

template <class T, int kRows, Index kColumns>
struct DotTile {
  static constexpr size_t kC = 4;  // accumulators of a row: of three columns the last is not used

  // Columns col, col + apart, col + 2 apart, ... Those that do not exist are computed of the last
  // one, and not stored.
  static void Run(const DotProduct& p, Index row, Index col, Index apart) {
    Start(p, row, col, apart, std::make_index_sequence<kRows * kC>());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const DotProduct& p, Index row, Index col, Index apart,
                               std::index_sequence<I...> indices) {
    Multiply(p, row, col, apart, indices, std::make_index_sequence<kTogether<T>>(),
             (static_cast<void>(I), hn::Zero(F32()))...);
  }

  // Accumulator i is row i / 4 of a, row i % 4 of b.
  template <size_t... I, size_t... Nth, class... V>
  static HWY_INLINE void Multiply(const DotProduct& p, Index row, Index col, Index apart,
                                  std::index_sequence<I...>, std::index_sequence<Nth...>,
                                  V... acc) {
    const F32 d;
    const Index n = Lanes();
    const float* HWY_RESTRICT a = p.a + row * p.a_row;
    const Index last = p.columns - 1;
    const T* HWY_RESTRICT b0 = RowAt<T>(p.b, col);
    const T* HWY_RESTRICT b1 = RowAt<T>(p.b, HWY_MIN(col + apart, last));
    const T* HWY_RESTRICT b2 = RowAt<T>(p.b, HWY_MIN(col + 2 * apart, last));
    const T* HWY_RESTRICT b3 = RowAt<T>(p.b, HWY_MIN(col + 3 * apart, last));
    // Asked for once, where arithmetic or jumps from page to page hold the CPU's prefetchers up.
    const bool ask = row == 0 && (kRows > 1 || p.b.rows != nullptr);
    const T* next0 = RowAt<T>(p.b, HWY_MIN(col + kDotAhead, last));
    const T* next1 = RowAt<T>(p.b, HWY_MIN(col + kDotAhead + apart, last));
    const T* next2 = RowAt<T>(p.b, HWY_MIN(col + kDotAhead + 2 * apart, last));
    const T* next3 = RowAt<T>(p.b, HWY_MIN(col + kDotAhead + 3 * apart, last));
    const auto multiply = [&](auto load_a, auto load_b,
                              Index x) HWY_ATTR __attribute__((always_inline)) {
      const V32 k0 = load_b(b0, x), k1 = load_b(b1, x), k2 = load_b(b2, x);
      V32 k3 = k2;
      if constexpr (kColumns == 4) k3 = load_b(b3, x);
      ((acc = I % kC == kColumns ? acc
                                 : hn::MulAdd(load_a(a + static_cast<Index>(I / kC) * p.a_row + x),
                                              I % kC == 0   ? k0
                                              : I % kC == 1 ? k1
                                              : I % kC == 2 ? k2
                                                            : k3,
                                              acc)),
       ...);
    };
    Index x = 0;
    for (; x + kTogether<T> * n <= p.inner; x += kTogether<T> * n) {
      if (ask) {
        PrefetchToL2(next0, x);
        PrefetchToL2(next1, x);
        PrefetchToL2(next2, x);
        if constexpr (kColumns == 4) PrefetchToL2(next3, x);
      }
      (multiply([&](const float* from) HWY_ATTR { return hn::LoadU(d, from); },
                [&](const T* b, Index) HWY_ATTR { return LoadNth<Nth>(b, x); },
                x + static_cast<Index>(Nth) * n),
       ...);
    }
    if (x < p.inner) {
      const Index tail = p.inner - x;
      multiply([&](const float* from) HWY_ATTR { return LoadTail(from, tail); },
               [&](const T* b, Index at) HWY_ATTR { return LoadWideTail(b, at, tail); }, x);
    }
    // The common case in vectors: no loop over columns, whose factors are the same for all rows.
#ifdef RAPT_BLOCKS_OF_FOUR
    const Four d4;
    if (p.beta == nullptr && col + (kColumns - 1) * apart < p.columns) {
      auto factors = hn::Set(d4, p.alpha);
      if (p.b_scale != nullptr) {
        const float* s = p.b_scale + col;
        factors = hn::Mul(factors, hn::Dup128VecFromValues(d4, s[0], s[apart], s[2 * apart],
                                                           s[(kColumns - 1) * apart]));
      }
      return StoreFour(p, p.c + row * p.c_row + col * p.c_column, apart, factors, acc...);
    }
#endif
    StoreAny(p, row, col, apart, acc...);
  }

#ifdef RAPT_BLOCKS_OF_FOUR
  template <class... V>
  static HWY_INLINE void StoreFour(const DotProduct& p, float* c, Index apart,
                                   hn::Vec<Four> factors, V32 v0, V32 v1, V32 v2, V32 v3,
                                   V... rest) {
    const auto sums = hn::Mul(SumsOfFour(v0, v1, v2, v3), factors);
    const Index step = apart * p.c_column;
    c[0] = hn::ExtractLane(sums, 0);
    c[step] = hn::ExtractLane(sums, 1);
    c[2 * step] = hn::ExtractLane(sums, 2);
    if constexpr (kColumns == 4) c[3 * step] = hn::ExtractLane(sums, 3);
    if constexpr (sizeof...(V) > 0) StoreFour(p, c + p.c_row, apart, factors, rest...);
  }
#endif

  template <class... V>
  static HWY_INLINE void StoreAny(const DotProduct& p, Index row, Index first, Index apart, V32 v0,
                                  V32 v1, V32 v2, V32 v3, V... rest) {
    float sums[kC];
#ifdef RAPT_BLOCKS_OF_FOUR
    hn::StoreU(SumsOfFour(v0, v1, v2, v3), Four(), sums);
#else
    const F32 d;
    sums[0] = hn::ReduceSum(d, v0);
    sums[1] = hn::ReduceSum(d, v1);
    sums[2] = hn::ReduceSum(d, v2);
    sums[3] = hn::ReduceSum(d, v3);
#endif
    float* c = p.c + row * p.c_row;
    Index col = first;
    for (Index i = 0; i < kColumns && col < p.columns; ++i, col += apart) {
      const float factor = p.b_scale == nullptr ? p.alpha : p.alpha * p.b_scale[col];
      float& to = c[col * p.c_column];
      to = p.beta == nullptr ? sums[i] * factor : sums[i] * factor + *p.beta * to;
    }
    if constexpr (sizeof...(V) > 0) StoreAny(p, row + 1, first, apart, rest...);
  }
};

// All rows of a, in tiles of nearly equal height, for the same few rows of b, so that b passes
// once.
template <class T, Index kColumns>
void DotTiles(const DotProduct& p) {
  using Function = void (*)(const DotProduct&, Index, Index, Index);
  static constexpr auto kTiles = []<size_t... R>(std::index_sequence<R...>) {
    return std::array<Function, kMaxDotRows>{
        &DotTile<T, static_cast<int>(R) + 1, kColumns>::Run...};
  }(std::make_index_sequence<kMaxDotRows>());
  const Index apart = (p.columns + kColumns - 1) / kColumns;
  const Index tiles = (p.rows + kMaxDotRows - 1) / kMaxDotRows;
  for (Index col = 0; col < apart; ++col) {
    for (Index tile = 0, row = 0; tile < tiles; ++tile) {
      const Index rows = (p.rows - row + tiles - tile - 1) / (tiles - tile);
      kTiles[static_cast<size_t>(rows - 1)](p, row, col, apart);
      row += rows;
    }
  }
}

inline void DotProductOf(const DotProduct& p) {
  ForType(p.b.type, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    DotColumns(p.rows) == 4 ? DotTiles<T, 4>(p) : DotTiles<T, DotColumns(kMaxDotRows)>(p);
  });
}

#undef RAPT_BLOCKS_OF_FOUR

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
