// Runs the tasks of a plan on an executor, with memory for each worker.
#pragma once

#include "rapt/executor.hpp"
#include "tiles/attention.hpp"
#include "tiles/backward.hpp"
#include "tiles/gemm.hpp"

namespace rapt::parallel {

// executor null: default_executor().
// Floats for a run with as many workers as the executor has now.
tiles::Index workspace_floats(const tiles::AttentionPlan& plan, const Executor* executor);
tiles::Index workspace_floats(const tiles::BackwardPlan& plan, const Executor* executor);
// workspace: so many floats on a multiple of 64 bytes, or null for memory of the library's own.
void run(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan,
         const Executor* executor, float* workspace = nullptr);
void run(const tiles::BackwardProblem& problem, const tiles::BackwardPlan& plan,
         const Executor* executor, float* workspace = nullptr);
void run(const tiles::GemmPlan& plan, const Executor* executor);

// Calls work(context, row) for every row of [0, rows). A task is neighbouring rows, as many as
// make one worth its start: what a row is computed from are about row_floats numbers.
using RowWork = void (*)(const void* context, kernels::Index row);
void for_each_row(kernels::Index rows, kernels::Index row_floats, RowWork work, const void* context,
                  const Executor* executor);

// A problem made of rows that are independent of each other: run_row() for each of them.
template <class Problem>
void run_rows(const Problem& problem, const kernels::Kernels& kernels, const Executor* executor) {
  const auto work = [&](kernels::Index row) { run_row(problem, kernels, row); };
  for_each_row(
      problem.rows(), problem.row_floats(),
      [](const void* context, kernels::Index row) {
        (*static_cast<const decltype(work)*>(context))(row);
      },
      &work, executor);
}

}  // namespace rapt::parallel
