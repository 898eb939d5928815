// gemm_dot: few rows, both operands contiguous along k (x W^T with one or a few x; a thin c): every
// row of b^T is read once, in its own order.
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

struct Buffers {
  float* a_copy;   // [block_m, k]
  float* b_scale;  // [block_n]
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    a_copy = workspace.floats(in_place(plan) ? 0 : plan.block_m * copy_row(plan.steps));
    b_scale = workspace.floats(plan.problem.b_scale == nullptr ? 0 : plan.block_n);
  }

  // The kernel reads each row of a along k.
  static bool in_place(const GemmPlan& plan) {
    const GemmProblem& p = plan.problem;
    const Type type = plan.pairs ? Type::bf16 : Type::f32;
    return p.a.type == type && (p.m == 1 || p.a.row_stride % bytes_of(Type::f32) == 0);
  }
};

const char* refuse(const GemmProblem& p, const GemmBlocks&) {
  if (p.element_rows > kFewRows)
    return "c has more than 8 rows: broadcasting a is cheaper than summing across lanes";
  if (p.b.row_stride != bytes_of(p.b.type)) return "b is not contiguous along k";
  if (!p.a.contiguous()) return "a is not contiguous along k";
  return nullptr;
}

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  plan.pairs = blocks.native_pairs && all_bf16(plan.problem) && plan.problem.k % 2 == 0;
  if (plan.pairs) plan.steps /= 2;
  constexpr Index kRows = 256, kColumns = 1024;  // rows of several batch elements
  cut_blocks(plan, kRows, kColumns, kFewRows, 16);
  plan.block_k = plan.steps;
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
  for (Index n = 0; p.b_scale != nullptr && n < block.columns; ++n)
    buffers.b_scale[n] = p.b_scale[(block.column + n) * p.b_scale_stride];
  plan.kernels->dot_product(
      {.a = a.data,
       .a_row = a.row,
       .b = {.first = place_b(p, block), .stride = p.b.column_stride, .type = p.b.type},
       .b_scale = p.b_scale == nullptr ? nullptr : buffers.b_scale,
       .c = place_c(p, block),
       .c_row = p.c.row_stride,
       .c_column = p.c.column_stride,
       .rows = block.rows,
       .columns = block.columns,
       .inner = plan.steps,
       .alpha = p.alpha,
       .beta = p.beta == 0.0f ? nullptr : &p.beta,
       .pairs = plan.pairs});
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmDot = {"gemm_dot", refuse, cut, nullptr, nullptr, run};

}  // namespace rapt::tiles
