// What matrix tiles multiply K by: rows of q as pairs of bf16; or, where K is of int8, as numbers
// of 32 bits in digits of 8, q = unit * (d0 + 2^8 d1 + 2^16 d2 + 2^24 d3), so that K is multiplied
// as it lies, and each digit's sum is exact. Per-target header: see kernels.cc.
//
//            q0 q1 q2 q3       four numbers of a row, along the depth
//     words  d0 d0 d0 d0       in a row of a tile for each four of the depth: the first digits of
//            d1 d1 d1 d1       these, the second, ..., then those of the next row of q
#include "kernels/matrix_rows-inl.h"

#if defined(RAPT_KERNELS_MATRIX_QUERY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_QUERY_INL_H_
#undef RAPT_KERNELS_MATRIX_QUERY_INL_H_
#else
#define RAPT_KERNELS_MATRIX_QUERY_INL_H_
#endif

#include <cmath>

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
    for (Index r = 0; r < p.rows; ++r) holds_[r] = Cut(p.a + r * p.a_row, p.inner, r);
  }

  const float* words(Index word) const { return words_ + word * kColumns; }
  // Whether the digits say what row r is: each number with a relative error of at most 4
  // sqrt(depth) 2^-24, less than that of sums of 32 and more floats. Not so of numbers of very
  // unequal size, of NaN and infinity.
  bool holds(Index r) const { return holds_[r]; }

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
  // Calls f(a vector, where it begins), the last with zeros.
  template <class F>
  static HWY_INLINE void EachVector(const float* row, Index n, const F& f) {
    Index x = 0;
    for (; x + Lanes() <= n; x += Lanes()) f(hn::LoadU(F32(), row + x), x);
    if (x < n) f(LoadTail(row + x, n - x), x);
  }

  // A power of two that makes the largest a number of 2^30 and more, but of four digits; 0 if there
  // is none.
  static float UnitOf(const float* row, Index n) {
    const F32 d;
    V32 most = hn::Zero(d), sum = hn::Zero(d);
    EachVector(row, n, [&](V32 v, Index) HWY_ATTR {
      most = hn::Max(most, hn::Abs(v));
      sum = hn::MulAdd(v, hn::Zero(d), sum);  // NaN, if one is not finite
    });
    if (!hn::AllTrue(d, hn::Eq(sum, sum))) return 0.0f;
    const float largest = hn::ReduceMax(d, most);
    if (largest == 0.0f) return 1.0f;
    constexpr float kSmallest = 0x1p-90f, kMostNumber = 0x1p31f - 0x1p24f;
    if (largest < kSmallest) return 0.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &largest, sizeof bits);
    bits = (bits & 0x7f800000u) - (30u << 23);
    float unit;
    std::memcpy(&unit, &bits, sizeof unit);
    return largest > kMostNumber * unit ? 2.0f * unit : unit;
  }

  bool Cut(const float* row, Index n, Index r) {
    const F32 d;
    const hn::RebindToSigned<F32> di;
    const hn::Repartition<std::uint8_t, F32> d8;
    unit_[r] = UnitOf(row, n);
    if (unit_[r] == 0.0f) return false;
    const V32 inverse = hn::Set(d, 1.0f / unit_[r]);
    // What is rounded, by up to a half, must be so large.
    const V32 least = hn::Set(d, 0x1p21f / std::sqrt(static_cast<float>(n)));
    auto good = hn::Eq(inverse, inverse);
    // With 128 more a digit is not negative, so it borrows nothing of the next.
    const auto halves = hn::Set(di, static_cast<std::int32_t>(0x80808080u));
    alignas(16) static constexpr std::uint8_t kByDigit[16] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                              2, 6, 10, 14, 3, 7, 11, 15};
    const auto by_digit = hn::LoadDup128(d8, kByDigit);
    EachVector(row, n, [&](V32 v, Index x) HWY_ATTR {
      const V32 scaled = hn::Mul(v, inverse);
      const auto number = hn::NearestInt(scaled);
      good = hn::And(
          good, hn::Or(hn::Eq(hn::ConvertTo(d, number), scaled), hn::Ge(hn::Abs(scaled), least)));
      const auto digits = hn::Xor(hn::Add(number, halves), halves);
      HWY_ALIGN float blocks[hn::MaxLanes(F32())];
      hn::Store(hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, digits), by_digit)), d, blocks);
      const Index end = HWY_MIN(x + Lanes(), (n + 3) / 4 * 4);
      for (Index at = x; at < end; at += 4) {
        std::memcpy(words_ + at / 4 * kColumns + r * kDigits, blocks + (at - x), 4 * sizeof(float));
      }
    });
    return hn::AllTrue(d, good);
  }

  alignas(64) float words_[kMost / 4 * kColumns];
  float unit_[kRows];
  bool holds_[kRows];
};
#endif

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
