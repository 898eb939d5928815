// Rotary position embedding: the angles of a position, and rows turned by them.
#pragma once

#include <cstdint>

#include "tiles/array.hpp"

namespace rapt::tiles {

// A checked rapt::Rope.
struct Rope {
  Index dims = 0;  // 0: nothing turns
  bool interleaved = true;
  double magnitude = 1;
  double frequency[kMaxDepth / 2] = {};  // of pair i: angle = position * frequency[i]
};

// magnitude times cos and sin of the angle of each pair, at one position.
struct Rotation {
  float cos[kMaxDepth / 2], sin[kMaxDepth / 2];
};
void fill_rotation(const Rope& rope, double position, Rotation& rotation);

// x: a row of at least dims numbers.
void rotate(const Rope& rope, const Rotation& rotation, float* x);

// rapt::rope(), checked.
struct RopeProblem {
  Batch batch;
  Index heads = 0, seq = 0, depth = 0;
  Stored<const std::byte> x;
  Stored<std::byte> out;
  Array<const std::int32_t> first_positions;  // [element]
  Array<const std::int32_t> positions;        // [element, position], in row_stride
  Rope rope;

  Index rows() const { return heads == 0 ? 0 : batch.size * seq; }
  Index row_floats() const { return heads * depth; }
};

// Row `row` of rows(): one position of one batch element, all heads, which share their angles.
void run_row(const RopeProblem& problem, const kernels::Kernels& kernels, Index row);

}  // namespace rapt::tiles
