// merge(): check, run.
#include "rapt/merge.hpp"

#include "parallel/run.hpp"
#include "plan/target.hpp"
#include "problem/check.hpp"

namespace rapt {

void merge(std::span<const AttentionPart> parts, const AnyOut& out, const LseView& lse,
           const MergeOptions& options) {
  const tiles::MergeProblem problem = problem::check_merge(parts, out, lse);
  parallel::run_rows(problem, plan::current_kernels(), options.executor);
}

void merge(const AnyOutRead& out_a, const LseRead& lse_a, const AnyOutRead& out_b,
           const LseRead& lse_b, const AnyOut& out, const LseView& lse,
           const MergeOptions& options) {
  const AttentionPart parts[] = {{out_a, lse_a}, {out_b, lse_b}};
  merge(parts, out, lse, options);
}

}  // namespace rapt
