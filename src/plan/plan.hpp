// From a checked problem to a plan: which algorithm, which blocks, how many tasks. Microseconds, no
// memory taken.
#pragma once

#include <string>
#include <vector>

#include "tiles/attention.hpp"
#include "tiles/backward.hpp"
#include "tiles/gemm.hpp"

namespace rapt::plan {

tiles::AttentionPlan plan_attention(const tiles::AttentionProblem& problem);
tiles::BackwardPlan plan_backward(const tiles::BackwardProblem& problem);
// Of plan.problem, which it may turn round or stack.
void plan_gemm(tiles::GemmPlan& plan);

// For explain: the config row of a problem, as text.
struct RowInUse {
  std::string text;
  bool tuned;  // from a config; otherwise from the formulas
};
RowInUse row_in_use(const tiles::AttentionProblem& problem, const kernels::Kernels& kernels);

// And what each algorithm, best first, says of such an element: null where it takes it.
struct Refusal {
  const char *algorithm, *reason;
};
std::vector<Refusal> refusals(const tiles::AttentionProblem& problem,
                              const kernels::Kernels& kernels, const tiles::Sequence& sequence);

}  // namespace rapt::plan
