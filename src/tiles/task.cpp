#include "tiles/task.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tiles/scores.hpp"
#include "tiles/stored.hpp"

namespace rapt::tiles {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The last cut whose first unit, or task, is not after `number`.
template <Index Cut::* kFirst>
const Cut& cut_of(const AttentionPlan& plan, Index number) {
  const auto after = std::upper_bound(plan.cuts.begin(), plan.cuts.end(), number,
                                      [](Index n, const Cut& cut) { return n < cut.*kFirst; });
  return *(after - 1);
}

// Where part `part` of a unit leaves its state.
State partial(const AttentionProblem& problem, const Cut& cut, Index part, float* unit) {
  const Index rows = cut.block_q;
  float* at = unit + part * rows * (problem.d_v + 2);
  return {at, at + rows * problem.d_v, at + rows * (problem.d_v + 1)};
}

Task task_of(const AttentionProblem& problem, const AttentionPlan& plan, UnitRange wave, Index unit,
             Index part, float* shared) {
  const Cut& cut = cut_of_unit(plan, unit);
  const Rows rows = rows_of_unit(problem, cut, unit);
  const Keys all = reachable_keys(rows);
  const Index begin = part * cut.part_kv;
  const Keys keys{std::max(all.begin, begin),
                  part + 1 == cut.parts ? all.end : std::min(all.end, begin + cut.part_kv)};
  Task task{&cut, wave, unit, part, rows, keys, {}, shared};
  if (cut.parts > 1)
    task.partial = partial(problem, cut, part, shared + (unit - wave.first) * plan.unit_floats);
  return task;
}

std::size_t number(const Task& task) { return static_cast<std::size_t>(task.rows.sequence.number); }
// Units from a batch element to its neighbour, where they are cut alike.
Index to_neighbour(const Task& task) { return task.rows.problem->kv_heads * task.cut->row_blocks; }

}  // namespace

// Units of one KV head follow each other, so that K and V stay in the cache; its
// late query blocks come first: under a causal mask they are the longest, and a task that starts
// last should be short.
Rows rows_of_unit(const AttentionProblem& problem, const Cut& cut, Index unit) {
  const Index local = unit - cut.first_unit;
  const Index block = cut.row_blocks - 1 - local % cut.row_blocks;
  const Index head = local / cut.row_blocks;
  Sequence sequence = cut.sequence;
  sequence.number += head / problem.kv_heads;
  const Index first = block * cut.block_q;
  return {&problem, sequence, head % problem.kv_heads, first,
          std::min(cut.block_q, cut.rows - first)};
}

const Cut& cut_of_unit(const AttentionPlan& plan, Index unit) {
  return cut_of<&Cut::first_unit>(plan, unit);
}

Index first_task(const AttentionPlan& plan, Index unit) {
  if (unit >= plan.units) return plan.tasks;
  const Cut& cut = cut_of_unit(plan, unit);
  return cut.first_task + (unit - cut.first_unit) * cut.parts;
}

Task task_at(const AttentionProblem& problem, const AttentionPlan& plan, UnitRange wave,
             Index number, float* shared) {
  const Cut& cut = cut_of<&Cut::first_task>(plan, number);
  const Index local = number - cut.first_task;
  return task_of(problem, plan, wave, cut.first_unit + local / cut.parts, local % cut.parts,
                 shared);
}

bool is_joined(const AttentionPlan& plan, const Task& task) {
  return !plan.joined.empty() && task.part < plan.joined[number(task)] &&
         task.unit - to_neighbour(task) >= task.wave.first;
}

bool next_joined(const AttentionProblem& problem, const AttentionPlan& plan, Task& task) {
  const std::size_t next = number(task) + 1;
  const Index unit = task.unit + to_neighbour(task);
  if (next >= plan.joined.size() || task.part >= plan.joined[next] ||
      unit >= task.wave.first + task.wave.count)
    return false;
  task = task_of(problem, plan, task.wave, unit, task.part, task.shared);
  return true;
}

void merge_parts(const AttentionProblem& problem, const AttentionPlan& plan, UnitRange wave,
                 Index unit, float* shared) {
  const Cut& cut = cut_of_unit(plan, unit);
  if (cut.parts == 1) return;
  const Rows rows = rows_of_unit(problem, cut, unit);
  const Index d_v = problem.d_v;
  const ScoreUnits units(problem);
  float* memory = shared + (unit - wave.first) * plan.unit_floats;
  const State merged = partial(problem, cut, 0, memory);
  for (Index r = 0; r < rows.count; ++r) {
    float max = merged.row_max[r];
    for (Index part = 1; part < cut.parts; ++part)
      max = std::max(max, partial(problem, cut, part, memory).row_max[r]);
    // Equal maxima, infinite ones too, leave a part as it is; one without keys has weight 0.
    const auto weight = [&](float own) {
      return own == max ? 1.0f : std::exp(units.exponent_scale * (own - max));
    };
    const float first = weight(merged.row_max[r]);
    float* out = merged.out + r * d_v;
    float sum = merged.row_sum[r] * first;
    for (Index x = 0; x < d_v; ++x) out[x] *= first;
    for (Index part = 1; part < cut.parts; ++part) {
      const State other = partial(problem, cut, part, memory);
      const float w = weight(other.row_max[r]);
      sum += other.row_sum[r] * w;
      for (Index x = 0; x < d_v; ++x) out[x] += other.out[r * d_v + x] * w;
    }
    merged.row_max[r] = max;
    merged.row_sum[r] = sum;
  }
  write_rows(plan, rows, merged);
}

void begin_rows(const Task& task, float* row_max, float* row_sum) {
  const AttentionProblem& p = *task.rows.problem;
  for (Index r = 0; r < task.rows.count; ++r) {
    row_max[r] = p.sinks && task.part == 0 ? task.rows.of_head(p.sinks, r) : -kInfinity;
    row_sum[r] = row_max[r] == -kInfinity ? 0.0f : 1.0f;
  }
}

void write_rows(const AttentionPlan& plan, const Rows& rows, const State& state) {
  const AttentionProblem& p = *rows.problem;
  for (Index r = 0; r < rows.count; ++r) {
    float* out = state.out + r * p.d_v;
    const float sum = state.row_sum[r];
    // Adding 0 turns -0, which depends on how many zeros were added, into +0.
    for (Index x = 0; x < p.d_v; ++x) out[x] = sum == 0.0f ? 0.0f : out[x] / sum + 0.0f;
    write_row(*plan.kernels, p.out, out, p.d_v, rows.at(p.out, r));
  }
  write_lse(rows, state.row_max, state.row_sum);
}

void write_lse(const Rows& rows, const float* row_max, const float* row_sum) {
  if (!rows.problem->lse) return;
  const ScoreUnits units(*rows.problem);
  const auto lse = rows.of(rows.problem->lse);
  for (Index r = 0; r < rows.count; ++r) {
    *lse(r) =
        row_sum[r] == 0.0f ? -kInfinity : row_max[r] * units.exponent_scale + std::log(row_sum[r]);
  }
}

}  // namespace rapt::tiles
