// dot_product and value_product on matrix tiles: K and V are read as they lie, 16 keys at a time.
// Both may be of pairs, K of int8. Per-target header: see kernels.cc.
//
//   c^T = K q^T:  a tile of 16 keys by 64 bytes of the depth, times one of these by rows of q
//                 (matrix_query-inl.h)
//   out = p V:    V's pairs are neighbours along d_v, of which one key's weight must meet only one.
//                 So p of every row stands there twice, beside zeros:
//
//                   (p0, 0) (p1, 0) ...     v[0][0] v[0][1]  v[0][2] v[0][3] ...
//                   (0, p0) (0, p1) ...     v[1][0] v[1][1]  ...
//
//                 the first sums the even columns, the second the odd ones.
#include "kernels/compiled-inl.h"
#include "kernels/matrix_query-inl.h"
#include "kernels/pack-inl.h"

#if defined(RAPT_KERNELS_MATRIX_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_ROWS_INL_H_
#undef RAPT_KERNELS_MATRIX_ROWS_INL_H_
#else
#define RAPT_KERNELS_MATRIX_ROWS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Rows of p at a time, which takes two rows of a tile each.
inline constexpr Index kMatrixFewRows = kMatrixRows / 2;
inline constexpr Index kTilePairs = kTileWords;

// Rows of so many bytes that lie apart: what tiles read of them, no prefetcher of the CPU follows.
HWY_INLINE bool AreApart(const StoredRows& rows, Index bytes) {
  return rows.pages.table == nullptr && rows.stride > bytes;
}

// Rows [first, first + 16) of those before `end`, for tiles of 64 bytes of each.
class SixteenRows {
 public:
  HWY_INLINE SixteenRows(const StoredRows& rows, Index first, Index end)
      : count_(HWY_MAX(HWY_MIN(end - first, Index{kMatrixRows}), Index{0})), stride_(rows.stride) {
    if (count_ == 0) return;
    first_ = RowAt<char>(rows, first);
    together_ = RowsTogether(rows, first) >= count_;
    if (together_) return;
    for (Index r = 0; r < count_; ++r) row_[r] = RowAt<char>(rows, first + r);
  }

  HWY_INLINE Index count() const { return count_; }

  // From byte `at` of each row on; of the last, n < 64. What is not there is 0.
  template <int kTile, class Tiles>
  HWY_INLINE void Load(Tiles& tiles, Index at, Index n) const {
    if (together_ && count_ == kMatrixRows && n >= kTileBytes)
      return tiles.template load<kTile>(first_ + at, stride_);
    LoadCopy<kTile>(tiles, at, HWY_MIN(n, kTileBytes));
  }

  // For bytes [at, at + n) of each, to come soon.
  HWY_INLINE void Ask(Index at, Index n) const {
    constexpr Index kLine = 64;
    for (Index r = 0; r < count_; ++r) {
      const char* row = (together_ ? first_ + r * stride_ : row_[r]) + at;
      for (Index byte = 0; byte < n; byte += kLine) PrefetchToL2(row + byte);
    }
  }

 private:
  template <int kTile, class Tiles>
  HWY_NOINLINE void LoadCopy(Tiles& tiles, Index at, Index n) const {
    alignas(64) char copy[kMatrixRows * kTileBytes] = {};
    for (Index r = 0; r < count_; ++r) {
      const char* row = together_ ? first_ + r * stride_ : row_[r];
      if (n == kTileBytes) {
        std::memcpy(copy + r * kTileBytes, row + at, kTileBytes);
      } else {
        std::memcpy(copy + r * kTileBytes, row + at, static_cast<size_t>(n));
      }
    }
    tiles.template load<kTile>(copy, kTileBytes);
  }

  Index count_, stride_;
  bool together_ = true;
  const char* first_ = nullptr;
  const char* row_[kMatrixRows];  // where they are not together
};

// c of as many rows of q, and as much of the depth, as a Query holds.
template <class Tiles, class Query>
class MatrixDot {
 public:
  explicit MatrixDot(const DotProduct& p) : p_(p), q_(p), tiles_(Shapes(p.rows)) {}

  // A block is written while the next one is computed: what tiles have stored is read late.
  void Run() {
    HWY_ALIGN float sums[2][kColumns * Query::kColumns];
    if (Bytes() <= kKept && Bytes() > 0) EachTile(0, [&](auto i) HWY_ATTR { LoadQ<i>(0); });
    for (Index col = 0, before = -kColumns; before < p_.columns; before = col, col += kColumns) {
      float* to = sums[col / kColumns % 2];
      for (Index tiles = col; tiles < HWY_MIN(col + kColumns, p_.columns);
           tiles += 2 * kMatrixRows, to += 2 * kMatrixRows * SumRow())
        Multiply(tiles, to);
      if (before >= 0) Write(sums[before / kColumns % 2], before);
    }
  }

