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

template <class Tiles>
struct MatrixBlock {
  // The four of c by row and column, then those of a by row, and of b by column.
  enum { kC00, kC01, kC10, kC11, kA0, kA1, kB0, kB1 };
  static constexpr Index kSide = kMatrixRows, kFloat = sizeof(float);

  // c[row ..., column ...] of p, at most 2 kSide of both.
  static void Run(const TileProduct& p, Index row, Index rows, Index column, Index columns) {
    const bool more_rows = rows > kSide, more_columns = columns > kSide;
    const int r[2] = {static_cast<int>(HWY_MIN(rows, kSide)),
                      static_cast<int>(rows) - static_cast<int>(HWY_MIN(rows, kSide))};
    const int bytes[2] = {static_cast<int>(HWY_MIN(columns, kSide) * kFloat),
                          static_cast<int>((columns - HWY_MIN(columns, kSide)) * kFloat)};
    constexpr int kSteps = static_cast<int>(kSide), kBytes = static_cast<int>(kSide * kFloat);
    const auto shape = [](int shape_rows, int row_bytes) {
      return shape_rows > 0 && row_bytes > 0 ? MatrixShape{shape_rows, row_bytes} : MatrixShape{};
    };
    const MatrixShapes shapes{{shape(r[0], bytes[0]), shape(r[0], bytes[1]), shape(r[1], bytes[0]),
                               shape(r[1], bytes[1]), shape(r[0], kBytes), shape(r[1], kBytes),
                               shape(kSteps, bytes[0]), shape(kSteps, bytes[1])}};
    Tiles tiles(shapes);
    tiles.template zero<kC00>();
    if (more_columns) tiles.template zero<kC01>();
    if (more_rows) tiles.template zero<kC10>();
    if (more_rows && more_columns) tiles.template zero<kC11>();

    const auto multiply = [&](const float* a, Index a_row, const float* b, Index b_inner) {
      tiles.template load<kA0>(a, a_row * kFloat);
      tiles.template load<kB0>(b, b_inner * kFloat);
      tiles.template multiply_add<kC00, kA0, kB0>();
      if (more_columns) {
        tiles.template load<kB1>(b + kSide, b_inner * kFloat);
        tiles.template multiply_add<kC01, kA0, kB1>();
      }
      if (!more_rows) return;
      tiles.template load<kA1>(a + kSide * a_row, a_row * kFloat);
      tiles.template multiply_add<kC10, kA1, kB0>();
      if (more_columns) tiles.template multiply_add<kC11, kA1, kB1>();
    };
    const float* a = p.a + row * p.a_row;
    const float* b = p.b + column;
    Index x = 0;
    for (; x + kSide <= p.inner; x += kSide, a += kSide, b += kSide * p.b_inner)
      multiply(a, p.a_row, b, p.b_inner);
    if (x < p.inner) {  // the last steps, with zeros after them
      float last_a[2 * kSide * kSide] = {}, last_b[kSide * 2 * kSide] = {};
      const Index steps = p.inner - x;
      for (Index i = 0; i < rows; ++i) Copy(a + i * p.a_row, steps, last_a + i * kSide);
      for (Index i = 0; i < steps; ++i) Copy(b + i * p.b_inner, columns, last_b + i * 2 * kSide);
      multiply(last_a, kSide, last_b, 2 * kSide);
    }

    // c = alpha * sums + beta * c
    const auto store = [&](float* to, Index to_row) {
      tiles.template store<kC00>(to, to_row * kFloat);
      if (more_columns) tiles.template store<kC01>(to + kSide, to_row * kFloat);
      if (!more_rows) return;
      tiles.template store<kC10>(to + kSide * to_row, to_row * kFloat);
      if (more_columns) tiles.template store<kC11>(to + kSide * to_row + kSide, to_row * kFloat);
    };
    float* c = p.c + row * p.c_row + column * p.c_column;
    const Index wanted = HWY_MIN(columns, p.columns - column);
    if (p.alpha == 1.0f && p.beta == nullptr && p.c_column == 1 && wanted == columns) {
      store(c, p.c_row);
      return;
    }
    float sums[2 * kSide * 2 * kSide];
    store(sums, 2 * kSide);
    const auto update = [&](auto c_column) HWY_ATTR {
      for (Index i = 0; i < rows; ++i) {
        const float* from = sums + i * 2 * kSide;
        float* to = c + i * p.c_row;
        for (Index j = 0; j < wanted; ++j) {
          float& number = to[j * c_column];
          const float sum = p.alpha * from[j];
          number = p.beta == nullptr ? sum : p.beta[column + j] * number + sum;
        }
      }
    };
    if (p.c_column == 1) {
      update(std::integral_constant<Index, 1>());
    } else {
      update(p.c_column);
    }
  }

  static void Copy(const float* from, Index n, float* to) {  // pairs, at any address
    std::memcpy(to, reinterpret_cast<const char*>(from), static_cast<size_t>(n) * sizeof(float));
  }
};

// Tiles read rows of a along k. Where they lie side by side, the other body takes them.
template <class Tiles, int kRows, int kVectors>
void MatrixProductOf(const TileProduct& p) {
  if (p.a_row == 1) return TileProductOf<kRows, kVectors, Pair>(p);
  HWY_DASSERT(p.a_inner == 1);
  constexpr Index kBlock = 2 * kMatrixRows;
  const Index columns = kVectors * Lanes(), blocks = (p.rows + kBlock - 1) / kBlock;
  if (blocks == 0) return;
  const AskForNext ask(p, blocks);
  for (Index i = 0; i < blocks; ++i) {
    ask.Beside(i);
    for (Index column = 0; column < p.columns; column += kBlock) {
      MatrixBlock<Tiles>::Run(p, i * kBlock, HWY_MIN(kBlock, p.rows - i * kBlock), column,
                              HWY_MIN(kBlock, columns - column));
    }
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
