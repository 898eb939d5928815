// pack_rows, unpack_rows and finish on every target, every row in guarded memory of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/bounds.hpp"
#include "support/tensor.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using kernels::Index;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// `rows` arrays [length], each flush against a page that faults.
std::vector<Tensor<float>> separate_rows(Index rows, Index length, Index stride, Edge edge) {
  std::vector<Tensor<float>> result;
  for (Index r = 0; r < rows; ++r) {
    result.emplace_back(std::vector<std::int64_t>{length}, Layout{{}, stride, 0, 0, 0, edge});
  }
  return result;
}

TEST(PackRows, TransposesAnyNumberOfRowsAndPadsWithZeros) {
  for (const kernels::Kernels* kernels : all_targets()) {
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const Index columns = kernels->tiles[t].columns;
      for (Index rows = 0; rows <= columns;
           rows += columns > 64 && rows > 4 && rows + 9 < columns ? 7 : 1) {
        for (Index length : {1, 2, 3, 4, 5, 8, 15, 17}) {
          const Index stride = rows % 3 == 2 ? 3 : 1;
          auto source = separate_rows(rows, length, stride, rows % 2 ? Edge::end : Edge::start);
          std::vector<const float*> pointers;
          for (Index r = 0; r < rows; ++r) {
            auto& row = source[static_cast<std::size_t>(r)];
            row.fill([&](Index x) { return static_cast<float>(1000 * r + x + 1); });
            pointers.push_back(row.data());
          }
          const Index panel_row = columns + (length % 2 == 0 ? 0 : 3);
          Tensor<float> panel({length, columns}, {{}, 1, panel_row - columns, 0, 0, Edge::end});
          panel.seal();
          kernels->pack_rows({.source = pointers.data(),
                              .stride = stride,
                              .rows = rows,
                              .length = length,
                              .panel = panel.data(),
                              .panel_row = panel_row,
                              .columns = columns});
          ASSERT_TRUE(panel.gaps_unchanged());
          for (Index x = 0; x < length; ++x) {
            for (Index r = 0; r < columns; ++r) {
              ASSERT_EQ(panel[x * columns + r], r < rows ? static_cast<float>(1000 * r + x + 1) : 0)
                  << kernels->target << " row " << r << " of " << rows << ", element " << x
                  << " of " << length;
            }
          }
        }
      }
    }
  }
}

TEST(PackRows, MakesPanelsThatAreNoWholeVectors) {  // B5
  for (const kernels::Kernels* kernels : all_targets()) {
    for (Index rows = 1; rows <= 19; ++rows) {
      for (Index length : {1, 3, 4, 7, 8, 15, 16, 17, 40}) {
        auto source = separate_rows(rows, length, 1, rows % 2 ? Edge::end : Edge::start);
        std::vector<const float*> pointers;
        for (Index r = 0; r < rows; ++r) {
          auto& row = source[static_cast<std::size_t>(r)];
          row.fill([&](Index x) { return static_cast<float>(1000 * r + x + 1); });
          pointers.push_back(row.data());
        }
        const Index panel_row = rows + length % 3;
        Tensor<float> panel({length, rows}, {{}, 1, panel_row - rows, 0, 0, Edge::end});
        panel.seal();
        kernels->pack_rows({.source = pointers.data(),
                            .stride = 1,
                            .rows = rows,
                            .length = length,
                            .panel = panel.data(),
                            .panel_row = panel_row,
                            .columns = rows});
        ASSERT_TRUE(panel.gaps_unchanged());
        for (Index x = 0; x < length; ++x) {
          for (Index r = 0; r < rows; ++r) {
            ASSERT_EQ(panel[x * rows + r], static_cast<float>(1000 * r + x + 1))
                << kernels->target << " row " << r << " of " << rows << ", element " << x << " of "
                << length;
          }
        }
      }
    }
  }
}

