// merge() against its formula in f64, and against attention over all keys at once.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cache/storage.hpp"
#include "support/compare.hpp"
#include "support/executors.hpp"
#include "support/stored.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Rows [2, 3, seq_q, d_v] with their lse.
struct Part {
  Storage out;
  Tensor<float> lse;

  Part(Type type, std::int64_t seq_q, std::int64_t d_v, Random& random, bool input)
      : out(type, {2, 3, seq_q, d_v}, random_layout(random, 4, input)),
        lse({2, 3, seq_q}, random_layout(random, 3, input)) {
    out.seal();
    lse.seal();
  }
  explicit Part(const std::vector<float>& row, float lse_of_row)
      : out(Type::f32, {1, 1, static_cast<std::int64_t>(row.size())}), lse({1, 1}) {
    out.fill([&](std::int64_t i) { return row[static_cast<std::size_t>(i)]; });
    lse[0] = lse_of_row;
  }
  void draw(Random& random, std::int64_t d_v) {
    const double middle = random.pick({0.0, 0.0, 40.0, -3000.0});
    lse.fill([&](std::int64_t) {
      return random.percent(25) ? -kInf : static_cast<float>(middle + 3 * random.normal());
    });
    // What an empty part left there is not looked at.
    out.fill([&](std::int64_t i) {
      return lse[i / d_v] == -kInf && random.percent(50) ? kNaN
                                                         : static_cast<float>(random.normal());
    });
  }
  AttentionPart view() const {
    return {out.view<AnyOutRead, Head, Query, DepthV>(), lse.view<Head, Query>()};
  }
  AnyOut out_view() const { return out.view<AnyOut, Head, Query, DepthV>(); }
  LseView lse_view() const { return lse.view<Head, Query>(); }
};

// The formula, for row r: its out in f64, the bound of merge.hpp, and lse.
struct Expected {
  std::vector<double> out, bound;
  double lse = -std::numeric_limits<double>::infinity();
};

Expected expect(const std::vector<Part>& parts, std::int64_t r, std::int64_t d_v) {
  Expected e;
  double largest = e.lse, sum = 0;
  for (const Part& part : parts) largest = std::max(largest, static_cast<double>(part.lse[r]));
  for (const Part& part : parts) {
    if (part.lse[r] != -kInf) sum += std::exp(static_cast<double>(part.lse[r]) - largest);
  }
  if (sum > 0) e.lse = largest + std::log(sum);
  e.out.resize(static_cast<std::size_t>(d_v));
  e.bound = e.out;
  for (const Part& part : parts) {
    if (part.lse[r] == -kInf) continue;
    const double weight = std::exp(static_cast<double>(part.lse[r]) - e.lse);
    for (std::int64_t d = 0; d < d_v; ++d) {
      const double term = weight * static_cast<double>(part.out[r * d_v + d]);
      e.out[static_cast<std::size_t>(d)] += term;
      e.bound[static_cast<std::size_t>(d)] +=
          static_cast<double>(parts.size() + 1) * 0x1p-24 * std::abs(term);
    }
  }
  return e;
}

// got is what the parts merge to, within `times` the bound.
testing::AssertionResult matches(const Part& got, const std::vector<Part>& parts, std::int64_t d_v,
                                 double times = 1) {
  Comparison comparison;
  const double storage = rounding_of(got.out.type());
  for (std::int64_t r = 0; r < got.lse.size(); ++r) {
    const Expected want = expect(parts, r, d_v);
    comparison.add(got.lse[r], want.lse, times * 0x1p-23 * std::abs(want.lse), times * 0x1p-24, r);
    for (std::int64_t d = 0; d < d_v; ++d) {
      const auto at = static_cast<std::size_t>(d);
      comparison.add(got.out[r * d_v + d], want.out[at], times * want.bound[at] * (1 + storage),
                     storage * std::abs(want.out[at]) + floor_of(got.out.type()) + 0x1p-140,
                     r * d_v + d);
    }
  }
  return comparison.within();
}

