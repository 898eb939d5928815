// The plan of the backward pass. A batch element is cut by its own sizes, so that it has the same
// bits alone and in any batch.
#include <algorithm>

#include "config/config.hpp"
#include "plan/plan.hpp"
#include "plan/runs.hpp"

namespace rapt::plan {
namespace {

using tiles::Index;

Index ceil_div(Index n, Index step) { return (n + step - 1) / step; }

// The sums of a batch element's parts, and those of a wave: 48 MiB.
constexpr Index kSumFloats = Index{12} << 20;
// Of a batch element: enough for the cores of most machines.
constexpr Index kTasks = 32;
// Keys of a tile, where the config row of the forward pass has more. Of 64 to 512, on Zen 3 and 4;
// 256 cost 12 and 1 % with d = 128.
constexpr Index kTileKeys = 128;
// A part reads and writes its sums at least this many times, beside which their adding is small.
constexpr Index kPartBlocks = 2;

// Rows of a tile: their weights and these' gradients, and five arrays [rows, depth], fill L2, which
// keys, values and sums pass through, more seldom the more rows there are. 128 with 512 KiB and
// d = 128, 256 with 1 MiB (1 % faster than 128 there).
Index tile_rows(const tiles::AttentionProblem& p, Index columns) {
  constexpr Index kMost = 256;
  const Index floats = 3 * p.d_k + 2 * p.d_v + 2 * (kTileKeys + columns);
  const Index fit = config::machine_caches().l2 / Index{sizeof(float)} / floats;
  return std::max(std::min(fit, kMost) / columns, Index{1}) * columns;
}

void cut_bias(const tiles::BackwardProblem& problem, tiles::BackwardPlan& plan, Index block_q) {
  const tiles::AttentionProblem& p = problem.forward;
  const auto& grad = problem.grad_bias;
  plan.bias_own = plan.bias_shared = p.batch;
  plan.bias_own.size = plan.bias_shared.size = 1;
  const bool each_query = grad.row_stride != 0;
  for (int axis = 0; axis < p.batch.axes; ++axis) {
    // Packed sequences have queries of their own.
    const bool own = grad.batch_stride[axis] != 0 || (p.first_query != nullptr && each_query);
    (own ? plan.bias_shared : plan.bias_own).extent[axis] = 1;
    plan.bias_own.size *= plan.bias_own.extent[axis];
    plan.bias_shared.size *= plan.bias_shared.extent[axis];
  }
  plan.bias_queries = ceil_div(block_q, p.group);
  const Index blocks = each_query ? ceil_div(p.longest.seq_q, plan.bias_queries) : 1;
  plan.bias_tasks = plan.bias_own.size * (grad.head_stride != 0 ? p.kv_heads : 1) * blocks;
}

}  // namespace

tiles::BackwardPlan plan_backward(const tiles::BackwardProblem& problem) {
  const tiles::AttentionProblem& p = problem.forward;
  tiles::BackwardPlan plan;
  const auto [kernels, blocks] = in_use(p);
  plan.kernels = kernels;
  plan.tile = blocks.tile;
  plan.refuse_pairs = problem.grad_out.type == Type::bf16
                          ? tiles::refuse_pairs(p, problem.out.type, blocks)
                          : "grad_out is not bf16";
  if (plan.pairs()) plan.tile = &kernels->tiles[0];  // a row's tile is of floats
  const Index columns = plan.tile->columns;
  const Index in_place = tiles::sums_in_place(problem, plan);
  const Index block_q =
      std::min(ceil_div(blocks.block_q, columns) * columns, tile_rows(p, columns));

  Wide tasks = 0, unit_floats = 0;
  for (const Run& run : p.kv_heads == 0 ? std::vector<Run>() : runs_of(p)) {
    tiles::BackwardCut cut;
    cut.sequence = run.first;
    cut.count = run.count;
    cut.rows = run.first.seq_q * p.group;
    cut.capacity = p.first_key != nullptr ? run.first.seq_kv : p.longest.seq_kv;
    cut.block_q = std::clamp(ceil_div(cut.rows, columns) * columns, columns, block_q);
    cut.block_kv = std::clamp(run.first.seq_kv, Index{1}, std::min(blocks.block_kv, kTileKeys));
    const Index row_blocks = std::max(ceil_div(cut.rows, cut.block_q), Index{1});
    const Index floats = tiles::sum_floats(problem, plan, run.first.seq_kv);
    const Index parts = std::min({row_blocks / kPartBlocks, ceil_div(kTasks, p.kv_heads),
                                  in_place + kSumFloats / std::max<Index>(floats * p.kv_heads, 1)});
    cut.part_rows = ceil_div(row_blocks, std::max(parts, Index{1})) * cut.block_q;
    cut.parts = std::max(ceil_div(cut.rows, cut.part_rows), Index{1});
    cut.first_unit = plan.units;
    cut.first_task = plan.tasks;
    plan.units += cut.count * p.kv_heads;
    tasks += Wide{cut.count} * p.kv_heads * cut.parts;
    unit_floats = std::max(unit_floats, Wide{cut.parts - in_place} * floats);
    check_size("tasks", tasks);
    check_size("floats for sums over the gradients of keys", unit_floats);
    plan.tasks = static_cast<Index>(tasks);
    plan.cuts.push_back(cut);
  }
  plan.unit_floats = ceil_div(static_cast<Index>(unit_floats), 16) * 16;
  plan.wave_units = plan.unit_floats == 0 ? plan.units
                                          : std::clamp<Index>(kSumFloats / plan.unit_floats, 1,
                                                              std::max(plan.units, Index{1}));
  if (problem.grad_slopes) plan.slope_floats = ceil_div(p.group, 16) * 16;
  if (problem.grad_slopes || problem.grad_sinks) plan.head_tasks = p.heads;
  if (problem.grad_bias) cut_bias(problem, plan, block_q);
  plan.workspace = tiles::backward_workspace(problem, plan);
  return plan;
}

}  // namespace rapt::plan
