// gemm_rows_pairs: few rows of pairs of bf16 (a linear layer while decoding) on a CPU with matrix
// tiles, b's columns adjacent. Tiles take b as it lies, so that it is neither packed nor widened:
// the product of p and V in attention, by the same kernel.
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

struct Buffers {
  float *a_copy, *ones, *sums;  // [rows, k / 2], [rows], [rows, block_n]
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    a_copy = workspace.floats(in_place(plan) ? 0 : plan.block_m * copy_row(plan.steps));
    ones = workspace.floats(plan.block_m);
    sums = workspace.floats(plan.block_m * plan.block_n);
  }

  static bool in_place(const GemmPlan& plan) {
    const GemmProblem& p = plan.problem;
    return p.a.contiguous() && p.k % 2 == 0 &&
           (p.m == 1 || p.a.row_stride % bytes_of(Type::f32) == 0);
  }
};

const char* refuse(const GemmProblem& p, const GemmBlocks& blocks) {
  if (!all_bf16(p)) return "a and b are not both bf16";
  if (!blocks.matrix_tiles) return "this CPU has no matrix tiles";
  if (p.element_rows == 1) return "c has one row: vectors of floats are as fast as b is read";
  if (p.element_rows > kFewRows) return "c has more than 8 rows: b is packed, and read less often";
  if (!p.b.contiguous()) return "the columns of b are not adjacent";
  return nullptr;
}

void cut(GemmPlan& plan, const GemmBlocks&) {
  constexpr Index kColumns = 1024, kStep = 128;  // which tiles take together
  plan.pairs = true;
  plan.steps = (plan.problem.k + 1) / 2;
  plan.block_k = plan.steps;
  cut_blocks(plan, kFewRows, kColumns, kFewRows, kStep);
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

void run(const GemmPlan& plan, Wave, Index unit, Index row_block, const float*, float* memory) {
  const GemmProblem& p = plan.problem;
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, unit, row_block);
  const Operand a = Buffers::in_place(plan) ? place_a(plan, block, 0)
                                            : copy_a(plan, block, 0, plan.steps, buffers.a_copy);
  std::fill_n(buffers.ones, block.rows, 1.0f);
  std::fill_n(buffers.sums, block.rows * block.columns, 0.0f);
  plan.kernels->value_product(
      {.p = a.data,
       .p_row = a.row,
       .v = {.first = place_b(p, block), .stride = p.b.row_stride, .type = p.b.type},
       .out = buffers.sums,
       .out_row = block.columns,
       .rescale = buffers.ones,
       .rows = block.rows,
       .n = p.k,
       .columns = block.columns,
       .pairs = true});
  for (Index r = 0; r < block.rows; ++r) {
    update_row(p, buffers.sums + r * block.columns, p.beta, block.columns,
               place_c(p, block) + r * p.c.row_stride);
  }
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmRowsPairs = {"gemm_rows_pairs", refuse, cut, nullptr, nullptr, run};

}  // namespace rapt::tiles
