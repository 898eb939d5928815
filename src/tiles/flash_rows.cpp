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
#include <limits>

#include "tiles/attention.hpp"
#include "tiles/mask.hpp"
#include "tiles/product.hpp"
#include "tiles/rows.hpp"
#include "tiles/scores.hpp"
#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

// Rows of one task: enough to share K and V among a group, few enough that their scores stay in L1.
constexpr Index kRows = 8;

struct Buffers {
  Index s_row;                         // block_kv, rounded up to whole vectors
  float *q, *o;                        // [rows, d_k], [rows, d_v]
  float *s, *bias;                     // [rows, s_row]
  float *row_max, *row_sum, *rescale;  // [rows]
  float *k_copy, *v_copy, *v_zeroed;   // [block_kv, depth]
  float* ones;                         // beta of the product
  float* scratch;                      // of the product

  Buffers(const AttentionPlan& plan, Workspace& workspace) {
    const AttentionProblem& p = *plan.problem;
    const Index lanes = plan.kernels->lanes;
    s_row = (plan.block_kv + lanes - 1) / lanes * lanes;
    q = workspace.floats(plan.block_q * p.d_k);
    o = workspace.floats(plan.block_q * p.d_v);
    s = workspace.floats(plan.block_q * s_row);
    bias = workspace.floats(plan.block_q * s_row);
    row_max = workspace.floats(plan.block_q);
    row_sum = workspace.floats(plan.block_q);
    rescale = workspace.floats(plan.block_q);
    k_copy = workspace.floats(p.k.column_stride == 1 ? 0 : plan.block_kv * p.d_k);
    v_copy = workspace.floats(p.v.column_stride == 1 ? 0 : plan.block_kv * p.d_v);
    v_zeroed = workspace.floats(may_mask(p) ? plan.block_kv * p.d_v : 0);
    ones = workspace.floats(kernels::kMaxColumns);
    scratch = workspace.floats(product_scratch(*plan.kernels, plan.block_kv));
  }
};

const char* refuse(const AttentionProblem&, const AttentionBlocks&) { return nullptr; }

void cut(AttentionPlan& plan, const AttentionBlocks& blocks) {
  const AttentionProblem& p = *plan.problem;
  plan.block_q = std::min(kRows, std::max<Index>(p.rows(), 1));
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
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const Rows rows = rows_of_task(plan, task);
  const float* k_head = p.batch.element(p.k, rows.batch) + rows.kv_head * p.k.head_stride;
  const float* v_head = p.batch.element(p.v, rows.batch) + rows.kv_head * p.v.head_stride;

  for (Index r = 0; r < rows.count; ++r) {
    const float* from = rows.at(p.q, r);
    for (Index x = 0; x < p.d_k; ++x) buffers.q[r * p.d_k + x] = from[x * p.q.column_stride];
  }
  std::fill_n(buffers.row_max, rows.count, -std::numeric_limits<float>::infinity());
  std::fill_n(buffers.row_sum, rows.count, 0.0f);
  std::fill_n(buffers.o, rows.count * p.d_v, 0.0f);
  std::fill_n(buffers.ones, kernels::kMaxColumns, 1.0f);
  const ScoreUnits units(p);

  const Keys reachable = reachable_keys(rows);
  for (Index begin = reachable.begin; begin < reachable.end; begin += plan.block_kv) {
    const Keys keys{begin, std::min(begin + plan.block_kv, reachable.end)};
    const Index n = keys.count();
    const Cover covered = cover(rows, keys);
    if (covered.none) continue;
    const KeyBlock k = read_keys(p.k, k_head, keys, p.d_k, p.k.column_stride == 1, buffers.k_copy);
    const KeyBlock v = read_keys(p.v, v_head, keys, p.d_v, p.v.column_stride == 1, buffers.v_copy);

    // s[r, j] = q_r . k_j
    kernel.dot_product({.a = buffers.q,
                        .a_row = p.d_k,
                        .b = k.data,
                        .b_row = k.row,
                        .c = buffers.s,
                        .c_row = buffers.s_row,
                        .c_column = 1,
                        .rows = rows.count,
                        .columns = n,
                        .inner = p.d_k,
                        .alpha = 1.0f,
                        .beta = nullptr});

    // p[r, j] = exp(s - max)
    const bool masked = covered.whole < n;
    if (masked) fill_bias(rows, keys, buffers.bias, buffers.s_row, 1);
    kernel.softmax_rows({.s = buffers.s,
                         .bias = masked ? buffers.bias : nullptr,
                         .s_row = buffers.s_row,
                         .n = n,
                         .bias_begin = 0,
                         .rows = rows.count,
                         .pre_scale = units.pre_scale,
                         .scale = units.exponent_scale,
                         .row_max = buffers.row_max,
                         .row_sum = buffers.row_sum,
                         .rescale = buffers.rescale});

    // o[r, x] = o[r, x] * rescale[r] + sum_j p[r, j] v[j, x]
    for (Index r = 0; r < rows.count; ++r) {
      for (Index x = 0; x < p.d_v; ++x) buffers.o[r * p.d_v + x] *= buffers.rescale[r];
    }
    NotFinite not_finite(v, n, p.d_v, buffers.v_zeroed);
    const bool care = masked && not_finite.any();
    const KeyBlock values = care ? not_finite.zeroed() : v;
    product_in_place(kernel,
                     {.a = buffers.s,
                      .a_row = buffers.s_row,
                      .a_inner = 1,
                      .b = values.data,
                      .b_inner = values.row,
                      .c = buffers.o,
                      .c_row = p.d_v,
                      .c_column = 1,
                      .rows = rows.count,
                      .inner = n,
                      .columns = 0,
                      .alpha = 1.0f,
                      .beta = buffers.ones},
                     p.d_v, buffers.scratch);
    if (care)
      not_finite.add(n, 0, rows.count, buffers.s, buffers.bias, buffers.s_row, 1, buffers.o, p.d_v,
                     1);
  }

  for (Index r = 0; r < rows.count; ++r) {
    float* to = rows.at(p.out, r);
    const float sum = buffers.row_sum[r];
    for (Index x = 0; x < p.d_v; ++x) {
      to[x * p.out.column_stride] = sum == 0.0f ? 0.0f : buffers.o[r * p.d_v + x] / sum + 0.0f;
    }
  }
  write_lse(rows, buffers.row_max, buffers.row_sum, units);
}

}  // namespace

const AttentionAlgorithm kFlashRows = {"flash_rows", refuse, cut, run};

}  // namespace rapt::tiles
