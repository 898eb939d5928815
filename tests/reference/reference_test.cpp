// The reference itself: the exact values of masks, rows that sum to 1, shapes, the swappable
// activation. Prime sizes, so that no two axes can be mixed up unnoticed.
#include "reference/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/attention_case.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

AttentionCase primes() {
  AttentionCase c;
  c.batch = {2};
  c.heads = 6;
  c.kv_heads = 3;
  c.seq_q = 5;
  c.seq_kv = 11;
  c.d_k = 7;
  c.d_v = 13;
  return c;
}

Problem<float> first(const AttentionData& data) { return data.problem({1, {1}}); }

TEST(Reference, SalienceRowsSumToOneAndWeighOnlyKeys) {
  const AttentionData data(primes());
  const Problem<float> problem = first(data);
  const Salience map = salience(problem);
  EXPECT_EQ(along<Head>(map.weights).extent, 6);
  EXPECT_EQ(along<Query>(map.weights).extent, 5);
  EXPECT_EQ(along<Key>(map.weights).extent, 11);
  for (At<Head> h : problem.heads()) {
    for (At<Query> i : problem.queries()) {
      double sum = 0;
      for (At<Key> j : problem.keys()) {
        sum += at(map.weights, h, i, j);
        EXPECT_NEAR(at(map.weights, h, i, j), std::exp(score(problem, h, i, j) - at(map.lse, h, i)),
                    1e-12);
      }
      EXPECT_NEAR(sum, 1, 1e-12);
    }
  }
  const auto out = attention(problem, map);
  EXPECT_EQ(along<DepthV>(out).extent, 13);
}

TEST(Reference, CausalMaskIsExactAlsoWhereItIsNotSquare) {
  for (std::int64_t seq_q : {2, 5, 11, 13}) {
    AttentionCase c = primes();
    c.seq_q = seq_q;
    c.causal = true;
    const AttentionData data(c);
    const Problem<float> problem = first(data);
    for (At<Query> i : problem.queries()) {
      for (At<Key> j : problem.keys()) {
        // The last query sees the last key.
        EXPECT_EQ(attended(problem, At<Head>{0}, i, j), seq_q - 1 - i.value <= 11 - 1 - j.value);
      }
    }
  }
}

TEST(Reference, MasksComposeAndMinusInfinityIsOne) {
  AttentionCase c = primes();
  c.causal = true;
  c.mask = Pairs::random;
  c.bias = Pairs::random;
  const AttentionData data(c);
  const Problem<float> problem = first(data);
  for (At<Head> h : problem.heads()) {
    for (At<Query> i : problem.queries()) {
      for (At<Key> j : problem.keys()) {
        const bool every = j.value <= i.value + 6 && at(problem.options.mask, h, i, j) &&
                           std::isfinite(at(problem.options.bias, h, i, j));
        EXPECT_EQ(attended(problem, h, i, j), every);
      }
    }
  }
}

