// Dropout of the weights of a tile.
#pragma once

#include <cmath>

#include "tiles/mask.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {

class DropoutRows {
 public:
  // Memory for so many rows; none where nothing is dropped.
  DropoutRows(const AttentionProblem& problem, Index rows, Workspace& workspace) {
    if (problem.dropout.probability == 0) return;
    query_ = reinterpret_cast<std::uint32_t*>(workspace.floats(rows));
    stream_ = reinterpret_cast<std::uint32_t*>(workspace.floats(rows));
  }

  void load(const Rows& rows) {
    for (Index r = 0; r < rows.count && query_ != nullptr; ++r) {
      query_[r] = static_cast<std::uint32_t>(rows.query(r));
      stream_[r] =
          static_cast<std::uint32_t>(rows.sequence.number * rows.problem->heads + rows.head(r));
    }
  }
  // p[j * stride + r] of rows [first, first + count) of those loaded; nothing where none is
  // dropped.
  void apply(const kernels::Kernels& kernel, const Dropout& dropout, Keys keys, Index first,
             Index count, float* p, Index stride) const {
    if (query_ == nullptr) return;
    const double probability = dropout.probability;
    kernel.drop({.p = p,
                 .row = stride,
                 .n = keys.count(),
                 .first_key = keys.begin,
                 .rows = count,
                 .query = query_ + first,
                 .stream = stream_ + first,
                 .seed = {static_cast<std::uint32_t>(dropout.seed),
                          static_cast<std::uint32_t>(dropout.seed >> 32)},
                 .offset = dropout.offset,
                 .threshold = static_cast<std::uint32_t>(std::floor(probability * 0x1p32)),
                 .factor = static_cast<float>(1 / (1 - probability))});
  }

 private:
  std::uint32_t *query_ = nullptr, *stream_ = nullptr;  // [rows]
};

}  // namespace rapt::tiles
