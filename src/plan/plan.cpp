// The lists of algorithms, best first: a plan takes the first that does not refuse. The last one
// never does.
#include "plan/plan.hpp"

#include <algorithm>
#include <utility>

#include "config/config.hpp"
#include "plan/target.hpp"

namespace rapt::plan {
namespace {

const tiles::AttentionAlgorithm* const kAttention[] = {&tiles::kFlashLanes, &tiles::kFlashRows};
const tiles::GemmAlgorithm* const kGemm[] = {&tiles::kGemmDot, &tiles::kGemmDirect,
                                             &tiles::kGemmPacked};

// The compiled tile that a config row names; the target's default where the row is of another
// build.
const kernels::TileKernel* find_tile(const kernels::Kernels& kernels, config::Tile wanted) {
  for (int i = 0; i < kernels.n_tiles; ++i) {
    if (kernels.tiles[i].rows == wanted.rows && kernels.tiles[i].vectors == wanted.vectors)
      return &kernels.tiles[i];
  }
  return &kernels.tiles[0];
}

config::Registers registers_of(const kernels::Kernels& kernels) {
  return {kernels.lanes, kernels.registers};
}

template <class List, class Problem, class Blocks>
auto first_that_takes(const List& list, const Problem& problem, const Blocks& blocks) {
  return *std::find_if(std::begin(list), std::end(list) - 1, [&](const auto* algorithm) {
    return algorithm->refuse(problem, blocks) == nullptr;
  });
}

// c^T = b^T a^T: the same product, with the roles of rows and columns exchanged.
void transpose(tiles::GemmProblem& p) {
  std::swap(p.m, p.n);
  std::swap(p.a, p.b);
  for (auto* array : {&p.a, &p.b}) std::swap(array->row_stride, array->column_stride);
  std::swap(p.c.row_stride, p.c.column_stride);
  p.transposed = !p.transposed;
}

// Batch elements that share b and lie one below the other are rows of one product.
void stack_batch(tiles::GemmProblem& p) {
  while (p.batch.axes > 0) {
    const int last = p.batch.axes - 1;
    const tiles::Index extent = p.batch.extent[last];
    const bool stacked = p.b.batch_stride[last] == 0 &&
                         p.a.batch_stride[last] == p.m * p.a.row_stride &&
                         p.c.batch_stride[last] == p.m * p.c.row_stride;
    if (!stacked && extent != 1) return;
    p.m *= extent;
    --p.batch.axes;
    p.batch.size = 1;
    for (int i = 0; i < last; ++i) p.batch.size *= p.batch.extent[i];
  }
}

}  // namespace

tiles::AttentionPlan plan_attention(const tiles::AttentionProblem& problem) {
  tiles::AttentionPlan plan;
  plan.problem = &problem;
  plan.kernels = &current_kernels();
  const config::AttentionRow row =
      config::attention_row(*config::current(), plan.kernels->target, registers_of(*plan.kernels),
                            std::max(problem.d_k, problem.d_v));
  plan.tile = find_tile(*plan.kernels, row.tile);
  const tiles::AttentionBlocks blocks{plan.tile, row.block_q, row.block_kv, row.short_rows};
  plan.algorithm = first_that_takes(kAttention, problem, blocks);
  plan.algorithm->cut(plan, blocks);
  return plan;
}

tiles::GemmPlan plan_gemm(const tiles::GemmProblem& problem) {
  tiles::GemmPlan plan;
  plan.problem = problem;
  plan.kernels = &current_kernels();
  const config::GemmRow row =
      config::gemm_row(*config::current(), plan.kernels->target, registers_of(*plan.kernels));
  plan.tile = find_tile(*plan.kernels, row.tile);

  tiles::GemmProblem& p = plan.problem;
  p.element_rows = p.m;
  stack_batch(p);
  // Lanes run along c's adjacent elements; and a thin c whose a is contiguous along k is a product
  // of few rows.
  const bool columns_adjacent = p.c.row_stride == 1 && p.c.column_stride != 1;
  const bool thin = p.n <= 4 && p.m > p.n && p.a.column_stride == 1 && p.b.row_stride == 1;
  if (columns_adjacent || thin) {
    transpose(p);
    p.element_rows = p.m;
  }

  const tiles::GemmBlocks blocks{plan.tile, row.block_m, row.block_n, row.block_k, row.direct_rows};
  plan.algorithm = first_that_takes(kGemm, p, blocks);
  plan.algorithm->cut(plan, blocks);
  return plan;
}

}  // namespace rapt::plan
