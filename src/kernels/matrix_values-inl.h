// value_product of pairs on matrix tiles: V is read as it lies, 16 keys at a time. Per-target
// header: see kernels.cc.
//
//   out = p V:    V's pairs are neighbours along d_v, of which one key's weight must meet only one.
//                 So p of every row stands there twice, beside zeros:
//
//                   (p0, 0) (p1, 0) ...     v[0][0] v[0][1]  v[0][2] v[0][3] ...
//                   (0, p0) (0, p1) ...     v[1][0] v[1][1]  ...
//
//                 the first sums the even columns, the second the odd ones.
#include "kernels/compiled-inl.h"
#include "kernels/matrix_rows-inl.h"

#if defined(RAPT_KERNELS_MATRIX_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_VALUES_INL_H_
#undef RAPT_KERNELS_MATRIX_VALUES_INL_H_
#else
#define RAPT_KERNELS_MATRIX_VALUES_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Rows of p at a time, which takes two rows of a tile each.
inline constexpr Index kMatrixFewRows = kMatrixRows / 2;

// out of at most kMatrixFewRows rows of p.
template <class Tiles>
class MatrixValues {
 public:
  explicit MatrixValues(const ValueProduct& p) : p_(p), tiles_(Shapes(p.rows)) {}

  // A chunk of keys at a time, of which columns are read in pieces: few pages at a time.
  void Run() {
    Index begin = 0;
    do {  // once at least: rescale
      const Index n = HWY_MIN(kChunk, p_.n - begin);
      Spread(begin, n);
      for (Index col = 0; col < p_.columns; col += kColumns)
        AddColumns(begin, n, col, HWY_MIN(kColumns, p_.columns - col));
      begin += n;
    } while (begin < p_.n);
  }

 private:
  enum { kWeights = 4, kValues };  // after those of out
  static constexpr Index kTileColumns = kTileBytes / 2, kColumns = 4 * kTileColumns;
  static constexpr Index kTileFloats = 2 * kMatrixFewRows * kTileWords;
  static constexpr Index kChunk = 256;

  static MatrixShapes Shapes(Index rows) {
    const MatrixShape twice{static_cast<int>(2 * rows), static_cast<int>(kTileBytes)};
    const MatrixShape values{kMatrixRows, static_cast<int>(kTileBytes)};
    return {{twice, twice, twice, twice, twice, values, values, {}}};
  }

  // Calls f(i) for the tiles, i = 0 to 3, of so many columns.
  template <class F>
  static HWY_INLINE void EachTile(Index columns, const F& f) {
    f(std::integral_constant<int, 0>());
    if (columns > kTileColumns) f(std::integral_constant<int, 1>());
    if (columns > 2 * kTileColumns) f(std::integral_constant<int, 2>());
    if (columns > 3 * kTileColumns) f(std::integral_constant<int, 3>());
  }

  // The weights of keys [begin, begin + keys) as the first half of pairs, of all rows, then as the
  // second; for each 16 keys a tile. Long before they are loaded: tiles wait for what was just
  // written.
  HWY_INLINE void Spread(Index begin, Index keys) {
    const hn::CappedTag<std::uint32_t, kTileWords> d;
    const hn::Rebind<std::uint16_t, decltype(d)> d16;
    const Index n = static_cast<Index>(hn::Lanes(d));
    for (Index r = 0; r < p_.rows; ++r) {
      const auto* p = reinterpret_cast<const std::uint16_t*>(p_.p + r * p_.p_row) + begin;
      auto* to = reinterpret_cast<std::uint32_t*>(weights_) + r * kTileWords;
      for (Index key = 0; key < keys; key += kMatrixRows, to += kTileFloats) {
        for (Index j = 0; j < kTileWords; j += n) {
          const Index left = HWY_MAX(keys - key - j, Index{0});  // beyond it is 0
          const auto weights = hn::PromoteTo(
              d, left >= n
                     ? hn::LoadU(d16, p + key + j)
                     : hn::LoadN(d16, p + (left > 0 ? key + j : 0), static_cast<size_t>(left)));
          hn::StoreU(weights, d, to + j);
          hn::StoreU(hn::ShiftLeft<16>(weights), d, to + p_.rows * kTileWords + j);
        }
      }
    }
  }