TEST(Merge, IsTheFormula) {
  Seeds(521, cases(400)).for_each([](std::uint64_t seed) {
    Random random(seed);
    const std::int64_t seq_q = random.between(0, 6), d_v = random.between(1, 70);
    std::vector<Part> parts;
    std::vector<AttentionPart> views;
    const std::int64_t n = random.between(0, 5);
    for (std::int64_t i = 0; i < n; ++i) {
      parts.emplace_back(random.pick({Type::f32, Type::f32, Type::bf16, Type::f16}), seq_q, d_v,
                         random, true);
      parts.back().draw(random, d_v);
      views.push_back(parts.back().view());
    }
    Part merged(random.pick({Type::f32, Type::f32, Type::bf16, Type::f16}), seq_q, d_v, random,
                false);
    merge(views, merged.out_view(), merged.lse_view());
    EXPECT_TRUE(merged.out.gaps_unchanged());
    EXPECT_TRUE(merged.lse.gaps_unchanged());
    EXPECT_TRUE(matches(merged, parts, d_v)) << n << " parts";
    // The same bits on any executor, and in the memory of a part.
    const auto rows = merged.out.all_rows();
    const std::vector<float> lse = merged.lse.values();
    const ThreadExecutor threads(3);
    const BackwardExecutor backward;
    for (const Executor* executor :
         {static_cast<const Executor*>(&threads), static_cast<const Executor*>(&backward)}) {
      merge(views, merged.out_view(), merged.lse_view(), {executor});
      EXPECT_EQ(rows, merged.out.all_rows());
      EXPECT_TRUE(same_bits(lse, merged.lse.values()));
    }
    if (n == 0) return;
    const Part& place = parts[static_cast<std::size_t>(random.between(0, n - 1))];
    if (place.out.type() != merged.out.type()) return;
    merge(views, place.out_view(), place.lse_view());
    EXPECT_EQ(rows, place.out.all_rows());
    EXPECT_TRUE(same_bits(lse, place.lse.values()));
  });
}

TEST(Merge, IsAssociativeUpToRounding) {
  Seeds(522, cases(100)).for_each([](std::uint64_t seed) {
    Random random(seed);
    const std::int64_t seq_q = random.between(1, 6), d_v = random.between(1, 70);
    std::vector<Part> parts;
    for (int i = 0; i < 3; ++i) {
      parts.emplace_back(Type::f32, seq_q, d_v, random, true);
      parts.back().draw(random, d_v);
    }
    Part left(Type::f32, seq_q, d_v, random, false), right(Type::f32, seq_q, d_v, random, false);
    const auto merge_two = [](const AttentionPart& a, const AttentionPart& b, const Part& to) {
      merge(a.out, a.lse, b.out, b.lse, to.out_view(), to.lse_view());
    };
    merge_two(parts[0].view(), parts[1].view(), left);
    merge_two(left.view(), parts[2].view(), left);
    merge_two(parts[1].view(), parts[2].view(), right);
    merge_two(parts[0].view(), right.view(), right);
    // An lse between the two is rounded to f32, which moves the weights by 2^-24 |lse|.
    double largest = 0;
    for (const Part& part : parts) {
      for (float lse : part.lse.values())
        largest = std::max(largest, std::isinf(lse) ? 0 : static_cast<double>(std::abs(lse)));
    }
    EXPECT_TRUE(matches(left, parts, d_v, 3 + largest));
    EXPECT_TRUE(matches(right, parts, d_v, 3 + largest));
  });
}

TEST(Merge, OfTwoHalvesOfTheKeysIsAttentionOverAll) {
  Seeds(523, cases(60)).for_each([](std::uint64_t seed) {
    Random random(seed);
    const std::int64_t seq_q = random.between(1, 9), seq_kv = random.between(1, 60), d = 16;
    Tensor<float> q({2, 3, seq_q, d}), k({2, 3, seq_kv, d}), v({2, 3, seq_kv, d});
    for (Tensor<float>* tensor : {&q, &k, &v})
      tensor->fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
    const auto run = [&](std::int64_t first, std::int64_t n, const Part& to) {
      AttentionOptions options;
      options.lse = to.lse_view();
      options.causal = true;
      options.q_offset = seq_kv / 2 - first;
      const std::int64_t batch = 3 * seq_kv * d, head = seq_kv * d;
      attention(q.view<Head, Query, DepthK>(),
                KView(k.data() + first * d, {2, 3, n, d}, {batch, head, d, 1}),
                VView(v.data() + first * d, {2, 3, n, d}, {batch, head, d, 1}), to.out_view(),
                options);
    };
    const std::int64_t half = random.between(0, seq_kv);
    Part a(Type::f32, seq_q, d, random, false), b(Type::f32, seq_q, d, random, false),
        all(Type::f32, seq_q, d, random, false);
    run(0, half, a);
    run(half, seq_kv - half, b);
    run(0, seq_kv, all);
    merge(a.out_view(), a.lse_view(), b.out_view(), b.lse_view(), a.out_view(), a.lse_view());
    for (std::int64_t i = 0; i < 2 * 3 * seq_q * d; ++i) {
      if (std::isinf(all.lse[i / d])) {
        ASSERT_EQ(a.lse[i / d], all.lse[i / d]);
      } else {
        ASSERT_NEAR(a.lse[i / d], all.lse[i / d], 1e-5);
      }
      ASSERT_NEAR(a.out[i], all.out[i], 1e-5);
    }
  });
}

