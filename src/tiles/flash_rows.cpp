// flash_rows: attention for few rows (decode, short queries). Lanes hold the depth for q k^T and
// the columns of v for p v, so that nothing is transposed and every key and value is read once for
// all rows of the task.
//
//   q [rows, d_k], s [rows, block_kv], o [rows, d_v]
//
//   s = q K^T                 step 1, both along d_k
//   s = p = softmax step      steps 3 to 5, keys in lanes
//   o = o * rescale + s V     step 6, V in place
//
// once for the keys of the part, and the online part of the softmax is the merging of the parts.
//
// flash_rows_pairs is the same on pairs of bf16, for CPUs that multiply them: of neighbours along
// d_k in q and K, of neighbouring keys in p and V.
#include <algorithm>
#include <cstring>
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
  float *q, *o;                        // [rows, d_k] or half as many pairs, [rows, d_v]
  float *s, *bias;                     // [rows, s_row]
  float *row_max, *row_sum, *rescale;  // [rows]
  float *k_copy, *v_copy, *v_zeroed;   // [block_kv, depth]
  float *k_scales, *v_scales;          // [block_kv]

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
  }
};

const char* refuse(const AttentionProblem&, const Sequence&, const AttentionBlocks&) {
  return nullptr;
}

const char* refuse_of_pairs(const AttentionProblem& p, const Sequence&,
                            const AttentionBlocks& blocks) {
  if (const char* reason = refuse_pairs(p, p.out.type, blocks)) return reason;
  if (p.d_k % 2 != 0) return "d_k is odd";
  return nullptr;
}

// Of one row, also where it is joined by others.
bool is_single(const Task& task) { return task.cut->rows == 1; }

bool in_pairs(const Task& task) { return task.cut->algorithm == &kFlashRowsPairs; }

void cut(const AttentionProblem&, const AttentionPlan&, const AttentionBlocks& blocks, Cut& cut) {
  cut.block_q = std::min(kRows, std::max<Index>(cut.rows, 1));
  cut.block_kv = std::max<Index>(std::min(blocks.split_kv, cut.sequence.seq_kv), 1);
  cut.row_blocks = (cut.rows + cut.block_q - 1) / cut.block_q;
  cut.part_kv = blocks.split_kv;
}

Index workspace(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut) {
  Workspace count(nullptr);
  Buffers(p, plan, cut, count);
  return count.used();
}

// Asks for the values that value_product reads first: while it computes some, it asks for the next,
// and these come while the product of the keys is computed.
void ask_for_first(const StoredRows& v, Index keys, Index row_bytes) {
  constexpr Index kLine = 64;
  for (Index j = 0; j < keys && j * row_bytes < kernels::kValueChunk; ++j) {
    const std::byte* row = row_at(v, j);
    for (Index at = 0; at < row_bytes; at += kLine) __builtin_prefetch(row + at, 0, 2);
  }
}

// p of n keys as floats, in place.
void unpack_weights(float* p, Index n) {
  for (Index j = n - 1; j >= 0; --j) {
    BFloat16 weight;
    std::memcpy(&weight, reinterpret_cast<const std::byte*>(p) + j * Index{sizeof(weight)},
                sizeof(weight));
    p[j] = to_float(weight);
  }
}

