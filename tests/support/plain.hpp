// Attention and the matrix product as one would write them first, in f32: the whole score matrix is
// stored, sums run in order. The error of rapt is measured against the error of these (gate B).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "reference/reference.hpp"

namespace rapt::tests {

// [heads, seq_q, d_v] of one batch element.
std::vector<float> plain_attention(const reference::Problem<float>& problem);

// The gradients of q, k and v of one batch element, from a matrix of weights and one of their
// gradients.
struct PlainGradients {
  std::vector<float> q, k, v;
};
PlainGradients plain_backward(const reference::Problem<float>& problem,
                              const View<const float, axis::Head, axis::Query, axis::DepthV>& dout);

// The errors of many elements against the reference.
struct Errors {
  double sum_of_squares = 0, max = 0;
  std::int64_t count = 0;
  void add(double error) {
    sum_of_squares += error * error;
    max = std::max(max, std::abs(error));
    ++count;
  }
  double rms() const { return std::sqrt(sum_of_squares / static_cast<double>(count)); }
};

}  // namespace rapt::tests
