// The matrix product as the tiles see it: plain numbers, the plan that cut it into tasks, and the
// algorithms.
#pragma once

#include <algorithm>

#include "tiles/array.hpp"

namespace rapt::tiles {

// A checked problem: c = finish(alpha a b + beta c + bias).
struct GemmProblem {
  Batch batch;
  Index m = 0, n = 0, k = 0;
  float alpha = 1.0f, beta = 0.0f;
  Stored<const std::byte> a{};     // [m, k], f32, bf16 or f16
  Stored<const std::byte> b{};     // [k, n], f32, bf16, f16 or int8
  const float* b_scale = nullptr;  // of int8: [n], or null
  Index b_scale_stride = 0;
  Array<float> c{};  // [m, n]
  // Rows of one batch element, where the plan has stacked several: what decides about the order of
  // sums looks at these alone, so that an element has the same bits alone and in any batch.
  Index element_rows = 0;
  // The plan may compute c^T = b^T a^T instead: then m, n, a, b and c are those of the transposed
  // product, and only bias, which belongs to the user's columns, must know.
  bool transposed = false;
  const float* bias = nullptr;
  Index bias_stride = 1;
  kernels::Finish finish = kernels::Finish::none;
};

struct GemmAlgorithm;

// Part of a product that is computed at once: units [first, first + count). A unit is a block of
// columns of one batch element. Waves bound the memory for packed operands.
struct Wave {
  Index first, count;
};

// Cut into tasks in up to two phases a wave: packing operands, then blocks of c. k is counted in
// steps: a step of a register tile takes one of k, or two where it multiplies pairs of bf16.
struct GemmPlan {
  GemmProblem problem;
  const kernels::Kernels* kernels = nullptr;
  const kernels::TileKernel* tile = nullptr;
  const GemmAlgorithm* algorithm = nullptr;
  bool pairs = false;    // of bf16, in the place of floats, wherever a or b is packed or multiplied
  bool packs_a = false;  // into panels of gemm_packed
  Index steps = 0;       // of k
  Index block_m = 0, block_n = 0, block_k = 0;  // rows, columns, steps
  Index row_blocks = 0, column_blocks = 0;      // of one batch element
  Index units = 0;                              // batch elements x column_blocks
  Index wave_units = 0;                         // units of one wave
  Index shared_workspace = 0;  // floats for all workers: packed operands, a multiple of 16
  Index workspace = 0;         // floats that one worker needs, a multiple of 16
};

// Rows of c, at most, of what is computed by the kernels for few rows, which read b as it lies.
inline constexpr Index kFewRows = 8;

struct GemmBlocks {
  const kernels::TileKernel* tile;
  bool native_pairs, matrix_tiles;  // of the target
  Index block_m, block_n, block_k, direct_rows, packed_kib;
};

struct GemmAlgorithm {
  const char* name;
  const char* (*refuse)(const GemmProblem&, const GemmBlocks&);  // null, or why not
  void (*cut)(GemmPlan&, const GemmBlocks&);
  // Phase 1: packs operands of the wave (or sums parts of k) into `shared`, in so many tasks. Null:
  // no such phase.
  Index (*pack_tasks)(const GemmPlan&, Wave);
  void (*pack)(const GemmPlan&, Wave, Index task, float* shared, float* workspace);
  // Phase 2: one block of rows of one unit.
  void (*run)(const GemmPlan&, Wave, Index unit, Index row_block, const float* shared,
              float* workspace);
};

extern const GemmAlgorithm kGemmDot;
extern const GemmAlgorithm kGemmPairs;
extern const GemmAlgorithm kGemmRowsPairs;
extern const GemmAlgorithm kGemmRows;
extern const GemmAlgorithm kGemmDirect;
extern const GemmAlgorithm kGemmPacked;

// What the algorithms share.

// A block of c: rows [row, row + rows), columns [column, column + columns) of batch element b.
struct GemmBlock {
  Index batch, row, rows, column, columns;
};
GemmBlock block_of(const GemmPlan& plan, Index unit, Index row_block);

// Where its first element lies, and that of its columns of b.
inline float* place_c(const GemmProblem& p, const GemmBlock& block) {
  return p.batch.element(p.c, block.batch) + block.row * p.c.row_stride +
         block.column * p.c.column_stride;
}
inline const std::byte* place_b(const GemmProblem& p, const GemmBlock& block) {
  return p.batch.element(p.b, block.batch) + block.column * p.b.column_stride;
}

// Cuts c into blocks of at most block_m x block_n, in multiples of the tile where that makes no
// fewer, of nearly equal size, and small enough that there is work for many: at least 16 blocks
// where each keeps the work of a million multiplications, two from a quarter of that. Where rows
// cost a packed b for each block of them, blocks have at least many_rows and whole row_steps, and
// columns are cut first.
void cut_blocks(GemmPlan& plan, Index block_m, Index block_n, Index row_step, Index column_step,
                Index many_rows = 0);

// Cuts k into slices of nearly equal depth, at most block_k. The same for every algorithm that sums
// floats along k in order, so that they give the same bits and the choice between them may look at
// the whole batch.
void cut_slices(GemmPlan& plan, Index block_k);
inline Index slices(const GemmPlan& plan) {
  return std::max<Index>((plan.steps + plan.block_k - 1) / plan.block_k, 1);
}

// Whether all is of bf16.
inline bool all_bf16(const GemmProblem& p) {
  return p.a.type == Type::bf16 && p.b.type == Type::bf16;
}

// a[block.row ..., step ...], whose element [r, x], a float or a pair, is at
// data[r * row + x * inner]; one of the strides is 1.
struct Operand {
  const float* data;
  Index row, inner;
};

// In place, where a's type and strides allow it and its rows do not fall into the same cache sets;
// else a copy of these steps of a, whose rows are copy_row(steps) apart.
bool a_in_place(const GemmPlan& plan);
Index copy_row(Index steps);
Operand place_a(const GemmPlan& plan, const GemmBlock& block, Index step);
Operand copy_a(const GemmPlan& plan, const GemmBlock& block, Index step, Index steps, float* copy);

// Whether a tile reads a row of b, in place, in pieces of some lines, which prefetchers follow.
// Narrower ones lose more by lines that evict each other.
inline bool is_wide(const kernels::TileKernel& tile) {
  constexpr Index kBytes = 256;
  return tile.columns * bytes_of(Type::f32) >= kBytes;
}

// Rows of b that lie a multiple of 4 KiB apart fall into the same sets of a cache.
inline bool rows_collide(const GemmProblem& p) { return p.b.row_stride % 4096 == 0; }

// c[j] = alpha * sums[j] + beta * c[j], of n columns; c is not read where beta is 0.
void update_row(const GemmProblem& p, const float* sums, float beta, Index n, float* c);

// bias and activation on a finished block.
void finish_block(const GemmPlan& plan, const GemmBlock& block);

}  // namespace rapt::tiles
