// The matrix product for all small sizes, exactly: integers, so that every order of summation gives
// the same; every operand flush against a page that faults; nothing along an axis.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "rapt/gemm.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"
#include "tiles/product.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Room for matrices of any smaller size, flush against one of its ends.
class Room {
 public:
  Room(std::int64_t largest, Edge edge)
      : edge_(edge),
        size_(largest),
        memory_(static_cast<std::size_t>(largest) * sizeof(float), edge) {}
  float* take(std::int64_t count) const {
    auto* begin = reinterpret_cast<float*>(memory_.data());
    return edge_ == Edge::end ? begin + size_ - count : begin;
  }

 private:
  Edge edge_;
  std::int64_t size_;
  GuardedMemory memory_;
};

// Small integers without a pattern that a wrong index would keep.
float integer(std::int64_t i) { return static_cast<float>((i * 7919 + i / 7 * 104729) % 17 - 8); }

// Writes [rows, columns] of them.
void fill_integers(float* to, std::int64_t rows, std::int64_t columns, bool transposed,
                   const float* integers) {
  const std::int64_t row = transposed ? 1 : columns, column = transposed ? rows : 1;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) to[i * row + j * column] = *integers++;
  }
}

// The integers of one size of b, and its product with [m, k] of a.
struct Operands {
  std::vector<float> a, b, c;

  Operands(std::int64_t m, std::int64_t n, std::int64_t k) {
    for (std::int64_t i = 0; i < m * k; ++i) a.push_back(integer(i));
    for (std::int64_t i = 0; i < k * n; ++i) b.push_back(integer(i + 1000003));
    c.resize(static_cast<std::size_t>(m * n));
    for (std::int64_t i = 0; i < m; ++i) {
      float* sums = c.data() + i * n;
      for (std::int64_t x = 0; x < k; ++x) {
        const float one = a[static_cast<std::size_t>(i * k + x)];
        const float* row = b.data() + x * n;
        for (std::int64_t j = 0; j < n; ++j) sums[j] += one * row[j];
      }
    }
  }
};

// One product of every layout: bit 0 a^T, 1 b^T, 2 c^T.
void expect_exact(std::int64_t m, std::int64_t n, std::int64_t k, unsigned layout,
                  const Room& a_room, const Room& b_room, const Room& c_room,
                  const Operands& want) {
  float* a = a_room.take(m * k);
  float* b = b_room.take(k * n);
  float* c = c_room.take(m * n);
  fill_integers(a, m, k, layout & 1, want.a.data());
  fill_integers(b, k, n, layout & 2, want.b.data());
  std::fill_n(c, m * n, kNaN);
  const View<const float, Row, Inner> a_view(a, {m, k}, {layout & 1 ? 1 : k, layout & 1 ? m : 1});
  const View<const float, Inner, Column> b_view(b, {k, n},
                                                {layout & 2 ? 1 : n, layout & 2 ? k : 1});
  const View<float, Row, Column> c_view(c, {m, n}, {layout & 4 ? 1 : n, layout & 4 ? m : 1});
  gemm(a_view, b_view, c_view);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const float got = layout & 4 ? c[j * m + i] : c[i * n + j];
      if (got == want.c.data()[i * n + j]) continue;
      FAIL() << "c[" << i << ", " << j << "] is " << got << ", m " << m << " n " << n << " k " << k
             << " layout " << layout;
    }
  }
}

