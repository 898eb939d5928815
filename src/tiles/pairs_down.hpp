// Rows of bf16 transposed, as pairs of two neighbouring rows: what a product sums down the rows (of
// V, and of K in the backward pass) as matrix tiles read it, along what is summed.
#pragma once

#include <algorithm>

#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {

class PairsDown {
 public:
  // Of at most `rows` rows of this depth, NR pairs at a time.
  PairsDown(Index rows, Index depth, Index columns, Workspace& workspace)
      : depth_(depth),
        columns_(columns),
        row_((pairs(rows) + columns - 1) / columns * columns + kPad),
        panel_(workspace.floats(columns * depth)),
        panel_rows_(workspace.pointers<const float>(columns)) {}

  Index floats() const { return depth_ * row_; }

  // n rows as [depth, pairs of rows], in these floats. finite: 0 in place of NaN and infinity.
  KeyBlock transpose(const kernels::Kernels& kernel, const StoredRows& rows, Index n, bool finite,
                     float* to) const {
    for (Index r = 0; r < columns_; ++r) panel_rows_[r] = panel_ + r * depth_;
    for (Index first = 0; first < n; first += columns_ * 2) {
      const Index count = std::min(columns_ * 2, n - first);
      kernel.pack_pairs({.b = rows_from(rows, first),
                         .rows = count,
                         .columns = depth_,
                         .finite = finite,
                         .panels = panel_,
                         .apart = 0,
                         .panel_columns = depth_});
      kernel.pack_rows({.source = panel_rows_,
                        .stride = 1,
                        .rows = pairs(count),
                        .length = depth_,
                        .panel = to + first / 2,
                        .panel_row = row_,
                        .columns = columns_});
    }
    return {to, row_};
  }

 private:
  static constexpr Index kPad = 16;  // between rows, so that they do not meet in one cache set
  static Index pairs(Index n) { return (n + 1) / 2; }

  Index depth_, columns_, row_;
  float* panel_;              // [NR, depth]
  const float** panel_rows_;  // [NR]
};

}  // namespace rapt::tiles
