// Products whose two operands both lie along k: lanes hold k. Per-target header: see kernels.cc.
//
// For few rows (decode, x W^T): each row of b is read once, in its own order, for up to kMaxDotRows
// rows of a.
#include "kernels/vector-inl.h"

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

template <int kRows, int kColumns>
struct DotTile {
  static constexpr size_t kC = kColumns;

  static void Run(const DotProduct& p, const float* a, const float* b, float* c) {
    Start(p, a, b, c, std::make_index_sequence<kRows * kColumns>());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const DotProduct& p, const float* a, const float* b, float* c,
                               std::index_sequence<I...> indices) {
    Multiply(p, a, b, c, indices, (static_cast<void>(I), hn::Zero(F32()))...);
  }

  // Accumulator i is row i / kColumns of a, row i % kColumns of b.
  template <size_t... I, class... V>
  static HWY_INLINE void Multiply(const DotProduct& p, const float* HWY_RESTRICT a,
                                  const float* HWY_RESTRICT b, float* c, std::index_sequence<I...>,
                                  V... acc) {
    const F32 d;
    const Index n = Lanes();
    Index x = 0;
    for (; x + n <= p.inner; x += n) {
      ((acc = hn::MulAdd(hn::LoadU(d, a + static_cast<Index>(I / kC) * p.a_row + x),
                         hn::LoadU(d, b + static_cast<Index>(I % kC) * p.b_row + x), acc)),
       ...);
    }
    if (x < p.inner) {
      const Index tail = p.inner - x;
      ((acc = hn::MulAdd(LoadTail(a + static_cast<Index>(I / kC) * p.a_row + x, tail),
                         LoadTail(b + static_cast<Index>(I % kC) * p.b_row + x, tail), acc)),
       ...);
    }
    (Finish(p, hn::ReduceSum(d, acc),
            c + static_cast<Index>(I / kC) * p.c_row + static_cast<Index>(I % kC) * p.c_column),
     ...);
  }

  static HWY_INLINE void Finish(const DotProduct& p, float sum, float* c) {
    *c = p.alpha * sum + (p.beta == nullptr ? 0.0f : *p.beta * *c);
  }
};

// All rows of a for the same few rows of b, so that b passes once.
template <int kColumns>
void DotColumns(const DotProduct& p, const float* b, float* c) {
  using Function = void (*)(const DotProduct&, const float*, const float*, float*);
  static constexpr auto kTiles = []<size_t... R>(std::index_sequence<R...>) {
    return std::array<Function, kMaxDotRows>{&DotTile<static_cast<int>(R) + 1, kColumns>::Run...};
  }(std::make_index_sequence<kMaxDotRows>());
  for (Index row = 0; row < p.rows; row += kMaxDotRows) {
    const Index rows = HWY_MIN(p.rows - row, Index{kMaxDotRows});
    kTiles[static_cast<size_t>(rows - 1)](p, p.a + row * p.a_row, b, c + row * p.c_row);
  }
}

inline void DotProductOf(const DotProduct& p) {
  Index col = 0;
  for (; col + kDotColumns <= p.columns; col += kDotColumns) {
    DotColumns<kDotColumns>(p, p.b + col * p.b_row, p.c + col * p.c_column);
  }
  for (; col < p.columns; ++col) DotColumns<1>(p, p.b + col * p.b_row, p.c + col * p.c_column);
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
