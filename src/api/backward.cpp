// attention_backward(): check, plan, run.
#include "rapt/backward.hpp"

#include "api/trace.hpp"
#include "api/verbose.hpp"
#include "parallel/run.hpp"
#include "plan/case.hpp"
#include "plan/plan.hpp"
#include "problem/check.hpp"

namespace rapt {

void attention_backward(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOutIn& out,
                        const LseIn& lse, const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                        const AnyGradK& grad_k, const AnyGradV& grad_v,
                        const AttentionOptions& options, const BackwardOptions& backward) {
  const tiles::BackwardProblem problem = problem::check_backward(
      q, k, v, out, lse, grad_out, grad_q, grad_k, grad_v, options, backward);
  const tiles::BackwardPlan plan = plan::plan_backward(problem);
  trace::record([&] { return plan::case_of(problem, plan); });
  verbose::timed([&] { parallel::run(problem, plan, options.executor); },
                 [&] { return verbose::line(problem, plan); });
}

}  // namespace rapt