  // Whether c of row r was computed; if not, c is as it was.
  bool holds(Index r) const { return q_.holds(r); }

 private:
  // Sums of 16 keys, and of the next; q, of which so much is kept; keys.
  enum { kSum0, kSum1, kQ, kKeys = 6 };
  static constexpr Index kKept = 4 * kTileBytes;
  static constexpr Index kFloat = sizeof(float);
  static constexpr Index kColumns = 4 * kMatrixRows;

  static MatrixShapes Shapes(Index rows) {
    const MatrixShape few{kMatrixRows, static_cast<int>(rows * Query::kDigits * kFloat)};
    const MatrixShape keys{kMatrixRows, static_cast<int>(kTileBytes)};
    return {{few, few, few, few, few, few, keys, keys}};
  }

  Index SumColumns() const { return p_.rows * Query::kDigits; }
  // From key to key of the sums: one column is its own transpose.
  Index SumRow() const { return SumColumns() == 1 ? 1 : Query::kColumns; }

  Index Bytes() const { return p_.inner * Query::kBytes; }  // of a row

  // Calls f(i) for the tiles, i = 0 to 3, of a row's bytes from `at` on.
  template <class F>
  HWY_INLINE void EachTile(Index at, const F& f) const {
    f(std::integral_constant<int, 0>());
    if (Bytes() > at + kTileBytes) f(std::integral_constant<int, 1>());
    if (Bytes() > at + 2 * kTileBytes) f(std::integral_constant<int, 2>());
    if (Bytes() > at + 3 * kTileBytes) f(std::integral_constant<int, 3>());
  }
  template <int i>
  HWY_INLINE void LoadQ(Index at) {
    tiles_.template load<kQ + i>(q_.words(at / kFloat + i * kTileWords), Query::kColumns * kFloat);
  }

  // The transpose of two tiles of columns of c.
  HWY_INLINE void Multiply(Index col, float* to) {
    MultiplyTile<kSum0>(col, to);
    if (col + kMatrixRows < p_.columns)
      MultiplyTile<kSum1>(col + kMatrixRows, to + kMatrixRows * SumRow());
  }
  template <int kSum>
  HWY_INLINE void MultiplyTile(Index col, float* to) {
    const SixteenRows keys(p_.b, col, p_.columns);
    if (AreApart(p_.b, Bytes())) SixteenRows(p_.b, col + kColumns, p_.columns).Ask(0, Bytes());
    tiles_.template zero<kSum>();
    for (Index at = 0; at < Bytes(); at += kKept) {
      EachTile(at, [&](auto i) HWY_ATTR __attribute__((always_inline)) {
        if (Bytes() > kKept) LoadQ<i>(at);
        const Index from = at + i * kTileBytes;
        keys.Load<kKeys + i % 2>(tiles_, from, Bytes() - from);
        Query::template MultiplyAdd<kSum, kKeys + i % 2, kQ + i>(tiles_);
      });
    }
    tiles_.template store<kSum>(to, SumRow() * kFloat);
  }

  // c from its transpose, [kColumns, SumRow()].
  HWY_INLINE void Write(const float* sums, Index col) const {
    const F32 d;
    const Index n = Lanes(), columns = HWY_MIN(kColumns, p_.columns - col);
    constexpr Index kMostRow = HWY_MAX(kColumns, Index{hn::MaxLanes(F32())});
    HWY_ALIGN float transposed[Query::kColumns * kMostRow];
    const Index row = HWY_MAX(kColumns, n);
    if (SumRow() > 1) {
      const float* source[kColumns];
      for (Index j = 0; j < kColumns; ++j) source[j] = sums + j * Query::kColumns;
      PackRowsOf({.source = source,
                  .stride = 1,
                  .rows = kColumns,
                  .length = HWY_MIN((SumColumns() + 3) / 4 * 4, Query::kColumns),
                  .panel = transposed,
                  .panel_row = row,
                  .columns = row});
    }
    for (Index r = 0; r < p_.rows; ++r) {
      if (!holds(r)) continue;
      float* c = p_.c + r * p_.c_row + col * p_.c_column;
      const float* from = SumRow() > 1 ? q_.Sums(transposed, row, columns, r) : sums;
      const float* scale = p_.b_scale == nullptr ? nullptr : p_.b_scale + col;
      Index j = 0;
      if (p_.c_column == 1 && p_.beta == nullptr) {
        for (; j + n <= columns; j += n) {
          V32 factor = hn::Set(d, p_.alpha);
          if (scale != nullptr) factor = hn::Mul(factor, hn::LoadU(d, scale + j));
          hn::StoreU(hn::Mul(factor, hn::LoadU(d, from + j)), d, c + j);
        }
      }
      for (; j < columns; ++j) {
        float& to = c[j * p_.c_column];
        const float sum = (scale == nullptr ? p_.alpha : p_.alpha * scale[j]) * from[j];
        to = p_.beta == nullptr ? sum : sum + *p_.beta * to;
      }
    }
  }