TEST(UnpackRows, DividesAndGivesZeroWhereTheDivisorIsZero) {  // B3
  for (const kernels::Kernels* kernels : all_targets()) {
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const Index columns = kernels->tiles[t].columns;
      for (Index rows = 1; rows <= columns;
           rows += columns > 64 && rows > 4 && rows + 9 < columns ? 7 : 1) {
        for (Index length : {1, 2, 3, 4, 5, 8, 15, 17}) {
          const Index stride = rows % 3 == 2 ? 3 : 1;
          auto destination =
              separate_rows(rows, length, stride, rows % 2 ? Edge::end : Edge::start);
          std::vector<float*> pointers;
          std::vector<float> divisor;
          for (Index r = 0; r < rows; ++r) {
            destination[static_cast<std::size_t>(r)].seal();
            pointers.push_back(destination[static_cast<std::size_t>(r)].data());
            divisor.push_back(r % 4 == 1 ? 0.0f : static_cast<float>(1 << r % 5));
          }
          Tensor<float> panel({length, columns}, {{}, 1, 0, 0, 0, Edge::end});
          panel.fill([&](Index i) {
            const Index r = i % columns;
            return r % 4 == 1 ? kNaN : static_cast<float>(1000 * r + i / columns + 1);
          });
          kernels->unpack_rows({.panel = panel.data(),
                                .columns = columns,
                                .divisor = divisor.data(),
                                .rows = rows,
                                .length = length,
                                .destination = pointers.data(),
                                .stride = stride});
          for (Index r = 0; r < rows; ++r) {
            const auto& row = destination[static_cast<std::size_t>(r)];
            for (Index x = 0; x < length; ++x) {
              const float by = divisor[static_cast<std::size_t>(r)];
              const float want = by == 0 ? 0 : static_cast<float>(1000 * r + x + 1) / by;
              ASSERT_TRUE(row[x] == want && !std::signbit(row[x]))
                  << kernels->target << " row " << r << " element " << x;
            }
            ASSERT_TRUE(row.gaps_unchanged());
          }
        }
      }
    }
  }
}

double gelu(double x) {
  return std::isinf(x) && x < 0 ? 0 : x * 0.5 * std::erfc(-x / std::sqrt(2.0));
}

TEST(Finish, AddsTheBiasAndActivatesAnyNumberOfElements) {
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    for (Index n = 0; n <= 2 * kernels->lanes + 1; ++n) {
      for (bool with_bias : {false, true}) {
        for (auto finish : {kernels::Finish::none, kernels::Finish::relu, kernels::Finish::gelu}) {
          const Edge edge = n % 2 ? Edge::end : Edge::start;
          Tensor<float> row({n}, {{}, 1, 0, 0, 0, edge}), bias({n}, {{}, 1, 0, 0, 0, edge});
          Random random(static_cast<std::uint64_t>(n) + 1);
          row.fill([&](Index) { return static_cast<float>(3 * random.normal()); });
          bias.fill([&](Index) { return static_cast<float>(random.normal()); });
          const std::vector<float> before = row.values();
          kernels->finish(row.data(), with_bias ? bias.data() : nullptr, n, finish);
          for (Index i = 0; i < n; ++i) {
            const float x = before[static_cast<std::size_t>(i)] + (with_bias ? bias[i] : 0);
            double want = x, bound = 0;
            if (finish == kernels::Finish::relu) want = x < 0 ? 0 : x;
            if (finish == kernels::Finish::gelu) {
              want = gelu(x);
              bound = 4e-7 * std::min(1.0f, std::abs(x)) + 8 * kU * std::abs(want);
            }
            ASSERT_NEAR(row[i], want, bound);
          }
        }
      }
    }
  }
}

TEST(Finish, KeepsNaNAndTakesInfinities) {
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    for (auto finish : {kernels::Finish::relu, kernels::Finish::gelu}) {
      float row[] = {kNaN, kInf, -kInf, 3e38f, -3e38f, 1e-45f, -100.0f, 100.0f, 0.0f};
      kernels->finish(row, nullptr, 9, finish);
      EXPECT_TRUE(std::isnan(row[0]));
      EXPECT_EQ(row[1], kInf);
      EXPECT_EQ(row[2], 0);
      EXPECT_EQ(row[3], 3e38f);
      EXPECT_EQ(row[4], 0);
      EXPECT_GE(row[5], 0);
      EXPECT_EQ(row[6], 0);
      EXPECT_EQ(row[7], 100);
      EXPECT_EQ(row[8], 0);
    }
  }
}

TEST(Finish, GeluIsAccurateOverItsWholeRange) {
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    for (int i = -20000; i <= 20000; ++i) {
      float x = static_cast<float>(i) * 1e-3f, y = x;
      kernels->finish(&y, nullptr, 1, kernels::Finish::gelu);
      const double want = gelu(x);
      ASSERT_NEAR(y, want, 4e-7 * std::min(1.0f, std::abs(x)) + 4 * kU * std::abs(want)) << x;
    }
  }
}

}  // namespace
}  // namespace rapt::tests