// One row of two numbers, from parts (row, lse).
struct Row {
  std::vector<float> out;
  float lse;
};
Row merged(const std::vector<Row>& rows) {
  std::vector<Part> parts;
  std::vector<AttentionPart> views;
  parts.reserve(rows.size());
  for (const Row& row : rows) {
    parts.emplace_back(row.out, row.lse);
    views.push_back(parts.back().view());
  }
  Part to({kNaN, kNaN}, kNaN);
  merge(views, to.out_view(), to.lse_view());
  return {{to.out[0], to.out[1]}, to.lse[0]};
}
void expect_row(const Row& got, const Row& want) {
  EXPECT_TRUE(same_bits(got.out, want.out));
  EXPECT_TRUE(same_bits({got.lse}, {want.lse}));
}

TEST(Merge, APartWithoutWeightIsNotLookedAt) {
  const Row empty{{kNaN, kInf}, -kInf}, one{{-0.0f, 0x1.234566p-130f}, 12.3f};
  expect_row(merged({}), {{0, 0}, -kInf});
  expect_row(merged({empty}), {{0, 0}, -kInf});
  expect_row(merged({empty, empty, empty}), {{0, 0}, -kInf});
  expect_row(merged({one}), one);
  expect_row(merged({empty, one, empty}), one);
  const Row far_below{{kNaN, kNaN}, -300};
  expect_row(merged({far_below, one}), one);
  expect_row(merged({one, far_below}), one);
}

TEST(Merge, WeightsOfEqualPartsAddUpToOne) {
  for (float lse : {0.0f, 50.0f, -1e30f, 3e38f}) {
    const Row row = merged({{{1, 4}, lse}, {{3, 4}, lse}});
    EXPECT_EQ(row.out, (std::vector<float>{2, 4})) << lse;
    EXPECT_NEAR(row.lse, lse + std::log(2.0f), std::abs(lse) * 1e-6f);
  }
}

TEST(Merge, InfinityAndNaNAreTheFormulas) {
  const Row one{{1, 2}, 0.5f};
  for (const std::vector<Row>& rows : {std::vector<Row>{one, {{1, 1}, kInf}},
                                       {{{1, 1}, kInf}},
                                       {{{1, 1}, kInf}, {{1, 1}, -kInf}}}) {
    const Row row = merged(rows);
    EXPECT_EQ(row.lse, kInf);
    EXPECT_TRUE(std::isnan(row.out[0]) && std::isnan(row.out[1]));
  }
  for (const std::vector<Row>& rows : {std::vector<Row>{one, {{1, 1}, kNaN}},
                                       {{{1, 1}, kNaN}, one},
                                       {{{1, 1}, kNaN}, {{1, 1}, kInf}}}) {
    const Row row = merged(rows);
    EXPECT_TRUE(std::isnan(row.lse));
    EXPECT_TRUE(std::isnan(row.out[0]) && std::isnan(row.out[1]));
  }
  const Row row = merged({one, {{kNaN, 2}, 0.5f}});  // NaN in a part of weight: its own number
  EXPECT_TRUE(std::isnan(row.out[0]));
  EXPECT_EQ(row.out[1], 2);
}

TEST(Merge, WithoutLseWritesOutAlone) {
  const Part a({1, 4}, 0), b({3, 4}, 0);
  const Part to({kNaN, kNaN}, kNaN);
  merge(a.out_view(), a.lse_view(), b.out_view(), b.lse_view(), to.out_view(), {});
  EXPECT_EQ(to.out[0], 2);
  EXPECT_TRUE(std::isnan(to.lse[0]));
}

}  // namespace
}  // namespace rapt::tests
