// Parts of attention, over some of the keys each, merged.
#pragma once

#include <vector>

#include "tiles/array.hpp"

namespace rapt::tiles {

// rapt::merge(), checked.
struct MergeProblem {
  struct Part {
    Stored<const std::byte> out;  // [head, query, depth]
    Array<const float> lse;       // [head, query]
  };
  Batch batch;
  Index heads = 0, seq_q = 0, d_v = 0;
  std::vector<Part> parts;
  Stored<std::byte> out;
  Array<float> lse;  // may be absent

  Index rows() const { return batch.size * heads * seq_q; }
  Index row_floats() const { return static_cast<Index>(parts.size() + 1) * d_v; }
};

// One query of one head.
void run_row(const MergeProblem& problem, const kernels::Kernels& kernels, Index row);

}  // namespace rapt::tiles
