// Tasks meet workers here, and only here: a plan has never heard of threads.
#include "parallel/run.hpp"

#include <algorithm>
#include <optional>

#include "parallel/memory.hpp"
#include "tiles/task.hpp"

namespace rapt::parallel {
namespace {

using kernels::Index;

// One task needs nobody's help.
const Executor& choose(const Executor* executor, Index tasks) {
  if (tasks <= 1) return serial_executor();
  return executor == nullptr ? default_executor() : *executor;
}

// At a time.
Index most_tasks(const tiles::BackwardPlan& plan) {
  return std::max({plan.tasks, plan.head_tasks, plan.bias_tasks});
}

// Calls work(task, worker) for every task.
template <class Work>
void for_each(const Executor& executor, Index tasks, const Work& work) {
  executor.parallel_for(
      tasks,
      [](const void* context, std::int64_t task, int worker) {
        (*static_cast<const Work*>(context))(task, worker);
      },
      &work);
}

}  // namespace

Index workspace_floats(const tiles::AttentionPlan& plan, const Executor* wanted) {
  // An executor numbers its workers below workers(), however few tasks there are.
  const Index workers = std::max(choose(wanted, plan.tasks).workers(), 1);
  return plan.wave_units * plan.unit_floats + plan.workspace * workers;
}

tiles::Index workspace_floats(const tiles::BackwardPlan& plan, const Executor* wanted) {
  return plan.shared() + plan.workspace * std::max(choose(wanted, most_tasks(plan)).workers(), 1);
}

void run(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan,
         const Executor* wanted, float* given) {
  if (plan.tasks == 0) return;
  const Executor& executor = choose(wanted, plan.tasks);
  std::optional<Memory> own;
  if (given == nullptr) own.emplace(workspace_floats(plan, wanted));
  float* shared = given == nullptr ? own->data() : given;
  float* workspace = shared + plan.wave_units * plan.unit_floats;
  const Index workers = executor.workers();
  for (Index first = 0; first < plan.units; first += plan.wave_units) {
    const tiles::UnitRange wave{first, std::min(plan.wave_units, plan.units - first)};
    const Index begin = first_task(plan, first), end = first_task(plan, first + wave.count);
    for_each(executor, end - begin, [&](Index number, int worker) {
      tiles::Task task = task_at(problem, plan, wave, begin + number, shared), next;
      if (number + workers < end - begin) {
        next = task_at(problem, plan, wave, begin + number + workers, shared);
        task.next = &next;
      }
      task.cut->algorithm->run(plan, task, workspace + worker * plan.workspace);
    });
    if (!merges(plan)) continue;
    for_each(executor, wave.count,
             [&](Index unit, int) { merge_parts(problem, plan, wave, first + unit, shared); });
  }
}

void run(const tiles::BackwardProblem& problem, const tiles::BackwardPlan& plan,
         const Executor* wanted, float* given) {
  if (plan.units == 0) return write_zeros(problem);
  const Executor& executor = choose(wanted, most_tasks(plan));
  std::optional<Memory> own;
  if (given == nullptr) own.emplace(workspace_floats(plan, wanted));
  float* shared = given == nullptr ? own->data() : given;
  const auto workspace = [&](int worker) {
    return shared + plan.shared() + worker * plan.workspace;
  };
  for (Index first = 0; first < plan.units; first += plan.wave_units) {
    const tiles::UnitRange wave{first, std::min(plan.wave_units, plan.units - first)};
    const Index begin = first_task(plan, first), end = first_task(plan, first + wave.count);
    for_each(executor, end - begin, [&](Index number, int worker) {
      run_backward(problem, plan, wave, begin + number, shared, workspace(worker));
    });
    for_each(executor, wave.count, [&](Index unit, int worker) {
      finish_unit(problem, plan, wave, first + unit, shared, workspace(worker));
    });
  }
  for_each(executor, plan.head_tasks, [&](Index head, int worker) {
    run_head(problem, plan, head, shared, workspace(worker));
  });
  for_each(executor, plan.bias_tasks,
           [&](Index task, int worker) { run_bias(problem, plan, task, workspace(worker)); });
}

void run(const tiles::GemmPlan& plan, const Executor* wanted) {
  const tiles::GemmProblem& p = plan.problem;
  if (p.batch.size == 0 || p.m == 0 || p.n == 0) return;
  // Of one block of c there may be many slices to sum.
  const tiles::Wave most{0, std::min(plan.wave_units, plan.units)};
  const Index packs = plan.algorithm->pack == nullptr ? 0 : plan.algorithm->pack_tasks(plan, most);
  const Executor& executor = choose(wanted, std::max(plan.units * plan.row_blocks, packs));
  Memory memory(plan.shared_workspace + plan.workspace * std::max(executor.workers(), 1));
  float* shared = memory.data();
  float* workspace = shared + plan.shared_workspace;
  for (Index first = 0; first < plan.units; first += plan.wave_units) {
    const tiles::Wave wave{first, std::min(plan.wave_units, plan.units - first)};
    if (plan.algorithm->pack != nullptr) {
      for_each(executor, plan.algorithm->pack_tasks(plan, wave), [&](Index task, int worker) {
        plan.algorithm->pack(plan, wave, task, shared, workspace + worker * plan.workspace);
      });
    }
    for_each(executor, wave.count * plan.row_blocks, [&](Index task, int worker) {
      plan.algorithm->run(plan, wave, wave.first + task / plan.row_blocks, task % plan.row_blocks,
                          shared, workspace + worker * plan.workspace);
    });
  }
}

void for_each_row(Index rows, Index row_floats, RowWork work, const void* context,
                  const Executor* wanted) {
  constexpr Index kTaskFloats = 1 << 14;  // some microseconds
  const Index rows_of_task = std::max(kTaskFloats / std::max(row_floats, Index{1}), Index{1});
  const Index tasks = rows / rows_of_task + (rows % rows_of_task != 0);
  if (tasks == 0) return;
  for_each(choose(wanted, tasks), tasks, [&](Index task, int) {
    const Index first = task * rows_of_task, end = std::min(first + rows_of_task, rows);
    for (Index row = first; row < end; ++row) work(context, row);
  });
}

}  // namespace rapt::parallel