  // Columns [col, col + columns) of keys [begin, begin + n).
  HWY_INLINE void AddColumns(Index begin, Index n, Index col, Index columns) {
    EachTile(columns, [&](auto i) HWY_ATTR { tiles_.template zero<i>(); });
    const bool ask = AreApart(p_.v, p_.columns * 2), last = col + kColumns >= p_.columns;
    const Index ahead = last ? kChunk : 0, next = last ? 0 : col + kColumns;
    const Index next_bytes = HWY_MIN(kColumns, p_.columns - next) * 2;
    const float* weights = weights_;
    for (Index key = begin; key < begin + n; key += kMatrixRows, weights += kTileFloats) {
      const SixteenRows v(p_.v, key, begin + n);
      if (ask) SixteenRows(p_.v, key + ahead, p_.n).Ask(next * 2, next_bytes);
      tiles_.template load<kWeights>(weights, kTileBytes);
      EachTile(columns, [&](auto i) HWY_ATTR __attribute__((always_inline)) {
        const Index at = i * kTileColumns;
        v.Load<kValues + i % 2>(tiles_, (col + at) * 2, (columns - at) * 2);
        tiles_.template multiply_add<i, kWeights, kValues + i % 2>();
      });
    }
    HWY_ALIGN float sums[4 * kTileFloats];
    EachTile(columns, [&](auto i) HWY_ATTR {
      tiles_.template store<i>(sums + i * kTileFloats, kTileBytes);
    });
    ValueProduct some = p_;
    some.p += begin / 2;
    some.n = n;
    some.out += col;
    some.columns = columns;
    static constexpr float kOnes[kMatrixFewRows] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (begin > 0) some.rescale = kOnes;
    if (AllFinite(sums, columns)) return Add(sums, some);
    // A zero beside a weight has met infinity or NaN of another column.
    some.v.first += col * 2;
    if (some.v.pages.table != nullptr) {
      some.v.pages.begin += begin;
    } else {
      some.v.first += begin * some.v.stride;
    }
    CompiledValueProduct(some);
  }

  bool AllFinite(const float* sums, Index columns) const {
    const hn::CappedTag<float, kTileWords> d;
    auto all = hn::Zero(d);
    for (Index at = 0; at < columns; at += kTileColumns, sums += kTileFloats) {
      for (Index i = 0; i < 2 * p_.rows * kTileWords; i += static_cast<Index>(hn::Lanes(d)))
        all = hn::MulAdd(hn::Load(d, sums + i), hn::Zero(d), all);  // NaN, if one is not finite
    }
    return hn::AllTrue(d, hn::Eq(all, all));
  }

  // out = out * rescale + sums, even and odd columns mixed again.
  static void Add(const float* sums, const ValueProduct& p) {
    const hn::CappedTag<float, kTileWords> d;
    const Index n = static_cast<Index>(hn::Lanes(d));
    for (Index r = 0; r < p.rows; ++r) {
      const auto rescale = hn::Set(d, p.rescale[r]);
      float* out = p.out + r * p.out_row;
      for (Index at = 0; at < p.columns; at += kTileColumns, out += kTileColumns) {
        const float* even = sums + at / kTileColumns * kTileFloats + r * kTileWords;
        const float* odd = even + p.rows * kTileWords;
        HWY_ALIGN float mixed[kTileColumns];
        for (Index x = 0; x < kTileWords; x += n)
          hn::StoreInterleaved2(hn::Load(d, even + x), hn::Load(d, odd + x), d, mixed + 2 * x);
        const Index columns = HWY_MIN(p.columns - at, kTileColumns);
        Index x = 0;
        for (; x + n <= columns; x += n)
          hn::StoreU(hn::MulAdd(hn::LoadU(d, out + x), rescale, hn::Load(d, mixed + x)), d,
                     out + x);
        for (; x < columns; ++x) out[x] = out[x] * p.rescale[r] + mixed[x];
      }
    }
  }

  const ValueProduct& p_;
  Tiles tiles_;
  alignas(64) float weights_[kChunk / kMatrixRows * kTileFloats];
};

template <class Tiles>
void MatrixValuesOf(const ValueProduct& p) {
  if (!p.pairs) return CompiledValueProduct(p);
  for (Index row = 0; row < p.rows; row += kMatrixFewRows) {
    ValueProduct some = p;
    some.rows = HWY_MIN(p.rows - row, kMatrixFewRows);
    some.p += row * p.p_row;
    some.out += row * p.out_row;
    some.rescale += row;
    MatrixValues<Tiles>(some).Run();
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
