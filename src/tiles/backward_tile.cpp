#include "tiles/backward_tile.hpp"

#include <algorithm>
#include <limits>

namespace rapt::tiles {
namespace {

// K and V of a block, as products along the depth read them.
bool k_in_place(const AttentionProblem& p, bool pairs) {
  return pairs ? KeyReader::pairs_in_place(p, p.k, p.d_k) : KeyReader::in_place_down(p, p.k, p.d_k);
}
bool v_in_place(const AttentionProblem& p, bool pairs) {
  return pairs ? KeyReader::pairs_in_place(p, p.v, p.d_v) : KeyReader::in_place(p, p.v);
}

}  // namespace

BackwardTile::Buffers::Buffers(const BackwardProblem& problem, const BackwardPlan& plan,
                               const BackwardCut& cut, Workspace& workspace)
    : pairs_down(plan.pairs() ? cut.block_kv : 0, plan.pairs() ? problem.forward.d_k : 0,
                 plan.tile->columns, workspace) {
  const AttentionProblem& p = problem.forward;
  const Index columns = plan.tile->columns;
  const Index block_q = cut.block_q, block_kv = cut.block_kv;
  const bool pairs = plan.pairs();
  const auto elements = [&](Index n) { return elements_of(n, pairs); };
  const auto bf16 = [&](Index n) {
    return reinterpret_cast<BFloat16*>(workspace.floats(pairs ? elements(n) : 0));
  };
  // One panel more than a row needs: rows whose distance is a power of two would all fall into a
  // few sets of the L1 cache.
  const auto take = [&](Loaded& loaded, Index depth) {
    loaded.depth = depth;
    loaded.row = whole_panels(depth, columns) + columns;
    loaded.data = workspace.floats(block_q * loaded.row);
    loaded.zeroed = workspace.floats(block_q * loaded.row);
    loaded.transposed = workspace.floats(block_q * elements(depth));
    loaded.copy = workspace.floats(pairs ? block_q * elements(depth) : 0);
  };
  take(q, p.d_k);
  take(dout, p.d_v);
  dqt = workspace.floats(block_q * p.d_k);
  lse = workspace.floats(block_q);
  delta = workspace.floats(block_q);
  stride = block_q + columns;
  this->p = workspace.floats(block_kv * stride);
  ds = workspace.floats(block_kv * stride);
  const bool wants_scores = problem.grad_slopes || problem.grad_bias;
  dscores = wants_scores ? workspace.floats(block_kv * stride) : nullptr;
  bias = workspace.floats(block_kv * stride);
  p_rounded = bf16(block_kv * stride);
  ds_rounded = bf16(block_kv * stride);
  ds_pairs = workspace.floats(pairs ? elements(block_kv) * stride : 0);
  k_copy = workspace.floats(k_in_place(p, pairs) ? 0 : block_kv * elements(p.d_k));
  v_copy = workspace.floats(v_in_place(p, pairs) ? 0 : block_kv * elements(p.d_v));
  k_down = workspace.floats(pairs ? pairs_down.floats() : 0);
  k_zeroed = workspace.floats(pairs ? pairs_down.floats() : block_kv * p.d_k);
  rows_copy = workspace.floats(std::max(2 * p.d_v, columns * p.d_k));
  ones = workspace.floats(columns);
  row_pointers = workspace.pointers<float>(columns);
}

Index BackwardTile::floats(const BackwardProblem& problem, const BackwardPlan& plan,
                           const BackwardCut& cut) {
  Workspace count(nullptr);
  Buffers(problem, plan, cut, count);
  DropoutRows(problem.forward, cut.block_q, count);
  LaneBias(plan.tile->columns, count);
  return count.used();
}

BackwardTile::BackwardTile(const BackwardProblem& problem, const BackwardPlan& plan,
                           const BackwardCut& cut, const Rows& unit, Workspace& workspace)
    : problem_(problem),
      kernel_(*plan.kernels),
      tile_(*plan.tile),
      pairs_(plan.pairs()),
      product_(pairs_ ? tile_.pair_product : tile_.product),
      buffers_(problem, plan, cut, workspace),
      dropout_(problem.forward, cut.block_q, workspace),
      lane_bias_(tile_.columns, workspace),
      read_k_(kernel_, unit, problem.forward.k, problem.forward.k_scales, problem.forward.d_k),
      read_v_(kernel_, unit, problem.forward.v, problem.forward.v_scales, problem.forward.d_v),
      rows_(unit) {
  // What fills up panels is never written again.
  for (Loaded* loaded : {&buffers_.q, &buffers_.dout}) {
    for (Index r = 0; r < cut.block_q; ++r) {
      for (float* rows : {loaded->data, loaded->zeroed})
        std::fill(rows + r * loaded->row + loaded->depth, rows + (r + 1) * loaded->row, 0.0f);
    }
  }
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
  rows_ = rows;
  load(buffers_.q, p.q);
  load(buffers_.dout, problem_.grad_out);
  for (Index r = 0; r < rows.count; ++r) {
    const float* dout = b.dout.data + r * b.dout.row;
    if (pairs_) {  // there it is no row of floats
      read_row(kernel_, problem_.grad_out, rows.at(problem_.grad_out, r), p.d_v, b.rows_copy);
      dout = b.rows_copy;
    }
    b.delta[r] = delta_of(problem_, kernel_, rows, r, dout, b.rows_copy + p.d_v);
    b.lse[r] = *rows.at(problem_.lse, r);
  }
  dropout_.load(rows);
  const Index whole = whole_panels(rows.count, tile_.columns);
  std::fill(b.lse + rows.count, b.lse + whole, 0.0f);
  std::fill(b.delta + rows.count, b.delta + whole, 0.0f);
  std::fill_n(b.dqt, whole * p.d_k, 0.0f);
}

void BackwardTile::load(Loaded& to, const Stored<const std::byte>& array) {
  const Index length = elements(to.depth);
  float* const copy = pairs_ ? to.copy : to.data;
  const Index copy_row = pairs_ ? length : to.row;
  for (Index r = 0; r < rows_.count; ++r) {
    const std::byte* row = rows_.at(array, r);
    if (pairs_) {
      copy_pairs(row, array.column_stride, to.depth, copy + r * copy_row);
    } else {
      read_row(kernel_, array, row, to.depth, copy + r * copy_row);
    }
  }
  for (Index first = 0; first < rows_.count; first += tile_.columns) {
    const Index count = std::min<Index>(tile_.columns, rows_.count - first);
    for (Index r = 0; r < count; ++r) buffers_.row_pointers[r] = copy + (first + r) * copy_row;
    kernel_.pack_rows({.source = buffers_.row_pointers,
                       .stride = 1,
                       .rows = count,
                       .length = length,
                       .panel = to.transposed + first * length,
                       .panel_row = tile_.columns,
                       .columns = tile_.columns});
  }
  StoredRows stored = stored_rows({copy, copy_row});
  if (!pairs_) {
    to.not_finite.emplace(kernel_, stored, rows_.count, to.row, to.zeroed);
    to.not_finite->any();
    return;
  }
  stored.type = Type::bf16;
  to.not_finite.emplace(kernel_, stored, rows_.count, to.depth, nullptr);
  pair_rows(stored, rows_.count, to.depth, false, to.data, to.row);
  if (to.not_finite->any()) pair_rows(stored, rows_.count, to.depth, true, to.zeroed, to.row);
}

void BackwardTile::pair_rows(const StoredRows& from, Index rows, Index depth, bool finite,
                             float* to, Index to_row) const {
  kernel_.pack_pairs({.b = from,
                      .rows = rows,
                      .columns = depth,
                      .finite = finite,
                      .panels = to,
                      .apart = 0,
                      .panel_columns = to_row});
}

bool BackwardTile::compute(Keys keys, Wanted wanted, const Ahead& ahead) {
  const AttentionProblem& p = problem_.forward;
  const Buffers& b = buffers_;
  const Index columns = tile_.columns;
  const bool k_stays = k_in_place(p, pairs_), v_stays = v_in_place(p, pairs_);
  const KeyBlock k =
      pairs_ ? read_k_.pairs(keys, k_stays, b.k_copy) : read_k_.floats(keys, k_stays, b.k_copy);
  const KeyBlock v =
      pairs_ ? read_v_.pairs(keys, v_stays, b.v_copy) : read_v_.floats(keys, v_stays, b.v_copy);
  next_k_ = next_v_ = {};
  if (k_stays) next_k_ = next_rows(stored_rows(k), p.d_k * bytes_of(p.k.type), keys, ahead.keys);
  if (v_stays) next_v_ = next_rows(stored_rows(v), p.d_v * bytes_of(p.v.type), keys, ahead.keys);
  // K as the product along the keys reads it, and with 0 in place of NaN and infinity.
  const auto down = [&](const StoredRows& stored, bool finite, float* to) {
    return b.pairs_down.transpose(kernel_, stored, keys.count(), finite, to);
  };
  StoredRows k_stored = stored_rows(k);
  if (pairs_) k_stored = read_k_.rows(keys, nullptr);
  const KeyBlock k_down = pairs_ ? down(k_stored, false, b.k_down) : k;
  NotFinite k_values(kernel_, k_stored, keys.count(), p.d_k, pairs_ ? nullptr : b.k_zeroed);
  bool k_is_zeroed = !pairs_;
  // Then add_to_k() and add_to_v() ask of each pair whether it is attended.
  const bool all_pairs = b.q.not_finite->found() || b.dout.not_finite->found();
  // Whole elements: masked, where they are beyond reach.
  const auto reachable = [&](const Rows& rows) {
    const Index n = reachable_keys(rows).end - keys.begin;
    return std::min(keys.count(), pairs_ ? (n + 1) / 2 * 2 : n);
  };
  n_ = reachable(rows_);
  first_ = rows_.count;
  end_ = 0;
  const Index panels = (rows_.count + columns - 1) / columns;
  for (Index first = 0; first < rows_.count; first += columns) {
    const Rows part = rows_.part(first, columns);
    const Keys own{keys.begin, keys.begin + std::min(n_, reachable(part))};
    const Cover covered = own.count() > 0 ? cover(part, own) : Cover{true, 0};
    const Index n = covered.none ? 0 : own.count();
    for (Index j = n; j < n_; ++j) {
      std::fill_n(b.p + j * b.stride + first, columns, 0.0f);
      std::fill_n(b.ds + j * b.stride + first, columns, 0.0f);
      if (pairs_) {
        std::fill_n(b.p_rounded + j * b.stride + first, columns, BFloat16{});
        std::fill_n(b.ds_rounded + j * b.stride + first, columns, BFloat16{});
      }
      std::fill_n(b.bias + j * b.stride + first, columns, -std::numeric_limits<float>::infinity());
      if (b.dscores != nullptr) std::fill_n(b.dscores + j * b.stride + first, columns, 0.0f);
    }
    if (n == 0) continue;
    first_ = std::min(first_, first);
    end_ = first + part.count;

    // p[j, r] = k_j . q_r, and ds[j, r] = v_j . dout_r
    const auto products = [&](const KeyBlock& a, const float* panel, Index depth, float* c,
                              const kernels::NextRows& sums) {
      product_({.a = a.data,
                .a_row = a.row,
                .a_inner = 1,
                .b = panel,
                .b_inner = columns,
                .c = c,
                .c_row = b.stride,
                .c_column = 1,
                .rows = n,
                .inner = elements(depth),
                .columns = columns,
                .alpha = 1.0f,
                .beta = nullptr,
                .next = {share_of(sums, first / columns, panels)}});
    };
    products(k, b.q.transposed + first * elements(p.d_k), p.d_k, b.p + first, ahead.k_sums);
    products(v, b.dout.transposed + first * elements(p.d_v), p.d_v, b.ds + first, ahead.v_sums);

    // A weight that was dropped has no gradient from out; the others' are larger, like they.
    const auto drop = [&](float* pairs) {
      dropout_.apply(kernel_, p.dropout, {own.begin, own.begin + n}, first, part.count, pairs,
                     b.stride);
    };
    drop(b.ds + first);

    const Index whole = all_pairs ? 0 : covered.whole;
    const bool masked = whole < n;
    if (masked) {
      lane_bias_.fill(kernel_, part, {own.begin + whole, own.end},
                      b.bias + whole * b.stride + first, b.stride);
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
                              .delta = b.delta + first,
                              .p_rounded = pairs_ ? b.p_rounded + first : nullptr,
                              .dp_rounded = pairs_ ? b.ds_rounded + first : nullptr,
                              .dp_pairs = pairs_ ? b.ds_pairs + first : nullptr});
    if (wanted == Wanted::scores) continue;
    drop(b.p + first);

    // dqt[x, r] += sum_j k[j, x] ds[j, r]
    float* dqt = b.dqt + first * p.d_k;
    const bool care = masked && k_values.any();
    if (care && !k_is_zeroed) {
      down(k_stored, true, b.k_zeroed);
      k_is_zeroed = true;
    }
    const Index k_row = care && !pairs_ ? p.d_k : k_down.row;
    product_({.a = care ? b.k_zeroed : k_down.data,
              .a_row = pairs_ ? k_row : 1,
              .a_inner = pairs_ ? 1 : k_row,
              .b = (pairs_ ? b.ds_pairs : b.ds) + first,
              .b_inner = b.stride,
              .c = dqt,
              .c_row = columns,
              .c_column = 1,
              .rows = p.d_k,
              .inner = elements(n),
              .columns = columns,
              .alpha = 1.0f,
              .beta = b.ones});
    if (care) {
      k_values.add(n, whole, part.count, b.ds + first, b.bias + first, 1, b.stride, dqt, 1,
                   columns);
    }
  }
  if (pairs_ && end_ % 2 != 0) {  // the last row's neighbour is none
    for (Index j = 0; j < n_; ++j)
      b.p_rounded[j * b.stride + end_] = b.ds_rounded[j * b.stride + end_] = {};
  }
  return first_ < end_;
}