// Steps 1 to 6 for rows of the same keys, `whole` of which all of them attend: those of one task,
// or of several when that is all.
void attend(const AttentionPlan& plan, const Task& task, Index rows, Index whole,
            const Buffers& buffers, const State& state) {
  const AttentionProblem& p = *task.rows.problem;
  const kernels::Kernels& kernel = *plan.kernels;
  const ScoreUnits units(p);
  const Keys keys = task.keys;
  const Index n = keys.count();
  const KeyReader k_reader(kernel, task.rows, p.k, p.k_scales, p.d_k);
  const KeyReader v_reader(kernel, task.rows, p.v, p.v_scales, p.d_v);
  const StoredRows k = k_reader.rows(keys, buffers.k_copy);
  const StoredRows v = v_reader.rows(keys, buffers.v_copy);

  ask_for_first(v, n, bytes_of_row(v.type, p.d_v));

  // s[r, j] = q_r . k_j
  const bool pairs = in_pairs(task);
  const Index numbers = pairs ? p.d_k / 2 : p.d_k;
  kernel.dot_product(
      {.a = buffers.q,
       .a_row = numbers,
       .b = k,
       .b_scale = k.type == Type::int8 ? k_reader.scales(keys, buffers.k_scales) : nullptr,
       .c = buffers.s,
       .c_row = buffers.s_row,
       .c_column = 1,
       .rows = rows,
       .columns = n,
       .inner = numbers,
       .alpha = 1.0f,
       .beta = nullptr,
       .pairs = pairs,
       .few = is_single(task)});

  // p[r, j] = exp(s - max)
  const bool masked = whole < n;
  if (masked) fill_bias(task.rows, keys, buffers.bias, buffers.s_row);
  kernel.softmax_rows({.s = buffers.s,
                       .bias = masked ? buffers.bias : nullptr,
                       .s_row = buffers.s_row,
                       .n = n,
                       .bias_begin = 0,
                       .pairs = pairs,
                       .rows = rows,
                       .pre_scale = units.pre_scale,
                       .softcap = p.softcap,
                       .scale = units.exponent_scale,
                       .row_max = state.row_max,
                       .row_sum = state.row_sum,
                       .rescale = buffers.rescale});

  // out[r, x] = out[r, x] * rescale[r] + sum_j p[r, j] v[j, x]
  if (v.type == Type::int8) {
    const float* scales = v_reader.scales(keys, buffers.v_scales);
    for (Index r = 0; r < rows; ++r) {
      for (Index j = 0; j < n; ++j) buffers.s[r * buffers.s_row + j] *= scales[j];
    }
  }
  NotFinite not_finite(kernel, v, n, p.d_v, buffers.v_zeroed);
  const bool care = masked && not_finite.any();
  kernel.value_product({.p = buffers.s,
                        .p_row = buffers.s_row,
                        .v = care ? not_finite.zeroed() : v,
                        .out = state.out,
                        .out_row = p.d_v,
                        .rescale = buffers.rescale,
                        .rows = rows,
                        .n = n,
                        .columns = p.d_v,
                        .pairs = pairs});
  if (!care) return;
  for (Index r = 0; pairs && r < rows; ++r) unpack_weights(buffers.s + r * buffers.s_row, n);
  not_finite.add(n, 0, rows, buffers.s, buffers.bias, buffers.s_row, 1, state.out, p.d_v, 1);
}

// The tasks leave their states, or write their rows.
void run_together(const AttentionPlan& plan, std::span<const Task> tasks, const Buffers& buffers) {
  const Task& first = tasks.front();
  const AttentionProblem& p = *first.rows.problem;
  const bool joined = tasks.size() > 1;
  const State state = joined || first.partial.out == nullptr
                          ? State{buffers.o, buffers.row_max, buffers.row_sum}
                          : first.partial;
  Index rows = 0;
  for (const Task& task : tasks) {
    for (Index r = 0; r < task.rows.count; ++r) {
      const std::byte* q = task.rows.at(p.q, r);
      if (in_pairs(task)) {
        copy_pairs(q, p.q.column_stride, p.d_k, buffers.q + (rows + r) * p.d_k / 2);
      } else {
        read_row(*plan.kernels, p.q, q, p.d_k, buffers.q + (rows + r) * p.d_k);
      }
    }
    begin_rows(task, state.row_max + rows, state.row_sum + rows);
    rows += task.rows.count;
  }
  std::fill_n(state.out, rows * p.d_v, 0.0f);

  const Cover covered = joined                   ? Cover{false, first.keys.count()}
                        : first.keys.count() > 0 ? cover(first.rows, first.keys)
                                                 : Cover{true, 0};
  if (!covered.none) attend(plan, first, rows, covered.whole, buffers, state);

  if (first.partial.out == nullptr) return write_rows(plan, first.rows, state);
  if (!joined) return;
  rows = 0;
  for (const Task& task : tasks) {
    std::copy_n(state.out + rows * p.d_v, task.rows.count * p.d_v, task.partial.out);
    std::copy_n(state.row_max + rows, task.rows.count, task.partial.row_max);
    std::copy_n(state.row_sum + rows, task.rows.count, task.partial.row_sum);
    rows += task.rows.count;
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
    } while (more && rows + next.rows.count <= kJoinedRows && is_single(next) == is_single(task) &&
             attends_all(tasks[n - 1]) && attends_all(next));
    run_together(plan, {tasks, n}, buffers);
  }
}

}  // namespace

const AttentionAlgorithm kFlashRowsPairs = {"flash_rows_pairs", refuse_of_pairs, cut, workspace,
                                            run};
const AttentionAlgorithm kFlashRows = {"flash_rows", refuse, cut, workspace, run};

}  // namespace rapt::tiles
