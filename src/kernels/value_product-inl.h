// p v for few rows (decode): every value is read once, where it lies and as it is stored, for all
// rows. Lanes hold d_v. Per-target header: see kernels.cc.
#include "kernels/load-inl.h"

#if defined(RAPT_KERNELS_VALUE_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_VALUE_PRODUCT_INL_H_
#undef RAPT_KERNELS_VALUE_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_VALUE_PRODUCT_INL_H_
#endif

#include <utility>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

inline constexpr Index kValuesAhead = 16;  // keys from a prefetch to its use
inline constexpr float kOnes[8] = {1, 1, 1, 1, 1, 1, 1, 1};

template <class T, int kRows, int kVectors>
struct ValueTile {
  static constexpr size_t kV = kVectors;

  // Keys [begin, end).
  static void Run(const ValueProduct& p, Index row, Index col, Index begin, Index end) {
    Start(p, row, col, begin, end, std::make_index_sequence<kRows * kVectors>());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const ValueProduct& p, Index row, Index col, Index begin, Index end,
                               std::index_sequence<I...> indices) {
    const F32 d;
    const size_t n = hn::Lanes(d);
    const float* rescale = begin == 0 ? p.rescale + row : kOnes;
    float* out = p.out + row * p.out_row + col;
    Multiply(p, p.p + row * p.p_row, out, col, begin, end, indices,
             hn::Mul(hn::LoadU(d, out + static_cast<Index>(I / kV) * p.out_row + (I % kV) * n),
                     hn::Set(d, rescale[I / kV]))...);
  }

  template <size_t kVector>
  static HWY_INLINE V32 Load(const T* v, Index col) {
    if constexpr (kV % kTogether<T> == 0) {
      return LoadNth<kVector>(v, col);
    } else {
      return LoadWide(v, col + static_cast<Index>(kVector) * Lanes());
    }
  }

  // Accumulator i is row i / kVectors, vector i % kVectors.
  template <size_t... I, class... V>
  static HWY_INLINE void Multiply(const ValueProduct& p, const float* HWY_RESTRICT weights,
                                  float* out, Index col, Index begin, Index end,
                                  std::index_sequence<I...>, V... acc) {
    const F32 d;
    const size_t n = hn::Lanes(d);
    for (Index j = begin; j < end; ++j) {
      const T* HWY_RESTRICT v = RowAt<T>(p.v, j);
      const T* next = RowAt<T>(p.v, HWY_MIN(j + kValuesAhead, p.n - 1));
      for (size_t i = 0; i < kV; ++i) PrefetchAt(next, col + static_cast<Index>(i * n));
      ((acc = hn::MulAdd(hn::Set(d, weights[static_cast<Index>(I / kV) * p.p_row + j]),
                         Load<I % kV>(v, col), acc)),
       ...);
    }
    (hn::StoreU(acc, d, out + static_cast<Index>(I / kV) * p.out_row + (I % kV) * n), ...);
  }
};

// The columns that fill no vector.
template <class T>
void ValueTail(const ValueProduct& p, Index col) {
  const F32 d;
  const Index n = p.columns - col;
  for (Index r = 0; r < p.rows; ++r) {
    float* out = p.out + r * p.out_row + col;
    V32 acc = hn::Mul(LoadTail(out, n), hn::Set(d, p.rescale[r]));
    for (Index j = 0; j < p.n; ++j) {
      acc =
          hn::MulAdd(hn::Set(d, p.p[r * p.p_row + j]), LoadWideTail(RowAt<T>(p.v, j), col, n), acc);
    }
    StoreTail(acc, out, n);
  }
}

// Columns [col, p.columns), as many as whole tiles of kVectors hold; returns the first that is
// left.
template <class T, int kRows, int kVectors>
Index ValueColumns(const ValueProduct& p, Index row, Index col, Index begin, Index end) {
  const Index step = kVectors * Lanes();
  for (; col + step <= p.columns; col += step)
    ValueTile<T, kRows, kVectors>::Run(p, row, col, begin, end);
  return col;
}

// kRows rows in the widest tiles that leave registers free. Several tiles read the same keys: some
// of them at a time, which stay in L1.
template <class T, int kRows, int kWidest>
void ValueRows(const ValueProduct& p, Index row) {
  constexpr Index kKeys = 32;
  Index begin = 0;
  do {  // once at least: rescale
    const Index end = HWY_MIN(begin + kKeys, p.n);
    Index col = ValueColumns<T, kRows, kWidest>(p, row, 0, begin, end);
    if constexpr (kWidest > 2) col = ValueColumns<T, kRows, 2>(p, row, col, begin, end);
    ValueColumns<T, kRows, 1>(p, row, col, begin, end);
    begin = end;
  } while (begin < p.n);
}

inline void ValueProductOf(const ValueProduct& p) {
  ForType(p.v.type, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    constexpr bool kMany = HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64 || HWY_ARCH_RISCV;
    Index row = 0;
    if constexpr (kMany) {
      for (; row + 8 <= p.rows; row += 8) ValueRows<T, 8, kTogether<T> == 2 ? 2 : 3>(p, row);
      for (; row + 4 <= p.rows; row += 4) ValueRows<T, 4, 4>(p, row);
    } else {
      for (; row + 4 <= p.rows; row += 4) ValueRows<T, 4, 2>(p, row);
    }
    for (; row + 2 <= p.rows; row += 2) ValueRows<T, 2, 4>(p, row);
    for (; row < p.rows; ++row) ValueRows<T, 1, 8>(p, row);
    if (const Index tail = p.columns % Lanes(); tail != 0) ValueTail<T>(p, p.columns - tail);
  });
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
