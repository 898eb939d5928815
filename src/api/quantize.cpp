// quantize(), dequantize() and convert(): check, run.
#include "rapt/quantize.hpp"

#include "parallel/run.hpp"
#include "plan/target.hpp"
#include "problem/check.hpp"

namespace rapt {

void quantize(const AnyRows& from, const AnyRowsOut& to,
              const View<float, axis::KvHead, axis::Key>& scales, const Executor* executor) {
  const tiles::ConvertProblem problem = problem::check_quantize(from, to, scales);
  parallel::run_rows(problem, plan::current_kernels(), executor);
}

void dequantize(const AnyRows& from, const ScalesView& scales, const AnyRowsOut& to,
                const Executor* executor) {
  const tiles::ConvertProblem problem = problem::check_dequantize(from, scales, to);
  parallel::run_rows(problem, plan::current_kernels(), executor);
}

void convert(const AnyRows& from, const AnyRowsOut& to, const Executor* executor) {
  const tiles::ConvertProblem problem = problem::check_convert(from, to);
  parallel::run_rows(problem, plan::current_kernels(), executor);
}

}  // namespace rapt
