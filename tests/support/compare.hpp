// The comparator of every numeric test. NaN, infinity and the sign of zero are compared by class
// before any subtraction, because abs(a - b) > tolerance is false for NaN: an oracle can hide the
// bug (B4).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace rapt::tests {

// Gathers the elements of one comparison.
class Comparison {
 public:
  // The allowed error of one element is bound + floor. The tightness of a test (see strict) divides
  // the bound, which is about the algorithm, and not the floor, which is the rounding of the result
  // itself.
  void add(float got, double want, double bound, double floor, std::int64_t where);
  // A comparison of sizes: arrays of unlike size are unequal.
  void add_size(std::int64_t got, std::int64_t want);

  // Every element within its bound.
  testing::AssertionResult within() const { return verdict(worst_); }
  // Every element within an eighth of its bound: what healthy kernels reach on random data.
  testing::AssertionResult strict() const { return verdict(8 * worst_); }

  // The largest (error - floor) / bound; infinite where the classes differ.
  double worst() const { return worst_; }
  std::int64_t count() const { return count_; }

 private:
  testing::AssertionResult verdict(double ratio) const;

  std::int64_t count_ = 0, where_ = -1;
  double worst_ = 0, want_ = 0, bound_ = 0, floor_ = 0;
  float got_ = 0;
  std::string sizes_;
};

}  // namespace rapt::tests
