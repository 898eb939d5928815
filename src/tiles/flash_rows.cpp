// flash_rows: attention for few rows (decode, short queries). Lanes hold the depth for q k^T and
// the columns of v for p v, so that nothing is transposed and every key and value is read once for
// all rows of the task.
//
//   q [rows, d_k], s [rows, block_kv], o [rows, d_v]
//
//   for each block of keys:
//     s = q K^T                 step 1, both along d_k
//     s = p = softmax step      steps 3 to 5, keys in lanes
//     o = o * rescale + s V     step 6, V in place
#include <algorithm>
#include <span>

#include "tiles/scores.hpp"
#include "tiles/task.hpp"
#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

// Rows of one task: enough to share K and V among a group, few enough that their scores stay in L1.
constexpr Index kRows = 8;
// And of several tasks that share their keys.
constexpr Index kJoinedRows = 32;

struct Buffers {
  Index s_row;                         // block_kv, rounded up to whole vectors
  float *q, *o;                        // [rows, d_k], [rows, d_v]
  float *s, *bias;                     // [rows, s_row]
  float *row_max, *row_sum, *rescale;  // [rows]
  float *k_copy, *v_copy, *v_zeroed;   // [block_kv, depth]
  float *k_scales, *v_scales;          // [block_kv]
  const void **k_rows, **v_rows;       // [block_kv]

  Buffers(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut,
          Workspace& workspace) {
    const Index lanes = plan.kernels->lanes;
    const Index rows = plan.joined.empty() ? cut.block_q : std::max(cut.block_q, kJoinedRows);
    s_row = (cut.block_kv + lanes - 1) / lanes * lanes;
    q = workspace.floats(rows * p.d_k);
    o = workspace.floats(rows * p.d_v);
    s = workspace.floats(rows * s_row);
    bias = workspace.floats(cut.block_q * s_row);
    row_max = workspace.floats(rows);
    row_sum = workspace.floats(rows);
    rescale = workspace.floats(rows);
    k_copy =
        workspace.floats(KeyReader::rows_in_place(*plan.kernels, p.k) ? 0 : cut.block_kv * p.d_k);
    v_copy =
        workspace.floats(KeyReader::rows_in_place(*plan.kernels, p.v) ? 0 : cut.block_kv * p.d_v);
    v_zeroed = workspace.floats(may_mask(p) ? cut.block_kv * p.d_v : 0);
    k_scales = workspace.floats(p.k_scales ? cut.block_kv : 0);
    v_scales = workspace.floats(p.v_scales ? cut.block_kv : 0);
    k_rows = workspace.pointers<const void>(p.pages.table ? cut.block_kv : 0);
    v_rows = workspace.pointers<const void>(p.pages.table ? cut.block_kv : 0);
  }
};

const char* refuse(const AttentionProblem&, Index, const AttentionBlocks&) { return nullptr; }

void cut(const AttentionProblem&, const AttentionPlan&, const AttentionBlocks& blocks, Cut& cut) {
  cut.block_q = std::min(kRows, std::max<Index>(cut.rows, 1));
  cut.block_kv = std::max<Index>(std::min(blocks.block_kv, cut.sequence.seq_kv), 1);
  cut.row_blocks = (cut.rows + cut.block_q - 1) / cut.block_q;
  cut.part_kv = (blocks.split_kv + blocks.block_kv - 1) / blocks.block_kv * blocks.block_kv;
}

Index workspace(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut) {
  Workspace count(nullptr);
  Buffers(p, plan, cut, count);
  return count.used();
}

