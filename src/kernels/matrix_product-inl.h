// The product of pairs on matrix tiles: 32 x 32 numbers of c in four of them, two of a, two of b.
// Per-target header: see kernels.cc.
#include "kernels/matrix_tiles-inl.h"
#include "kernels/tile_product-inl.h"

#if defined(RAPT_KERNELS_MATRIX_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_PRODUCT_INL_H_
#undef RAPT_KERNELS_MATRIX_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_MATRIX_PRODUCT_INL_H_
#endif

#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Blocks of c of one shape, [rows, columns], at most 2 kSide of both: to configure the tiles takes
// as long as a dozen products of them, so it is done once for all.
template <class Tiles>
class MatrixBlocks {
 public:
  static constexpr Index kSide = kMatrixRows;

  MatrixBlocks(const TileProduct& p, Index rows, Index columns, bool adds)
      : p_(p), rows_(rows), columns_(columns), adds_(adds), tiles_(Shapes(rows, columns)) {}

  // c[row ..., column ...]
  void Run(Index row, Index column) {
    const Index wanted =
        HWY_MIN(columns_, p_.columns - column);  // of b's columns, all of them readable
    const bool direct = p_.alpha == 1.0f && p_.c_column == 1 && wanted == columns_;
    float* c = p_.c + row * p_.c_row + column * p_.c_column;
    if (direct && p_.beta != nullptr) {
      // Here and not after the sum: what beta is of other columns must not change a column's bits.
      if (!adds_) Scale(c, column);
      EachOfC([&](auto tile, Index r, Index col) HWY_ATTR {
        tiles_.template load<tile>(c + r * p_.c_row + col, p_.c_row * kFloat);
      });
    } else {
      EachOfC([&](auto tile, Index, Index) HWY_ATTR { tiles_.template zero<tile>(); });
    }
    if (p_.c_row > columns_) {  // each a line of its own, perhaps of its own page
      for (Index r = 0; r < rows_; ++r) {
        PrefetchToWrite(c + r * p_.c_row);
        PrefetchToWrite(c + r * p_.c_row + (wanted - 1) * p_.c_column);
      }
    }
    const float* a = p_.a + row * p_.a_row;
    const float* b = p_.b + column;
    Index x = 0;
    for (; x + kSide <= p_.inner; x += kSide, a += kSide, b += kSide * p_.b_inner)
      Multiply(a, p_.a_row, b, p_.b_inner);
    if (x < p_.inner) {  // the last steps, with zeros after them
      float last_a[2 * kSide * kSide] = {}, last_b[kSide * 2 * kSide] = {};
      const Index steps = p_.inner - x;
      for (Index i = 0; i < rows_; ++i) Copy(a + i * p_.a_row, steps, last_a + i * kSide);
      for (Index i = 0; i < steps; ++i) Copy(b + i * p_.b_inner, columns_, last_b + i * 2 * kSide);
      Multiply(last_a, kSide, last_b, 2 * kSide);
    }
    if (direct) return Store(c, p_.c_row);
    alignas(64) float sums[2 * kSide * 2 * kSide];
    Store(sums, 2 * kSide);
    Update(sums, wanted, column, c);
  }

 private:
  // The four of c by row and column, then those of a by row, and of b by column.
  enum { kC00, kC01, kC10, kC11, kA0, kA1, kB0, kB1 };
  static constexpr Index kFloat = sizeof(float);
  template <int kTile>
  using Number = std::integral_constant<int, kTile>;

  static MatrixShapes Shapes(Index rows, Index columns) {
    const Index r[2] = {HWY_MIN(rows, kSide), rows - HWY_MIN(rows, kSide)};
    const Index bytes[2] = {HWY_MIN(columns, kSide) * kFloat,
                            (columns - HWY_MIN(columns, kSide)) * kFloat};
    const auto shape = [](Index shape_rows, Index row_bytes) {
      return shape_rows > 0 && row_bytes > 0
                 ? MatrixShape{static_cast<int>(shape_rows), static_cast<int>(row_bytes)}
                 : MatrixShape{};
    };
    return {{shape(r[0], bytes[0]), shape(r[0], bytes[1]), shape(r[1], bytes[0]),
             shape(r[1], bytes[1]), shape(r[0], kSide * kFloat), shape(r[1], kSide * kFloat),
             shape(kSide, bytes[0]), shape(kSide, bytes[1])}};
  }