TEST(Reference, NothingAttendedIsZero) {  // B3
  AttentionCase c = primes();
  c.mask = Pairs::all_out;
  const AttentionData data(c);
  const Problem<float> problem = first(data);
  const Salience map = salience(problem);
  const auto out = attention(problem, map);
  EXPECT_EQ(at(map.lse, At<Head>{3}, At<Query>{4}), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(at(out, At<Head>{3}, At<Query>{4}, At<DepthV>{5}), 0);
}

TEST(Reference, NeverTouchesWhatNoQueryAttends) {  // B2
  AttentionCase c = primes();
  c.mask = Pairs::first_keys_out;
  AttentionData data(c);
  const auto clean = salience(first(data));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (std::int64_t n = 0; n < data.k.size(); ++n) {
    if (n / 7 % 11 < 5) data.k[n] = nan;
  }
  for (std::int64_t n = 0; n < data.v.size(); ++n) {
    if (n / 13 % 11 < 5) data.v[n] = nan;
  }
  const Problem<float> problem = first(data);
  const auto out = attention(problem, salience(problem));
  for (At<Head> h : problem.heads()) {
    for (At<DepthV> d : along<DepthV>(out)) {
      EXPECT_FALSE(std::isnan(at(out, h, At<Query>{2}, d)));
      EXPECT_EQ(at(salience(problem).lse, h, At<Query>{2}), at(clean.lse, h, At<Query>{2}));
    }
  }
}

TEST(Reference, GroupsOfHeadsShareKeysAndValues) {
  AttentionCase c = primes();
  c.heads = 6;
  c.kv_heads = 2;
  const AttentionData data(c);
  const Problem<float> problem = first(data);
  const std::int64_t expected[] = {0, 0, 0, 1, 1, 1};
  for (At<Head> h : problem.heads()) EXPECT_EQ(problem.kv_head(h).value, expected[h.value]);
}

TEST(SalienceMap, IsTheWeightsOfAttentionAsFloats) {
  AttentionCase c = primes();
  c.causal = true;
  const AttentionData data(c);
  Tensor<float> map({2, 6, 5, 11}, {{0, 2, 1, 3}, 2, 3, 0, 0, Edge::end});
  map.seal();
  rapt::salience_map(data.q_view(), data.k_view(), map.view<Head, Query, Key>(), data.options());
  EXPECT_TRUE(map.gaps_unchanged());
  std::int64_t n = 0;
  for_each_batch(data.q_view(), [&](const Batch& batch) {
    const Problem<float> problem = data.problem(batch);
    const Salience expected = salience(problem);
    for (At<Head> h : problem.heads())
      for (At<Query> i : problem.queries())
        for (At<Key> j : problem.keys()) {
          EXPECT_EQ(map[n++], static_cast<float>(at(expected.weights, h, i, j)));
        }
  });
}

TEST(SalienceMap, AKeyBeyondALengthHasNoWeight) {
  AttentionCase c = primes();
  c.cache = Cache::lengths;
  const AttentionData data(c);
  Tensor<float> map({2, 6, 5, 11});
  rapt::salience_map(data.q_view(), data.k_view(), map.view<Head, Query, Key>(), data.options());
  for (std::int64_t n = 0; n < map.size(); ++n) {
    const bool exists = n % 11 < data.seq_kv(n / (6 * 5 * 11));
    EXPECT_EQ(map[n] == 0, !exists) << n;
  }
}

TEST(SalienceMap, PositionsMayBeAnywhere) {  // B45: sums of positions do not overflow
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const AttentionData data(primes());
  Tensor<float> map({2, 6, 5, 11});
  for (std::int64_t offset : {kMost, -kMost - 1}) {
    const auto weights = [&](const AttentionOptions& options) {
      rapt::salience_map(data.q_view(), data.k_view(), map.view<Head, Query, Key>(), options);
      return map.values();
    };
    for (float weight : weights({.q_offset = offset, .window_left = 3, .window_right = 5}))
      EXPECT_EQ(weight, 0);
    for (float weight : weights({.q_offset = offset, .causal = true}))
      EXPECT_EQ(weight > 0, offset > 0);
  }
}

TEST(SalienceMap, TakesAnotherActivation) {
  AttentionCase c = primes();
  c.causal = true;
  const AttentionData data(c);
  Tensor<float> map({2, 6, 5, 11});
  std::int64_t rows = 0;
  // Relu attention: scores below 0 weigh nothing, and rows need not sum to 1.
  rapt::salience_map(data.q_view(), data.k_view(), map.view<Head, Query, Key>(), data.options(),
                     [&](double* scores, std::int64_t n) {
                       ++rows;
                       for (std::int64_t j = 0; j < n; ++j)
                         scores[j] = std::max(scores[j], 0.0) / static_cast<double>(n);
                     });
  EXPECT_EQ(rows, 2 * 6 * 5);
  std::int64_t n = 0;
  for_each_batch(data.q_view(), [&](const Batch& batch) {
    const Problem<float> problem = data.problem(batch);
    for (At<Head> h : problem.heads())
      for (At<Query> i : problem.queries())
        for (At<Key> j : problem.keys()) {
          const bool seen = attended(problem, h, i, j);
          const double s =
              seen ? std::max(score(problem, h, i, j), 0.0) / static_cast<double>(i.value + 7) : 0;
          EXPECT_EQ(map[n++], static_cast<float>(s));
        }
  });
}

}  // namespace
}  // namespace rapt::tests
