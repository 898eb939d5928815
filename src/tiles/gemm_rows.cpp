// gemm_rows: very few rows (a linear layer while decoding), b's columns adjacent: every row of b is
// read once, in place and as it is stored, and added to c's rows, which stay in the cache.
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kRows = 8;

// Sums are in the order of the other algorithms, so that the choice may look at the whole batch.
struct Buffers {
  float *a_copy, *sums, *ones;  // [rows, block_k], [rows, block_n], [rows]
  Index sums_row;
  Buffers(const GemmPlan& plan, Workspace& workspace) : sums_row(copy_row(plan.block_n)) {
    a_copy = workspace.floats(kRows * copy_row(plan.block_k));
    sums = workspace.floats(kRows * sums_row);
    ones = workspace.floats(kRows);
  }
};

const char* refuse(const GemmProblem& p, const GemmBlocks&) {
  constexpr Index kBytes = 16 << 20;
  if (p.k * p.n * bytes_of(p.b.type) < kBytes)
    return "b is small: what comes from a cache may come in any order";
  if (p.m > kRows) return "c has more than a few rows: a register tile reads b less often";
  if (!p.b.contiguous()) return "the columns of b are not adjacent";
  if (p.b.type == Type::int8) return "b is int8: it is scaled while it is packed";
  if (p.beta != 0.0f && p.beta != 1.0f) return "beta is neither 0 nor 1";
  return nullptr;
}

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  constexpr Index kColumns = 512;  // not less, so that rows of b are read in long pieces
  cut_blocks(plan, kRows, blocks.block_n, kRows, kColumns);
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
  const std::byte* b = place_b(p, block);
  float* c = place_c(p, block);
  std::fill_n(buffers.ones, kRows, 1.0f);

  Index x = 0;
  do {
    const Index slice = std::min(plan.block_k, p.k - x);
    copy_a(p, block, x, slice, buffers.a_copy);
    std::fill_n(buffers.sums, block.rows * buffers.sums_row, 0.0f);
    plan.kernels->value_product({.p = buffers.a_copy,
                                 .p_row = copy_row(slice),
                                 .v = {.first = b + x * p.b.row_stride,
                                       .stride = p.b.row_stride,
                                       .rows = nullptr,
                                       .type = p.b.type},
                                 .out = buffers.sums,
                                 .out_row = buffers.sums_row,
                                 .rescale = buffers.ones,
                                 .rows = block.rows,
                                 .n = slice,
                                 .columns = block.columns});
    const bool first = x == 0 && p.beta == 0.0f;
    for (Index r = 0; r < block.rows; ++r) {
      const float* sums = buffers.sums + r * buffers.sums_row;
      for (Index j = 0; j < block.columns; ++j) {
        float& to = c[r * p.c.row_stride + j * p.c.column_stride];
        to = first ? p.alpha * sums[j] : p.alpha * sums[j] + to;
      }
    }
    x += plan.block_k;
  } while (x < p.k);
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmRows = {"gemm_rows", refuse, cut, nullptr, nullptr, run};

}  // namespace rapt::tiles
