// Comparison: classes first, then the error in units of its bound.
#include "support/compare.hpp"

#include <cmath>
#include <iomanip>
#include <limits>

namespace rapt::tests {
namespace {

enum class Class { nan, plus_infinity, minus_infinity, plus_zero, minus_zero, number };

Class class_of(double x) {
  if (std::isnan(x)) return Class::nan;
  if (std::isinf(x)) return x > 0 ? Class::plus_infinity : Class::minus_infinity;
  if (x == 0) return std::signbit(x) ? Class::minus_zero : Class::plus_zero;
  return Class::number;
}

// Whether a subtraction can tell the two apart.
bool comparable(Class got, Class want) {
  if (got == want) return true;
  const auto finite = [](Class c) { return c >= Class::plus_zero; };
  // A zero of the wrong sign is wrong; a zero for a small number, or the reverse, is a matter of
  // the bound.
  return finite(got) && finite(want) && (got == Class::number || want == Class::number);
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

void Comparison::add(float got, double want, double bound, double floor, std::int64_t where) {
  ++count_;
  double ratio = 0;
  if (!comparable(class_of(got), class_of(want)) || !(bound >= 0) || !(floor >= 0)) {
    ratio = kInfinity;
  } else if (std::isfinite(want) && double{got} != want) {
    const double excess = std::abs(double{got} - want) - floor;
    ratio = excess <= 0 ? 0 : bound > 0 ? excess / bound : kInfinity;
  }
  if (where_ < 0 || ratio > worst_) {
    worst_ = ratio;
    where_ = where;
    got_ = got;
    want_ = want;
    bound_ = bound;
    floor_ = floor;
  }
}

void Comparison::add_size(std::int64_t got, std::int64_t want) {
  if (got == want) return;
  worst_ = kInfinity;
  sizes_ = std::to_string(got) + " elements, but " + std::to_string(want) + " expected; ";
}

testing::AssertionResult Comparison::verdict(double ratio) const {
  if (ratio <= 1) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << std::setprecision(9) << sizes_ << "element " << where_ << " is " << got_
         << ", expected " << want_ << "; error " << std::abs(double{got_} - want_) << ", bound "
         << bound_ << " + " << floor_ << ", exceeded " << ratio << " times";
}

}  // namespace rapt::tests