  // Calls f(tile, its first row, its first column) for the tiles of c that are in use.
  template <class F>
  HWY_INLINE void EachOfC(const F& f) const {
    f(Number<kC00>(), Index{0}, Index{0});
    if (columns_ > kSide) f(Number<kC01>(), Index{0}, kSide);
    if (rows_ > kSide) f(Number<kC10>(), kSide, Index{0});
    if (rows_ > kSide && columns_ > kSide) f(Number<kC11>(), kSide, kSide);
  }

  HWY_INLINE void Multiply(const float* a, Index a_row, const float* b, Index b_inner) {
    tiles_.template load<kA0>(a, a_row * kFloat);
    tiles_.template load<kB0>(b, b_inner * kFloat);
    tiles_.template multiply_add<kC00, kA0, kB0>();
    if (columns_ > kSide) {
      tiles_.template load<kB1>(b + kSide, b_inner * kFloat);
      tiles_.template multiply_add<kC01, kA0, kB1>();
    }
    if (rows_ <= kSide) return;
    tiles_.template load<kA1>(a + kSide * a_row, a_row * kFloat);
    tiles_.template multiply_add<kC10, kA1, kB0>();
    if (columns_ > kSide) tiles_.template multiply_add<kC11, kA1, kB1>();
  }

  HWY_INLINE void Store(float* to, Index to_row) const {
    EachOfC([&](auto tile, Index r, Index col)
                HWY_ATTR { tiles_.template store<tile>(to + r * to_row + col, to_row * kFloat); });
  }

  // c = beta * c
  void Scale(float* c, Index column) const {
    const F32 d;
    for (Index i = 0; i < rows_; ++i, c += p_.c_row) {
      Index j = 0;
      for (; j + Lanes() <= columns_; j += Lanes())
        hn::StoreU(hn::Mul(hn::LoadU(d, p_.beta + column + j), hn::LoadU(d, c + j)), d, c + j);
      for (; j < columns_; ++j) c[j] *= p_.beta[column + j];
    }
  }

  // c = alpha * sums + beta * c
  void Update(const float* sums, Index wanted, Index column, float* c) const {
    for (Index i = 0; i < rows_; ++i) {
      for (Index j = 0; j < wanted; ++j) {
        float& number = c[i * p_.c_row + j * p_.c_column];
        const float sum = p_.alpha * sums[i * 2 * kSide + j];
        number = p_.beta == nullptr ? sum : p_.beta[column + j] * number + sum;
      }
    }
  }

  static void Copy(const float* from, Index n, float* to) {  // pairs, at any address
    std::memcpy(to, reinterpret_cast<const char*>(from), static_cast<size_t>(n) * sizeof(float));
  }

  const TileProduct& p_;
  Index rows_, columns_;
  bool adds_;  // beta is 1 everywhere
  Tiles tiles_;
};

// Whether c is added to as it is.
inline bool AllOnes(const float* beta, Index n) {
  if (beta == nullptr) return false;
  Index i = 0;
  while (i < n && beta[i] == 1.0f) ++i;
  return i == n;
}

// Tiles read rows of a along k. Where they lie side by side, the other body takes them. The next
// rows are not asked for: it would take longer than reading them when they are packed.
template <class Tiles, int kRows, int kVectors>
void MatrixProductOf(const TileProduct& p) {
  if (p.a_row == 1) return TileProductOf<kRows, kVectors, Pair>(p);
  HWY_DASSERT(p.a_inner == 1);
  constexpr Index kBlock = 2 * kMatrixRows;
  const Index whole = p.rows / kBlock, rest = p.rows % kBlock;
  if (p.rows == 0) return;
  const bool adds = AllOnes(p.beta, p.columns);
  const Index all_columns = kVectors * Lanes();
  for (Index column = 0; column < p.columns; column += kBlock) {
    const Index columns = HWY_MIN(kBlock, all_columns - column);
    const auto blocks = [&](Index first, Index count, Index rows) {
      MatrixBlocks<Tiles> block(p, rows, columns, adds);
      for (Index i = first; i < first + count; ++i) block.Run(i * kBlock, column);
    };
    if (whole > 0) blocks(0, whole, kBlock);
    if (rest > 0) blocks(whole, 1, rest);
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
