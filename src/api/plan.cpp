// AttentionPlan and explain(): check and plan now, run later.
#include "rapt/plan.hpp"

#include <utility>

#include "api/trace.hpp"
#include "api/verbose.hpp"
#include "parallel/run.hpp"
#include "plan/case.hpp"
#include "plan/explain.hpp"
#include "plan/plan.hpp"
#include "problem/check.hpp"
#include "problem/sentences.hpp"

namespace rapt {

struct AttentionPlan::State {
  tiles::AttentionProblem problem;
  tiles::AttentionPlan plan;
  std::vector<std::int32_t> block_table;  // the plan's own: its pages were checked
  const Executor* executor;
};

namespace {

constexpr std::size_t kFloat = sizeof(float);

Explanation with_workspace(const tiles::AttentionProblem& problem,
                           const tiles::AttentionPlan& plan) {
  Explanation e = plan::explain(problem, plan);
  e.worker_bytes = plan.workspace * static_cast<std::int64_t>(kFloat);
  e.workspace_bytes =
      parallel::workspace_floats(plan, &serial_executor()) * static_cast<std::int64_t>(kFloat);
  return e;
}

// The pages that the table names, [sequences, pages of the longest].
std::vector<std::int32_t> copy_table(tiles::AttentionProblem& problem) {
  std::vector<std::int32_t> table;
  auto& pages = problem.pages;
  if (!pages.table) return table;
  const std::int64_t width = problem.longest.seq_kv / pages.size;
  for (std::int64_t b = 0; b < problem.batch.size; ++b) {
    const std::int32_t* row = problem.batch.element(pages.table, b);
    for (std::int64_t n = 0; n < width; ++n) table.push_back(row[n * pages.table.row_stride]);
  }
  pages.table.batch_stride[0] = width;
  pages.table.row_stride = 1;
  pages.table.data = table.data();  // stays when the vector is moved
  return table;
}

// Other memory for an array that the plan has.
template <class AnyArray, class T>
void replace(const char* name, AnyArray& array, T* given) {
  if (given == nullptr) return;
  if (!array) {
    problem::fail(ErrorCode::bad_value,
                  {std::string("the pointer ") + name, "given", "the plan was made without it"});
  }
  array.data = static_cast<decltype(array.data)>(given);
}

}  // namespace

AttentionPlan::AttentionPlan(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                             const AttentionOptions& options) {
  auto state = std::make_unique<State>();
  state->problem = problem::check_attention(q, k, v, out, options);
  state->plan = plan::plan_attention(state->problem);
  state->block_table = copy_table(state->problem);
  state->executor = options.executor;
  // What only planning looked at may be gone when it runs.
  state->problem.kv_lengths = state->problem.q_offsets = {};
  state->problem.first_query = state->problem.first_key = nullptr;
  state_ = std::move(state);
}

AttentionPlan::AttentionPlan(AttentionPlan&&) noexcept = default;
AttentionPlan& AttentionPlan::operator=(AttentionPlan&&) noexcept = default;
AttentionPlan::~AttentionPlan() = default;

std::size_t AttentionPlan::workspace_bytes() const {
  return static_cast<std::size_t>(parallel::workspace_floats(state_->plan, state_->executor)) *
         kFloat;
}

void AttentionPlan::run(const AttentionPointers& pointers, void* workspace,
                        std::size_t bytes) const {
  if (workspace != nullptr) {
    if (const std::size_t needed = workspace_bytes(); bytes < needed) {
      problem::fail(ErrorCode::bad_value, {"workspace", static_cast<std::int64_t>(bytes),
                                           "needs " + std::to_string(needed) + " bytes"});
    }
    if (reinterpret_cast<std::uintptr_t>(workspace) % 64 != 0) {
      problem::fail(ErrorCode::bad_value,
                    {"the address of workspace modulo 64",
                     static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(workspace) % 64),
                     "must be 0"});
    }
  }
  tiles::AttentionProblem problem = state_->problem;
  replace("q", problem.q, pointers.q);
  replace("k", problem.k, pointers.k);
  replace("v", problem.v, pointers.v);
  replace("out", problem.out, pointers.out);
  replace("lse", problem.lse, pointers.lse);
  replace("k_scales", problem.k_scales, pointers.k_scales);
  replace("v_scales", problem.v_scales, pointers.v_scales);
  replace("mask", problem.mask, pointers.mask);
  replace("bias", problem.bias, pointers.bias);
  trace::record([&] { return plan::case_of(problem, state_->plan); });
  verbose::timed(
      [&] {
        parallel::run(problem, state_->plan, state_->executor, static_cast<float*>(workspace));
      },
      [&] { return verbose::line(problem, state_->plan); });
}

Explanation AttentionPlan::explain() const { return with_workspace(state_->problem, state_->plan); }

Explanation explain(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                    const AttentionOptions& options) {
  const tiles::AttentionProblem problem = problem::check_attention(q, k, v, out, options);
  return with_workspace(problem, plan::plan_attention(problem));
}

}  // namespace rapt
