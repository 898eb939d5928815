// What a result must be: f64 values of sampled elements, each with the largest error that f32
// arithmetic explains. A benchmark of a wrong result measures nothing, so every case is held
// against this first.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "attention.hpp"
#include "shapes.hpp"

namespace rapt::bench {

struct ExpectedElement {
  std::int64_t at;  // index in the result
  double value;
  double bound;
  std::size_t result = 0;  // which, where there are several
};
using Expected = std::vector<ExpectedElement>;

// Of a plain type.
struct Result {
  const char* name;
  Type type;
  std::span<float> memory;
};

// Operands of a product that lie as the shape says: a [batch, m, k], b [batch, k, n], both or their
// transposes; of an int8 b one scale for each column. c was 1 everywhere.
struct GemmOperands {
  StoredRows a, b;  // of one number
  const float* b_scales;
  const float* bias;  // [n], or null
};

// Whole rows of c. A library that rounds each element of c, too, is allowed `between` for it,
// relative to the magnitudes that it sums.
Expected expected_gemm(const Shape& shape, const GemmOperands& operands, double between = 0);

// Whole rows of out, among them the first and the last, from what is stored: rounding to a storage
// type is not the kernel's error, except that of out. A library that rounds each score and each
// weight between the two products is allowed `between` for it, relative to each.
Expected expected_attention(const AttentionLayout& layout, const AttentionArrays& arrays,
                            double between = 0);

// Of the gradients, in this order: rows of q, k and v; and where they are wanted elements of those
// of bias, slopes (where the pairs are few) and sinks. Computed from the out and the lse that a
// forward pass left, which are inputs here. `own_forward`: what is checked was computed from others
// of its own, as good.
Expected expected_backward(const AttentionLayout& layout, const BackwardArrays& arrays,
                           bool own_forward = false, double between = 0);

// tokens [batch, seq, embedding]; w_q, w_k, w_v [heads, embedding, depth]; w_o [heads, depth,
// embedding]. Whole rows of the result.
struct LayerWeights {
  const double *q, *k, *v, *output;
};
Expected expected_layer(const LayerSizes& sizes, const float* tokens, const LayerWeights& weights);

// Empty when every sampled element is within its bound, otherwise a sentence.
std::string compare(const Expected& expected, std::span<const Result> results);
std::string compare(const Expected& expected, Type type, const void* result);

}  // namespace rapt::bench