void BackwardTile::add(const Loaded& loaded, const float* weights, const BFloat16* rounded,
                       const Sum& sum, const kernels::NextRows& next) const {
  const Buffers& b = buffers_;
  const bool care = loaded.not_finite->found();
  const float* const rows = (care ? loaded.zeroed : loaded.data) + elements(first_) * loaded.row;
  const Index panels = whole_panels(loaded.depth, tile_.columns) / tile_.columns;
  for (Index x = 0; x < loaded.depth; x += tile_.columns) {
    product_({.a = pairs_ ? reinterpret_cast<const float*>(rounded + first_) : weights + first_,
              .a_row = elements(b.stride),
              .a_inner = 1,
              .b = rows + x,
              .b_inner = loaded.row,
              .c = sum.data + x,
              .c_row = sum.row,
              .c_column = 1,
              .rows = n_,
              .inner = elements(end_ - first_),
              .columns = tile_.columns,
              .alpha = 1.0f,
              .beta = sum.begins ? nullptr : b.ones,
              .next = {share_of(next, x / tile_.columns, panels)}});
  }
  if (care) {
    loaded.not_finite->add(rows_.count, 0, n_, weights, b.bias, b.stride, 1, sum.data, sum.row, 1);
  }
}

void BackwardTile::write_dq() {
  const Buffers& b = buffers_;
  const Index d_k = problem_.forward.d_k, columns = tile_.columns;
  for (Index first = 0; first < rows_.count; first += columns) {
    const Rows part = rows_.part(first, columns);
    for (Index r = 0; r < part.count; ++r) b.row_pointers[r] = b.rows_copy + r * d_k;
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
