// dot_product of few rows of q and K of int8 or 4-bit groups, where the CPU multiplies bytes: q in
// digits, K as bytes without a sign. Per-target header: see kernels.cc.
//
//   q k = unit * sum over digits i of 2^8i * (sum d_i (k + bias) - bias * sum d_i)
//
// A lane sums four neighbours, so that a group of four bits, with its scale, is a block of lanes.
#include "kernels/digits-inl.h"
#include "kernels/load-inl.h"
#include "kernels/sums-inl.h"

#if defined(RAPT_KERNELS_DIGIT_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_DIGIT_DOT_INL_H_
#undef RAPT_KERNELS_DIGIT_DOT_INL_H_
#else
#define RAPT_KERNELS_DIGIT_DOT_INL_H_
#endif

// vpdpbusd and vpshldd, which that target has.
#undef RAPT_BYTE_PRODUCTS
#define RAPT_BYTE_PRODUCTS (HWY_TARGET == HWY_AVX3_ZEN4)

#if RAPT_BYTE_PRODUCTS

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

using U8 = hn::Repartition<std::uint8_t, F32>;
using I32 = hn::RebindToSigned<F32>;

// 128 numbers of a key are two vectors of bytes.
inline constexpr Index kBytes = hn::MaxLanes(U8()), kPieceDepth = 2 * kBytes;

template <class T>
class ByteKey;

template <>
class ByteKey<std::int8_t> {
 public:
  static constexpr int kBias = 128;
  HWY_INLINE ByteKey(const std::int8_t* row, Index x)
      : bytes_(reinterpret_cast<const std::uint8_t*>(row + x)) {}
  template <Index kHalf>
  HWY_INLINE hn::Vec<U8> Half() const {
    return hn::Xor(hn::LoadU(U8(), bytes_ + kHalf * kBytes), hn::Set(U8(), kBias));
  }
  // Which byte of the two vectors number x is.
  static constexpr Index At(Index x) { return x; }

 private:
  const std::uint8_t* bytes_;
};

// Four groups, each in a block of 16 bytes: the numbers in low halves of bytes are one vector,
// those in high ones the other.
template <>
class ByteKey<Int4Group> {
 public:
  static constexpr int kBias = 8;
  HWY_INLINE ByteKey(const Int4Group* row, Index x) {
    const Int4Group* groups = row + x / Int4Group::kSize;
    const auto block = [&](int g) HWY_ATTR {
      return hn::LoadU(hn::FixedTag<std::uint8_t, 16>(), groups[g].nibbles);
    };
    bytes_ = hn::ResizeBitCast(U8(), block(0));
    bytes_ = hn::InsertBlock<1>(bytes_, block(1));
    bytes_ = hn::InsertBlock<2>(bytes_, block(2));
    bytes_ = hn::InsertBlock<3>(bytes_, block(3));
  }
  template <Index kHalf>
  HWY_INLINE hn::Vec<U8> Half() const {
    const hn::Repartition<std::uint16_t, U8> d16;  // there is no shift of bytes
    const auto bytes =
        kHalf == 0 ? bytes_ : hn::BitCast(U8(), hn::ShiftRight<4>(hn::BitCast(d16, bytes_)));
    return hn::And(bytes, hn::Set(U8(), 15));
  }
  static constexpr Index At(Index x) { return x % 32 / 16 * kBytes + x / 32 * 16 + x % 16; }

 private:
  hn::Vec<U8> bytes_;
};

// The scales of four keys from number x on: of group g of key i in lane 4 g + i.
HWY_INLINE V32 ScalesOf(const Int4Group* const (&keys)[4], Index x) {
  const hn::Repartition<std::uint16_t, F32> d16;
  constexpr std::uint16_t kNext = sizeof(Int4Group) / sizeof(std::uint16_t);
  alignas(64) static constexpr std::uint16_t kAt[32] = {
      0,         0,         0,         0,         kNext,     kNext,     kNext,     kNext,
      2 * kNext, 2 * kNext, 2 * kNext, 2 * kNext, 3 * kNext, 3 * kNext, 3 * kNext, 3 * kNext};
  alignas(8) static constexpr std::uint8_t kLanesOf[4][8] = {
      {0x11, 0x11}, {0x22, 0x22}, {0x44, 0x44}, {0x88, 0x88}};
  auto halves = hn::Zero(d16);
  for (int i = 0; i < 4; ++i) {
    const auto* words = reinterpret_cast<const std::uint16_t*>(keys[i] + x / Int4Group::kSize);
    halves = hn::IfThenElse(
        hn::LoadMaskBits(d16, kLanesOf[i]),
        hn::TableLookupLanes(hn::LoadU(d16, words), hn::SetTableIndices(d16, kAt)), halves);
  }
  const hn::Half<decltype(d16)> half;
  return Widened<Float16>(hn::BitCast(StoredTag<Float16>(), hn::LowerHalf(half, halves)));
}

