// Runs the tasks of a plan on an executor, with memory for each worker.
#pragma once

#include "rapt/executor.hpp"
#include "tiles/attention.hpp"
#include "tiles/gemm.hpp"

namespace rapt::parallel {

// executor null: default_executor().
void run(const tiles::AttentionPlan& plan, const Executor* executor);
void run(const tiles::GemmPlan& plan, const Executor* executor);

}  // namespace rapt::parallel
