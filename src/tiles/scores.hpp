// In which units the softmax of a problem runs.
#pragma once

#include "tiles/attention.hpp"

namespace rapt::tiles {

// p = e^(exponent_scale * (s' - max)) with s' = softcap(pre_scale * s) + bias. Where nothing
// happens to the scaled score, the maximum is taken of the raw product and the scale costs nothing:
// it goes into the exponent. A scale that is not plainly positive must be applied before a maximum
// is taken.
struct ScoreUnits {
  float pre_scale, exponent_scale;
  explicit ScoreUnits(const AttentionProblem& p) {
    const bool raw = !p.bias && !p.slopes && !p.sinks && p.softcap == 0.0f && p.scale > 1e-30f &&
                     p.scale < 1e30f;
    pre_scale = raw ? 1.0f : p.scale;
    exponent_scale = raw ? p.scale : 1.0f;
  }
};

}  // namespace rapt::tiles
