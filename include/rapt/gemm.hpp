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
// strides is 1. b may be stored in bf16, f16 or int8 (element times the scale of its column); sums
// are f32. c must not overlap a, b or bias, nor itself. Throws Error before anything is
// written. Thread-safe. Source of the blocking: Goto and van de Geijn 2008; Low et al. 2016 (block
// sizes from the caches).
RAPT_API void gemm(View<const float, axis::Row, axis::Inner> a,
                   const AnyView<const std::byte, axis::Inner, axis::Column>& b,
                   View<float, axis::Row, axis::Column> c, const GemmOptions& options = {});

}  // namespace rapt
