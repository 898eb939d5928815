// What the algorithms of the matrix product share: blocks of c, reading a, finishing.
#include "tiles/gemm.hpp"

#include <algorithm>
#include <type_traits>

#include "tiles/stored.hpp"

namespace rapt::tiles {

GemmBlock block_of(const GemmPlan& plan, Index unit, Index row_block) {
  const GemmProblem& p = plan.problem;
  const Index row = row_block * plan.block_m, column = unit % plan.column_blocks * plan.block_n;
  return {unit / plan.column_blocks, row, std::min(plan.block_m, p.m - row), column,
          std::min(plan.block_n, p.n - column)};
}

namespace {

// How many blocks n makes, at least one. A division costs as much as a small product's plan may.
Index blocks(Index n, Index block) { return n <= block ? 1 : (n + block - 1) / block; }

// n in so many blocks of nearly equal size, each but the last a multiple of step: a panel has its
// width, and whole register tiles are the fastest. But of rows rather any number than fewer blocks.
void cut_evenly(Index n, Index step, bool any, Index& block, Index& count) {
  block = n;
  if (count <= 1) return;
  const Index each = (n + count - 1) / count, rounded = (each + step - 1) / step * step;
  block = any && blocks(n, rounded) < blocks(n, each) ? each : rounded;
  count = blocks(n, block);
}

}  // namespace

void cut_blocks(GemmPlan& plan, Index block_m, Index block_n, Index row_step, Index column_step,
                Index many_rows) {
  const GemmProblem& p = plan.problem;
  // To read an element of b takes as long as to multiply it by some rows.
  constexpr Index kReading = 4;
  const double work = static_cast<double>(std::max(p.m, kReading)) * static_cast<double>(p.n) *
                      static_cast<double>(p.k) * static_cast<double>(p.batch.size);
  // A second thread that is awake starts within a microsecond; more of them take longer.
  constexpr double kForTwo = 1 << 18, kForEach = 1 << 20;
  const double wanted = work < kForTwo ? 1.0 : std::clamp(work / kForEach, 2.0, 16.0);
  plan.row_blocks = blocks(p.m, block_m);
  plan.column_blocks = blocks(p.n, block_n);
  while (static_cast<double>(plan.row_blocks * plan.column_blocks * p.batch.size) < wanted) {
    const Index m_each = p.m / plan.row_blocks, n_each = p.n / plan.column_blocks;
    const bool rows = m_each >= 2 * std::max(row_step, many_rows), columns = n_each > column_step;
    if (!rows && !columns) break;
    const bool split_rows = !columns || (rows && many_rows == 0 && m_each >= n_each);
    (split_rows ? plan.row_blocks : plan.column_blocks) *= 2;
  }
  cut_evenly(p.m, row_step, many_rows == 0, plan.block_m, plan.row_blocks);
  cut_evenly(p.n, column_step, false, plan.block_n, plan.column_blocks);
  plan.units = p.batch.size * plan.column_blocks;
  plan.wave_units = plan.units;
}

void cut_slices(GemmPlan& plan, Index block_k) {
  const Index slices = blocks(plan.steps, block_k);
  plan.block_k = slices == 1 ? std::max<Index>(plan.steps, 1) : (plan.steps + slices - 1) / slices;
}

// Rows of a whose distance is a multiple of 4 KiB fall into one set of the L1 cache. It holds eight
// lines or more, so a higher tile's rows evict each other.
bool a_in_place(const GemmPlan& plan) {
  const GemmProblem& p = plan.problem;
  constexpr Index kRows = 8, kSets = 4096;
  const bool apart = plan.tile->rows <= kRows || p.a.row_stride % kSets != 0;
  if (plan.pairs)
    return p.a.contiguous() && p.k % 2 == 0 && (p.m == 1 || (p.a.row_stride % 4 == 0 && apart));
  return p.a.type == Type::f32 &&
         (p.a.row_stride == bytes_of(Type::f32) || p.m == 1 || (p.a.contiguous() && apart));
}

// Room between the copied rows, for the same reason.
Index copy_row(Index steps) { return (steps + 15) / 16 * 16 + 16; }

namespace {

const std::byte* first_of_a(const GemmPlan& plan, const GemmBlock& block, Index step) {
  const GemmProblem& p = plan.problem;
  const Index k = plan.pairs ? 2 * step : step;
  return p.batch.element(p.a, block.batch) + block.row * p.a.row_stride + k * p.a.column_stride;
}

}  // namespace

Operand place_a(const GemmPlan& plan, const GemmBlock& block, Index step) {
  const GemmProblem& p = plan.problem;
  constexpr Index kFloat = bytes_of(Type::f32);
  // A single row has no next one, and the distance 1 lets the tile take any stride along k.
  return {reinterpret_cast<const float*>(first_of_a(plan, block, step)),
          p.m == 1 ? 1 : p.a.row_stride / kFloat, plan.pairs ? 1 : p.a.column_stride / kFloat};
}

Operand copy_a(const GemmPlan& plan, const GemmBlock& block, Index step, Index steps, float* copy) {
  const GemmProblem& p = plan.problem;
  const std::byte* from = first_of_a(plan, block, step);
  float* row = copy;
  for (Index r = 0; r < block.rows; ++r, from += p.a.row_stride, row += copy_row(steps)) {
    if (plan.pairs) {
      copy_pairs(from, p.a.column_stride, std::min(2 * steps, p.k - 2 * step), row);
    } else {
      read_row(*plan.kernels, p.a, from, steps, row);
    }
  }
  return {copy, copy_row(steps), 1};
}

void update_row(const GemmProblem& p, const float* sums, float beta, Index n, float* c) {
  const float alpha = p.alpha;
  const auto update = [&](auto stride) {
    for (Index j = 0; j < n; ++j) {
      float& to = c[j * stride];
      to = beta == 0.0f ? alpha * sums[j] : alpha * sums[j] + beta * to;
    }
  };
  if (p.c.column_stride == 1) {
    update(std::integral_constant<Index, 1>());
  } else {
    update(p.c.column_stride);
  }
}

void finish_block(const GemmPlan& plan, const GemmBlock& block) {
  const GemmProblem& p = plan.problem;
  if (p.bias == nullptr && p.finish == kernels::Finish::none) return;
  // In the user's orientation.
  Index rows = block.rows, columns = block.columns, first_column = block.column;
  Index row_stride = p.c.row_stride, column_stride = p.c.column_stride;
  float* c = place_c(p, block);
  if (p.transposed) {
    std::swap(rows, columns);
    std::swap(row_stride, column_stride);
    first_column = block.row;
  }
  const float* bias = p.bias == nullptr ? nullptr : p.bias + first_column * p.bias_stride;
  constexpr Index kChunk = 256;
  float values[kChunk], biases[kChunk];
  for (Index begin = 0; begin < columns; begin += kChunk) {
    const Index n = std::min(kChunk, columns - begin);
    if (bias != nullptr) {
      for (Index i = 0; i < n; ++i) biases[i] = bias[(begin + i) * p.bias_stride];
    }
    for (Index r = 0; r < rows; ++r) {
      float* row = c + r * row_stride + begin * column_stride;
      const bool in_place = column_stride == 1;
      if (!in_place) {
        for (Index i = 0; i < n; ++i) values[i] = row[i * column_stride];
      }
      plan.kernels->finish(in_place ? row : values, bias == nullptr ? nullptr : biases, n,
                           p.finish);
      if (!in_place) {
        for (Index i = 0; i < n; ++i) row[i * column_stride] = values[i];
      }
    }
  }
}

}  // namespace rapt::tiles
