#include "tiles/backward_tile.hpp"

#include <algorithm>
#include <limits>

namespace rapt::tiles {
namespace {

bool k_in_place(const AttentionProblem& p) { return KeyReader::in_place_down(p, p.k, p.d_k); }
bool v_in_place(const AttentionProblem& p) { return KeyReader::in_place(p, p.v); }

// The share of part `number` of `parts` in asking for rows.
kernels::NextRows share_of(kernels::NextRows rows, Index number, Index parts) {
  const Index first = rows.rows * number / parts;
  rows.rows = rows.rows * (number + 1) / parts - first;
  if (rows.first != nullptr) rows.first += first * rows.stride;
  return rows;
}

}  // namespace

BackwardTile::Buffers::Buffers(const BackwardProblem& problem, const BackwardPlan& plan,
                               const BackwardCut& cut, Workspace& workspace) {
  const AttentionProblem& p = problem.forward;
  const Index columns = plan.tile->columns;
  const Index block_q = cut.block_q, block_kv = cut.block_kv;
  // One panel more than a row needs: rows whose distance is a power of two would all fall into a
  // few sets of the L1 cache.
  q_row = whole_panels(p.d_k, columns) + columns;
  dout_row = whole_panels(p.d_v, columns) + columns;
  stride = block_q + columns;
  q = workspace.floats(block_q * q_row);
  dout = workspace.floats(block_q * dout_row);
  q_zeroed = workspace.floats(block_q * q_row);
  dout_zeroed = workspace.floats(block_q * dout_row);
  qt = workspace.floats(block_q * p.d_k);
  doutt = workspace.floats(block_q * p.d_v);
  dqt = workspace.floats(block_q * p.d_k);
  lse = workspace.floats(block_q);
  delta = workspace.floats(block_q);
  this->p = workspace.floats(block_kv * stride);
  ds = workspace.floats(block_kv * stride);
  const bool wants_scores = problem.grad_slopes || problem.grad_bias;
  dscores = wants_scores ? workspace.floats(block_kv * stride) : nullptr;
  bias = workspace.floats(block_kv * stride);
  k_copy = workspace.floats(k_in_place(p) ? 0 : block_kv * p.d_k);
  v_copy = workspace.floats(v_in_place(p) ? 0 : block_kv * p.d_v);
  k_zeroed = workspace.floats(block_kv * p.d_k);
  row_copy = workspace.floats(p.d_v);
  ones = workspace.floats(columns);
  row_pointers = workspace.pointers<float>(columns);
}

Index BackwardTile::floats(const BackwardProblem& problem, const BackwardPlan& plan,
                           const BackwardCut& cut) {
  Workspace count(nullptr);
  Buffers(problem, plan, cut, count);
  DropoutRows(problem.forward, cut.block_q, count);
  return count.used();
}

BackwardTile::BackwardTile(const BackwardProblem& problem, const BackwardPlan& plan,
                           const BackwardCut& cut, const Rows& unit, Workspace& workspace)
    : problem_(problem),
      kernel_(*plan.kernels),
      tile_(*plan.tile),
      buffers_(problem, plan, cut, workspace),
      dropout_(problem.forward, cut.block_q, workspace),
      read_k_(kernel_, unit, problem.forward.k, problem.forward.k_scales, problem.forward.d_k),
      read_v_(kernel_, unit, problem.forward.v, problem.forward.v_scales, problem.forward.d_v),
      rows_(unit) {
  // What fills up panels is never written again.
  std::fill_n(buffers_.q, cut.block_q * buffers_.q_row, 0.0f);
  std::fill_n(buffers_.dout, cut.block_q * buffers_.dout_row, 0.0f);
  std::fill_n(buffers_.ones, tile_.columns, 1.0f);
}

float delta_of(const BackwardProblem& problem, const kernels::Kernels& kernel, const Rows& rows,
               Index r, const float* dout, float* row_copy) {
  const AttentionProblem& p = problem.forward;
  read_row(kernel, problem.out, rows.at(problem.out, r), p.d_v, row_copy);
  float delta = 0;
  // A row that attends nothing has out = 0, and its dout has no effect, whatever it is.
  const bool empty = std::all_of(row_copy, row_copy + p.d_v, [](float x) { return x == 0.0f; });
  if (empty) return problem.grad_lse ? -*rows.at(problem.grad_lse, r) : 0.0f;
  kernel.dot_product({.a = dout,
                      .a_row = p.d_v,
                      .b = stored_rows({row_copy, p.d_v}),
                      .b_scale = nullptr,
                      .c = &delta,
                      .c_row = 1,
                      .c_column = 1,
                      .rows = 1,
                      .columns = 1,
                      .inner = p.d_v,
                      .alpha = 1.0f,
                      .beta = nullptr});
  return problem.grad_lse ? delta - *rows.at(problem.grad_lse, r) : delta;
}

void BackwardTile::load(const Rows& rows) {
  const AttentionProblem& p = problem_.forward;
  const Buffers& b = buffers_;
  const Index columns = tile_.columns;
  rows_ = rows;
  for (Index r = 0; r < rows.count; ++r) {
    float* q = b.q + r * b.q_row;
    float* dout = b.dout + r * b.dout_row;
    read_row(kernel_, p.q, rows.at(p.q, r), p.d_k, q);
    read_row(kernel_, problem_.grad_out, rows.at(problem_.grad_out, r), p.d_v, dout);
    b.delta[r] = delta_of(problem_, kernel_, rows, r, dout, b.row_copy);
    b.lse[r] = *rows.at(problem_.lse, r);
  }
  dropout_.load(rows);
  const Index panels = (rows.count + columns - 1) / columns;
  std::fill(b.lse + rows.count, b.lse + panels * columns, 0.0f);
  std::fill(b.delta + rows.count, b.delta + panels * columns, 0.0f);
  std::fill_n(b.dqt, panels * p.d_k * columns, 0.0f);
  const auto pack = [&](float* from, Index row, Index panel, Index depth, float* to) {
    const Index first = panel * columns, count = std::min(columns, rows.count - first);
    for (Index r = 0; r < count; ++r) b.row_pointers[r] = from + (first + r) * row;
    kernel_.pack_rows({.source = b.row_pointers,
                       .stride = 1,
                       .rows = count,
                       .length = depth,
                       .panel = to + first * depth,
                       .columns = columns});
  };
  for (Index panel = 0; panel < panels; ++panel) {
    pack(b.q, b.q_row, panel, p.d_k, b.qt);
    pack(b.dout, b.dout_row, panel, p.d_v, b.doutt);
  }
  q_.emplace(kernel_, stored_rows({b.q, b.q_row}), rows.count, b.q_row, b.q_zeroed);
  dout_.emplace(kernel_, stored_rows({b.dout, b.dout_row}), rows.count, b.dout_row, b.dout_zeroed);
}

bool BackwardTile::compute(Keys keys, Wanted wanted, const Ahead& ahead) {
  const AttentionProblem& p = problem_.forward;
  const Buffers& b = buffers_;
  const Index columns = tile_.columns;
  const KeyBlock k = read_k_.floats(keys, k_in_place(p), b.k_copy);
  const KeyBlock v = read_v_.floats(keys, v_in_place(p), b.v_copy);
  next_k_ = next_v_ = {};
  if (k_in_place(p))
    next_k_ = next_rows(stored_rows(k), p.d_k * bytes_of(Type::f32), keys, ahead.keys);
  if (v_in_place(p))
    next_v_ = next_rows(stored_rows(v), p.d_v * bytes_of(Type::f32), keys, ahead.keys);
  NotFinite k_values(kernel_, stored_rows(k), keys.count(), p.d_k, b.k_zeroed);
  // Then add_to_k() and add_to_v() ask of each pair whether it is attended.
  const bool q_any = q_->any(), dout_any = dout_->any();
  const bool all_pairs = q_any || dout_any;
  n_ = std::min(keys.end, reachable_keys(rows_).end) - keys.begin;
  first_ = rows_.count;
  end_ = 0;
  const Index panels = (rows_.count + columns - 1) / columns;
  for (Index first = 0; first < rows_.count; first += columns) {
    const Rows part = rows_.part(first, columns);
    const Keys own{keys.begin, std::min(keys.begin + n_, reachable_keys(part).end)};
    const Cover covered = own.count() > 0 ? cover(part, own) : Cover{true, 0};
    const Index n = covered.none ? 0 : own.count();
    for (Index j = n; j < n_; ++j) {
      std::fill_n(b.p + j * b.stride + first, columns, 0.0f);
      std::fill_n(b.ds + j * b.stride + first, columns, 0.0f);
      std::fill_n(b.bias + j * b.stride + first, columns, -std::numeric_limits<float>::infinity());
      if (b.dscores != nullptr) std::fill_n(b.dscores + j * b.stride + first, columns, 0.0f);
    }
    if (n == 0) continue;
    first_ = std::min(first_, first);
    end_ = first + part.count;

    // p[j, r] = k_j . q_r, and ds[j, r] = v_j . dout_r
    const auto products = [&](const KeyBlock& a, const float* panel, Index depth, float* c,
                              const kernels::NextRows& sums) {
      tile_.product({.a = a.data,
                     .a_row = a.row,
                     .a_inner = 1,
                     .b = panel,
                     .b_inner = columns,
                     .c = c,
                     .c_row = b.stride,
                     .c_column = 1,
                     .rows = n,
                     .inner = depth,
                     .columns = columns,
                     .alpha = 1.0f,
                     .beta = nullptr,
                     .next = share_of(sums, first / columns, panels)});
    };
    products(k, b.qt + first * p.d_k, p.d_k, b.p + first, ahead.k_sums);
    products(v, b.doutt + first * p.d_v, p.d_v, b.ds + first, ahead.v_sums);

    // A weight that was dropped has no gradient from out; the others' are larger, like they.
    const auto drop = [&](float* pairs) {
      dropout_.apply(kernel_, p.dropout, {own.begin, own.begin + n}, first, part.count, pairs,
                     b.stride);
    };
    drop(b.ds + first);

    const Index whole = all_pairs ? 0 : covered.whole;
    const bool masked = whole < n;
    if (masked) {
      fill_bias(part, {own.begin + whole, own.end}, b.bias + whole * b.stride + first, 1, b.stride);
    }
    kernel_.softmax_backward({.s = b.p + first,
                              .dp = b.ds + first,
                              .dscores = b.dscores == nullptr ? nullptr : b.dscores + first,
                              .bias = masked ? b.bias + first : nullptr,
                              .row = b.stride,
                              .n = n,
                              .bias_begin = whole,
                              .rows = part.count,
                              .scale = p.scale,
                              .softcap = p.softcap,
                              .lse = b.lse + first,
                              .delta = b.delta + first});
    if (wanted == Wanted::scores) continue;
    drop(b.p + first);

    // dqt[x, r] += scale * sum_j k[j, x] ds[j, r]
    float* dqt = b.dqt + first * p.d_k;
    const bool care = masked && k_values.any();
    const KeyBlock values = care ? k_values.zeroed() : k;
    tile_.product({.a = values.data,
                   .a_row = 1,
                   .a_inner = values.row,
                   .b = b.ds + first,
                   .b_inner = b.stride,
                   .c = dqt,
                   .c_row = columns,
                   .c_column = 1,
                   .rows = p.d_k,
                   .inner = n,
                   .columns = columns,
                   .alpha = p.scale,
                   .beta = b.ones});
    if (care) {
      k_values.add(n, whole, part.count, b.ds + first, b.bias + first, 1, b.stride, dqt, 1, columns,
                   p.scale);
    }
  }
  return first_ < end_;
}

// sum[j, x] += scale * sum_r pairs[j, r] rows[r, x]
void BackwardTile::multiply_columns(const float* pairs, const KeyBlock& rows, Index depth,
                                    float scale, float* sum, Index sum_row,
                                    const kernels::NextRows& next) const {
  const Index panels = whole_panels(depth, tile_.columns) / tile_.columns;
  for (Index x = 0; x < depth; x += tile_.columns) {
    tile_.product({.a = pairs + first_,
                   .a_row = buffers_.stride,
                   .a_inner = 1,
                   .b = rows.data + first_ * rows.row + x,
                   .b_inner = rows.row,
                   .c = sum + x,
                   .c_row = sum_row,
                   .c_column = 1,
                   .rows = n_,
                   .inner = end_ - first_,
                   .columns = tile_.columns,
                   .alpha = scale,
                   .beta = buffers_.ones,
                   .next = share_of(next, x / tile_.columns, panels)});
  }
}

void BackwardTile::add_to_k(float* sum, Index row) const {
  const Buffers& b = buffers_;
  const float scale = problem_.forward.scale;
  const KeyBlock q = q_->found() ? q_->zeroed() : KeyBlock{b.q, b.q_row};
  multiply_columns(b.ds, q, problem_.forward.d_k, scale, sum, row, next_k_);
  if (q_->found()) q_->add(rows_.count, 0, n_, b.ds, b.bias, b.stride, 1, sum, row, 1, scale);
}

void BackwardTile::add_to_v(float* sum, Index row) const {
  const Buffers& b = buffers_;
  const KeyBlock dout = dout_->found() ? dout_->zeroed() : KeyBlock{b.dout, b.dout_row};
  multiply_columns(b.p, dout, problem_.forward.d_v, 1.0f, sum, row, next_v_);
  if (dout_->found()) dout_->add(rows_.count, 0, n_, b.p, b.bias, b.stride, 1, sum, row, 1);
}

void BackwardTile::write_dq() {
  const Buffers& b = buffers_;
  const Index d_k = problem_.forward.d_k, columns = tile_.columns;
  for (Index first = 0; first < rows_.count; first += columns) {
    const Rows part = rows_.part(first, columns);
    // Where q was.
    for (Index r = 0; r < part.count; ++r) b.row_pointers[r] = b.q + (first + r) * b.q_row;
    kernel_.unpack_rows({.panel = b.dqt + first * d_k,
                         .columns = columns,
                         .divisor = b.ones,
                         .rows = part.count,
                         .length = d_k,
                         .destination = b.row_pointers,
                         .stride = 1});
    for (Index r = 0; r < part.count; ++r) {
      write_row(kernel_, problem_.grad_q, b.row_pointers[r], d_k, part.at(problem_.grad_q, r));
    }
  }
}

}  // namespace rapt::tiles
