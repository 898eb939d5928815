// What the plans of attention and of its backward pass begin with.
#pragma once

#include <vector>

#include "tiles/attention.hpp"

namespace rapt::plan {

// Batch elements of equal length that follow each other: they are cut alike.
struct Run {
  tiles::Sequence first;
  tiles::Index count;
};
std::vector<Run> runs_of(const tiles::AttentionProblem& problem);

// The target of calls that start now, and the blocks of its config row for these head sizes.
struct InUse {
  const kernels::Kernels* kernels;
  tiles::AttentionBlocks blocks;
};
InUse in_use(const tiles::AttentionProblem& problem);

// Sizes that are sound each have products that are not, which no memory holds: throws too_large.
__extension__ using Wide = __int128;  // the keyword is for -Wpedantic
void check_size(const char* what, Wide n);

}  // namespace rapt::plan