// The same keys for the rows of one task, or of several whose rows all attend all of them.
void attend(const AttentionPlan& plan, std::span<const Task> tasks, const Buffers& buffers) {
  const Task& task = tasks.front();
  const AttentionProblem& p = *task.rows.problem;
  const kernels::Kernels& kernel = *plan.kernels;
  const KeyReader read_k(plan, task.rows, p.k, p.k_scales, p.d_k);
  const KeyReader read_v(plan, task.rows, p.v, p.v_scales, p.d_v);
  const Index block_kv = task.cut->block_kv;
  const bool joined = tasks.size() > 1;
  const State state = joined || task.partial.out == nullptr
                          ? State{buffers.o, buffers.row_max, buffers.row_sum}
                          : task.partial;

  Index rows = 0;
  for (const Task& one : tasks) {
    for (Index r = 0; r < one.rows.count; ++r)
      read_row(kernel, p.q, one.rows.at(p.q, r), p.d_k, buffers.q + (rows + r) * p.d_k);
    begin_rows(one, state.row_max + rows, state.row_sum + rows);
    rows += one.rows.count;
  }
  std::fill_n(state.out, rows * p.d_v, 0.0f);
  const ScoreUnits units(p);

  for (Index begin = task.keys.begin; begin < task.keys.end; begin += block_kv) {
    const Keys keys{begin, std::min(begin + block_kv, task.keys.end)};
    const Index n = keys.count();
    const Cover covered = joined ? Cover{false, n} : cover(task.rows, keys);
    if (covered.none) continue;
    const StoredRows k = read_k.rows(keys, buffers.k_copy, buffers.k_rows, buffers.k_scales);
    const StoredRows v = read_v.rows(keys, buffers.v_copy, buffers.v_rows, buffers.v_scales);

    // s[r, j] = q_r . k_j
    kernel.dot_product({.a = buffers.q,
                        .a_row = p.d_k,
                        .b = k,
                        .b_scale = k.type == Type::int8 ? buffers.k_scales : nullptr,
                        .c = buffers.s,
                        .c_row = buffers.s_row,
                        .c_column = 1,
                        .rows = rows,
                        .columns = n,
                        .inner = p.d_k,
                        .alpha = 1.0f,
                        .beta = nullptr});

    // p[r, j] = exp(s - max)
    const bool masked = covered.whole < n;
    if (masked) fill_bias(task.rows, keys, buffers.bias, buffers.s_row, 1);
    kernel.softmax_rows({.s = buffers.s,
                         .bias = masked ? buffers.bias : nullptr,
                         .s_row = buffers.s_row,
                         .n = n,
                         .bias_begin = 0,
                         .rows = rows,
                         .pre_scale = units.pre_scale,
                         .softcap = p.softcap,
                         .scale = units.exponent_scale,
                         .row_max = state.row_max,
                         .row_sum = state.row_sum,
                         .rescale = buffers.rescale});

    // out[r, x] = out[r, x] * rescale[r] + sum_j p[r, j] v[j, x]
    if (v.type == Type::int8) {
      for (Index r = 0; r < rows; ++r) {
        for (Index j = 0; j < n; ++j) buffers.s[r * buffers.s_row + j] *= buffers.v_scales[j];
      }
    }
    NotFinite not_finite(kernel, v, n, p.d_v, buffers.v_zeroed);
    const bool care = masked && not_finite.any();
    kernel.value_product({.p = buffers.s,
                          .p_row = buffers.s_row,
                          .v = care ? stored_rows(not_finite.zeroed()) : v,
                          .out = state.out,
                          .out_row = p.d_v,
                          .rescale = buffers.rescale,
                          .rows = rows,
                          .n = n,
                          .columns = p.d_v});
    if (care)
      not_finite.add(n, 0, rows, buffers.s, buffers.bias, buffers.s_row, 1, state.out, p.d_v, 1);
  }

  if (joined) {
    for (rows = 0; const Task& one : tasks) {
      std::copy_n(state.out + rows * p.d_v, one.rows.count * p.d_v, one.partial.out);
      std::copy_n(state.row_max + rows, one.rows.count, one.partial.row_max);
      std::copy_n(state.row_sum + rows, one.rows.count, one.partial.row_sum);
      rows += one.rows.count;
    }
  } else if (task.partial.out == nullptr) {
    write_rows(plan, task.rows, state);
  }
}

// Whether each row of the task attends all keys of its part.
bool attends_all(const Task& task) {
  return task.keys.count() == task.cut->part_kv &&
         cover(task.rows, task.keys).whole == task.keys.count();
}

void run(const AttentionPlan& plan, const Task& task, float* memory) {
  if (is_joined(plan, task)) return;
  const AttentionProblem& p = *task.rows.problem;
  Workspace workspace(memory);
  const Buffers buffers(p, plan, *task.cut, workspace);
  Task tasks[kJoinedRows];
  Task next = task;
  for (bool more = true; more;) {
    std::size_t n = 0;
    Index rows = 0;
    do {
      tasks[n++] = next;
      rows += next.rows.count;
      more = next_joined(p, plan, next);
    } while (more && rows + next.rows.count <= kJoinedRows && attends_all(tasks[n - 1]) &&
             attends_all(next));
    attend(plan, {tasks, n}, buffers);
  }
}

}  // namespace

const AttentionAlgorithm kFlashRows = {"flash_rows", refuse, cut, workspace, run};

}  // namespace rapt::tiles
