// The comparator must fail where it should (B4), and its bounds must reject eight seeded mutants of
// attention by a factor of 10, so that no tolerance hides garbage (B38).
#include "support/compare.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/attention_case.hpp"
#include "support/plain.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

bool passes(float got, double want, double bound) {
  Comparison comparison;
  comparison.add(got, want, bound, 0, 0);
  return comparison.within() && comparison.worst() <= 1;
}

TEST(Comparison, SeparatesClassesBeforeItSubtracts) {  // B4
  const double huge = 1e300;                           // a bound that any number meets
  EXPECT_FALSE(passes(1.0f, kNaN, huge));
  EXPECT_FALSE(passes(kNaN, 1.0, huge));
  EXPECT_FALSE(passes(kInf, 1.0, huge));
  EXPECT_FALSE(passes(1.0f, kInf, huge));
  EXPECT_FALSE(passes(kInf, -kInf, huge));
  EXPECT_FALSE(passes(kNaN, kInf, huge));
  EXPECT_FALSE(passes(0.0f, -kInf, huge));
  EXPECT_FALSE(passes(-0.0f, 0.0, huge));
  EXPECT_FALSE(passes(0.0f, -0.0, huge));
  EXPECT_FALSE(passes(1.0f, 1.0, kNaN)) << "a bound that is NaN allows nothing";
  EXPECT_TRUE(passes(kNaN, kNaN, 0));
  EXPECT_TRUE(passes(-kInf, -kInf, 0));
  EXPECT_TRUE(passes(-0.0f, -0.0, 0));
  EXPECT_TRUE(passes(0.0f, 1e-20, 1e-10)) << "a zero for a small number is a matter of the bound";
}

TEST(Comparison, MeasuresInUnitsOfTheBound) {
  EXPECT_TRUE(passes(1.5f, 1.0, 0.5));
  EXPECT_FALSE(passes(1.5f, 1.0, 0.49));
  EXPECT_FALSE(passes(1.5f, 1.0, 0));
  Comparison comparison;
  comparison.add(1.5f, 1.0, 0.25, 0.25, 7);
  EXPECT_EQ(comparison.worst(), 1);
  EXPECT_TRUE(comparison.within());
  EXPECT_FALSE(comparison.strict());
}

TEST(Comparison, RefusesUnequalSizes) {
  Comparison comparison;
  comparison.add(1, 1, 0, 0, 0);
  comparison.add_size(3, 4);
  EXPECT_FALSE(comparison.within());
}

// What goes wrong in attention, one at a time.
enum class Mutant {
  drops_a_key,
  swaps_two_values,
  loses_the_last_key,
  ignores_the_carried_maximum,
  zeroes_a_row,
  takes_a_neighbours_row,
  scales_one_percent_off,
  all_zero,
  count
};

// [heads, seq_q, d_v] in exact arithmetic but for the mutation, rounded to f32 at the end.
std::vector<float> mutated(const Problem<float>& problem, const Salience& map, Mutant mutant) {
  const std::int64_t n = problem.keys().extent, rows = problem.queries().extent,
                     d_v = along<DepthV>(problem.v).extent;
  std::vector<float> out;
  for (At<Head> h : problem.heads()) {
    std::vector<double> values;  // [seq_kv, d_v]
    for (At<Key> j : problem.keys()) {
      for (At<DepthV> d : along<DepthV>(problem.v)) {
        values.push_back(at(problem.v, problem.kv_head(h), j, d));
      }
    }
    if (mutant == Mutant::swaps_two_values) {
      std::swap_ranges(values.data(), values.data() + d_v, values.data() + d_v);
    }
    for (At<Query> at_row : problem.queries()) {
      At<Query> i = at_row;
      if (mutant == Mutant::takes_a_neighbours_row && i.value == rows / 2) ++i.value;
      std::vector<double> p;
      for (At<Key> j : problem.keys()) p.push_back(at(map.weights, h, i, j));
      if (mutant == Mutant::scales_one_percent_off) {
        for (double& x : p) x = std::pow(x, 1.01);
      }
      if (mutant == Mutant::drops_a_key) p[static_cast<std::size_t>(n / 3)] = 0;
      if (mutant == Mutant::loses_the_last_key) p.back() = 0;
      if (mutant == Mutant::ignores_the_carried_maximum) {
        for (std::size_t begin = 0; begin < p.size();
             begin += 64) {  // each block relative to its own
          const std::size_t end = std::min(begin + 64, p.size());
          const double max = *std::max_element(&p[begin], &p[0] + end);
          for (std::size_t j = begin; j < end; ++j) p[j] /= max;
        }
      }
      double sum = 0;
      for (double x : p) sum += x;
      std::vector<double> sums(static_cast<std::size_t>(d_v));
      const double* value = values.data();
      double* const to = sums.data();  // this test is not optimized
      for (double x : p) {
        const double weight = x / sum;
        for (std::int64_t d = 0; d < d_v; ++d) to[d] += weight * *value++;
      }
      const bool zero = mutant == Mutant::all_zero ||
                        (mutant == Mutant::zeroes_a_row && at_row.value == rows / 2);
      for (double x : sums) out.push_back(zero ? 0.0f : static_cast<float>(x));
    }
  }
  return out;
}

Comparison compare(const ExpectedAttention& expected, const std::vector<float>& out) {
  const std::int64_t heads = along<Head>(expected.out).extent,
                     rows = along<Query>(expected.out).extent;
  Comparison comparison;
  compare_out(
      expected,
      OutView(const_cast<float*>(out.data()), {heads, rows, along<DepthV>(expected.out).extent}),
      comparison);
  return comparison;
}

TEST(Bounds, RejectMutantsAndPassPlainF32) {  // B38
  std::uint64_t seed = 7;
  for (std::int64_t n : {256, 1024}) {
    if (n > 256 && few_cases()) continue;
    for (Data data : {Data::normal, Data::value_mean_1}) {
      for (float scale : {0.125f, 0.5f}) {
        AttentionCase c;
        c.heads = c.kv_heads = 1;
        c.seq_q = 64;
        c.seq_kv = n;
        c.d_k = c.d_v = 64;
        c.scale = scale;
        c.data = data;
        c.dense = true;
        c.seed = ++seed;
        const AttentionData problem_data(c);
        const Problem<float> problem = problem_data.problem({});
        const Salience map = salience(problem);
        const ExpectedAttention expected = expect_attention(problem);
        EXPECT_TRUE(compare(expected, plain_attention(problem)).strict()) << c.describe();
        for (int m = 0; m < static_cast<int>(Mutant::count); ++m) {
          const Comparison comparison =
              compare(expected, mutated(problem, map, static_cast<Mutant>(m)));
          EXPECT_GE(comparison.worst(), 10) << "mutant " << m << " passes: " << c.describe();
        }
      }
    }
  }
}

}  // namespace
}  // namespace rapt::tests
