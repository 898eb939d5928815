// p v for few rows (decode): every value is read once, where it lies and as it is stored, for all
// rows. Lanes hold d_v: of one key, or the pairs of two. Per-target header: see kernels.cc.
#include "kernels/load-inl.h"

#if defined(RAPT_KERNELS_VALUE_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_VALUE_PRODUCT_INL_H_
#undef RAPT_KERNELS_VALUE_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_VALUE_PRODUCT_INL_H_
#endif

#include <utility>

#include "kernels/features.hpp"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

inline constexpr float kOnes[8] = {1, 1, 1, 1, 1, 1, 1, 1};

// What a step of a tile multiplies, from column `col` on: the values of a key, and of each after it
// that lies at the same distance, which are all or those of a page: keys [key, end).
template <class Stored>
class OneKey {
 public:
  using T = Stored;
  using Number = float;
  static constexpr Index kKeys = 1;
  static constexpr size_t kGroup = kTogether<T>;  // vectors that are read together

  HWY_INLINE OneKey(const ValueProduct& p, Index key, Index col, Index& end)
      : row_(RowAt<T>(p.v, key)), stride_(p.v.stride), col_(col) {
    end = HWY_MIN(end, key + RowsTogether(p.v, key));
  }
  HWY_INLINE void Next() { row_ = After(row_, stride_); }
  HWY_INLINE Together<T> Group(Index x) const { return {row_, col_ + x}; }
  HWY_INLINE V32 Load(Index x) const { return LoadWide(row_, col_ + x); }
  HWY_INLINE V32 LoadTail(Index n) const { return LoadWideTail(row_, col_, n); }

 private:
  const T* row_;
  Index stride_, col_;
};

// The pairs of two keys, and of two more. Where there is no second, its values are 0.
class TwoKeys {
 public:
  using T = BFloat16;
  using Number = Pair;
  static constexpr Index kKeys = 2;
  static constexpr size_t kGroup = HWY_TARGET == HWY_SCALAR ? 1 : 2;

  HWY_INLINE TwoKeys(const ValueProduct& p, Index key, Index col, Index& end)
      : TwoKeys(Bits(RowAt<T>(p.v, key) + col), kNone, 2 * p.v.stride) {
    if (key + 1 < p.n) second_ = Bits(RowAt<T>(p.v, key + 1) + col);
    const Index together = HWY_MIN(RowsTogether(p.v, key), end - key) / 2 * 2;
    end = key + HWY_MAX(together, Index{2});
  }
  HWY_INLINE void Next() {
    first_ = After(first_, stride_);
    second_ = After(second_, stride_);
  }
  HWY_INLINE TwoKeys Group(Index x) const { return {first_ + x, second_ + x, stride_}; }
#if HWY_TARGET != HWY_SCALAR
  template <size_t kVector>
  HWY_INLINE V32 Nth() const {
    const hn::Repartition<std::uint16_t, F32> d;
    const auto first = hn::LoadU(d, first_), second = hn::LoadU(d, second_);
    return hn::BitCast(F32(), kVector == 0 ? hn::InterleaveWholeLower(d, first, second)
                                           : hn::InterleaveWholeUpper(d, first, second));
  }
#else
  template <size_t kVector>
  HWY_INLINE V32 Nth() const {
    return Load(0);
  }
#endif
  HWY_INLINE V32 Load(Index x) const {
    return Mixed(hn::LoadU(kHalf, first_ + x), hn::LoadU(kHalf, second_ + x));
  }
  HWY_INLINE V32 LoadTail(Index n) const {
    const auto size = static_cast<size_t>(n);
    return Mixed(hn::LoadN(kHalf, first_, size), hn::LoadN(kHalf, second_, size));
  }

 private:
  using Half = hn::Rebind<std::uint16_t, F32>;
  static constexpr Half kHalf{};
  static constexpr std::uint16_t kNone[8 * hn::MaxLanes(F32())] = {};  // of the widest tile

