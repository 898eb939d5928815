// The online softmax on every target, in both layouts, block after block, against f64.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "support/bounds.hpp"
#include "support/random.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using kernels::Index;
constexpr float kInf = std::numeric_limits<float>::infinity();

// What one row of attention has seen so far, in f64.
struct Row {
  double max = -kInf, sum = 0;
};

// How scores fall over the blocks.
enum class Trend { random, rising, falling, first_blocks_masked, all_masked, far_below };

double score_at(Trend trend, Index block, Random& random) {
  const double x = 4 * random.normal();
  if (trend == Trend::rising) return x + 20 * static_cast<double>(block);
  if (trend == Trend::falling) return x - 20 * static_cast<double>(block);
  if (trend == Trend::far_below) return x - 1e4;
  return x;
}

struct Case {
  bool lanes;  // keys down and rows in lanes, or rows of keys
  bool bias;
  float pre_scale, scale;
  Trend trend;
  float softcap = 0;
};

// `blocks` blocks of n keys for `rows` rows.
void run(const kernels::Kernels& kernels, const Case& c, Index rows, Index n, std::uint64_t seed) {
  constexpr Index kBlocks = 4;
  Random random(seed);
  const Index lanes = kernels.lanes;
  const auto whole = [&](Index x) { return (x + lanes - 1) / lanes * lanes; };
  const Index s_row = c.lanes ? whole(rows) : whole(n);
  const auto at = [&](Index r, Index j) {
    return static_cast<std::size_t>(c.lanes ? j * s_row + r : r * s_row + j);
  };
  const auto size = static_cast<std::size_t>(s_row * (c.lanes ? n : rows));
  const auto states = static_cast<std::size_t>(whole(rows));
  std::vector<float> row_max(states, -kInf), row_sum(states, 0), rescale(states, kInf);
  std::vector<Row> seen(static_cast<std::size_t>(rows));
  for (Index block = 0; block < kBlocks; ++block) {
    std::vector<float> s(size, 0), bias(size, 0), before;
    const Index bias_begin = c.lanes ? random.between(0, n) : 0;
    for (Index r = 0; r < rows; ++r) {
      for (Index j = 0; j < n; ++j) {
        s[at(r, j)] =
            static_cast<float>(score_at(c.trend, block, random) / (c.pre_scale * c.scale));
        const bool masked = c.trend == Trend::all_masked ||
                            (c.trend == Trend::first_blocks_masked && block < 2) ||
                            random.percent(20);
        bias[at(r, j)] = masked ? -kInf : static_cast<float>(random.normal());
        // NaN in what is not attended must not matter, nor what stands before bias_begin.
        if (c.bias && j >= bias_begin && masked)
          s[at(r, j)] = std::numeric_limits<float>::quiet_NaN();
        if (j < bias_begin) bias[at(r, j)] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    before = s;
    const std::vector<float> old_max = row_max;
    const kernels::SoftmaxStep step{.s = s.data(),
                                    .bias = c.bias ? bias.data() : nullptr,
                                    .s_row = s_row,
                                    .n = n,
                                    .bias_begin = bias_begin,
                                    .rows = rows,
                                    .pre_scale = c.pre_scale,
                                    .softcap = c.softcap,
                                    .scale = c.scale,
                                    .row_max = row_max.data(),
                                    .row_sum = row_sum.data(),
                                    .rescale = rescale.data()};
    (c.lanes ? kernels.softmax_lanes : kernels.softmax_rows)(step);

    for (Index r = 0; r < rows; ++r) {
      const auto row = static_cast<std::size_t>(r);
      std::vector<double> scores;  // in units of row_max
      double magnitude = 0;        // of what was added up to a score
      for (Index j = 0; j < n; ++j) {
        const bool with_bias = c.bias && j >= bias_begin;
        const float b = with_bias ? bias[at(r, j)] : 0;
        double capped = double{before[at(r, j)]} * c.pre_scale;
        // tanh is right within 4 units in the last place, of its result.
        if (c.softcap > 0) capped = c.softcap * std::tanh(capped / c.softcap);
        const double pre = capped + b;
        if (b != -kInf) {
          magnitude =
              std::max(magnitude, (c.softcap > 0 ? 12 : 1) * std::abs(capped) + std::abs(b));
        }
        scores.push_back(b == -kInf ? -kInf : double{static_cast<float>(pre)});
      }
      double max = seen[row].max;
      for (double x : scores) max = std::max(max, x);
      // One rounding of the score where a scale or a bias was applied; none where the block's
      // scores are raw.
      const double slack = 2 * kU * (std::abs(max) + magnitude);
      if (max == -kInf) {
        ASSERT_EQ(row_max[row], -kInf);
        ASSERT_EQ(row_sum[row], 0);
        for (Index j = 0; j < n; ++j) ASSERT_EQ(s[at(r, j)], 0);
        continue;
      }
      ASSERT_NEAR(row_max[row], max, slack);
      const double got_max = row_max[row];
      double sum = 0;
      for (Index j = 0; j < n; ++j) {
        const double x = scores[static_cast<std::size_t>(j)];
        const double distance = c.scale * (x - got_max), want = x == -kInf ? 0 : std::exp(distance);
        const double error = exp_error(distance) + kU * std::abs(distance) +
                             4 * kU * c.scale * (magnitude + std::abs(got_max));
        ASSERT_NEAR(s[at(r, j)], want, x == -kInf ? 0 : want * error + kSmallestNormal)
            << "p of row " << r << " key " << j << " block " << block;
        sum += s[at(r, j)];
      }
      // A maximum of -infinity before: nothing was gathered, and the factor is 0.
      const bool first = old_max[row] == -kInf;
      const double moved = first ? 0 : c.scale * (double{old_max[row]} - got_max);
      const double shrink = first ? 0 : std::exp(moved);
      ASSERT_NEAR(rescale[row], shrink,
                  shrink * (exp_error(moved) + kU * std::abs(moved)) + kSmallestNormal);
      if (old_max[row] == row_max[row]) {
        ASSERT_EQ(rescale[row], 1) << "a maximum that stays costs nothing";
      }
      sum += seen[row].sum * rescale[row];
      ASSERT_NEAR(row_sum[row], sum, sum_error(static_cast<double>(n) + 2) * sum);
      seen[row] = {got_max, row_sum[row]};
    }
  }
}

TEST(Softmax, CarriesMaximumAndSumFromBlockToBlock) {  // B1, B20, B34
  std::uint64_t seed = 1;
  for (const kernels::Kernels* kernels : all_targets()) {
    for (Trend trend : {Trend::random, Trend::rising, Trend::falling, Trend::first_blocks_masked,
                        Trend::all_masked, Trend::far_below}) {
      for (bool lanes : {true, false}) {
        for (bool bias : {true, false}) {
          // Either the scale stands in the exponent, or it is applied before the maximum is taken.
          for (auto [pre_scale, scale] :
               {std::pair{1.0f, 0.125f}, {1.0f, 1.0f}, {0.3f, 1.0f}, {-0.7f, 1.0f}}) {
            for (Index n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64, 65}) {
              if ((n == 16 || n == 33 || n == 64) && few_cases()) continue;
              SCOPED_TRACE(std::string(kernels->target) + (lanes ? " lanes" : " rows") +
                           (bias ? " bias" : "") + " trend " +
                           std::to_string(static_cast<int>(trend)) + " n " + std::to_string(n) +
                           " scales " + std::to_string(pre_scale) + " " + std::to_string(scale));
              run(*kernels, {lanes, bias, pre_scale, scale, trend},
                  1 + static_cast<Index>(seed % 19), n, seed);
              run(*kernels, {lanes, bias, pre_scale, 1.0f, trend, 3.0f},
                  1 + static_cast<Index>(seed % 19), n, seed);
              ++seed;
              if (HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

TEST(Softmax, TakesLongRows) {  // B20
  std::uint64_t seed = 1;
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    for (Index n : {1191, 4095, 4096, 4097}) {
      for (bool lanes : {true, false}) {
        run(*kernels, {lanes, false, 1.0f, 1.0f, Trend::random}, 3, n, ++seed);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// A first block of n keys, whose scores are as they are. State: row_max, row_sum, rescale.
kernels::SoftmaxStep plain_step(std::vector<float>& s, const float* bias, Index s_row, Index n,
                                Index rows, std::vector<float> (&state)[3]) {
  return {.s = s.data(),
          .bias = bias,
          .s_row = s_row,
          .n = n,
          .bias_begin = 0,
          .rows = rows,
          .pre_scale = 1,
          .softcap = 0,
          .scale = 1,
          .row_max = state[0].data(),
          .row_sum = state[1].data(),
          .rescale = state[2].data()};
}

// The same step twice, with weights as floats and rounded, as pairs of two keys. Both compute them
// to a few units of f32, so that one may be rounded up where the other is not.
void expect_pairs(const kernels::Kernels& kernels, bool in_lanes, Index rows, Index n, bool masked,
                  Random& random) {
  const Index lanes = kernels.lanes;
  const auto whole = [&](Index x) { return (x + lanes - 1) / lanes * lanes; };
  const Index s_row = in_lanes ? whole(rows) : whole(n);
  const auto at = [&](Index r, Index j) {
    return static_cast<std::size_t>(in_lanes ? j * s_row + r : r * s_row + j);
  };
  const auto size = static_cast<std::size_t>(s_row * (in_lanes ? n : rows));
  const auto states = static_cast<std::size_t>(whole(rows));
  std::vector<float> scores(size), bias(size);
  for (float& x : scores) x = static_cast<float>(random.normal() * 30);
  for (float& x : bias) x = random.percent(30) ? -kInf : 0.0f;
  const auto step = [&](bool pairs) {
    std::vector<float> s = scores,
                       state[] = {std::vector<float>(states, -kInf), std::vector<float>(states, 0),
                                  std::vector<float>(states, 0)};
    kernels::SoftmaxStep softmax =
        plain_step(s, masked ? bias.data() : nullptr, s_row, n, rows, state);
    softmax.pairs = pairs;
    (in_lanes ? kernels.softmax_lanes : kernels.softmax_rows)(softmax);
    return std::vector<std::vector<float>>{s, state[0], state[1], state[2]};
  };
  const auto floats = step(false), pairs = step(true);
  for (std::size_t state : {1u, 3u}) ASSERT_EQ(floats[state], pairs[state]);
  for (std::size_t r = 0; r < states; ++r)
    ASSERT_NEAR(floats[2][r], pairs[2][r], 1e-6f * floats[2][r]);
  for (Index j = 0; j < n + n % 2; ++j) {
    for (Index r = 0; r < rows; ++r) {
      const float p = j < n ? floats[0][at(r, j)] : 0;
      const auto pair = std::bit_cast<std::uint32_t>(pairs[0][at(r, j / 2)]);
      const auto got = static_cast<std::uint16_t>(pair >> j % 2 * 16);
      // A CPU's own rounding may take numbers below the normal ones for 0.
      if (p < kSmallestNormal && got == 0) continue;
      ASSERT_LE(std::abs(got - to_bf16(p).bits), 1)
          << kernels.target << " key " << j << " of " << n << " row " << r << " p " << p;
    }
  }
}

TEST(Softmax, WritesPairs) {
  for (const kernels::Kernels* kernels : all_targets()) {
    Random random(5);
    const Index lanes = kernels->lanes;
    for (bool masked : {false, true}) {
      for (Index n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 64})
        expect_pairs(*kernels, true, 2 * lanes - 1, n, masked, random);
      for (Index n = 1; n <= 5 * lanes + 3; n += lanes > 16 ? 7 : 1)
        expect_pairs(*kernels, false, 3, n, masked, random);
    }
  }
}

// With weights in pairs a maximum that rises by less than 2^8 of a weight stays, so that nothing is
// rescaled; one that rises by more does not.
TEST(Softmax, OfPairsKeepsAMaximumThatRisesLittle) {
  for (const kernels::Kernels* kernels : all_targets()) {
    const Index lanes = kernels->lanes;
    const auto n = static_cast<std::size_t>(lanes);
    constexpr float kScale = 0.5f;
    for (bool in_lanes : {true, false}) {
      const std::size_t rows = in_lanes ? n : 1, keys = in_lanes ? 2 : n;
      std::vector<float> max(n, -kInf), sum(n, 0.0f), rescale(n, 0.0f);
      double expected_sum = 0;
      float reference = 1;
      // log(2^8) / kScale is 11.09.
      for (const float score : {1.0f, 12.0f, -500.0f, 12.2f, 23.2f}) {
        std::vector<float> s(n * keys, score);
        const auto softmax = in_lanes ? kernels->softmax_lanes : kernels->softmax_rows;
        softmax({.s = s.data(),
                 .bias = nullptr,
                 .s_row = lanes,
                 .n = static_cast<Index>(keys),
                 .bias_begin = 0,
                 .pairs = true,
                 .rows = static_cast<Index>(rows),
                 .pre_scale = 1,
                 .softcap = 0,
                 .scale = kScale,
                 .row_max = max.data(),
                 .row_sum = sum.data(),
                 .rescale = rescale.data()});
        const float before = reference;
        if (score == 12.2f) reference = score;
        const double shrunk = std::exp(kScale * (double{before} - reference));
        const double weight = std::exp(kScale * (double{score} - reference));
        expected_sum = expected_sum * shrunk + weight * static_cast<double>(keys);
        for (std::size_t r = 0; r < rows; ++r) {
          ASSERT_EQ(max[r], reference) << kernels->target << " score " << score;
          ASSERT_NEAR(sum[r], expected_sum, 1e-5 * expected_sum);
          if (score != 1.0f) {  // the first one has nothing to rescale
            ASSERT_NEAR(rescale[r], shrunk, before == reference ? 0 : 1e-5 * shrunk);
          }
          const auto pair = std::bit_cast<std::uint32_t>(s[r]);
          const double got = to_float(BFloat16{static_cast<std::uint16_t>(pair)});
          ASSERT_NEAR(got, weight, weight / 256 + kSmallestNormal);
        }
      }
    }
  }
}

// Of all keys at once the weights come as parts of 1. A row that attends none has no parts, and
// one with a sink, which is there before, parts of less than 1.
TEST(Softmax, OfAllKeysGivesPartsOfOne) {
  Random random(5);
  for (const kernels::Kernels* kernels : all_targets()) {
    const Index lanes = kernels->lanes, columns = 2 * lanes;
    const auto states = static_cast<std::size_t>(columns);
    for (Index n : {1, 7, 32, 128}) {
      const auto size = static_cast<std::size_t>(n * columns);
      std::vector<float> scores(size), bias(size, 0.0f);
      for (float& x : scores) x = static_cast<float>(4 * random.normal());
      for (Index j = 0; j < n; ++j) bias[static_cast<std::size_t>(j * columns)] = -kInf;
      std::vector<float> weights, parts, sum;
      for (const bool all : {false, true}) {
        std::vector<float> s = scores,
                           state[] = {std::vector<float>(states, -kInf),
                                      std::vector<float>(states, 0), std::vector<float>(states)};
        state[0][1] = 0.5f, state[1][1] = 1.0f;
        kernels::SoftmaxStep softmax = plain_step(s, bias.data(), columns, n, columns, state);
        softmax.all = all;
        kernels->softmax_lanes(softmax);
        sum = state[1];
        (all ? parts : weights) = s;
      }
      EXPECT_EQ(sum[0], 0);
      for (std::size_t i = 0; i < size; ++i) {
        const double whole = sum[i % states], want = whole == 0 ? 0 : weights[i] / whole;
        ASSERT_NEAR(parts[i], want, 2 * kU * want + kSmallestNormal)
            << kernels->target << " n " << n << " element " << i;
      }
    }
  }
}

TEST(Softmax, KeepsNaNInItsRow) {  // B35
  for (const kernels::Kernels* kernels : all_targets()) {
    const Index n = 2 * kernels->lanes + 3, lanes = kernels->lanes;
    for (Index key = 0; key < n; ++key) {
      const auto states = static_cast<std::size_t>(lanes);
      std::vector<float> s(static_cast<std::size_t>(n * lanes), 1.0f),
          state[] = {std::vector<float>(states, -kInf), std::vector<float>(states, 0),
                     std::vector<float>(states)};
      s[static_cast<std::size_t>(key * lanes + lanes - 1)] =
          std::numeric_limits<float>::quiet_NaN();
      kernels->softmax_lanes(plain_step(s, nullptr, lanes, n, lanes, state));
      for (Index r = 0; r < lanes; ++r) {
        ASSERT_EQ(std::isnan(state[1][static_cast<std::size_t>(r)]), r == lanes - 1)
            << kernels->target << " key " << key;
      }
    }
  }
}

}  // namespace
}  // namespace rapt::tests
