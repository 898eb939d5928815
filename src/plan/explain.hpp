// Says how a plan computes its problem, and why so.
#pragma once

#include "rapt/plan.hpp"
#include "tiles/attention.hpp"
#include "tiles/backward.hpp"

namespace rapt::plan {

// All but what depends on the executor: the bytes of the workspace.
Explanation explain(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan);
Explanation explain(const tiles::BackwardProblem& problem, const tiles::BackwardPlan& plan);

}  // namespace rapt::plan
