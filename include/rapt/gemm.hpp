// The matrix product: c = activation(alpha * a b + beta * c + bias).
#pragma once

#include "rapt/export.h"
#include "rapt/executor.hpp"
#include "rapt/types.hpp"
#include "rapt/view.hpp"

namespace rapt {

enum class Activation {
  none,
  relu,  // max(x, 0); NaN stays NaN
  gelu,  // x * Phi(x), Phi the normal distribution function (the erf form)
};

struct GemmOptions {
  float alpha = 1.0f;
  float beta = 0.0f;  // 0: c is not read, so it may hold anything
  View<const float, axis::Column> bias{};
  View<const float, axis::Column> b_scales{};  // of int8 columns of b; none: 1
  Activation activation = Activation::none;
  const Executor* executor = nullptr;  // default_executor() when null
};

// Shapes: a [batch..., m, k], b [batch..., k, n], c [batch..., m, n]; any extent may be 0 (k = 0
// gives c = activation(beta * c + bias)). A transposed operand is a view whose axes are listed the
// other way round: View<const float, Inner, Row>. Batch axes of a and b align with c's from the
// right and broadcast where they are missing or 1. Any strides; fastest where one of each matrix's
// strides is 1. a may be stored in bf16 or f16, b in these or int8 (element times the scale of its
// column); products are exact, sums are f32. Where both are bf16 and the CPU multiplies pairs of
// that, which is twice as fast, denormal numbers may count as 0. c must not overlap a, b or bias,
// nor itself. Throws Error before anything is written. Thread-safe. Source of the blocking: Goto
// and van de Geijn 2008; Low et al. 2016 (block sizes from the caches).
RAPT_API void gemm(const AnyView<const std::byte, axis::Row, axis::Inner>& a,
                   const AnyView<const std::byte, axis::Inner, axis::Column>& b,
                   const View<float, axis::Row, axis::Column>& c, const GemmOptions& options = {});

struct GemmBackwardOptions {
  float alpha = 1.0f;                     // of the product
  View<float, axis::Column> grad_bias{};  // written when given
  const Executor* executor = nullptr;     // default_executor() when null
};

// The gradients of c = alpha a b + bias, two more products, from that of c:
//   grad_a = alpha grad_c b^T,  grad_b = alpha a^T grad_c,  grad_bias = the sum of grad_c's rows
// Each is written when given, with the extents of what it is of, and summed over the batch axes on
// which that is broadcast: the gradient of weights [k, n] is a sum over all rows of all batch
// elements. Behind an activation, grad_c is the gradient times the activation's derivative. Any
// strides, as in gemm(); fastest where the summed batch axes of a and grad_c continue their rows,
// so that the sum is one product. Gradients must not overlap anything else. Throws Error before
// anything is written. Same bits for any number of threads. Thread-safe.
RAPT_API void gemm_backward(View<const float, axis::Row, axis::Inner> a,
                            View<const float, axis::Inner, axis::Column> b,
                            View<const float, axis::Row, axis::Column> grad_c,
                            View<float, axis::Row, axis::Inner> grad_a,
                            View<float, axis::Inner, axis::Column> grad_b,
                            const GemmBackwardOptions& options = {});

}  // namespace rapt
