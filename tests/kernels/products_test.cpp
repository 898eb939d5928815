// tile_product and dot_product on every target: small integers, so that every order of summation is
// exact, in guarded memory, so that every element outside is a crash.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/tensor.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using kernels::Index;

void fill_integers(Tensor<float>& tensor, Random& random) {
  tensor.fill([&](std::int64_t) { return static_cast<float>(random.between(-8, 8)); });
  tensor.seal();
}

// [rows, columns] of c must be alpha * sum + beta * before.
struct Expected {
  const Tensor<float>&a, &b, &c;
  Index rows, columns, inner;
  float alpha;
  std::vector<float> beta;    // [columns], or empty
  std::vector<float> before;  // c
  bool b_is_transposed = false;

  void check() const {
    for (Index r = 0; r < rows; ++r) {
      for (Index col = 0; col < columns; ++col) {
        float sum = 0;
        for (Index x = 0; x < inner; ++x) {
          sum += a[r * inner + x] *
                 (b_is_transposed ? b[col * inner + x] : b[x * b.extents()[1] + col]);
        }
        float want = alpha * sum;
        const auto at = static_cast<std::size_t>(r * columns + col);
        if (!beta.empty()) want += beta[static_cast<std::size_t>(col)] * before[at];
        ASSERT_EQ(c[r * columns + col], want)
            << "c[" << r << ", " << col << "] of " << rows << " x " << columns << " x " << inner
            << ", alpha " << alpha << (beta.empty() ? "" : ", beta");
      }
    }
    ASSERT_TRUE(c.gaps_unchanged());
    ASSERT_TRUE(a.unchanged());
    ASSERT_TRUE(b.unchanged());
  }
};

void tile_product(const kernels::TileKernel& tile, Index rows, Index columns, Index inner,
                  Random& random) {
  const Edge edge = random.percent(50) ? Edge::end : Edge::start;
  // a [rows, inner]: one of the two strides is 1. b [inner, NR], rows perhaps further apart.
  const Layout a_layout{random.percent(50) ? std::vector<int>{0, 1} : std::vector<int>{1, 0},
                        1,
                        random.percent(50) ? 0 : 3,
                        0,
                        0,
                        edge};
  Tensor<float> a({rows, inner}, a_layout);
  Tensor<float> b({inner, tile.columns}, {{}, 1, random.percent(50) ? 0 : 5, 0, 0, edge});
  Tensor<float> c({rows, columns},
                  {{}, random.percent(60) ? 1 : 2, random.percent(50) ? 0 : 3, 0, 0, edge});
  fill_integers(a, random);
  fill_integers(b, random);
  std::vector<float> beta;
  if (random.percent(50)) {
    for (int col = 0; col < tile.columns; ++col) beta.push_back(random.pick({0.5f, 1.0f, -2.0f}));
    fill_integers(c, random);
  } else {
    c.seal();  // NaN everywhere: must not be read
  }
  const float alpha = random.pick({1.0f, 1.0f, -0.5f});
  const Expected expected{a, b, c, rows, columns, inner, alpha, beta, c.values()};
  tile.product({.a = a.data(),
                .a_row = a.strides()[0],
                .a_inner = a.strides()[1],
                .b = b.data(),
                .b_inner = b.strides()[0],
                .c = c.data(),
                .c_row = c.strides()[0],
                .c_column = c.strides()[1],
                .rows = rows,
                .inner = inner,
                .columns = columns,
                .alpha = alpha,
                .beta = beta.empty() ? nullptr : beta.data()});
  expected.check();
}

TEST(TileProduct, IsExactOnIntegersForAllRowsAndColumns) {  // B5, B22, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    Random random(3);
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const kernels::TileKernel& tile = kernels->tiles[t];
      SCOPED_TRACE(std::string(kernels->target) + " tile " + std::to_string(tile.rows) + "x" +
                   std::to_string(tile.vectors));
      EXPECT_EQ(tile.columns, tile.vectors * kernels->lanes);
      for (Index rows = 1; rows <= 2 * tile.rows + 1; ++rows) {
        for (Index inner : {0, 1, 2, 3, 5, 16, 17}) {
          tile_product(tile, rows, tile.columns, inner, random);
          tile_product(tile, rows, random.between(1, tile.columns), inner, random);
        }
      }
      for (Index columns = 1; columns <= tile.columns; ++columns) {
        tile_product(tile, random.between(1, 2 * tile.rows), columns, random.between(0, 9), random);
      }
      if (HasFatalFailure()) return;
    }
  }
}

TEST(TileProduct, WritesZerosWhereThereIsNothingToSum) {  // B22: c holds NaN before
  for (const kernels::Kernels* kernels : all_targets()) {
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const kernels::TileKernel& tile = kernels->tiles[t];
      std::vector<float> c(static_cast<std::size_t>(tile.rows * tile.columns),
                           std::numeric_limits<float>::quiet_NaN());
      const float nothing = 0;
      tile.product({.a = &nothing,
                    .a_row = 1,
                    .a_inner = 1,
                    .b = &nothing,
                    .b_inner = tile.columns,
                    .c = c.data(),
                    .c_row = tile.columns,
                    .c_column = 1,
                    .rows = tile.rows,
                    .inner = 0,
                    .columns = tile.columns,
                    .alpha = 1,
                    .beta = nullptr});
      for (float x : c) ASSERT_TRUE(x == 0 && !std::signbit(x)) << kernels->target;
    }
  }
}

TEST(DotProduct, IsExactOnIntegersForAllSizes) {  // B5, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    Random random(4);
    for (Index rows = 1; rows <= 9; ++rows) {
      for (Index columns = 1; columns <= 9; ++columns) {
        for (Index inner = 0; inner <= 2 * kernels->lanes + 1;
             inner += kernels->lanes > 16 ? 5 : 1) {
          const Edge edge = random.percent(50) ? Edge::end : Edge::start;
          Tensor<float> a({rows, inner}, {{}, 1, random.percent(50) ? 0 : 3, 0, 0, edge});
          Tensor<float> b({columns, inner}, {{}, 1, random.percent(50) ? 0 : 5, 0, 0, edge});
          Tensor<float> c({rows, columns}, {{}, random.percent(50) ? 1 : 2, 0, 0, 0, edge});
          fill_integers(a, random);
          fill_integers(b, random);
          std::vector<float> beta;
          if (random.percent(50)) {
            beta.assign(static_cast<std::size_t>(columns), random.pick({0.5f, -2.0f}));
            fill_integers(c, random);
          } else {
            c.seal();
          }
          const float alpha = random.pick({1.0f, -0.5f});
          const Expected expected{a, b, c, rows, columns, inner, alpha, beta, c.values(), true};
          kernels->dot_product({.a = a.data(),
                                .a_row = a.strides()[0],
                                .b = b.data(),
                                .b_row = b.strides()[0],
                                .c = c.data(),
                                .c_row = c.strides()[0],
                                .c_column = c.strides()[1],
                                .rows = rows,
                                .columns = columns,
                                .inner = inner,
                                .alpha = alpha,
                                .beta = beta.empty() ? nullptr : beta.data()});
          expected.check();
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace rapt::tests
