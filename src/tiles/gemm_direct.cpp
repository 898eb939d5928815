// gemm_direct: few rows, or everything small: packing b would cost as much as using it, so b is
// read in place, or copied by the tile that reads it first.
#include <algorithm>
#include <cstdint>

#include "tiles/gemm.hpp"
#include "tiles/product.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

// Whether the first tile of a panel of b copies it for the others, which takes half as long again.
// It saves more where rows of b share sets of a cache, and a fourth of each other tile where its
// vectors lie in two lines and the CPU minds.
bool copies_b(const GemmPlan& plan) {
  const GemmProblem& p = plan.problem;
  constexpr Index kTiles = 2;
  if (!is_wide(*plan.tile) || plan.block_m <= kTiles * plan.tile->rows) return false;
  if (rows_collide(p)) return true;
  const Index vector = plan.kernels->lanes * bytes_of(Type::f32);
  const auto place =
      reinterpret_cast<std::uintptr_t>(p.b.data) % static_cast<std::uintptr_t>(vector);
  return plan.kernels->slow_splits && (p.b.row_stride % vector != 0 || place != 0);
}

// What is not needed takes no room: to be given memory costs a small product a few percent.
struct Buffers {
  float *a_copy, *beta, *scratch;  // [rows, block_k], [kMaxColumns], of product_in_place
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    const GemmProblem& p = plan.problem;
    const Index panel = plan.kernels->tiles[0].columns;
    const bool whole_panels =
        p.n % panel == 0 && (plan.column_blocks == 1 || plan.block_n % panel == 0);
    a_copy = workspace.floats(a_in_place(plan) ? 0 : plan.block_m * copy_row(plan.block_k));
    beta = workspace.floats(p.beta == 0.0f && p.k <= plan.block_k ? 0 : kernels::kMaxColumns);
    const Index columns = copies_b(plan) ? plan.tile->columns : whole_panels ? 0 : panel;
    scratch = workspace.floats(plan.block_k * columns);
  }
};

const char* refuse(const GemmProblem& p, const GemmBlocks& blocks) {
  if (p.b.type != Type::f32) return "b is not f32: it is widened while it is packed";
  if (!p.b.contiguous()) return "the columns of b are not adjacent";
  if (blocks.direct_rows == 0) return "direct_rows is 0: b is packed";
  if (p.m <= blocks.direct_rows && (is_wide(*blocks.tile) || !rows_collide(p))) return nullptr;
  if (p.m <= std::min<Index>(blocks.direct_rows, blocks.tile->rows)) return nullptr;
  // Tiles read b again and again: from L2, if it stays there.
  constexpr Index kInCache = 1 << 20, kSmall = 64;
  const bool in_cache = is_wide(*blocks.tile) ? p.k * p.n * bytes_of(p.b.type) <= kInCache
                                              : p.m * p.n <= kSmall * kSmall && p.k <= kSmall;
  if (in_cache) return nullptr;
  return "c has many rows (more than direct_rows): packing b pays";
}

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  constexpr Index kRows = 64, kColumns = 1024;
  cut_blocks(plan, std::max(blocks.direct_rows, kRows), kColumns, plan.tile->rows,
             plan.tile->columns);
  cut_slices(plan, blocks.block_k);
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

void run(const GemmPlan& plan, Wave, Index unit, Index row_block, const float*, float* memory) {
  const GemmProblem& p = plan.problem;
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, unit, row_block);
  const auto* b = reinterpret_cast<const float*>(place_b(p, block));
  const Index b_row = p.b.row_stride / bytes_of(Type::f32);
  float* c = place_c(p, block);
  if (p.beta != 0.0f) std::fill_n(buffers.beta, kernels::kMaxColumns, p.beta);

  Index x = 0;
  do {
    const Index slice = std::min(plan.block_k, p.k - x);
    const Operand a =
        a_in_place(plan) ? place_a(plan, block, x) : copy_a(plan, block, x, slice, buffers.a_copy);
    product_in_place(*plan.kernels, *plan.tile,
                     {.a = a.data,
                      .a_row = a.row,
                      .a_inner = a.inner,
                      .b = b + x * b_row,
                      .b_inner = b_row,
                      .c = c,
                      .c_row = p.c.row_stride,
                      .c_column = p.c.column_stride,
                      .rows = block.rows,
                      .inner = slice,
                      .columns = 0,
                      .alpha = p.alpha,
                      .beta = x == 0 && p.beta == 0.0f ? nullptr : buffers.beta},
                     block.columns, copies_b(plan), buffers.scratch);
    x += plan.block_k;
    if (x < p.k) std::fill_n(buffers.beta, kernels::kMaxColumns, 1.0f);
  } while (x < p.k);
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmDirect = {"gemm_direct", refuse, cut, nullptr, nullptr, run};

}  // namespace rapt::tiles