void expect_all(const std::vector<std::int64_t>& ms, const std::vector<std::int64_t>& ns,
                const std::vector<std::int64_t>& ks, const std::vector<Blocks>& blocks) {
  const std::int64_t most = ms.back() * std::max(ns.back(), ks.back()) + ns.back() * ks.back();
  const Room rooms[2] = {Room(most, Edge::end), Room(most, Edge::start)};
  const Room more[2] = {Room(most, Edge::end), Room(most, Edge::start)};
  const Room results[2] = {Room(most, Edge::end), Room(most, Edge::start)};
  for (std::int64_t k : ks) {
    std::vector<Operands> want;  // of the most rows, with which fewer begin
    for (std::int64_t n : ns) want.emplace_back(ms.back(), n, k);
    for (std::int64_t m : ms) {
      for_each_way(blocks, [&] {
        for (std::size_t i = 0; i < ns.size() && !testing::Test::HasFatalFailure(); ++i) {
          const auto pick = static_cast<std::size_t>(m + ns[i] + k);
          expect_exact(m, ns[i], k, static_cast<unsigned>(pick % 8), rooms[pick % 2],
                       more[pick / 2 % 2], results[pick / 4 % 2], want[i]);
        }
      });
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

std::vector<std::int64_t> range(std::int64_t from, std::int64_t to) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = from; i <= to; ++i) result.push_back(i);
  return result;
}

TEST(GemmSizes, EverySizeFrom1To33) {  // B5, B6, B16
  const std::vector<std::int64_t> some_ks = {1, 5, 6, 17};
  expect_all(range(1, 33), range(1, 33), few_cases() ? some_ks : range(1, 33),
             {small_packed(5), small_packed_b(5), small_direct(5)});
}

TEST(GemmSizes, AroundTheTilesOfEveryTarget) {  // B5
  std::vector<std::int64_t> rows, columns;
  for (const kernels::Kernels* kernels : all_targets()) {
    for (int t = 0; t < kernels->n_tiles; ++t) {
      for (std::int64_t d : {-1, 0, 1}) {
        rows.push_back(2 * kernels->tiles[t].rows + d);
        columns.push_back(kernels->tiles[t].columns + d);
        columns.push_back(2 * kernels->tiles[t].columns + d);
      }
    }
  }
  for (auto* list : {&rows, &columns}) {
    std::sort(list->begin(), list->end());
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  const std::vector<std::int64_t> all_ks = {1, 2, 15, 16, 17, 64, 65}, some_ks = {1, 15, 16, 33};
  expect_all(rows, columns, few_cases() ? some_ks : all_ks,
             {small_packed(16), small_packed_b(16), small_packed(16, 1), small_packed_b(16, 1),
              small_packed(16, 2), small_packed_b(16, 2)});
}

// Slices of groups of panels, the last block narrower by a group; and b in place.
TEST(GemmSizes, ManyPanelsAndSlices) {
  GemmCase g;
  g.m = few_cases() ? 85 : 200;
  g.n = 800;
  g.k = few_cases() ? 35 : 70;
  g.dense = true;
  for (const bool b_transposed : {false, true}) {
    g.b_transposed = b_transposed;
    GemmData data(g);
    const auto expected = data.expect();
    std::vector<Blocks> ways;
    for (int tile = 0; tile < kernels::kMaxTiles; ++tile) {
      for (Blocks blocks :
           {small_packed(16, tile), small_packed_b(16, tile), small_direct(16, tile)}) {
        blocks.block_m = 40;
        blocks.block_n = 300;
        ways.push_back(blocks);
      }
    }
    for_each_way(ways, [&] {
      data.run();
      data.check(expected);
    });
  }
}

// Columns that are whole panels of the narrowest tile have no other copied, so there is no room for
// one.
TEST(GemmSizes, TilesLeaveNoColumnsOfWholePanels) {
  for (const kernels::Kernels* kernels : all_targets()) {
    const std::int64_t narrow = kernels->tiles[0].columns;
    for (int usual = 0; usual < kernels->n_tiles; ++usual) {
      for (std::int64_t rows = 1; rows <= 20; ++rows) {
        for (std::int64_t n = narrow; n <= 24 * narrow; n += narrow) {
          for (std::int64_t left = n; left > 0;) {
            const auto* tile = tiles::next_tile(*kernels, kernels->tiles[usual], left, rows);
            ASSERT_NE(tile, nullptr) << kernels->target << ", tile " << usual << ", " << rows
                                     << " rows, " << left << " of " << n << " columns";
            left -= tile->columns;
          }
        }
      }
    }
  }
}

TEST(GemmSizes, NothingAlongAnAxis) {  // B22: c holds NaN before
  for (int axis = 0; axis < 4; ++axis) {
    for (float beta : {0.0f, 0.5f}) {
      for (bool bias : {false, true}) {
        GemmCase g;
        g.batch = {axis == 3 ? 0 : 2};
        g.m = axis == 0 ? 0 : 5;
        g.n = axis == 1 ? 0 : 19;
        g.k = axis == 2 ? 0 : 7;
        g.beta = beta;
        g.bias = bias;
        g.activation = Activation::relu;
        g.integers = true;
        for (std::uint64_t seed = 1; seed < 9; ++seed) {
          g.seed = seed;
          g.dense = seed % 2 == 0;
          g.b_transposed = seed % 4 == 0;
          GemmData data(g);
          const auto expected = data.expect();
          for_each_way({small_packed(1), small_direct(1)}, [&] {
            data.run();
            data.check(expected);
          });
        }
      }
    }
  }
}

TEST(GemmSizes, NothingToSumNeedsNoMemory) {  // B22
  std::vector<float> c(2 * 5 * 19);
  for_each_way({small_packed(1), small_direct(1)}, [&] {
    std::fill(c.begin(), c.end(), kNaN);
    gemm(View<const float, Row, Inner>(nullptr, {2, 5, 0}),
         View<const float, Inner, Column>(nullptr, {2, 0, 19}),
         View<float, Row, Column>(c.data(), {2, 5, 19}));
    for (float x : c) ASSERT_TRUE(x == 0 && !std::signbit(x));
  });
}

TEST(GemmSizes, NaNAndInfinityGoWhereTheyMust) {
  GemmCase g;
  g.m = 17;
  g.n = 35;
  g.k = 20;
  g.dense = true;
  for (int layout = 0; layout < 8; ++layout) {
    g.a_transposed = layout & 1;
    g.b_transposed = layout & 2;
    g.c_transposed = layout & 4;
    GemmData data(g);
    data.a[3 * g.k + 4] = kNaN;
    data.b[9 * g.n + 33] = std::numeric_limits<float>::infinity();
    data.a.seal();
    data.b.seal();
    const auto expected = data.expect();
    for_each_way({small_packed(1), small_packed_b(1), small_packed(16), small_direct(8)}, [&] {
      data.run();
      data.check(expected);
      for (std::int64_t i = 0; i < data.c.size(); ++i) {
        ASSERT_TRUE(i / g.n == 3 || i % g.n == 33 || std::isfinite(data.c[i])) << i;
      }
    });
  }
}

double as_double(float x) { return x; }
double as_double(BFloat16 x) { return to_float(x); }

// Few rows against a b that no cache holds take a way of their own: it must give the bits that the
// same rows have beside others, and these are what the sum says.
template <class T, class Store>
void expect_few_rows_like_many(std::int64_t k, std::int64_t n, const Store& store) {
  constexpr std::int64_t kMany = 9;
  Tensor<T> b({k, n});
  Tensor<float> a({kMany, k}), many({kMany, n}), few({kMany, n});
  Random random(9);
  // Not normal(): logarithms of millions take longer than all else where they are emulated.
  const auto number = [&] { return static_cast<float>(2 * random.uniform() - 1); };
  b.fill([&](std::int64_t) { return store(number()); });
  a.fill([&](std::int64_t) { return number(); });
  for_each_target([&] {
    for (const float beta : {0.0f, 1.0f}) {
      if (beta == 0.0f && few_cases()) continue;
      GemmOptions options;
      options.alpha = 0.7f;
      options.beta = beta;
      many.fill([](std::int64_t i) { return static_cast<float>(i % 7); });
      gemm(a.view<Row, Inner>(), b.template view<Inner, Column>(), many.view<Row, Column>(),
           options);
      for (const std::int64_t m : {1, 3, 8}) {
        if (m == 3 && few_cases()) continue;
        few.fill([](std::int64_t i) { return static_cast<float>(i % 7); });
        gemm({a.data(), {m, k}}, b.template view<Inner, Column>(), {few.data(), {m, n}}, options);
        ASSERT_EQ(std::memcmp(many.data(), few.data(), static_cast<std::size_t>(m * n) * 4), 0)
            << m << " rows, beta " << beta;
      }
    }
    for (std::int64_t j = 0; j < n; j += 311) {
      double sum = static_cast<double>(j % 7), size = sum;  // beta was 1
      for (std::int64_t x = 0; x < k; ++x) {
        const double one = 0.7f * double{a[x]} * as_double(b[x * n + j]);
        sum += one;
        size += std::abs(one);
      }
      EXPECT_NEAR(few[j], sum, 1e-6 * size) << j;
    }
  });
}

TEST(GemmSizes, FewRowsOfALargeMatrix) {
  expect_few_rows_like_many<float>(2100, 2003, [](float x) { return x; });
  expect_few_rows_like_many<float>(301, 1024, [](float x) { return x; });  // b's rows collide
  expect_few_rows_like_many<BFloat16>(few_cases() ? 301 : 2100, 4001,
                                      [](float x) { return to_bf16(x); });
}

// Where b lies decides whether a tile copies it for others, and nothing else.
TEST(GemmSizes, SameBitsWhereverBLies) {
  constexpr std::int64_t kN = 131, kK = 1037, kLine = 16, kFar = 1024;
  const std::int64_t m = few_cases() ? 21 : 53;
  Random random(19);
  const auto normal = [&](std::int64_t) { return static_cast<float>(random.normal()); };
  Tensor<float> a({m, kK}), b({kK, kN}), c({m, kN});
  a.fill(normal);
  b.fill(normal);
  alignas(64) static float elsewhere[kK * kFar + kLine];
  for_each_target([&] {
    std::vector<float> first;
    for (const std::int64_t row : {kN, kN + kLine - kN % kLine, kFar}) {
      for (const std::int64_t offset : {std::int64_t{0}, std::int64_t{4}, kLine - 1}) {
        for (std::int64_t i = 0; i < b.size(); ++i)
          elsewhere[offset + i / kN * row + i % kN] = b[i];
        gemm(a.view<Row, Inner>(),
             View<const float, Inner, Column>(elsewhere + offset, {kK, kN}, {row, 1}),
             c.view<Row, Column>());
        if (first.empty()) first = c.values();
        ASSERT_EQ(std::memcmp(first.data(), c.values().data(), first.size() * sizeof(float)), 0)
            << "rows " << row << " floats apart, " << offset << " beyond a line";
      }
    }
  });
}

TEST(GemmSizes, OffsetsBeyond32Bits) {  // B14, B15
  if (sizeof(void*) < 8) GTEST_SKIP() << "a 32-bit address space";
  constexpr std::int64_t kFar = (std::int64_t{1} << 32) + 4096 + 5;
  constexpr auto kBytes = static_cast<std::size_t>(3 * kFar) * sizeof(float);
  const SparseMemory a_memory(kBytes), b_memory(kBytes), c_memory(kBytes);
  if (a_memory.bytes() == 0 || b_memory.bytes() == 0 || c_memory.bytes() == 0) {
    GTEST_SKIP() << "the system refuses the address space";
  }
  constexpr std::int64_t kM = 3, kN = 3, kK = 3;
  auto* a = reinterpret_cast<float*>(a_memory.data());
  auto* b = reinterpret_cast<float*>(b_memory.data());
  auto* c = reinterpret_cast<float*>(c_memory.data());
  const std::vector<float> want = Operands(kM, kN, kK).c;
  for (unsigned far = 0; far < 8; ++far) {  // which axis of a, b, c is far
    const std::int64_t as[] = {far & 1 ? kFar : 1, far & 1 ? 1 : kFar},
                       bs[] = {far & 2 ? kFar : 1, far & 2 ? 1 : kFar},
                       cs[] = {far & 4 ? kFar : 1, far & 4 ? 1 : kFar};
    for (std::int64_t i = 0; i < 9; ++i) {
      a[i / 3 * as[0] + i % 3 * as[1]] = integer(i);
      b[i / 3 * bs[0] + i % 3 * bs[1]] = integer(i + 1000003);
    }
    for_each_way({small_packed(1), small_direct(1)}, [&] {
      gemm(View<const float, Row, Inner>(a, {kM, kK}, {as[0], as[1]}),
           View<const float, Inner, Column>(b, {kK, kN}, {bs[0], bs[1]}),
           View<float, Row, Column>(c, {kM, kN}, {cs[0], cs[1]}));
      for (std::int64_t i = 0; i < 9; ++i) {
        ASSERT_EQ(c[i / 3 * cs[0] + i % 3 * cs[1]], want[static_cast<std::size_t>(i)])
            << far << " " << i;
      }
    });
  }
}

}  // namespace
}  // namespace rapt::tests
