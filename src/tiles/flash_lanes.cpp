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

#include "tiles/dropout.hpp"
#include "tiles/scores.hpp"
#include "tiles/task.hpp"
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
  float* row_copy;                    // [NR, d_k] or [NR, d_v], of q or out
  const float** q_rows;               // [NR]
  float** out_rows;                   // [NR]
  DropoutRows dropout;                // [panels, NR]

  Buffers(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut,
          Workspace& workspace)
      : dropout(p, whole_panels(cut, plan), workspace) {
    const Index columns = plan.tile->columns;
    const Index panels = (cut.block_q + columns - 1) / columns;
    qt = workspace.floats(panels * p.d_k * columns);
    ot = workspace.floats(panels * p.d_v * columns);
    row_max = workspace.floats(panels * columns);
    row_sum = workspace.floats(panels * columns);
    rescale = workspace.floats(columns);
    s = workspace.floats(cut.block_kv * columns);
    bias = workspace.floats(cut.block_kv * columns);
    k_copy = workspace.floats(k_in_place(p) ? 0 : cut.block_kv * p.d_k);
    v_copy = workspace.floats(v_in_place(p) ? 0 : cut.block_kv * p.d_v);
    const bool copies = p.q.type != Type::f32 || p.out.type != Type::f32;
    row_copy = workspace.floats(copies ? columns * std::max(p.d_k, p.d_v) : 0);
    v_zeroed = workspace.floats(may_mask(p) ? cut.block_kv * p.d_v : 0);
    q_rows = workspace.pointers<const float>(columns);
    out_rows = workspace.pointers<float>(columns);
  }

  static Index whole_panels(const Cut& cut, const AttentionPlan& plan) {
    const Index columns = plan.tile->columns;
    return (cut.block_q + columns - 1) / columns * columns;
  }
  static bool k_in_place(const AttentionProblem& p) { return KeyReader::in_place(p, p.k); }
  static bool v_in_place(const AttentionProblem& p) {
    return KeyReader::in_place_down(p, p.v, p.d_v);
  }
};

// Keys after those of a block, where all lie in place.
kernels::NextRows next_rows(bool in_place, const KeyBlock& block, Index depth, Keys keys,
                            Keys next) {
  if (!in_place) return {};
  const Index stride = block.row * bytes_of(Type::f32);
  return {.first = stored_rows(block).first + (next.begin - keys.begin) * stride,
          .stride = stride,
          .rows = next.count(),
          .row_bytes = depth * bytes_of(Type::f32)};
}

const char* refuse(const AttentionProblem& p, Index rows, const AttentionBlocks& blocks) {
  if (p.dropout.probability > 0) return nullptr;  // flash_rows has none
  if (rows <= blocks.short_rows)
    return "the problem has few rows (group x seq_q at most short_rows): lanes would be idle";
  return nullptr;
}

void cut(const AttentionProblem&, const AttentionPlan& plan, const AttentionBlocks& blocks,
         Cut& cut) {
  const Index columns = plan.tile->columns;
  const auto round_up = [](Index n, Index step) { return (n + step - 1) / step * step; };
  // Blocks of equal height, in whole panels.
  const Index wanted = std::max(round_up(blocks.block_q, columns), columns);
  const Index n_blocks = std::max<Index>((cut.rows + wanted - 1) / wanted, 1);
  cut.block_q = std::max(round_up((cut.rows + n_blocks - 1) / n_blocks, columns), columns);
  cut.block_kv = std::max<Index>(std::min(blocks.block_kv, cut.sequence.seq_kv), 1);
  cut.row_blocks = (cut.rows + cut.block_q - 1) / cut.block_q;
  // Where one unit holds all rows of a KV head, its keys make the tasks, or there would be none for
  // other threads.
  cut.part_kv = cut.row_blocks == 1 ? round_up(blocks.split_kv, blocks.block_kv)
                                    : std::max<Index>(cut.sequence.seq_kv, 1);
}

Index workspace(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut) {
  Workspace count(nullptr);
  Buffers(p, plan, cut, count);
  return count.used();
}

