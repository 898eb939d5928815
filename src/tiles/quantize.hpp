// Rows of numbers into any storage type, the scales of int8 and of 4-bit groups chosen from the
// numbers. What rapt/quantize.hpp promises is kept here, for it and for the cache.
#pragma once

#include "tiles/array.hpp"

namespace rapt::tiles {

// The largest magnitude of n numbers, at least `least`; NaN where one of them is not finite.
float largest_magnitude(const float* x, Index n, float least = 0);

// The scale under which int8 holds magnitudes up to `largest`.
float int8_scale(float largest);

// A row into storage. `scale`: that of int8, chosen from numbers which include these.
void store_row(const kernels::Kernels& kernels, const Stored<std::byte>& array, const float* x,
               Index n, float scale, std::byte* to);

// rapt::quantize(), dequantize() and convert(), checked.
struct ConvertProblem {
  Batch batch;
  Index heads = 0, seq = 0, depth = 0;
  Stored<const std::byte> from;
  Stored<std::byte> to;
  Array<const float> from_scales;  // [head, position], where from is int8
  Array<float> to_scales;          // [head, position], where to is int8
  bool shared_scale = false;       // to_scales: one for all positions of a head

  // A row here is what shares a scale: one position, or all of a head.
  Index positions_of_row() const { return shared_scale ? seq : 1; }
  Index rows() const { return batch.size * heads * (shared_scale ? 1 : seq); }
  Index row_floats() const { return positions_of_row() * depth; }
};

void run_row(const ConvertProblem& problem, const kernels::Kernels& kernels, Index row);

}  // namespace rapt::tiles
