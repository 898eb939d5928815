// The tasks of the backward pass: for each block of rows, tile after tile of the keys that they
// attend, five products each:
//
//   p  = exp(K q^T - lse)                       steps 1 to 5, again
//   ds = scale p (V dout^T - delta)             steps 6 to 2, backwards
//   dq += ds^T K,  dk += ds q,  dv += p dout    steps 1 and 6, backwards
//
// dq of the rows is kept until they are done; dk and dv, of all keys of the head, are sums in f32
// over the rows of the task, in grad_k and grad_v themselves or in a part of the shared memory.
#include "tiles/backward.hpp"

#include <algorithm>
#include <cmath>

#include "tiles/backward_tile.hpp"

namespace rapt::tiles {
namespace {

template <Index BackwardCut::* kFirst>
const BackwardCut& cut_of(const BackwardPlan& plan, Index number) {
  const auto after =
      std::upper_bound(plan.cuts.begin(), plan.cuts.end(), number,
                       [](Index n, const BackwardCut& cut) { return n < cut.*kFirst; });
  return *(after - 1);
}

// Sums over the gradients of the keys of a unit: [seq_kv, d_k] and [seq_kv, d_v].
struct Sums {
  float *k, *v;
  Index k_row, v_row;
};

template <class Byte>
Byte* first_key(const Stored<Byte>& array, const Rows& unit) {
  return unit.problem->batch.element(array, unit.sequence.number) +
         unit.kv_head * array.head_stride + unit.sequence.first_key * array.row_stride;
}

// Those of one part.
Sums sums_of(const BackwardProblem& problem, const BackwardPlan& plan, const Rows& unit, Index part,
             float* unit_memory) {
  const AttentionProblem& p = problem.forward;
  const bool in_place = sums_in_place(problem, plan);
  if (part == 0 && in_place) {
    return {reinterpret_cast<float*>(first_key(problem.grad_k, unit)),
            reinterpret_cast<float*>(first_key(problem.grad_v, unit)),
            problem.grad_k.row_stride / bytes_of(Type::f32),
            problem.grad_v.row_stride / bytes_of(Type::f32)};
  }
  const Index k_row = whole_panels(p.d_k, plan.tile->columns),
              v_row = whole_panels(p.d_v, plan.tile->columns);
  float* memory = unit_memory + (part - in_place) * sum_floats(problem, plan, unit.sequence.seq_kv);
  return {memory, memory + unit.sequence.seq_kv * k_row, k_row, v_row};
}

// Slope by slope of the group, the sum of the tile's score gradients times distances.
void add_slopes(const BackwardTile& tile, const Rows& rows, Index begin, float* slopes) {
  constexpr Index kTogether = 16;  // sums side by side
  const Index group = rows.problem->group, end = tile.first() + tile.rows();
  for (Index first = tile.first(); first < end; first += kTogether) {
    const Index count = std::min(kTogether, end - first);
    float sums[kTogether] = {}, positions[kTogether];
    for (Index r = 0; r < count; ++r)
      positions[r] = static_cast<float>(rows.position(first + r) - begin);
    for (Index j = 0; j < tile.keys(); ++j) {
      const float* ds = tile.dscores() + j * tile.stride() + first;
      for (Index r = 0; r < count; ++r) sums[r] += ds[r] * (static_cast<float>(j) - positions[r]);
    }
    for (Index r = 0; r < count; ++r) slopes[(rows.first + first + r) % group] += sums[r];
  }
}

}  // namespace

Rows rows_of_unit(const BackwardProblem& problem, const BackwardCut& cut, Index unit) {
  const Index local = unit - cut.first_unit, kv_heads = problem.forward.kv_heads;
  Sequence sequence = cut.sequence;
  sequence.number += local / kv_heads;
  return {&problem.forward, sequence, local % kv_heads, 0, cut.rows};
}

Index sum_floats(const BackwardProblem& problem, const BackwardPlan& plan, Index seq_kv) {
  return seq_kv * (whole_panels(problem.forward.d_k, plan.tile->columns) +
                   whole_panels(problem.forward.d_v, plan.tile->columns));
}

bool sums_in_place(const BackwardProblem& problem, const BackwardPlan& plan) {
  const auto whole = [&](const Stored<std::byte>& grad, Index depth) {
    return grad.type == Type::f32 && grad.contiguous() && depth % plan.tile->columns == 0;
  };
  return whole(problem.grad_k, problem.forward.d_k) && whole(problem.grad_v, problem.forward.d_v);
}

Index backward_workspace(const BackwardProblem& problem, const BackwardPlan& plan) {
  Index most = whole_panels(problem.forward.d_v, 16) * 2;  // of run_head
  for (const BackwardCut& cut : plan.cuts)
    most = std::max(most, BackwardTile::floats(problem, plan, cut));
  return most;
}

Index first_task(const BackwardPlan& plan, Index unit) {
  if (unit >= plan.units) return plan.tasks;
  const BackwardCut& cut = cut_of<&BackwardCut::first_unit>(plan, unit);
  return cut.first_task + (unit - cut.first_unit) * cut.parts;
}

void run_backward(const BackwardProblem& problem, const BackwardPlan& plan, UnitRange wave,
                  Index number, float* shared, float* workspace) {
  const BackwardCut& cut = cut_of<&BackwardCut::first_task>(plan, number);
  const Index unit = cut.first_unit + (number - cut.first_task) / cut.parts;
  // The late rows come first: under a causal mask they take longest.
  const Index part = cut.parts - 1 - (number - cut.first_task) % cut.parts;
  const Rows all = rows_of_unit(problem, cut, unit);
  const Rows rows = all.part(part * cut.part_rows, cut.part_rows);
  const Index seq_kv = all.sequence.seq_kv;
  const AttentionProblem& p = problem.forward;

  const Sums sums =
      sums_of(problem, plan, all, part, shared + (unit - wave.first) * plan.unit_floats);
  // The first products of a key begin its sums; those of keys between, and of keys that no row
  // attends, are 0. There are sums of the keys [0, begun).
  Index begun = 0;
  const auto zero = [&](Index begin, Index end) {
    for (Index j = begin; j < end; ++j) {
      std::fill_n(sums.k + j * sums.k_row, p.d_k, 0.0f);
      std::fill_n(sums.v + j * sums.v_row, p.d_v, 0.0f);
    }
  };
  float* slopes = shared + plan.wave_units * plan.unit_floats + number * plan.slope_floats;
  std::fill_n(slopes, plan.slope_floats, 0.0f);

  Workspace memory(workspace);
  BackwardTile tile(problem, plan, cut, all, memory);
  for (Index first = 0; first < rows.count; first += cut.block_q) {
    const Rows block = rows.part(first, cut.block_q);
    tile.load(block);
    const Keys reachable = reachable_keys(block);
    for (Index begin = reachable.begin / cut.block_kv * cut.block_kv; begin < reachable.end;
         begin += cut.block_kv) {
      const Keys keys{begin, std::min(begin + cut.block_kv, seq_kv)};
      float *k_sums = sums.k + begin * sums.k_row, *v_sums = sums.v + begin * sums.v_row;
      const auto rows_at = [&](const float* first, Index row, Index depth) -> kernels::NextRows {
        return {.first = reinterpret_cast<const std::byte*>(first),
                .stride = row * bytes_of(Type::f32),
                .rows = keys.count(),
                .row_bytes = depth * bytes_of(Type::f32)};
      };
      const BackwardTile::Ahead ahead{rows_at(k_sums, sums.k_row, p.d_k),
                                      rows_at(v_sums, sums.v_row, p.d_v),
                                      {keys.end, std::min(keys.end + cut.block_kv, seq_kv)}};
      if (!tile.compute(keys, BackwardTile::Wanted::all, ahead)) continue;
      const Index end = begin + tile.keys();
      const bool begins = begin >= begun;
      zero(begun, begins ? begin : end);
      begun = std::max(begun, end);
      tile.add_to_k(k_sums, sums.k_row, begins);
      tile.add_to_v(v_sums, sums.v_row, begins);
      if (problem.grad_slopes) add_slopes(tile, block, begin, slopes);
    }
    tile.write_dq();
  }
  zero(begun, seq_kv);
}

void finish_unit(const BackwardProblem& problem, const BackwardPlan& plan, UnitRange wave,
                 Index unit, float* shared, float* workspace) {
  const BackwardCut& cut = cut_of<&BackwardCut::first_unit>(plan, unit);
  const Rows rows = rows_of_unit(problem, cut, unit);
  float* memory = shared + (unit - wave.first) * plan.unit_floats;
  const AttentionProblem& p = problem.forward;
  const bool in_place = sums_in_place(problem, plan);
  const Sums first = sums_of(problem, plan, rows, 0, memory);
  const auto finish = [&](const Stored<std::byte>& grad, Index depth, float* Sums::* sum,
                          Index Sums::* row) {
    std::byte* to = first_key(grad, rows);
    for (Index j = 0; j < rows.sequence.seq_kv; ++j) {
      float* total = first.*sum + j * first.*row;
      for (Index part = 1; part < cut.parts; ++part) {
        const Sums other = sums_of(problem, plan, rows, part, memory);
        const float* from = other.*sum + j * other.*row;
        for (Index x = 0; x < depth; ++x) total[x] += from[x];
      }
      if (!in_place) write_row(*plan.kernels, grad, total, depth, to + j * grad.row_stride);
    }
    // Keys beyond a length had no effect.
    std::fill_n(workspace, depth, 0.0f);
    for (Index j = rows.sequence.seq_kv; j < cut.capacity; ++j)
      write_row(*plan.kernels, grad, workspace, depth, to + j * grad.row_stride);
  };
  finish(problem.grad_k, p.d_k, &Sums::k, &Sums::k_row);
  finish(problem.grad_v, p.d_v, &Sums::v, &Sums::v_row);
}

void run_head(const BackwardProblem& problem, const BackwardPlan& plan, Index head, float* shared,
              float* workspace) {
  const AttentionProblem& p = problem.forward;
  const float* slopes = shared + plan.wave_units * plan.unit_floats;
  const auto element = [&](const Array<float>& array, Index number) -> float& {
    return p.batch.element(array, number)[head * array.head_stride];
  };
  for (Index number = 0; number < p.batch.size; ++number) {
    if (problem.grad_slopes) element(problem.grad_slopes, number) = 0.0f;
    if (problem.grad_sinks) element(problem.grad_sinks, number) = 0.0f;
  }
  float *dout = workspace, *row_copy = workspace + whole_panels(p.d_v, 16);
  for (const BackwardCut& cut : plan.cuts) {
    for (Index i = 0; i < cut.count; ++i) {
      const Index unit = cut.first_unit + i * p.kv_heads + head / p.group;
      const Rows rows = rows_of_unit(problem, cut, unit);
      if (problem.grad_slopes) {
        float sum = 0;
        for (Index task = first_task(plan, unit); task < first_task(plan, unit + 1); ++task)
          sum += slopes[task * plan.slope_floats + head % p.group];
        element(problem.grad_slopes, rows.sequence.number) += sum;
      }
      if (!problem.grad_sinks) continue;
      const float sink = rows.of_head(p.sinks, head % p.group);
      if (std::isinf(sink)) continue;  // there is none
      float sum = 0;
      for (Index r = head % p.group; r < rows.count; r += p.group) {
        read_row(*plan.kernels, problem.grad_out, rows.at(problem.grad_out, r), p.d_v, dout);
        const float delta = delta_of(problem, *plan.kernels, rows, r, dout, row_copy);
        sum -= std::exp(sink - *rows.at(problem.lse, r)) * delta;
      }
      element(problem.grad_sinks, rows.sequence.number) += sum;
    }
  }
}

// The elements of a bias that a task owns are those of some queries, of one KV head and one batch
// element, unless the bias is broadcast there: then the task sums over the axis. So no two tasks
// write one element.
void run_bias(const BackwardProblem& problem, const BackwardPlan& plan, Index task,
              float* workspace) {
  const AttentionProblem& p = problem.forward;
  const Array<float>& grad = problem.grad_bias;
  const bool each_query = grad.row_stride != 0, each_head = grad.head_stride != 0;
  const Index blocks =
      each_query ? (p.longest.seq_q + plan.bias_queries - 1) / plan.bias_queries : 1;
  const Index block = task % blocks;
  const Index own_head = each_head ? task / blocks % p.kv_heads : 0;
  const Index own = task / blocks / (each_head ? p.kv_heads : 1);
  const Index keys_wide = grad.column_stride == 0 ? 1 : p.longest.seq_kv;

  for (Index shared = 0; shared < plan.bias_shared.size; ++shared) {
    // The batch element: some axes say which of our own, the others are summed over.
    Index number = 0, scale = 1, own_left = own, shared_left = shared;
    for (int axis = p.batch.axes - 1; axis >= 0; --axis) {
      const bool mine = plan.bias_own.extent[axis] == p.batch.extent[axis];
      Index& left = mine ? own_left : shared_left;
      number += left % p.batch.extent[axis] * scale;
      left /= p.batch.extent[axis];
      scale *= p.batch.extent[axis];
    }
    const BackwardCut& cut =
        *(std::upper_bound(plan.cuts.begin(), plan.cuts.end(), number,
                           [](Index n, const BackwardCut& c) { return n < c.sequence.number; }) -
          1);
    for (Index g = each_head ? own_head : 0; g < (each_head ? own_head + 1 : p.kv_heads); ++g) {
      const Index unit = cut.first_unit + (number - cut.sequence.number) * p.kv_heads + g;
      const Rows all = rows_of_unit(problem, cut, unit);
      const Index first = each_query ? block * plan.bias_queries * p.group : 0;
      if (each_query && first >= all.count) continue;
      const Rows rows = all.part(first, each_query ? plan.bias_queries * p.group : all.count);
      const Index zeros = each_query ? rows.count : p.group;  // one for each head, if there are any
      for (Index r = 0; shared == 0 && (each_head || g == 0) && r < zeros; ++r) {
        for (Index j = 0; j < keys_wide; ++j) rows.at(grad, r)[j * grad.column_stride] = 0.0f;
      }
      Workspace memory(workspace);
      BackwardTile tile(problem, plan, cut, all, memory);
      for (Index at = 0; at < rows.count; at += cut.block_q) {
        const Rows some = rows.part(at, cut.block_q);
        tile.load(some);
        for (Index begin = 0; begin < cut.sequence.seq_kv; begin += cut.block_kv) {
          const Keys keys{begin, std::min(begin + cut.block_kv, cut.sequence.seq_kv)};
          if (!tile.compute(keys, BackwardTile::Wanted::scores, {})) continue;
          for (Index r = tile.first(); r < tile.first() + tile.rows(); ++r) {
            float* to = some.at(grad, r) + begin * grad.column_stride;
            for (Index j = 0; j < tile.keys(); ++j)
              to[j * grad.column_stride] += tile.dscores()[j * tile.stride() + r];
          }
        }
      }
    }
  }
}

void write_zeros(const BackwardProblem& problem) {
  const AttentionProblem& p = problem.forward;
  const auto zero = [&](const Array<float>& grad, Index queries, Index keys) {
    if (!grad) return;
    const auto extent = [](Index stride, Index all) { return stride == 0 ? Index{1} : all; };
    Batch batch = p.batch;
    batch.size = 1;
    for (int axis = 0; axis < batch.axes; ++axis) {
      batch.extent[axis] = extent(grad.batch_stride[axis], batch.extent[axis]);
      batch.size *= batch.extent[axis];
    }
    for (Index b = 0; b < batch.size; ++b) {
      for (Index h = 0; h < extent(grad.head_stride, p.heads); ++h) {
        for (Index i = 0; i < extent(grad.row_stride, queries); ++i) {
          for (Index j = 0; j < extent(grad.column_stride, keys); ++j) {
            batch.element(grad,
                          b)[h * grad.head_stride + i * grad.row_stride + j * grad.column_stride] =
                0.0f;
          }
        }
      }
    }
  };
  zero(problem.grad_bias, problem.queries, p.longest.seq_kv);
  zero(problem.grad_slopes, 1, 1);
  zero(problem.grad_sinks, 1, 1);
}

}  // namespace rapt::tiles