  HWY_INLINE TwoKeys(const std::uint16_t* first, const std::uint16_t* second, Index stride)
      : first_(first), second_(second), stride_(stride) {}
  static HWY_INLINE const std::uint16_t* Bits(const BFloat16* values) {
    return reinterpret_cast<const std::uint16_t*>(values);
  }
  static HWY_INLINE V32 Mixed(hn::Vec<Half> first, hn::Vec<Half> second) {
    const hn::RebindToUnsigned<F32> d;
    return hn::BitCast(
        F32(), hn::Or(hn::PromoteTo(d, first), hn::ShiftLeft<16>(hn::PromoteTo(d, second))));
  }

  const std::uint16_t *first_, *second_;
  Index stride_;
};

// Rows of v that one tile of 4 rows reads whole: v is read in its order, which is what the CPU's
// prefetchers follow, once for four rows. Of 4 x 8 accumulators some lie in memory, which costs
// less than it gains where vectors have 16 lanes; not so of int4, which needs registers to be
// widened.
template <class T>
inline constexpr bool kWholeRows =
    HWY_ARCH_X86 && RAPT_MANY_REGISTERS && !std::is_same_v<T, Int4Group>;
template <class T>
HWY_INLINE bool IsWhole(const ValueProduct& p) {
  return kWholeRows<T> && (p.columns == 4 * Lanes() || p.columns == 8 * Lanes());
}
// Their chunk is for the tiles of further rows, and lies in L2.
inline constexpr Index kWholeChunk = 1 << 17;
// Keys from asking to use, where tiles that read whole rows ask; into L2, and into L1.
inline constexpr Index kKeysAhead = 32, kKeysNear = 8;

// The rows from `key` on, asked for in order, in pieces of kVectors; into L1, if they are near.
template <class T, int kVectors>
class Ahead {
 public:
  HWY_INLINE Ahead(const ValueProduct& p, Index key, Index x, bool near)
      : p_(p), rows_(p.v, key, p.n - 1), key_(key), x_(x), near_(near) {
    at_ = Bytes() + BytesOf<T>(x_);
  }

  HWY_INLINE void Ask() {
    constexpr Index kLine = 64;
    if (key_ >= p_.n) return;
    const Index step = kVectors * Lanes();
    for (Index byte = 0; byte < BytesOf<T>(step); byte += kLine)
      near_ ? PrefetchToRead(at_ + byte) : PrefetchToL2(at_ + byte);
    at_ += BytesOf<T>(step);
    x_ += step;
    if (x_ < p_.columns) return;
    x_ = 0;
    ++key_;
    rows_.Next();
    at_ = Bytes();
  }

 private:
  HWY_INLINE const char* Bytes() const { return reinterpret_cast<const char*>(rows_.Row()); }

  const ValueProduct& p_;
  RowCursor<T> rows_;
  const char* at_;
  Index key_, x_;
  bool near_;
};

// Rows of which kLongKeys do not fit a chunk.
inline constexpr Index kLongKeys = 8;
template <class T>
HWY_INLINE bool IsLong(const ValueProduct& p) {
  return BytesOf<T>(p.columns) > kValueChunk / kLongKeys;
}

// Keys that so many bytes hold, in whole pairs.
template <class T>
HWY_INLINE Index KeysOf(const ValueProduct& p, Index bytes) {
  return HWY_MAX(bytes / HWY_MAX(BytesOf<T>(p.columns), Index{1}), Index{4}) / 2 * 2;
}

