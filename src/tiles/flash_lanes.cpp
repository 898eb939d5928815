// flash_lanes: attention for many rows. The lanes of a vector are rows (queries), so the softmax
// runs down the registers with nothing to do across lanes, and K and V are read where they lie:
// neither is packed.
//
//   panel   NR rows side by side (NR = columns of the register tile), as columns of
//   qt      [d_k, NR]       q, transposed once per task
//   s       [keys, NR]      scores of one block of keys, then their p
//   ot      [d_v, NR]       the output so far, transposed back at the end
//
//   for each block of keys:   for each panel:
//     s  = K qt               step 1, K broadcast
//     s  = p = softmax step   steps 3 to 5
//     ot = ot * rescale + V^T s   step 6, V^T broadcast
#include <algorithm>
#include <limits>

#include "tiles/attention.hpp"
#include "tiles/mask.hpp"
#include "tiles/rows.hpp"
#include "tiles/scores.hpp"
#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

// What one worker needs.
struct Buffers {
  float *qt, *ot;                     // [panels, d_k, NR], [panels, d_v, NR]
  float *row_max, *row_sum;           // [panels, NR]
  float* rescale;                     // [NR]
  float *s, *bias;                    // [block_kv, NR]
  float *k_copy, *v_copy, *v_zeroed;  // [block_kv, d_k], [block_kv, d_v] twice
  const float** q_rows;               // [NR]
  float** out_rows;                   // [NR]

  Buffers(const AttentionPlan& plan, Workspace& workspace) {
    const AttentionProblem& p = *plan.problem;
    const Index columns = plan.tile->columns;
    const Index panels = (plan.block_q + columns - 1) / columns;
    qt = workspace.floats(panels * p.d_k * columns);
    ot = workspace.floats(panels * p.d_v * columns);
    row_max = workspace.floats(panels * columns);
    row_sum = workspace.floats(panels * columns);
    rescale = workspace.floats(columns);
    s = workspace.floats(plan.block_kv * columns);
    bias = workspace.floats(plan.block_kv * columns);
    k_copy = workspace.floats(k_in_place(p) ? 0 : plan.block_kv * p.d_k);
    v_copy = workspace.floats(v_in_place(p) ? 0 : plan.block_kv * p.d_v);
    v_zeroed = workspace.floats(may_mask(p) ? plan.block_kv * p.d_v : 0);
    q_rows = workspace.pointers<const float>(columns);
    out_rows = workspace.pointers<float>(columns);
  }

  static bool k_in_place(const AttentionProblem& p) { return p.k.column_stride == 1; }
  // Rows of V that are a large power of two apart all fall into a few sets of the L1 cache.
  static bool v_in_place(const AttentionProblem& p) {
    return p.v.column_stride == 1 && (p.v.row_stride % 256 != 0 || p.v.row_stride == p.d_v);
  }
};

const char* refuse(const AttentionProblem& p, const AttentionBlocks& blocks) {
  if (p.rows() <= blocks.short_rows)
    return "the problem has few rows (group x seq_q at most short_rows): lanes would be idle";
  return nullptr;
}

