// From a checked problem to a plan: which algorithm, which blocks, how many tasks. Microseconds, no
// memory taken.
#pragma once

#include "tiles/attention.hpp"
#include "tiles/gemm.hpp"

namespace rapt::plan {

// The plan keeps a pointer to the problem.
tiles::AttentionPlan plan_attention(const tiles::AttentionProblem& problem);
tiles::GemmPlan plan_gemm(const tiles::GemmProblem& problem);

}  // namespace rapt::plan
