// gemm_rows: very few rows (a linear layer while decoding), b's columns adjacent: every row of b is
// read once, in place, in its order and as it is stored.
//
//   pack:  the sums of each slice of k:  sums[slice, m, block_n] = a[m, slice] b[slice, block_n];
//          not where c has columns enough for a task each, which sums them itself
//   run:   c = alpha times their sum, in their order, which is that of the other algorithms; so the
//          choice between them may look at the whole batch
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kWaveFloats = Index{16} << 20;  // 64 MiB of sums at most, or one unit

constexpr Index kPage = 4096 / bytes_of(Type::f32);

Index sums_row(const GemmPlan& plan) { return copy_row(plan.block_n); }
Index sums_floats(const GemmPlan& plan) { return plan.problem.m * sums_row(plan) + kPage; }

// The sums of a block, in their memory: as far into a line as their columns of b, so that vectors
// of both lie in one. Those of one row eight lines behind b in a page, or a CPU would take a load
// of b for what was just stored at the same place of another page; more rows then lose, in sets of
// L1.
template <class Float>
Float* place_sums(const GemmProblem& p, const GemmBlock& block, Float* memory) {
  constexpr Index kLineBytes = 64, kLine = kLineBytes / bytes_of(Type::f32), kBehind = 8 * kLine;
  if (p.b.row_stride % kLineBytes != 0) return memory;
  const auto columns = reinterpret_cast<std::uintptr_t>(place_b(p, block)) /
                       static_cast<std::uintptr_t>(bytes_of(p.b.type));
  const auto floats = reinterpret_cast<std::uintptr_t>(memory) / sizeof(float);
  return memory + (columns - kBehind - floats) % (p.m == 1 ? kPage : kLine);
}

bool from_memory(const GemmProblem& p) {
  constexpr Index kLarge = 16 << 20;
  return p.k * p.n * bytes_of(p.b.type) >= kLarge;
}

// From a cache, a row reads those of b in pieces, if these are long.
bool in_pieces(const GemmProblem& p) { return p.m == 1 && !from_memory(p); }

struct Buffers {
  float *a_copy, *ones, *sums;  // [rows, block_k], [rows], [m, sums_row]
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    a_copy = workspace.floats(kFewRows * copy_row(plan.block_k));
    ones = workspace.floats(kFewRows);
    sums = workspace.floats(in_pieces(plan.problem) ? sums_floats(plan) : 0);
  }
};

const char* refuse(const GemmProblem& p, const GemmBlocks& blocks) {
  constexpr Index kSmall = 1 << 20;
  if (p.k * p.n * bytes_of(p.b.type) < kSmall)
    return "b is small: what comes from a cache may come in any order";
  if (p.m > kFewRows) return "c has more than a few rows: a register tile reads b less often";
  // Measured: more than one row are faster in wide register tiles, more than two in narrow ones,
  // unless b comes from memory, or its rows evict each other meanwhile.
  const bool tiles = is_wide(*blocks.tile) ? p.m > 1 : p.m > 2 && !rows_collide(p);
  if (tiles && p.b.type == Type::f32 && !from_memory(p))
    return "c has more than a row, and b is not large: a register tile reads it less often";
  if (!p.b.contiguous()) return "the columns of b are not adjacent";
  if (p.b.type == Type::int8) return "b is int8: it is scaled while it is packed";
  if (p.beta != 0.0f && p.beta != 1.0f) return "beta is neither 0 nor 1";
  return nullptr;
}

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  const GemmProblem& p = plan.problem;
  cut_slices(plan, blocks.block_k);
  // Whole rows of b, if that makes tasks enough, and long pieces else: prefetchers like them.
  constexpr Index kColumns = 768, kTasks = 8;
  if (in_pieces(p)) {
    cut_blocks(plan, kFewRows, kColumns, kFewRows, kColumns);
  } else {
    const Index pieces = (kTasks + slices(plan) - 1) / slices(plan);
    cut_blocks(plan, kFewRows, std::max(kColumns, (p.n + pieces - 1) / pieces), kFewRows, p.n);
    plan.wave_units =
        std::clamp<Index>(kWaveFloats / std::max<Index>(slices(plan) * sums_floats(plan), 1), 1,
                          std::max<Index>(plan.units, 1));
    plan.shared_workspace = plan.wave_units * slices(plan) * sums_floats(plan);
  }
  // A slice is summed for all rows at once; the sums of slices are added row by row.
  plan.block_m = 1;
  plan.row_blocks = p.m;
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

void sum_slice(const GemmPlan& plan, GemmBlock block, Index number, const Buffers& buffers,
               float* sums) {
  const GemmProblem& p = plan.problem;
  const Index x = number * plan.block_k, slice = std::min(plan.block_k, p.k - x);
  block.row = 0;
  block.rows = p.m;
  copy_a(plan, block, x, slice, buffers.a_copy);
  std::fill_n(sums, block.rows * sums_row(plan), 0.0f);
  const kernels::StoredRows b{
      .first = place_b(p, block) + x * p.b.row_stride, .stride = p.b.row_stride, .type = p.b.type};
  // Measured: several rows that read and write c in vectors of 8 lanes keep the ports too busy.
  if (p.m == 1 || is_wide(*plan.tile)) {
    plan.kernels->row_product({.a = buffers.a_copy,
                               .a_row = copy_row(slice),
                               .b = b,
                               .c = sums,
                               .c_row = sums_row(plan),
                               .rows = p.m,
                               .inner = slice,
                               .columns = block.columns,
                               .from_memory = from_memory(p)});
    return;
  }
  std::fill_n(buffers.ones, kFewRows, 1.0f);
  plan.kernels->value_product({.p = buffers.a_copy,
                               .p_row = copy_row(slice),
                               .v = b,
                               .out = sums,
                               .out_row = sums_row(plan),
                               .rescale = buffers.ones,
                               .rows = p.m,
                               .n = slice,
                               .columns = block.columns});
}

Index pack_tasks(const GemmPlan& plan, Wave wave) {
  return in_pieces(plan.problem) ? 0 : wave.count * slices(plan);
}

void pack(const GemmPlan& plan, Wave wave, Index task, float* shared, float* memory) {
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, wave.first + task / slices(plan), 0);
  sum_slice(plan, block, task % slices(plan), buffers,
            place_sums(plan.problem, block, shared + task * sums_floats(plan)));
}

void run(const GemmPlan& plan, Wave wave, Index unit, Index row_block, const float* shared,
         float* memory) {
  const GemmProblem& p = plan.problem;
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, unit, row_block);
  for (Index i = 0; i < slices(plan); ++i) {
    const float* sums =
        place_sums(p, block, shared + ((unit - wave.first) * slices(plan) + i) * sums_floats(plan));
    if (in_pieces(p)) {
      float* const own = place_sums(p, block, buffers.sums);
      sum_slice(plan, block, i, buffers, own);
      sums = own;
    }
    update_row(p, sums + block.row * sums_row(plan), i == 0 ? p.beta : 1.0f, block.columns,
               place_c(p, block));
  }
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmRows = {"gemm_rows", refuse, cut, pack_tasks, pack, run};

}  // namespace rapt::tiles
