// In which units the softmax of a problem runs, and its lse.
#pragma once

#include <cmath>
#include <limits>

#include "tiles/rows.hpp"

namespace rapt::tiles {

// p = e^(exponent_scale * (s' - max)) with s' = pre_scale * s + bias. Where nothing is added to the
// scaled score, the maximum is taken of the raw product and the scale costs nothing: it goes into
// the exponent. A scale that is not plainly positive must be applied before a maximum is taken.
struct ScoreUnits {
  float pre_scale, exponent_scale;
  explicit ScoreUnits(const AttentionProblem& p) {
    const bool raw = !p.bias && p.scale > 1e-30f && p.scale < 1e30f;
    pre_scale = raw ? 1.0f : p.scale;
    exponent_scale = raw ? p.scale : 1.0f;
  }
};

// lse = log sum e^score, when asked for; -inf for a row that attends nothing.
inline void write_lse(const Rows& rows, const float* row_max, const float* row_sum,
                      ScoreUnits units) {
  if (!rows.problem->lse) return;
  for (Index r = 0; r < rows.count; ++r) {
    *rows.at(rows.problem->lse, r) = row_sum[r] == 0.0f
                                         ? -std::numeric_limits<float>::infinity()
                                         : row_max[r] * units.exponent_scale + std::log(row_sum[r]);
  }
}

}  // namespace rapt::tiles