template <class Values, int kRows, int kVectors>
struct ValueTile {
  using T = typename Values::T;
  static constexpr size_t kR = kRows, kV = kVectors;
  static constexpr size_t kT = Values::kGroup;

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
    Multiply(p, row, out, col, begin, end, indices, std::make_index_sequence<(kV + kT - 1) / kT>(),
             hn::Mul(hn::LoadU(d, out + static_cast<Index>(I % kR) * p.out_row + (I / kR) * n),
                     hn::Set(d, rescale[I % kR]))...);
  }

  template <size_t kVector, class Group>
  static HWY_INLINE V32 Load(const Group* groups, const Values& v) {
    if constexpr (kV % kT == 0) {
      return groups[kVector / kT].template Nth<kVector % kT>();
    } else {
      return v.Load(static_cast<Index>(kVector) * Lanes());
    }
  }

  // Accumulator i is row i % kRows, vector i / kRows.
  template <size_t... I, size_t... Group, class... V>
  static HWY_INLINE void Multiply(const ValueProduct& p, Index row, float* out, Index col,
                                  Index begin, Index end, std::index_sequence<I...>,
                                  std::index_sequence<Group...>, V... acc) {
    const F32 d;
    if constexpr (kRows * kVectors >= 32) {
      // Has the compiler align the frame, or what lies there would cross cache lines.
      HWY_ALIGN float frame[hn::MaxLanes(F32())];
      asm("" : : "r"(frame));
    }
    const float* HWY_RESTRICT weights = p.p + row * p.p_row + begin / Values::kKeys;
    const size_t n = hn::Lanes(d);
    // Asked for while these are computed: by a tile that reads pieces, its share of the rows after
    // `end`; by one that reads whole rows, those a little ahead, of pages, or on CPUs whose
    // prefetchers arithmetic holds up. Of floats there is little for one row.
    const bool whole = static_cast<Index>(kV * n) >= p.columns, pages = p.v.pages.table != nullptr;
    constexpr bool kFloats = std::is_same_v<T, float>, kLittle = kFloats && kRows == 1;
    const bool ask = row == 0 && !IsLong<T>(p) && (!whole || pages || (!kLittle && is_intel()));
    const bool near = kFloats && whole && !kLittle && is_intel();
    const Index share = col * (end - begin);
    const Index from = whole ? begin + (near ? kKeysNear : kKeysAhead) : end + share / p.columns;
    Ahead<T, kVectors> ahead(p, ask ? from : p.n, share % p.columns, near);
    using Arithmetic = rapt::kernels::HWY_NAMESPACE::Arithmetic<typename Values::Number>;
    Index together = end;
    for (Index j = begin; j < end; together = end) {
      Values v(p, j, col, together);
      const auto step = [&]() HWY_ATTR __attribute__((always_inline)) {
        for (Index key = 0; key < Values::kKeys; ++key) ahead.Ask();
        const decltype(v.Group(0)) groups[] = {v.Group(static_cast<Index>(Group * kT * n))...};
        ((acc = Arithmetic::MulAdd(
              Arithmetic::Broadcast(weights + static_cast<Index>(I % kR) * p.p_row),
              Load<I / kR>(groups, v), acc)),
         ...);
        j += Values::kKeys, ++weights, v.Next();
      };
      // Of one row there is so little to a step that the loop takes a good part of it.
      if constexpr (kRows == 1) {
        while (j + Values::kKeys < together) step(), step();
      }
      while (j < together) step();
    }
    (hn::StoreU(acc, d, out + static_cast<Index>(I % kR) * p.out_row + (I / kR) * n), ...);
  }
};

// The columns that fill no vector.
template <class Values>
void ValueTail(const ValueProduct& p, Index col) {
  using Arithmetic = rapt::kernels::HWY_NAMESPACE::Arithmetic<typename Values::Number>;
  const F32 d;
  const Index n = p.columns - col;
  for (Index r = 0; r < p.rows; ++r) {
    float* out = p.out + r * p.out_row + col;
    V32 acc = hn::Mul(LoadTail(out, n), hn::Set(d, p.rescale[r]));
    const float* weights = p.p + r * p.p_row;
    for (Index j = 0; j < p.n; j += Values::kKeys, ++weights) {
      Index end = p.n;
      acc = Arithmetic::MulAdd(Arithmetic::Broadcast(weights), Values(p, j, col, end).LoadTail(n),
                               acc);
    }
    StoreTail(acc, out, n);
  }
}

