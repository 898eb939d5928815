// Runs the tasks of a plan on an executor, with memory for each worker.
#pragma once

#include "rapt/executor.hpp"
#include "tiles/attention.hpp"
#include "tiles/gemm.hpp"

namespace rapt::parallel {

// executor null: default_executor().
// Floats for a run with as many workers as the executor has now.
tiles::Index workspace_floats(const tiles::AttentionPlan& plan, const Executor* executor);
// workspace: so many floats on a multiple of 64 bytes, or null for memory of the library's own.
void run(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan,
         const Executor* executor, float* workspace = nullptr);
void run(const tiles::GemmPlan& plan, const Executor* executor);

}  // namespace rapt::parallel
