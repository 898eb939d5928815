// gemm_packed: the general product, blocked after Goto. b is packed once, into panels [k, NR] that the register
// tile streams through; a is read in place, or copied once where its rows would evict each other; a panel's slice
// [block_k, NR] stays in L1 while block_m rows of a pass by.
//
//   pack:  panels of b for each unit of the wave; rows of a for each batch element of the wave
//   run:   for each slice of k:  for each panel:  c[block_m, NR] += a[block_m, slice] panel[slice, NR]
#include <algorithm>
#include <cstring>

#include "tiles/gemm.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kWaveFloats = Index{16} << 20;  // 64 MiB of packed operands at most, or one unit

// The shared workspace: packed b [wave_units, unit_floats], then copies of a [batch elements, m, copy_row(k)].
Index unit_floats(const GemmPlan& plan) {
  const Index columns = plan.tile->columns;
  return (plan.block_n + columns - 1) / columns * columns * plan.problem.k;
}
Index copied_a_floats(const GemmPlan& plan) {
  return a_in_place(plan.problem) ? 0 : plan.problem.m * copy_row(plan.problem.k);
}
Index copied_a(const GemmPlan& plan, Wave wave, const GemmBlock& block) {
  return plan.wave_units * unit_floats(plan) + (block.batch - wave.first / plan.column_blocks) * copied_a_floats(plan) +
         block.row * copy_row(plan.problem.k);
}
// Batch elements that a wave touches, the first and the last perhaps in part.
Index wave_elements(const GemmPlan& plan, Wave wave) {
  return (wave.first + wave.count - 1) / plan.column_blocks - wave.first / plan.column_blocks + 1;
}

const char* refuse(const GemmProblem&, const GemmBlocks&) { return nullptr; }

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  cut_blocks(plan, blocks.block_m, blocks.block_n, plan.tile->rows, plan.tile->columns);
  // Slices of nearly equal depth.
  const Index k = plan.problem.k;
  const Index slices = std::max<Index>((k + blocks.block_k - 1) / blocks.block_k, 1);
  plan.block_k = std::max<Index>((k + slices - 1) / slices, 1);
  plan.wave_units = std::clamp<Index>(kWaveFloats / std::max<Index>(unit_floats(plan), 1), 1, std::max<Index>(plan.units, 1));
  const Index elements = std::min(plan.problem.batch.size, (plan.wave_units + plan.column_blocks - 2) / plan.column_blocks + 1);
  plan.shared_workspace = (plan.wave_units * unit_floats(plan) + elements * copied_a_floats(plan) + 15) / 16 * 16;
  plan.workspace = (plan.tile->columns + 15) / 16 * 16;  // beta [NR]
}

Index pack_tasks(const GemmPlan& plan, Wave wave) {
  return wave.count + (a_in_place(plan.problem) ? 0 : wave_elements(plan, wave) * plan.row_blocks);
}

// n <= columns floats, and zeros up to columns (a multiple of 4).
void copy_panel_row(const float* from, Index n, Index columns, float* to) {
  Index i = 0;
  for (; i + 4 <= n; i += 4) std::memcpy(to + i, from + i, 4 * sizeof(float));  // one load and one store
  for (; i < n; ++i) to[i] = from[i];
  for (; i < columns; ++i) to[i] = 0.0f;
}

void pack_b(const GemmPlan& plan, Index unit, float* panel) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns;
  const GemmBlock block = block_of(plan, unit, 0);
  const float* b = p.batch.element(p.b, block.batch) + block.column * p.b.column_stride;
  for (Index column = 0; column < block.columns; column += columns, panel += p.k * columns) {
    const Index n = std::min(columns, block.columns - column);
    const float* from = b + column * p.b.column_stride;
    if (p.b.column_stride == 1) {
      for (Index x = 0; x < p.k; ++x) copy_panel_row(from + x * p.b.row_stride, n, columns, panel + x * columns);
    } else {
      const float* rows[kernels::kMaxColumns];
      for (Index r = 0; r < n; ++r) rows[r] = from + r * p.b.column_stride;
      plan.kernels->pack_rows({.source = rows, .stride = p.b.row_stride, .rows = n, .length = p.k, .panel = panel,
                               .columns = columns});
    }
  }
}

void pack(const GemmPlan& plan, Wave wave, Index task, float* shared) {
  if (task < wave.count) return pack_b(plan, wave.first + task, shared + task * unit_floats(plan));
  const Index element = wave.first / plan.column_blocks + (task - wave.count) / plan.row_blocks;
  const GemmBlock block = block_of(plan, element * plan.column_blocks, (task - wave.count) % plan.row_blocks);
  copy_a(plan.problem, block, 0, plan.problem.k, shared + copied_a(plan, wave, block));
}

void run(const GemmPlan& plan, Wave wave, Index unit, Index row_block, const float* shared, float* beta) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns;
  const GemmBlock block = block_of(plan, unit, row_block);
  const float* panels = shared + (unit - wave.first) * unit_floats(plan);
  Operand a = place_a(p, block, 0);
  if (!a_in_place(p)) a = {shared + copied_a(plan, wave, block), copy_row(p.k), 1};
  float* c = p.batch.element(p.c, block.batch) + block.row * p.c.row_stride + block.column * p.c.column_stride;
  std::fill_n(beta, columns, p.beta);

  Index x = 0;
  do {
    const Index slice = std::min(plan.block_k, p.k - x);
    const float* panel = panels + x * columns;
    for (Index column = 0; column < block.columns; column += columns, panel += p.k * columns) {
      plan.tile->product({.a = a.data + x * a.inner, .a_row = a.row, .a_inner = a.inner, .b = panel, .b_inner = columns,
                          .c = c + column * p.c.column_stride, .c_row = p.c.row_stride, .c_column = p.c.column_stride,
                          .rows = block.rows, .inner = slice, .columns = std::min(columns, block.columns - column),
                          .alpha = p.alpha, .beta = x == 0 && p.beta == 0.0f ? nullptr : beta});
    }
    if (x == 0) std::fill_n(beta, columns, 1.0f);
    x += plan.block_k;
  } while (x < p.k);
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmPacked = {"gemm_packed", refuse, cut, pack_tasks, pack, run};

}  // namespace rapt::tiles
