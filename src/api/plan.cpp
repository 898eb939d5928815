// AttentionPlan, AttentionBackwardPlan and explain(): check and plan now, run later.
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

struct AttentionBackwardPlan::State {
  tiles::BackwardProblem problem;
  tiles::BackwardPlan plan;
  const Executor* executor;
};

namespace {

constexpr std::size_t kFloat = sizeof(float);

template <class Problem, class Plan>
Explanation with_workspace(const Problem& problem, const Plan& plan) {
  Explanation e = plan::explain(problem, plan);
  e.worker_bytes = plan.workspace * static_cast<std::int64_t>(kFloat);
  e.workspace_bytes =
      parallel::workspace_floats(plan, &serial_executor()) * static_cast<std::int64_t>(kFloat);
  return e;
}

template <class State>
std::size_t bytes_of_workspace(const State& state) {
  return static_cast<std::size_t>(parallel::workspace_floats(state.plan, state.executor)) * kFloat;
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

// What only planning looked at may be gone when it runs.
void forget_lengths(tiles::AttentionProblem& problem) {
  problem.kv_lengths = problem.q_offsets = {};
  problem.first_query = problem.first_key = nullptr;
}

void check_workspace(const void* workspace, std::size_t bytes, std::size_t needed) {
  if (workspace == nullptr) return;
  if (bytes < needed) {
    problem::fail(ErrorCode::bad_value, {"workspace", static_cast<std::int64_t>(bytes),
                                         "needs " + std::to_string(needed) + " bytes"});
  }
  if (reinterpret_cast<std::uintptr_t>(workspace) % 64 != 0) {
    problem::fail(
        ErrorCode::bad_value,
        {"the address of workspace modulo 64",
         static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(workspace) % 64), "must be 0"});
  }
}

[[noreturn]] void planned_without(const char* name) {
  problem::fail(ErrorCode::bad_value,
                {std::string("the pointer ") + name, "given", "the plan was made without it"});
}

// Other memory for an array that the plan has.
template <class AnyArray, class T>
void replace(const char* name, AnyArray& array, T* given) {
  if (given == nullptr) return;
  if (!array) planned_without(name);
  array.data = static_cast<decltype(array.data)>(given);
}

// What both passes read.
template <class Pointers>
void replace_inputs(tiles::AttentionProblem& problem, const Pointers& pointers) {
  replace("q", problem.q, pointers.q);
  replace("k", problem.k, pointers.k);
  replace("v", problem.v, pointers.v);
  replace("mask", problem.mask, pointers.mask);
  replace("bias", problem.bias, pointers.bias);
  if (pointers.dropout_offset == nullptr) return;
  if (problem.dropout.probability == 0) planned_without("dropout_offset");
  problem.dropout.offset = *pointers.dropout_offset;
}

// Runs a plan on a problem of its layout.
template <class Problem, class State>
void run_planned(const Problem& problem, const State& state, void* workspace) {
  trace::record([&] { return plan::case_of(problem, state.plan); });
  verbose::timed(
      [&] { parallel::run(problem, state.plan, state.executor, static_cast<float*>(workspace)); },
      [&] { return verbose::line(problem, state.plan); });
}

}  // namespace

AttentionPlan::AttentionPlan(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                             const AttentionOptions& options) {
  auto state = std::make_unique<State>();
  state->problem = problem::check_attention(q, k, v, out, options);
  state->plan = plan::plan_attention(state->problem);
  state->block_table = copy_table(state->problem);
  state->executor = options.executor;
  forget_lengths(state->problem);
  state_ = std::move(state);
}

AttentionPlan::AttentionPlan(AttentionPlan&&) noexcept = default;
AttentionPlan& AttentionPlan::operator=(AttentionPlan&&) noexcept = default;
AttentionPlan::~AttentionPlan() = default;

std::size_t AttentionPlan::workspace_bytes() const { return bytes_of_workspace(*state_); }

void AttentionPlan::run(const AttentionPointers& pointers, void* workspace,
                        std::size_t bytes) const {
  check_workspace(workspace, bytes, workspace_bytes());
  tiles::AttentionProblem problem = state_->problem;
  replace_inputs(problem, pointers);
  replace("out", problem.out, pointers.out);
  replace("lse", problem.lse, pointers.lse);
  replace("k_scales", problem.k_scales, pointers.k_scales);
  replace("v_scales", problem.v_scales, pointers.v_scales);
  run_planned(problem, *state_, workspace);
}

Explanation AttentionPlan::explain() const { return with_workspace(state_->problem, state_->plan); }

AttentionBackwardPlan::AttentionBackwardPlan(const AnyQ& q, const AnyK& k, const AnyV& v,
                                             const AnyOutIn& out, const LseIn& lse,
                                             const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                                             const AnyGradK& grad_k, const AnyGradV& grad_v,
                                             const AttentionOptions& options,
                                             const BackwardOptions& backward) {
  auto state = std::make_unique<State>();
  state->problem = problem::check_backward(q, k, v, out, lse, grad_out, grad_q, grad_k, grad_v,
                                           options, backward);
  state->plan = plan::plan_backward(state->problem);
  state->executor = options.executor;
  forget_lengths(state->problem.forward);
  state_ = std::move(state);
}

AttentionBackwardPlan::AttentionBackwardPlan(AttentionBackwardPlan&&) noexcept = default;
AttentionBackwardPlan& AttentionBackwardPlan::operator=(AttentionBackwardPlan&&) noexcept = default;
AttentionBackwardPlan::~AttentionBackwardPlan() = default;

std::size_t AttentionBackwardPlan::workspace_bytes() const { return bytes_of_workspace(*state_); }

void AttentionBackwardPlan::run(const BackwardPointers& pointers, void* workspace,
                                std::size_t bytes) const {
  check_workspace(workspace, bytes, workspace_bytes());
  tiles::BackwardProblem problem = state_->problem;
  replace_inputs(problem.forward, pointers);
  replace("out", problem.out, pointers.out);
  replace("lse", problem.lse, pointers.lse);
  replace("grad_out", problem.grad_out, pointers.grad_out);
  replace("grad_q", problem.grad_q, pointers.grad_q);
  replace("grad_k", problem.grad_k, pointers.grad_k);
  replace("grad_v", problem.grad_v, pointers.grad_v);
  replace("grad_lse", problem.grad_lse, pointers.grad_lse);
  replace("grad_bias", problem.grad_bias, pointers.grad_bias);
  replace("grad_alibi_slopes", problem.grad_slopes, pointers.grad_alibi_slopes);
  replace("grad_sinks", problem.grad_sinks, pointers.grad_sinks);
  run_planned(problem, *state_, workspace);
}

Explanation AttentionBackwardPlan::explain() const {
  return with_workspace(state_->problem, state_->plan);
}

Explanation explain(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                    const AttentionOptions& options) {
  const tiles::AttentionProblem problem = problem::check_attention(q, k, v, out, options);
  return with_workspace(problem, plan::plan_attention(problem));
}

Explanation explain_backward(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOutIn& out,
                             const LseIn& lse, const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                             const AnyGradK& grad_k, const AnyGradV& grad_v,
                             const AttentionOptions& options, const BackwardOptions& backward) {
  const tiles::BackwardProblem problem = problem::check_backward(
      q, k, v, out, lse, grad_out, grad_q, grad_k, grad_v, options, backward);
  return with_workspace(problem, plan::plan_backward(problem));
}

}  // namespace rapt
