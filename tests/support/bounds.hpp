// What a result must be, and how far from it it may lie: error bounds of each element, a priori,
// from the number formats and the sizes alone. No tolerance here was tuned to a result.
#pragma once

#include "reference/reference.hpp"
#include "support/compare.hpp"

namespace rapt::tests {

inline constexpr double kU = 0x1p-24;          // unit roundoff of f32
inline constexpr double kSmallest = 0x1p-149;  // smallest f32
inline constexpr double kSmallestNormal = 0x1p-126;

// The error of a sum of n terms, relative to the sum of their magnitudes: the proven bound, or for
// long sums the probabilistic one (Higham and Mary 2019) with lambda = 6.
double sum_error(double n);

// The relative error of the kernels' e^x, x <= 0, as kernels/exp-inl.h states it.
double exp_error(double x);

// The error of the kernels' score of an attended pair.
double score_error(const reference::Problem<float>& problem, reference::At<axis::Head> h,
                   reference::At<axis::Query> i, reference::At<axis::Key> j);

// One batch element of attention.
struct ExpectedAttention {
  template <class... Axes>
  using Array = reference::Array<Axes...>;
  Array<axis::Head, axis::Query, axis::DepthV> out, bound, floor;
  Array<axis::Head, axis::Query> lse, lse_bound;
};
// rounded: weights may be rounded to bf16, see RoundWeights. That is in `floor`.
ExpectedAttention expect_attention(const reference::Problem<float>& problem, bool rounded = false);

// Adds one batch element of results.
// `type`: what out was rounded to.
void compare_out(const ExpectedAttention& expected, const OutView& out, Comparison& comparison,
                 Type type = Type::f32);
void compare_lse(const ExpectedAttention& expected, const LseView& lse, Comparison& comparison);

// One batch element of a matrix product; c as it was before the call.
struct ExpectedGemm {
  reference::Array<axis::Row, axis::Column> c, bound;
};
ExpectedGemm expect_gemm(View<const float, axis::Row, axis::Inner> a,
                         View<const float, axis::Inner, axis::Column> b,
                         View<const float, axis::Row, axis::Column> c, const GemmOptions& options);

}  // namespace rapt::tests
