// gemm_packed: the general product, blocked after Goto. b is packed once, into panels [k, NR] that the register
// tile streams through; a is read in place or copied block by block; a panel's slice [block_k, NR] stays in L1
// while block_m rows of a pass by.
//
//   pack:  shared[unit] = panels of b[:, block_n columns]
//   run:   for each slice of k:  for each panel:  c[block_m, NR] += a[block_m, slice] panel[slice, NR]
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kWaveFloats = Index{16} << 20;  // 64 MiB of packed b at most, or one unit

struct Buffers {
  float* a_copy;  // [block_m, block_k]
  float* beta;    // [NR]
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    a_copy = workspace.floats(a_copy_floats(plan, plan.block_m, plan.block_k));
    beta = workspace.floats(plan.tile->columns);
  }
};

Index panels_of(const GemmPlan& plan, Index columns) { return (columns + plan.tile->columns - 1) / plan.tile->columns; }

Index unit_floats(const GemmPlan& plan) { return plan.problem.k * panels_of(plan, plan.block_n) * plan.tile->columns; }

const char* refuse(const GemmProblem&, const GemmBlocks&) { return nullptr; }

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  cut_blocks(plan, blocks.block_m, blocks.block_n, plan.tile->rows, plan.tile->columns);
  // Slices of nearly equal depth.
  const Index slices = std::max<Index>((plan.problem.k + blocks.block_k - 1) / blocks.block_k, 1);
  plan.block_k = std::max<Index>((plan.problem.k + slices - 1) / slices, 1);
  plan.wave_units = std::clamp<Index>(kWaveFloats / std::max<Index>(unit_floats(plan), 1), 1, std::max<Index>(plan.units, 1));
  plan.shared_workspace = (plan.wave_units * unit_floats(plan) + 15) / 16 * 16;
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

void pack(const GemmPlan& plan, Index unit, Index place, float* shared) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns;
  const GemmBlock block = block_of(plan, unit, 0);
  const float* b = p.batch.element(p.b, block.batch) + block.column * p.b.column_stride;
  float* panel = shared + place * unit_floats(plan);
  for (Index column = 0; column < block.columns; column += columns, panel += p.k * columns) {
    const Index n = std::min(columns, block.columns - column);
    const float* from = b + column * p.b.column_stride;
    if (p.b.column_stride == 1) {
      for (Index x = 0; x < p.k; ++x) {
        std::copy_n(from + x * p.b.row_stride, n, panel + x * columns);
        std::fill_n(panel + x * columns + n, columns - n, 0.0f);
      }
    } else {
      const float* rows[kernels::kMaxColumns];
      for (Index r = 0; r < n; ++r) rows[r] = from + r * p.b.column_stride;
      plan.kernels->pack_rows({.source = rows, .stride = p.b.row_stride, .rows = n, .length = p.k, .panel = panel,
                               .columns = columns});
    }
  }
}

void run(const GemmPlan& plan, Index unit, Index place, Index row_block, const float* shared, float* memory) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns;
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, unit, row_block);
  float* c = p.batch.element(p.c, block.batch) + block.row * p.c.row_stride + block.column * p.c.column_stride;
  std::fill_n(buffers.beta, columns, p.beta);

  Index x = 0;
  do {
    const Index slice = std::min(plan.block_k, p.k - x);
    const Operand a = read_a(plan, block, x, slice, buffers.a_copy);
    const float* panel = shared + place * unit_floats(plan) + x * columns;
    for (Index column = 0; column < block.columns; column += columns, panel += p.k * columns) {
      plan.tile->product({.a = a.data, .a_row = a.row, .a_inner = a.inner, .b = panel, .b_inner = columns,
                          .c = c + column * p.c.column_stride, .c_row = p.c.row_stride, .c_column = p.c.column_stride,
                          .rows = block.rows, .inner = slice, .columns = std::min(columns, block.columns - column),
                          .alpha = p.alpha, .beta = x == 0 && p.beta == 0.0f ? nullptr : buffers.beta});
    }
    if (x == 0) std::fill_n(buffers.beta, columns, 1.0f);
    x += plan.block_k;
  } while (x < p.k);
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmPacked = {"gemm_packed", refuse, cut, pack, run};

}  // namespace rapt::tiles
