// The bias of a tile whose lanes are rows: computed in them, or filled row by row, as masks and
// biases lie in memory, and transposed.
#pragma once

#include <algorithm>

#include "tiles/mask.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {

class LaneBias {
 public:
  // Of panels of so many columns.
  LaneBias(Index columns, Workspace& workspace)
      : columns_(columns),
        rows_(workspace.floats(columns * kKeys)),
        pointers_(workspace.pointers<const float>(columns)) {}

  // Writes bias[j * stride + r], and 0 for the columns of the panel that have no row.
  void fill(const kernels::Kernels& kernel, const Rows& rows, Keys keys, float* bias,
            Index stride) const {
    if (fill_lanes(rows, keys, bias, stride, columns_)) return;
    std::fill(rows_ + rows.count * kKeys, rows_ + columns_ * kKeys, 0.0f);
    for (Index r = 0; r < columns_; ++r) pointers_[r] = rows_ + r * kKeys;
    for (Index begin = keys.begin; begin < keys.end; begin += kKeys) {
      const Keys some{begin, std::min(begin + kKeys, keys.end)};
      fill_bias(rows, some, rows_, kKeys);
      kernel.pack_rows({.source = pointers_,
                        .stride = 1,
                        .rows = columns_,
                        .length = some.count(),
                        .panel = bias + (begin - keys.begin) * stride,
                        .panel_row = stride,
                        .columns = columns_});
    }
  }

 private:
  static constexpr Index kKeys = 256;  // at a time: 64 are up to a tenth slower
  Index columns_;
  float* rows_;             // [columns, kKeys]
  const float** pointers_;  // [columns]
};

}  // namespace rapt::tiles
