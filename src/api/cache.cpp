// append_kv() and rope(): check, run.
#include "rapt/cache.hpp"

#include "parallel/run.hpp"
#include "plan/target.hpp"
#include "problem/check.hpp"

namespace rapt {

void append_kv(const AnyK& k_new, const AnyV& v_new, const AnyKCache& k_cache,
               const AnyVCache& v_cache, const AppendOptions& options) {
  const tiles::AppendProblem problem =
      problem::check_append(k_new, v_new, k_cache, v_cache, options);
  parallel::run_rows(problem, plan::current_kernels(), options.executor);
}

void rope(const AnyRows& x, const AnyRowsOut& out, const Rope& rope, const RopeOptions& options) {
  const tiles::RopeProblem problem = problem::check_rope(x, out, rope, options);
  parallel::run_rows(problem, plan::current_kernels(), options.executor);
}

}  // namespace rapt
