// What matrix tiles multiply K by: rows of q as pairs of bf16; or, where K is of int8, in digits,
// so that K is multiplied as it lies. Per-target header: see kernels.cc.
//
//            q0 q1 q2 q3       four numbers of a row, along the depth
//     words  d0 d0 d0 d0       in a row of a tile for each four of the depth: the first digits of
//            d1 d1 d1 d1       these, the second, ..., then those of the next row of q
#include "kernels/digits-inl.h"
#include "kernels/matrix_rows-inl.h"

#if defined(RAPT_KERNELS_MATRIX_QUERY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_QUERY_INL_H_
#undef RAPT_KERNELS_MATRIX_QUERY_INL_H_
#else
#define RAPT_KERNELS_MATRIX_QUERY_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// At most kRows rows of q and kMost of the depth. The tiles' columns are words of 32 bits, in which
// the depth has kBytes to a number; a row of q takes kDigits of them.
class QueryPairs {
 public:
  static constexpr Index kRows = kMatrixRows / 2, kDigits = 1, kColumns = kRows * kDigits;
  static constexpr Index kMost = 512, kBytes = sizeof(float);

  // Zeros where the last tile is deeper than q.
  explicit QueryPairs(const DotProduct& p) {
    const Index depth = (p.inner + kTileWords - 1) / kTileWords * kTileWords;
    std::memset(words_, 0, static_cast<size_t>(depth * kColumns) * sizeof(float));
    for (Index r = 0; r < p.rows; ++r) {
      const char* row = reinterpret_cast<const char*>(p.a + r * p.a_row);
      for (Index x = 0; x < p.inner; ++x)
        std::memcpy(words_ + x * kColumns + r, row + x * kBytes, sizeof(float));
    }
  }

  const float* words(Index word) const { return words_ + word * kColumns; }
  bool holds(Index) const { return true; }

  template <int kC, int kA, int kB, class Tiles>
  static HWY_INLINE void MultiplyAdd(Tiles& tiles) {
    tiles.template multiply_add<kC, kA, kB>();
  }
  // The numbers of row r, from what tiles summed: [kColumns, row].
  static HWY_INLINE const float* Sums(float* sums, Index row, Index, Index r) {
    return sums + r * row;
  }

 private:
  alignas(64) float words_[kMost * kColumns];
};

#if HWY_TARGET != HWY_SCALAR  // of which a vector has no four bytes to sort
class QueryDigits {
 public:
  static constexpr Index kRows = 4, kDigits = 4, kColumns = kRows * kDigits;
  static constexpr Index kMost = 4 * kTileBytes, kBytes = 1;

  explicit QueryDigits(const DotProduct& p) {
    const Index words = (p.inner + kTileBytes - 1) / kTileBytes * kTileWords;
    std::memset(words_, 0, static_cast<size_t>(words * kColumns) * sizeof(float));
    for (Index r = 0; r < p.rows; ++r) {
      unit_[r] = CutInDigits(p.a + r * p.a_row, p.inner, [&](Index x, const float* digits) {
        std::memcpy(words_ + x / 4 * kColumns + r * kDigits, digits, kDigits * sizeof(float));
      });
    }
  }

  const float* words(Index word) const { return words_ + word * kColumns; }
  bool holds(Index r) const { return unit_[r] != 0.0f; }

  template <int kC, int kA, int kB, class Tiles>
  static HWY_INLINE void MultiplyAdd(Tiles& tiles) {
    tiles.template multiply_add_bytes<kC, kA, kB>();
  }
  // In place of the first digit's sums, n of them.
  HWY_INLINE const float* Sums(float* sums, Index row, Index n, Index r) const {
    const F32 d;
    const hn::RebindToSigned<F32> di;
    float* to = sums + r * kDigits * row;
    for (Index j = 0; j < n; j += Lanes()) {
      const auto digit = [&](Index i) HWY_ATTR {
        return hn::ConvertTo(d, hn::BitCast(di, hn::LoadU(d, to + i * row + j)));
      };
      const float unit = unit_[r];
      V32 sum = hn::Mul(digit(3), hn::Set(d, 0x1p24f * unit));
      sum = hn::MulAdd(digit(2), hn::Set(d, 0x1p16f * unit), sum);
      sum = hn::MulAdd(digit(1), hn::Set(d, 0x1p8f * unit), sum);
      hn::StoreU(hn::MulAdd(digit(0), hn::Set(d, unit), sum), d, to + j);
    }
    return to;
  }

 private:
  alignas(64) float words_[kMost / 4 * kColumns];
  float unit_[kRows];
};
#endif

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
