// The tanh of the softcap on every target.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/ways.hpp"

namespace rapt::tests {
namespace {

std::vector<float> tanh_of(const kernels::Kernels& kernels, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  kernels.tanh(x.data(), y.data(), static_cast<kernels::Index>(x.size()));
  return y;
}

TEST(Tanh, StaysWithinItsStatedError) {
  std::vector<float> x;
  const std::int64_t n = cases(200000);
  for (std::int64_t i = 0; i <= n; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(n);
    x.push_back(static_cast<float>(12 * t));
    x.push_back(static_cast<float>(std::pow(10.0, -37 * t)));
  }
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    const std::vector<float> y = tanh_of(*kernels, x);
    for (float& value : x) value = -value;
    const std::vector<float> negative = tanh_of(*kernels, x);
    for (float& value : x) value = -value;
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::tanh(double{x[i]});
      if (want > 0) worst = std::max(worst, std::abs(y[i] - want) / want);
      ASSERT_LE(y[i], 1.0f) << x[i];
      ASSERT_EQ(negative[i], -y[i]) << x[i];
    }
    EXPECT_LE(worst, std::exp2(-21.3));
  }
}

TEST(Tanh, TakesInfinitiesAndKeepsNaN) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    const std::vector<float> x = {kInf, -kInf, 0.0f, std::nanf("1"), 1e30f, -1e30f};
    const std::vector<float> y = tanh_of(*kernels, x);
    EXPECT_NEAR(y[0], 1.0f, std::exp2(-21.3));
    EXPECT_NEAR(y[1], -1.0f, std::exp2(-21.3));
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_TRUE(std::isnan(y[3]));
    EXPECT_NEAR(y[4], 1.0f, std::exp2(-21.3));
    EXPECT_NEAR(y[5], -1.0f, std::exp2(-21.3));
  }
}

}  // namespace
}  // namespace rapt::tests