  const DotProduct& p_;
  const Query q_;
  Tiles tiles_;
};

template <class Tiles, class Query>
void MatrixDots(const DotProduct& p) {
  static constexpr float kOne = 1.0f;
  for (Index row = 0; row < p.rows; row += Query::kRows) {
    Index x = 0;
    do {  // once at least: c = beta * c
      DotProduct some = p;
      some.rows = HWY_MIN(p.rows - row, Query::kRows);
      some.inner = HWY_MIN(p.inner - x, Query::kMost);
      some.a += row * p.a_row + x;
      some.b.first += x * Query::kBytes;
      some.c += row * p.c_row;
      if (x > 0) some.beta = &kOne;
      MatrixDot<Tiles, Query> dot(some);
      dot.Run();
      for (Index r = 0; r < some.rows; ++r) {
        if (dot.holds(r)) continue;
        DotProduct one = some;
        one.rows = 1;
        one.a += r * p.a_row;
        one.c += r * p.c_row;
        CompiledDotProduct(one);
      }
      x += some.inner;
    } while (x < p.inner);
  }
}

template <class Tiles>
void MatrixDotOf(const DotProduct& p) {
  // Of a shorter depth a tile would hold little.
  constexpr Index kLeastBytes = kTileBytes / 2;
  if (p.pairs) return MatrixDots<Tiles, QueryPairs>(p);
  if (p.b.type == Type::int8 && p.inner >= kLeastBytes) return MatrixDots<Tiles, QueryDigits>(p);
  CompiledDotProduct(p);
}

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
  static constexpr Index kTileFloats = 2 * kMatrixFewRows * kTilePairs;
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
    const hn::CappedTag<std::uint32_t, kTilePairs> d;
    const hn::Rebind<std::uint16_t, decltype(d)> d16;
    const Index n = static_cast<Index>(hn::Lanes(d));
    for (Index r = 0; r < p_.rows; ++r) {
      const auto* p = reinterpret_cast<const std::uint16_t*>(p_.p + r * p_.p_row) + begin;
      auto* to = reinterpret_cast<std::uint32_t*>(weights_) + r * kTilePairs;
      for (Index key = 0; key < keys; key += kMatrixRows, to += kTileFloats) {
        for (Index j = 0; j < kTilePairs; j += n) {
          const Index left = HWY_MAX(keys - key - j, Index{0});  // beyond it is 0
          const auto weights = hn::PromoteTo(
              d, left >= n
                     ? hn::LoadU(d16, p + key + j)
                     : hn::LoadN(d16, p + (left > 0 ? key + j : 0), static_cast<size_t>(left)));
          hn::StoreU(weights, d, to + j);
          hn::StoreU(hn::ShiftLeft<16>(weights), d, to + p_.rows * kTilePairs + j);
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
    const hn::CappedTag<float, kTilePairs> d;
    auto all = hn::Zero(d);
    for (Index at = 0; at < columns; at += kTileColumns, sums += kTileFloats) {
      for (Index i = 0; i < 2 * p_.rows * kTilePairs; i += static_cast<Index>(hn::Lanes(d)))
        all = hn::MulAdd(hn::Load(d, sums + i), hn::Zero(d), all);  // NaN, if one is not finite
    }
    return hn::AllTrue(d, hn::Eq(all, all));
  }

  // out = out * rescale + sums, even and odd columns mixed again.
  static void Add(const float* sums, const ValueProduct& p) {
    const hn::CappedTag<float, kTilePairs> d;
    const Index n = static_cast<Index>(hn::Lanes(d));
    for (Index r = 0; r < p.rows; ++r) {
      const auto rescale = hn::Set(d, p.rescale[r]);
      float* out = p.out + r * p.out_row;
      for (Index at = 0; at < p.columns; at += kTileColumns, out += kTileColumns) {
        const float* even = sums + at / kTileColumns * kTileFloats + r * kTilePairs;
        const float* odd = even + p.rows * kTilePairs;
        HWY_ALIGN float mixed[kTileColumns];
        for (Index x = 0; x < kTilePairs; x += n)
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