void run(const AttentionPlan& plan, const Task& task, float* memory) {
  const AttentionProblem& p = *task.rows.problem;
  const kernels::Kernels& kernel = *plan.kernels;
  const Index columns = plan.tile->columns;
  Workspace workspace(memory);
  Buffers buffers(p, plan, *task.cut, workspace);
  const Rows& rows = task.rows;
  buffers.dropout.load(rows);
  const KeyReader read_k(kernel, rows, p.k, p.k_scales, p.d_k);
  const KeyReader read_v(kernel, rows, p.v, p.v_scales, p.d_v);
  const Index block_kv = task.cut->block_kv;
  const Index panels = (rows.count + columns - 1) / columns;

  for (Index panel = 0; panel < panels; ++panel) {
    const Rows part = rows.part(panel * columns, columns);
    for (Index r = 0; r < part.count; ++r) {
      const std::byte* from = part.at(p.q, r);
      buffers.q_rows[r] = reinterpret_cast<const float*>(from);
      if (p.q.type == Type::f32) continue;
      read_row(kernel, p.q, from, p.d_k, buffers.row_copy + r * p.d_k);
      buffers.q_rows[r] = buffers.row_copy + r * p.d_k;
    }
    kernel.pack_rows({.source = buffers.q_rows,
                      .stride = p.q.type == Type::f32 ? p.q.column_stride / bytes_of(Type::f32) : 1,
                      .rows = part.count,
                      .length = p.d_k,
                      .panel = buffers.qt + panel * p.d_k * columns,
                      .columns = columns});
  }
  std::fill_n(buffers.row_max, panels * columns, -std::numeric_limits<float>::infinity());
  std::fill_n(buffers.row_sum, panels * columns, 0.0f);
  begin_rows(task, buffers.row_max, buffers.row_sum);
  std::fill_n(buffers.ot, panels * p.d_v * columns, 0.0f);

  std::fill_n(buffers.rescale, columns, 0.0f);
  const ScoreUnits units(p);

  for (Index begin = task.keys.begin; begin < task.keys.end; begin += block_kv) {
    const Keys block{begin, std::min(begin + block_kv, task.keys.end)};
    const KeyBlock k = read_k.floats(block, Buffers::k_in_place(p), buffers.k_copy);
    const KeyBlock v = read_v.floats(block, Buffers::v_in_place(p), buffers.v_copy);
    NotFinite not_finite(kernel, stored_rows(v), block.count(), p.d_v, buffers.v_zeroed);
    for (Index panel = 0; panel < panels; ++panel) {
      const Rows part = rows.part(panel * columns, columns);
      const Keys keys{begin, std::min(block.end, reachable_keys(part).end)};
      const Index n = keys.count();
      if (n <= 0) continue;
      const Cover covered = cover(part, keys);
      if (covered.none) continue;
      // This panel's share of the next block, which is asked for meanwhile.
      const Index left = std::min(task.keys.end - block.end, block_kv);
      const Keys coming{block.end + left * panel / panels, block.end + left * (panel + 1) / panels};
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
                          .beta = nullptr,
                          .next = next_rows(Buffers::k_in_place(p), k, p.d_k, block, coming)});

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
                            .softcap = p.softcap,
                            .scale = units.exponent_scale,
                            .row_max = row_max,
                            .row_sum = row_sum,
                            .rescale = buffers.rescale});

      buffers.dropout.apply(kernel, p.dropout, keys, panel * columns, part.count, buffers.s,
                            columns);

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
                          .beta = buffers.rescale,
                          .next = next_rows(Buffers::v_in_place(p), v, p.d_v, block, coming)});
      if (care)
        not_finite.add(n, covered.whole, part.count, buffers.s, buffers.bias, 1, columns, ot, 1,
                       columns);
    }
  }

  const bool last = task.partial.out == nullptr;
  if (!last) {
    std::copy_n(buffers.row_max, rows.count, task.partial.row_max);
    std::copy_n(buffers.row_sum, rows.count, task.partial.row_sum);
    std::fill_n(buffers.rescale, columns, 1.0f);
  }
  const bool direct = last && p.out.type == Type::f32;
  for (Index panel = 0; panel < panels; ++panel) {
    const Rows part = rows.part(panel * columns, columns);
    for (Index r = 0; r < part.count; ++r) {
      buffers.out_rows[r] = direct ? reinterpret_cast<float*>(part.at(p.out, r))
                            : last ? buffers.row_copy + r * p.d_v
                                   : task.partial.out + (panel * columns + r) * p.d_v;
    }
    kernel.unpack_rows({.panel = buffers.ot + panel * p.d_v * columns,
                        .columns = columns,
                        .divisor = last ? buffers.row_sum + panel * columns : buffers.rescale,
                        .rows = part.count,
                        .length = p.d_v,
                        .destination = buffers.out_rows,
                        .stride = direct ? p.out.column_stride / bytes_of(Type::f32) : 1});
    if (!last || direct) continue;
    for (Index r = 0; r < part.count; ++r)
      write_row(kernel, p.out, buffers.row_copy + r * p.d_v, p.d_v, part.at(p.out, r));
  }
  if (last) write_lse(rows, buffers.row_max, buffers.row_sum);
}

}  // namespace

const AttentionAlgorithm kFlashLanes = {"flash_lanes", refuse, cut, workspace, run};

}  // namespace rapt::tiles
