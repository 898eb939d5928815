// Products whose two operands both lie along k: lanes hold k. Per-target header: see kernels.cc.
//
// For few rows (decode, x W^T): each row of b is read once, in its own order and its own storage
// type, for up to kMaxDotRows rows of a.
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
inline constexpr Index kDotColumns = 4;  // of b at once: enough streams for the prefetchers
inline constexpr Index kDotAhead = 16;   // columns from a prefetch to its use

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

template <class T, int kRows>
struct DotTile {
  static constexpr size_t kC = kDotColumns;

  // Columns [col, col + columns), of which there may be fewer than four: the last stands for those
  // that are missing, so that a column's sum has the same order wherever it stands.
  static void Run(const DotProduct& p, Index row, Index col, Index columns) {
    Start(p, row, col, columns, std::make_index_sequence<kRows * kDotColumns>());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const DotProduct& p, Index row, Index col, Index columns,
                               std::index_sequence<I...> indices) {
    Multiply(p, row, col, columns, indices, std::make_index_sequence<kTogether<T>>(),
             (static_cast<void>(I), hn::Zero(F32()))...);
  }

  // Accumulator i is row i / 4 of a, row i % 4 of b.
  template <size_t... I, size_t... Nth, class... V>
  static HWY_INLINE void Multiply(const DotProduct& p, Index row, Index col, Index columns,
                                  std::index_sequence<I...>, std::index_sequence<Nth...>,
                                  V... acc) {
    const F32 d;
    const Index n = Lanes();
    const float* HWY_RESTRICT a = p.a + row * p.a_row;
    const Index last = columns - 1;
    const T* HWY_RESTRICT b0 = RowAt<T>(p.b, col);
    const T* HWY_RESTRICT b1 = RowAt<T>(p.b, col + HWY_MIN(1, last));
    const T* HWY_RESTRICT b2 = RowAt<T>(p.b, col + HWY_MIN(2, last));
    const T* HWY_RESTRICT b3 = RowAt<T>(p.b, col + HWY_MIN(3, last));
    // What the CPU's own prefetchers lose where rows end.
    const Index ahead = HWY_MIN(col + kDotAhead, p.columns - columns);
    const T* next0 = RowAt<T>(p.b, ahead);
    const T* next1 = RowAt<T>(p.b, ahead + HWY_MIN(1, last));
    const T* next2 = RowAt<T>(p.b, ahead + HWY_MIN(2, last));
    const T* next3 = RowAt<T>(p.b, ahead + HWY_MIN(3, last));
    const auto multiply = [&](auto load_a, auto load_b, Index x) HWY_ATTR {
      const V32 k0 = load_b(b0, x), k1 = load_b(b1, x), k2 = load_b(b2, x), k3 = load_b(b3, x);
      ((acc = hn::MulAdd(load_a(a + static_cast<Index>(I / kC) * p.a_row + x),
                         I % kC == 0   ? k0
                         : I % kC == 1 ? k1
                         : I % kC == 2 ? k2
                                       : k3,
                         acc)),
       ...);
    };
    Index x = 0;
    for (; x + kTogether<T> * n <= p.inner; x += kTogether<T> * n) {
      PrefetchAt(next0, x);
      PrefetchAt(next1, x);
      PrefetchAt(next2, x);
      PrefetchAt(next3, x);
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
    Finish(p, row, col, columns, acc...);
  }

  template <class... V>
  static HWY_INLINE void Finish(const DotProduct& p, Index row, Index col, Index columns, V32 v0,
                                V32 v1, V32 v2, V32 v3, V... rest) {
    float* c = p.c + row * p.c_row + col * p.c_column;
#ifdef RAPT_BLOCKS_OF_FOUR
    const Four d4;
    auto four = hn::Mul(SumsOfFour(v0, v1, v2, v3), hn::Set(d4, p.alpha));
    if (p.b_scale != nullptr)
      four = hn::Mul(four, hn::LoadN(d4, p.b_scale + col, static_cast<size_t>(columns)));
    if (p.c_column == 1 && p.beta == nullptr && columns == kDotColumns) {
      hn::StoreU(four, d4, c);
    } else {
      float sums[kDotColumns];
      hn::StoreU(four, d4, sums);
      Store(p, sums, columns, c);
    }
#else
    const F32 d;
    float sums[kDotColumns];
    sums[0] = hn::ReduceSum(d, v0);
    sums[1] = hn::ReduceSum(d, v1);
    sums[2] = hn::ReduceSum(d, v2);
    sums[3] = hn::ReduceSum(d, v3);
    for (Index i = 0; i < columns; ++i) {
      sums[i] *= p.alpha;
      if (p.b_scale != nullptr) sums[i] *= p.b_scale[col + i];
    }
    Store(p, sums, columns, c);
#endif
    if constexpr (sizeof...(V) > 0) Finish(p, row + 1, col, columns, rest...);
  }

  static HWY_INLINE void Store(const DotProduct& p, const float* sums, Index columns, float* c) {
    for (Index i = 0; i < kDotColumns && i < columns; ++i) {
      float& to = c[i * p.c_column];
      to = p.beta == nullptr ? sums[i] : sums[i] + *p.beta * to;
    }
  }
};

inline void DotProductOf(const DotProduct& p) {
  ForType(p.b.type, [&](auto t) HWY_ATTR {
    using Function = void (*)(const DotProduct&, Index, Index, Index);
    static constexpr auto kTiles = []<size_t... R>(std::index_sequence<R...>) {
      return std::array<Function, kMaxDotRows>{
          &DotTile<decltype(t), static_cast<int>(R) + 1>::Run...};
    }(std::make_index_sequence<kMaxDotRows>());
    // All rows of a for the same few rows of b, so that b passes once.
    for (Index col = 0; col < p.columns; col += kDotColumns) {
      const Index columns = HWY_MIN(p.columns - col, kDotColumns);
      for (Index row = 0; row < p.rows; row += kMaxDotRows) {
        kTiles[static_cast<size_t>(HWY_MIN(p.rows - row, Index{kMaxDotRows}) - 1)](p, row, col,
                                                                                   columns);
      }
    }
  });
}

#undef RAPT_BLOCKS_OF_FOUR

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
