// The backward pass of the softmax on every target, against f64.
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

struct Case {
  bool bias, softcap, dscores, rounded;
};

// A CPU's own rounding may take numbers below the normal ones for 0.
bool is_rounded(std::uint16_t got, float of) {
  return got == to_bf16(of).bits || (std::abs(of) < kSmallestNormal && (got & 0x7fff) == 0);
}

void run(const kernels::Kernels& kernels, const Case& c, Index rows, Index n, Random& random) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const Index row = (rows + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
  const auto floats = [&](Index count, double mean, double deviation) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& x : values) x = static_cast<float>(mean + deviation * random.normal());
    return values;
  };
  std::vector<float> s = floats(row * n, 0, 8), dp = floats(row * n, 0, 1),
                     bias = floats(row * n, 0, 1), dscores = floats(row * n, 0, 1);
  const std::vector<float> lse = floats(row, 12, 1), delta = floats(row, 0, 1);
  const Index bias_begin = c.bias ? random.between(0, n) : 0;
  const auto at = [&](Index r, Index j) { return static_cast<std::size_t>(j * row + r); };
  for (Index r = 0; r < rows; ++r) {
    for (Index j = 0; j < n; ++j) {
      // NaN in what is not attended must not matter, nor what stands before bias_begin.
      if (c.bias && j < bias_begin) bias[at(r, j)] = std::nanf("");
      if (!c.bias || j < bias_begin || !random.percent(20)) continue;
      bias[at(r, j)] = -kInf;
      (random.percent(50) ? s : dp)[at(r, j)] = std::nanf("");
    }
  }
  const std::vector<float> products = s, dweights = dp;
  const float scale = 0.75f, softcap = c.softcap ? 5.0f : 0.0f;
  std::vector<BFloat16> p_rounded(s.size()), dp_rounded(s.size());
  std::vector<float> dp_pairs(static_cast<std::size_t>((n + 1) / 2 * row), 1.0f);
  kernels.softmax_backward({.s = s.data(),
                            .dp = dp.data(),
                            .dscores = c.dscores ? dscores.data() : nullptr,
                            .bias = c.bias ? bias.data() : nullptr,
                            .row = row,
                            .n = n,
                            .bias_begin = bias_begin,
                            .rows = rows,
                            .scale = scale,
                            .softcap = softcap,
                            .lse = lse.data(),
                            .delta = delta.data(),
                            .p_rounded = c.rounded ? p_rounded.data() : nullptr,
                            .dp_rounded = c.rounded ? dp_rounded.data() : nullptr,
                            .dp_pairs = c.rounded ? dp_pairs.data() : nullptr});
  for (Index r = 0; c.rounded && r < rows; ++r) {
    for (Index j = 0; j < n + n % 2; ++j) {
      const auto pair = std::bit_cast<std::uint32_t>(dp_pairs[at(r, j / 2)]);
      ASSERT_TRUE(
          is_rounded(static_cast<std::uint16_t>(pair >> j % 2 * 16), j < n ? dp[at(r, j)] : 0.0f))
          << r << " " << j;
      if (j == n) continue;
      ASSERT_TRUE(is_rounded(p_rounded[at(r, j)].bits, s[at(r, j)])) << r << " " << j;
      ASSERT_TRUE(is_rounded(dp_rounded[at(r, j)].bits, dp[at(r, j)])) << r << " " << j;
    }
  }
  for (Index r = 0; r < rows; ++r) {
    for (Index j = 0; j < n; ++j) {
      const bool biased = c.bias && j >= bias_begin;
      const double b = biased ? double{bias[at(r, j)]} : 0.0;
      if (b == -kInf) {
        ASSERT_EQ(s[at(r, j)], 0) << r << " " << j;
        ASSERT_EQ(dp[at(r, j)], 0) << r << " " << j;
        if (c.dscores) {
          ASSERT_EQ(dscores[at(r, j)], 0);
        }
        continue;
      }
      double score = double{products[at(r, j)]} * scale, slope = scale;
      if (c.softcap) {
        const double tanh = std::tanh(score / softcap);
        score = softcap * tanh;
        slope = scale * (1 - tanh * tanh);
      }
      const auto row_number = static_cast<std::size_t>(r);
      const double x = score + b - lse[row_number], p = std::exp(x);
      const double difference = double{dweights[at(r, j)]} - delta[row_number];
      // Roundings of scale, softcap, bias and lse.
      const double p_error =
          p * 1.01 * (exp_error(x) + 16 * kU * (std::abs(score) + std::abs(b) + std::abs(x))) +
          kSmallestNormal;
      const double ds = p * difference;
      const double ds_error =
          p_error * std::abs(difference) + 3 * kU * std::abs(ds) +
          2 * kU * p * (std::abs(dweights[at(r, j)]) + std::abs(delta[row_number])) +
          kSmallestNormal;
      ASSERT_NEAR(s[at(r, j)], p, p_error) << r << " " << j;
      if (c.dscores) {
        ASSERT_NEAR(dscores[at(r, j)], ds, ds_error) << r << " " << j;
      }
      const double slope_error = (c.softcap ? 36 : 1) * kU;
      ASSERT_NEAR(dp[at(r, j)], ds * slope, ds_error + slope_error * std::abs(ds)) << r << " " << j;
    }
  }
}

TEST(SoftmaxBackward, IsTheGradientOfASoftmax) {
  Random random(1);
  for (const kernels::Kernels* kernels : all_targets()) {
    for (bool bias : {false, true}) {
      for (bool softcap : {false, true}) {
        for (bool dscores : {false, true}) {
          for (Index rows : {1, 3, 4, 8, 13, 16, 33}) {
            for (Index n : {1, 2, 5, 16, 31}) {
              SCOPED_TRACE(std::string(kernels->target) + (bias ? " bias" : "") +
                           (softcap ? " softcap" : "") + " rows " + std::to_string(rows) + " n " +
                           std::to_string(n));
              run(*kernels, {bias, softcap, dscores, random.percent(50)}, rows, n, random);
              if (HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace rapt::tests
