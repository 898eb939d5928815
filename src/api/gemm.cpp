// gemm(): check, plan, run.
#include "rapt/gemm.hpp"

#include "api/trace.hpp"
#include "api/verbose.hpp"
#include "parallel/run.hpp"
#include "plan/case.hpp"
#include "plan/plan.hpp"
#include "problem/check.hpp"

namespace rapt {

void gemm(const AnyView<const std::byte, axis::Row, axis::Inner>& a,
          const AnyView<const std::byte, axis::Inner, axis::Column>& b,
          const View<float, axis::Row, axis::Column>& c, const GemmOptions& options) {
  // Checked in its place: to copy what has just been written takes as long as some small products.
  tiles::GemmPlan plan{.problem = problem::check_gemm(a, b, c, options)};
  trace::record([&] { return plan::case_of(plan.problem); });
  plan::plan_gemm(plan);
  verbose::timed([&] { parallel::run(plan, options.executor); },
                 [&] { return verbose::line(plan); });
}

}  // namespace rapt
