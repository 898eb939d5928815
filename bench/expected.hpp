// What a result must be: f64 values of sampled elements, each with the largest error that f32
// arithmetic explains. A benchmark of a wrong result measures nothing, so every case is held
// against this first.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "shapes.hpp"

namespace rapt::bench {

struct ExpectedElement {
  std::int64_t at;  // index in the result
  double value;
  double bound;
};
using Expected = std::vector<ExpectedElement>;

// a [m, k], b [k, n], c [m, n]: whole rows of c.
Expected expected_gemm(const GemmSizes& sizes, const float* a, const float* b);

// Whole rows of out, among them the first and the last.
Expected expected_attention(const AttentionSizes& sizes, bool causal, const float* q,
                            const float* k, const float* v);

// tokens [batch, seq, embedding]; w_q, w_k, w_v [heads, embedding, depth]; w_o [heads, depth,
// embedding]. Whole rows of the result.
struct LayerWeights {
  const double *q, *k, *v, *output;
};
Expected expected_layer(const LayerSizes& sizes, const float* tokens, const LayerWeights& weights);

// Empty when every sampled element is within its bound, otherwise a sentence.
std::string compare(const Expected& expected, std::span<const float> result);

}  // namespace rapt::bench