// Some rows of q for K of type T.
template <class T>
class DigitRows {
 public:
  static constexpr Index kRows = 8, kDepth = 2 * kPieceDepth;  // at most
  static constexpr Index kLanes = hn::MaxLanes(F32());
  // Vectors of each kPieceDepth: two of each digit, and of each two digits where their sums begin.
  static constexpr Index kStarts = 8, kPiece = (kStarts + 4) * kLanes;
  static constexpr Index kUnit = kDepth / kPieceDepth * kPiece, kRow = kUnit + kLanes;

  explicit DigitRows(const DotProduct& p) {
    for (Index r = 0; r < p.rows; ++r) {
      float* row = rows_ + r * kRow;
      row[kUnit] = CutInDigits(p.a + r * p.a_row, p.inner, [&](Index x, const float* digits) {
        const Index byte = ByteKey<T>::At(x % kPieceDepth);
        float* to = row + x / kPieceDepth * kPiece + byte / Index{sizeof(float)};
        for (Index i = 0; i < 4; ++i) to[2 * i * kLanes] = digits[i];
      });
      if (row[kUnit] == 0.0f) continue;
      for (Index x = 0; x < p.inner; x += kPieceDepth) Begin(row + x / kPieceDepth * kPiece);
    }
  }

  const float* rows() const { return rows_; }
  bool holds(Index r) const { return rows_[r * kRow + kUnit] != 0.0f; }

  // sum + bytes of keys * digit i of a piece
  template <Index kHalf>
  static HWY_INLINE hn::Vec<I32> MulAdd(hn::Vec<U8> keys, const float* piece, Index i,
                                        hn::Vec<I32> sum) {
    const hn::Repartition<std::int8_t, F32> d8;
    return hn::SumOfMulQuadAccumulate(I32(), keys, hn::BitCast(d8, Vector(piece, 2 * i + kHalf)),
                                      sum);
  }
  // Where the sums of digit 2 i + 1 begin; and those of digit 2 i, from what the former came to:
  // 2^8 times that, and 8 bits.
  static HWY_INLINE hn::Vec<I32> Higher(const float* piece, Index i) {
    return Vector(piece, kStarts + 2 * i);
  }
  static HWY_INLINE hn::Vec<I32> Lower(const float* piece, Index i, hn::Vec<I32> sum) {
    return hn::Vec<I32>{_mm512_shldi_epi32(sum.raw, Vector(piece, kStarts + 2 * i + 1).raw, 8)};
  }

 private:
  static HWY_INLINE hn::Vec<I32> Vector(const float* piece, Index i) {
    return hn::BitCast(I32(), hn::Load(F32(), piece + i * kLanes));
  }

  // With what the bias adds.
  static HWY_INLINE void Begin(float* piece) {
    const auto of_bias = [&](Index i) HWY_ATTR {
      const auto bias = hn::Set(U8(), ByteKey<T>::kBias);
      return MulAdd<1>(bias, piece, i, MulAdd<0>(bias, piece, i, hn::Zero(I32())));
    };
    for (Index i = 0; i < 2; ++i) {
      const auto sum = hn::Neg(hn::Add(hn::ShiftLeft<8>(of_bias(2 * i + 1)), of_bias(2 * i)));
      float* to = piece + (kStarts + 2 * i) * kLanes;
      hn::Store(hn::BitCast(F32(), hn::ShiftRight<8>(sum)), F32(), to);
      hn::Store(hn::BitCast(F32(), hn::ShiftLeft<24>(sum)), F32(), to + kLanes);
    }
  }

