// attention() and salience_map(): check, plan, run.
#include "rapt/attention.hpp"

#include "api/trace.hpp"
#include "api/verbose.hpp"
#include "parallel/run.hpp"
#include "plan/case.hpp"
#include "plan/plan.hpp"
#include "problem/check.hpp"
#include "reference/reference.hpp"

namespace rapt {

void attention(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
               const AttentionOptions& options) {
  const tiles::AttentionProblem problem = problem::check_attention(q, k, v, out, options);
  const tiles::AttentionPlan plan = plan::plan_attention(problem);
  trace::record([&] { return plan::case_of(problem, plan); });
  verbose::timed([&] { parallel::run(problem, plan, options.executor); },
                 [&] { return verbose::line(problem, plan); });
}

void salience_map(QView q, KView k, View<float, axis::Head, axis::Query, axis::Key> salience,
                  const AttentionOptions& options, const RowActivation& activation) {
  problem::check_salience(q, k, salience, options);
  reference::salience_map(q, k, salience, options, activation);
}

}  // namespace rapt