// Columns [col, end), as many as whole tiles of kVectors hold; returns the first that is left.
template <class Values, int kRows, int kVectors>
Index ValueColumns(const ValueProduct& p, Index row, Index col, Index col_end, Index begin,
                   Index end) {
  const Index step = kVectors * Lanes();
  for (; col + step <= col_end; col += step)
    ValueTile<Values, kRows, kVectors>::Run(p, row, col, begin, end);
  return col;
}

// Keys [begin, end) for kRows rows, in the widest tiles that leave registers free.
template <class Values, int kRows, int kWidest>
void ValueRows(const ValueProduct& p, Index row, Index col, Index col_end, Index begin, Index end) {
  col = ValueColumns<Values, kRows, kWidest>(p, row, col, col_end, begin, end);
  if constexpr (kWidest > 4) col = ValueColumns<Values, kRows, 4>(p, row, col, col_end, begin, end);
  if constexpr (kWidest > 2) col = ValueColumns<Values, kRows, 2>(p, row, col, col_end, begin, end);
  ValueColumns<Values, kRows, 1>(p, row, col, col_end, begin, end);
}

// The rows that tiles of two and more hold; returns the first that is left.
template <class Values>
Index TallValues(const ValueProduct& p, bool whole, Index col, Index col_end, Index begin,
                 Index end) {
  Index row = 0;
  if constexpr (kWholeRows<typename Values::T>) {
    for (; whole && row + 4 <= p.rows; row += 4)
      ValueRows<Values, 4, 8>(p, row, col, col_end, begin, end);
    for (; whole && row + 2 <= p.rows; row += 2)
      ValueRows<Values, 2, 8>(p, row, col, col_end, begin, end);
  }
  if constexpr (RAPT_MANY_REGISTERS) {
    for (; row + 8 <= p.rows; row += 8)
      ValueRows<Values, 8, Values::kGroup == 2 ? 2 : 3>(p, row, col, col_end, begin, end);
    for (; row + 4 <= p.rows; row += 4) ValueRows<Values, 4, 4>(p, row, col, col_end, begin, end);
  } else {
    for (; row + 4 <= p.rows; row += 4) ValueRows<Values, 4, 2>(p, row, col, col_end, begin, end);
  }
  for (; row + 2 <= p.rows; row += 2) ValueRows<Values, 2, 4>(p, row, col, col_end, begin, end);
  return row;
}

// Where several tiles read the same keys, each a piece of every row: a chunk of keys at a time,
// which stays in L1. The CPU's prefetchers follow what is read in order and not such pieces, so
// each chunk is asked for in order while the one before it is computed. Of long rows a chunk has
// only kLongKeys, and a piece of their columns: so many rows in step the prefetchers follow.
template <class Values>
void ValuesOf(const ValueProduct& p) {
  using T = typename Values::T;
  const bool whole = IsWhole<T>(p);
  const Index keys = IsLong<T>(p) ? kLongKeys : KeysOf<T>(p, whole ? kWholeChunk : kValueChunk);
  const Index columns =
      IsLong<T>(p) ? kValueChunk / kLongKeys / Index{sizeof(T)} : HWY_MAX(p.columns, Index{1});
  Index begin = 0;
  do {  // once at least: rescale
    const Index end = HWY_MIN(begin + keys, p.n);
    for (Index col = 0; col < p.columns; col += columns) {
      const Index col_end = HWY_MIN(col + columns, p.columns);
      Index row = 0;
      if constexpr (!kLowTiles<typename Values::Number>)
        row = TallValues<Values>(p, whole, col, col_end, begin, end);
      for (; row < p.rows; ++row) ValueRows<Values, 1, 8>(p, row, col, col_end, begin, end);
    }
    begin = end;
  } while (begin < p.n);
  if (const Index tail = p.columns % Lanes(); tail != 0) ValueTail<Values>(p, p.columns - tail);
}

inline void ValueProductOf(const ValueProduct& p) {
  if (p.pairs) return ValuesOf<TwoKeys>(p);
  ForType(p.v.type, [&](auto t) HWY_ATTR { ValuesOf<OneKey<decltype(t)>>(p); });
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
