// dot_product on matrix tiles: K is read as it lies, 16 keys at a time. Both may be of pairs, or K
// of int8. Per-target header: see kernels.cc.
//
//   c^T = K q^T:  a tile of 16 keys by 64 bytes of the depth, times one of these by rows of q
//                 (matrix_query-inl.h)
#include "kernels/compiled-inl.h"
#include "kernels/matrix_query-inl.h"
#include "kernels/matrix_rows-inl.h"
#include "kernels/pack-inl.h"

#if defined(RAPT_KERNELS_MATRIX_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_DOT_INL_H_
#undef RAPT_KERNELS_MATRIX_DOT_INL_H_
#else
#define RAPT_KERNELS_MATRIX_DOT_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

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
  static constexpr Index kColumns = 4 * kMatrixRows;  // that are summed before they are written

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
  Index x = 0;
  do {  // once at least: c = beta * c
    for (Index row = 0; row < p.rows; row += Query::kRows) {
      DotProduct some = p.part(row, HWY_MIN(p.rows - row, Query::kRows));
      some.inner = HWY_MIN(p.inner - x, Query::kMost);
      some.a += x;
      some.b.first += x * Query::kBytes;
      if (x > 0) some.beta = &kOne;
      MatrixDot<Tiles, Query> dot(some);
      dot.Run();
      for (Index r = 0; r < some.rows; ++r) {
        if (!dot.holds(r)) CompiledDotProduct(some.part(r, 1));
      }
    }
    x += Query::kMost;
  } while (x < p.inner);
}

template <class Tiles>
void MatrixDotOf(const DotProduct& p) {
  if (p.pairs) return MatrixDots<Tiles, QueryPairs>(p);
#if HWY_TARGET != HWY_SCALAR
  // A lesser depth fills no tile; of a greater one the digits of q would not stay in tiles.
  constexpr Index kLeast = kTileBytes / 2;
  if (p.b.type == Type::int8 && p.inner >= kLeast && p.inner <= QueryDigits::kMost)
    return MatrixDots<Tiles, QueryDigits>(p);
#endif
  CompiledDotProduct(p);
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
