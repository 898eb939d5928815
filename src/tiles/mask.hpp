// Who attends whom (contract steps 3 and 4). Every mask kind is one struct in mask.cpp, listed
// there once.
#pragma once

#include "tiles/rows.hpp"

namespace rapt::tiles {

// Keys [begin, end).
struct Keys {
  Index begin, end;
  Index count() const { return end - begin; }
};

// Whether this problem has a mask or a bias at all.
bool may_mask(const AttentionProblem& problem);

// The keys that may be attended by any of these rows, from positions alone (not from the contents
// of a mask).
Keys reachable_keys(const Rows& rows);

// How a tile of rows x keys is attended.
struct Cover {
  bool none;  // no pair is attended: the tile is skipped
  Index
      whole;  // the first `whole` keys are attended by every row, without bias: no mask work there
};
Cover cover(const Rows& rows, Keys keys);

// Writes bias[r * stride + j] for the pairs of the tile: what is added to the scaled score, -inf
// where a pair is not attended.
void fill_bias(const Rows& rows, Keys keys, float* bias, Index stride);
// The same with rows in lanes, bias[j * stride + r], and 0 for columns that have no row. Where a
// mask of the problem lies in memory, row by row, it writes nothing and returns false.
bool fill_lanes(const Rows& rows, Keys keys, float* bias, Index stride, Index columns);

}  // namespace rapt::tiles