  alignas(64) float rows_[kRows * kRow];
};

// Rows [row, row + kRows) of DigitRows, and four keys at each step.
template <class T, int kRows>
struct DigitTile {
  using Rows = DigitRows<T>;
  static constexpr Index kStep = kRows * Rows::kLanes;  // floats that a step leaves
  static constexpr Index kSteps = 4;

  // to[row, block, key]: the sum of a block of lanes
  static HWY_INLINE void Step(const DotProduct& p, Index row, const T* const (&b)[4], float* to) {
    const F32 d;
    V32 sums[kRows];
    for (V32& sum : sums) sum = hn::Zero(d);
    for (Index x = 0; x < p.inner; x += kPieceDepth) {
      const ByteKey<T> keys[] = {{b[0], x}, {b[1], x}, {b[2], x}, {b[3], x}};
      [[maybe_unused]] V32 scales;
      if constexpr (std::is_same_v<T, Int4Group>) {
        scales = ScalesOf(b, x);
        // 0 times a scale that is not finite is NaN, also where numbers are added first.
        for (V32& sum : sums) sum = hn::MulAdd(scales, hn::Zero(d), sum);
      }
      for (Index r = 0; r < kRows; ++r) {
        const float* q = p.a + (row + r) * p.a_row + x / kPieceDepth * Rows::kPiece;
        hn::Vec<I32> two[2][4];  // digits of each key
        for (Index i = 0; i < 2; ++i) {
          for (int c = 0; c < 4; ++c)
            two[i][c] = Rows::template MulAdd<0>(keys[c].template Half<0>(), q, 2 * i + 1,
                                                 Rows::Higher(q, i));
        }
        for (Index i = 0; i < 2; ++i) {
          for (int c = 0; c < 4; ++c)
            two[i][c] = Rows::Lower(
                q, i,
                Rows::template MulAdd<1>(keys[c].template Half<1>(), q, 2 * i + 1, two[i][c]));
        }
        for (Index i = 0; i < 2; ++i) {
          for (int c = 0; c < 4; ++c)
            two[i][c] = Rows::template MulAdd<0>(keys[c].template Half<0>(), q, 2 * i, two[i][c]);
        }
        for (Index i = 0; i < 2; ++i) {
          for (int c = 0; c < 4; ++c)
            two[i][c] = Rows::template MulAdd<1>(keys[c].template Half<1>(), q, 2 * i, two[i][c]);
        }
        const auto number = [&](int c) HWY_ATTR {
          return hn::MulAdd(hn::ConvertTo(d, two[1][c]), hn::Set(d, 0x1p16f),
                            hn::ConvertTo(d, two[0][c]));
        };
        const V32 blocks = BlocksOfFour(number(0), number(1), number(2), number(3));
        if constexpr (std::is_same_v<T, Int4Group>) {
          sums[r] = hn::MulAdd(blocks, scales, sums[r]);
        } else {
          sums[r] = hn::Add(blocks, sums[r]);
        }
      }
    }
    for (Index r = 0; r < kRows; ++r) hn::Store(sums[r], d, to + r * Rows::kLanes);
  }

  // to[row, step, key], of what steps left one behind the other
  static HWY_INLINE void Add(const DotProduct& p, Index row, const float* steps, float* to) {
    const F32 d;
    for (Index r = 0; r < kRows; ++r) {
      const auto two = [&](Index step) HWY_ATTR {
        const V32 v0 = hn::Load(d, steps + step * kStep + r * Rows::kLanes);
        const V32 v1 = hn::Load(d, steps + (step + 1) * kStep + r * Rows::kLanes);
        return hn::Add(hn::InterleaveEvenBlocks(d, v0, v1), hn::InterleaveOddBlocks(d, v0, v1));
      };
      const V32 a = two(0), b = two(2);
      const V32 all = hn::Add(hn::ConcatLowerLower(d, b, a), hn::ConcatUpperUpper(d, b, a));
      const float unit = p.a[(row + r) * p.a_row + Rows::kUnit];
      hn::Store(hn::Mul(all, hn::Set(d, unit)), d, to + r * kSteps * 4);
    }
  }
};

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RAPT_BYTE_PRODUCTS
#endif  // toggle