void cut(AttentionPlan& plan, const AttentionBlocks& blocks) {
  const AttentionProblem& p = *plan.problem;
  const Index columns = plan.tile->columns;
  const auto round_up = [](Index n, Index step) { return (n + step - 1) / step * step; };
  // Blocks of equal height, in whole panels.
  const Index wanted = std::max(round_up(blocks.block_q, columns), columns);
  const Index n_blocks = std::max<Index>((p.rows() + wanted - 1) / wanted, 1);
  plan.block_q = std::max(round_up((p.rows() + n_blocks - 1) / n_blocks, columns), columns);
  plan.block_kv = std::max<Index>(std::min(blocks.block_kv, p.seq_kv), 1);
  plan.row_blocks = (p.rows() + plan.block_q - 1) / plan.block_q;
  plan.tasks = p.batch.size * p.kv_heads * plan.row_blocks;
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

void run(const AttentionPlan& plan, Index task, float* memory) {
  const AttentionProblem& p = *plan.problem;
  const kernels::Kernels& kernel = *plan.kernels;
  const Index columns = plan.tile->columns;
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const Rows rows = rows_of_task(plan, task);
  const float* k_head = p.batch.element(p.k, rows.batch) + rows.kv_head * p.k.head_stride;
  const float* v_head = p.batch.element(p.v, rows.batch) + rows.kv_head * p.v.head_stride;
  const Index panels = (rows.count + columns - 1) / columns;

  for (Index panel = 0; panel < panels; ++panel) {
    const Rows part = rows.part(panel * columns, columns);
    for (Index r = 0; r < part.count; ++r) buffers.q_rows[r] = part.at(p.q, r);
    kernel.pack_rows({.source = buffers.q_rows,
                      .stride = p.q.column_stride,
                      .rows = part.count,
                      .length = p.d_k,
                      .panel = buffers.qt + panel * p.d_k * columns,
                      .columns = columns});
  }
  std::fill_n(buffers.row_max, panels * columns, -std::numeric_limits<float>::infinity());
  std::fill_n(buffers.row_sum, panels * columns, 0.0f);
  std::fill_n(buffers.ot, panels * p.d_v * columns, 0.0f);

  std::fill_n(buffers.rescale, columns, 0.0f);
  const ScoreUnits units(p);

  const Keys reachable = reachable_keys(rows);
  for (Index begin = reachable.begin; begin < reachable.end; begin += plan.block_kv) {
    const Keys block{begin, std::min(begin + plan.block_kv, reachable.end)};
    const KeyBlock k = read_keys(p.k, k_head, block, p.d_k, Buffers::k_in_place(p), buffers.k_copy);
    const KeyBlock v = read_keys(p.v, v_head, block, p.d_v, Buffers::v_in_place(p), buffers.v_copy);
    NotFinite not_finite(v, block.count(), p.d_v, buffers.v_zeroed);
    for (Index panel = 0; panel < panels; ++panel) {
      const Rows part = rows.part(panel * columns, columns);
      const Keys keys{begin, std::min(block.end, reachable_keys(part).end)};
      const Index n = keys.count();
      if (n <= 0) continue;
      const Cover covered = cover(part, keys);
      if (covered.none) continue;
      float* ot = buffers.ot + panel * p.d_v * columns;
      float* row_max = buffers.row_max + panel * columns;
      float* row_sum = buffers.row_sum + panel * columns;

      // s[j, r] = k_j . q_r
      plan.tile->product({.a = k.data,
                          .a_row = k.row,
                          .a_inner = 1,
                          .b = buffers.qt + panel * p.d_k * columns,
                          .b_inner = columns,
                          .c = buffers.s,
                          .c_row = columns,
                          .c_column = 1,
                          .rows = n,
                          .inner = p.d_k,
                          .columns = columns,
                          .alpha = 1.0f,
                          .beta = nullptr});

      // p[j, r] = exp(s - max)
      const bool masked = covered.whole < n;
      if (masked) {
        fill_bias(part, {keys.begin + covered.whole, keys.end},
                  buffers.bias + covered.whole * columns, 1, columns);
      }
      kernel.softmax_lanes({.s = buffers.s,
                            .bias = masked ? buffers.bias : nullptr,
                            .s_row = columns,
                            .n = n,
                            .bias_begin = covered.whole,
                            .rows = part.count,
                            .pre_scale = units.pre_scale,
                            .scale = units.exponent_scale,
                            .row_max = row_max,
                            .row_sum = row_sum,
                            .rescale = buffers.rescale});

      // ot[x, r] = ot[x, r] * rescale[r] + sum_j v[j, x] p[j, r]
      const bool care = masked && not_finite.any();
      const KeyBlock values = care ? not_finite.zeroed() : v;
      plan.tile->product({.a = values.data,
                          .a_row = 1,
                          .a_inner = values.row,
                          .b = buffers.s,
                          .b_inner = columns,
                          .c = ot,
                          .c_row = columns,
                          .c_column = 1,
                          .rows = p.d_v,
                          .inner = n,
                          .columns = columns,
                          .alpha = 1.0f,
                          .beta = buffers.rescale});
      if (care)
        not_finite.add(n, covered.whole, part.count, buffers.s, buffers.bias, 1, columns, ot, 1,
                       columns);
    }
  }

  for (Index panel = 0; panel < panels; ++panel) {
    const Rows part = rows.part(panel * columns, columns);
    const float* row_sum = buffers.row_sum + panel * columns;
    for (Index r = 0; r < part.count; ++r) buffers.out_rows[r] = part.at(p.out, r);
    kernel.unpack_rows({.panel = buffers.ot + panel * p.d_v * columns,
                        .columns = columns,
                        .divisor = row_sum,
                        .rows = part.count,
                        .length = p.d_v,
                        .destination = buffers.out_rows,
                        .stride = p.out.column_stride});
    write_lse(part, buffers.row_max + panel * columns, row_sum, units);
  }
}

}  // namespace

const AttentionAlgorithm kFlashLanes = {"flash_lanes", refuse, cut, run};

}  // namespace rapt::tiles
