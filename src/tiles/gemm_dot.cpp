// gemm_dot: few rows, both operands contiguous along k (x W^T with one or a few x; a thin c): every
// row of b^T is read once, in its own order.
#include <algorithm>

#include "tiles/gemm.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kRows = 8;  // of one batch element

const char* refuse(const GemmProblem& p, const GemmBlocks&) {
  if (p.element_rows > kRows)
    return "c has more than 8 rows: broadcasting a is cheaper than summing across lanes";
  if (p.b.row_stride != bytes_of(p.b.type)) return "b is not contiguous along k";
  if (p.a.column_stride != 1) return "a is not contiguous along k";
  return nullptr;
}

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  cut_blocks(plan, blocks.block_m, blocks.block_n, kRows, 16);
  plan.block_k = plan.problem.k;
}

void run(const GemmPlan& plan, Wave, Index unit, Index row_block, const float*, float*) {
  const GemmProblem& p = plan.problem;
  const GemmBlock block = block_of(plan, unit, row_block);
  const float* a = p.batch.element(p.a, block.batch) + block.row * p.a.row_stride;
  const std::byte* b = place_b(p, block);
  float* c = place_c(p, block);
  constexpr Index kColumns = 64;
  float b_scale[kColumns];
  for (Index begin = 0; begin < block.columns; begin += kColumns) {
    const Index columns = std::min(kColumns, block.columns - begin);
    for (Index n = 0; p.b_scale != nullptr && n < columns; ++n)
      b_scale[n] = p.b_scale[(block.column + begin + n) * p.b_scale_stride];
    plan.kernels->dot_product({.a = a,
                               .a_row = p.a.row_stride,
                               .b = {.first = b + begin * p.b.column_stride,
                                     .stride = p.b.column_stride,
                                     .rows = nullptr,
                                     .type = p.b.type},
                               .b_scale = p.b_scale == nullptr ? nullptr : b_scale,
                               .c = c + begin * p.c.column_stride,
                               .c_row = p.c.row_stride,
                               .c_column = p.c.column_stride,
                               .rows = block.rows,
                               .columns = columns,
                               .inner = p.k,
                               .alpha = p.alpha,
                               .beta = p.beta == 0.0f ? nullptr : &p.beta});
  }
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmDot = {"gemm_dot", refuse, cut, nullptr, nullptr, run};

}  // namespace rapt::tiles
