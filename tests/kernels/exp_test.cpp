// e^x of the softmax on every target, over all non-positive floats.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "support/bounds.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

std::vector<float> exp_of(const kernels::Kernels& kernels, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  kernels.exp(x.data(), y.data(), static_cast<kernels::Index>(x.size()));
  return y;
}

// From -infinity up to -0, in equal steps of the bits.
std::vector<float> non_positive_floats(std::int64_t count) {
  constexpr std::uint32_t kMinusInfinity = 0xff800000u, kMinusZero = 0x80000000u;
  const auto step =
      std::max<std::uint32_t>(1, (kMinusInfinity - kMinusZero) / static_cast<std::uint32_t>(count));
  std::vector<float> x;
  for (std::uint32_t bits = kMinusInfinity; bits > kMinusZero + step; bits -= step)
    x.push_back(from_bits(bits));
  // Every float of the last octave before 0 and after the underflow would be too many; these are
  // near edges.
  x.push_back(-std::numeric_limits<float>::min());
  x.push_back(-std::numeric_limits<float>::denorm_min());
  x.push_back(-0.0f);
  return x;
}

TEST(Exp, StaysWithinItsStatedErrorAndIsMonotone) {  // R4
  std::vector<float> x = non_positive_floats(cases(1 << 20));
  // The range in which the result is neither 0 nor 1, finely.
  for (std::int64_t i = cases(1 << 20); i >= 0; --i) {
    x.push_back(
        static_cast<float>(-88.5 * static_cast<double>(i) / static_cast<double>(cases(1 << 20))));
  }
  std::sort(x.begin(), x.end());
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    const std::vector<float> y = exp_of(*kernels, x);
    std::int64_t wrong = 0, falls = 0;
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(double{x[i]});
      // The kernel gives 0 instead of a denormal, from 2^-126.5 down: denormals are slow (B13).
      EXPECT_TRUE(y[i] == 0 || y[i] >= 0.7 * kSmallestNormal) << x[i];
      const bool right = want < kSmallestNormal ? y[i] == 0 || std::abs(y[i] - want) <= want * 1e-5
                                                : std::abs(y[i] - want) <= want * exp_error(x[i]);
      if (want >= kSmallestNormal)
        worst = std::max(worst, std::abs(y[i] - want) / (want * exp_error(x[i])));
      if (!right && wrong++ == 0)
        ADD_FAILURE() << "e^" << x[i] << " is " << y[i] << ", not " << want;
      if (i > 0 && y[i] < y[i - 1] && falls++ == 0) {
        ADD_FAILURE() << "e^" << x[i - 1] << " is " << y[i - 1] << ", e^" << x[i] << " is " << y[i];
      }
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(falls, 0) << "places where a larger x has a smaller result";
    RecordProperty(std::string("worst_error_of_bound_") + kernels->target, std::to_string(worst));
  }
}

TEST(Exp, IsExactAtTheEnds) {
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> y =
        exp_of(*kernels, {0.0f, -0.0f, -inf, -std::numeric_limits<float>::max(), -1e30f,
                          -std::numeric_limits<float>::denorm_min()});
    EXPECT_EQ(y[0], 1);
    EXPECT_EQ(y[1], 1);
    for (std::size_t i : {2, 3, 4})
      EXPECT_TRUE(y[i] == 0 && !std::signbit(y[i])) << i << ": " << y[i];
    EXPECT_EQ(y[5], 1);
  }
}

TEST(Exp, KeepsNaNInEveryLane) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    const auto n = static_cast<std::size_t>(2 * kernels->lanes + 1);
    for (std::size_t at = 0; at < n; ++at) {
      for (float value : {nan, -nan, from_bits(0x7f800001u), from_bits(0xffffffffu)}) {
        std::vector<float> x(n, -1.0f);
        x[at] = value;
        const std::vector<float> y = exp_of(*kernels, x);
        for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(std::isnan(y[i]), i == at) << i << " " << at;
      }
    }
  }
}

}  // namespace
}  // namespace rapt::tests
