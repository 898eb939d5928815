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
inline constexpr int kDotColumns =
    4;  // of b at once: enough streams for the prefetchers, 16 accumulators

template <class T, int kRows, int kColumns>
struct DotTile {
  static constexpr size_t kC = kColumns;

  static void Run(const DotProduct& p, Index row, Index col) {
    Start(p, row, col, std::make_index_sequence<kRows * kColumns>());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const DotProduct& p, Index row, Index col,
                               std::index_sequence<I...> indices) {
    Multiply(p, row, col, indices, (static_cast<void>(I), hn::Zero(F32()))...);
  }

  // Accumulator i is row i / kColumns of a, row i % kColumns of b.
  template <size_t... I, class... V>
  static HWY_INLINE void Multiply(const DotProduct& p, Index row, Index col,
                                  std::index_sequence<I...>, V... acc) {
    const F32 d;
    const Index n = Lanes();
    const float* HWY_RESTRICT a = p.a + row * p.a_row;
    const T* b[kColumns];
    for (int c = 0; c < kColumns; ++c) b[c] = static_cast<const T*>(p.b[col + c]);
    Index x = 0;
    for (; x + n <= p.inner; x += n) {
      ((acc = hn::MulAdd(hn::LoadU(d, a + static_cast<Index>(I / kC) * p.a_row + x),
                         LoadWide(b[I % kC] + x), acc)),
       ...);
    }
    if (x < p.inner) {
      const Index tail = p.inner - x;
      ((acc = hn::MulAdd(LoadTail(a + static_cast<Index>(I / kC) * p.a_row + x, tail),
                         LoadWideTail(b[I % kC] + x, tail), acc)),
       ...);
    }
    (Finish(p, hn::ReduceSum(d, acc), row + static_cast<Index>(I / kC),
            col + static_cast<Index>(I % kC)),
     ...);
  }

  static HWY_INLINE void Finish(const DotProduct& p, float sum, Index row, Index col) {
    float& c = p.c[row * p.c_row + col * p.c_column];
    if (p.b_scale != nullptr) sum *= p.b_scale[col];
    c = p.alpha * sum + (p.beta == nullptr ? 0.0f : *p.beta * c);
  }
};

// All rows of a for the same few rows of b, so that b passes once.
template <class T, int kColumns>
void DotColumns(const DotProduct& p, Index col) {
  using Function = void (*)(const DotProduct&, Index, Index);
  static constexpr auto kTiles = []<size_t... R>(std::index_sequence<R...>) {
    return std::array<Function, kMaxDotRows>{
        &DotTile<T, static_cast<int>(R) + 1, kColumns>::Run...};
  }(std::make_index_sequence<kMaxDotRows>());
  for (Index row = 0; row < p.rows; row += kMaxDotRows)
    kTiles[static_cast<size_t>(HWY_MIN(p.rows - row, Index{kMaxDotRows}) - 1)](p, row, col);
}

inline void DotProductOf(const DotProduct& p) {
  ForType(p.b_type, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    Index col = 0;
    for (; col + kDotColumns <= p.columns; col += kDotColumns) DotColumns<T, kDotColumns>(p, col);
    for (; col < p.columns; ++col) DotColumns<T, 1>(p, col);
  });
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
