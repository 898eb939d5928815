// The checks of the backward pass: those of attention, and that every gradient has the extents of
// what it is of.
#include "problem/check.hpp"
#include "problem/elements.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

template <class... Axes>
tiles::Stored<std::byte> gradient(const char* of, const View<const std::byte, Axes...>& view,
                                  const char* name, const AnyView<std::byte, Axes...>& grad) {
  plain_type(name, grad.type());
  check_output(name, grad, tiles::bytes_of(grad.type()));
  agree_all<std::byte>(of, view, name, grad);
  return stored(grad);
}

// The gradient of an option, which may be absent. So it is where it has no elements.
template <class... Axes>
View<float, Axes...> optional_gradient(const char* of, const View<const float, Axes...>& view,
                                       const char* name, const View<float, Axes...>& grad) {
  if (!grad) return {};
  if (!view) fail(ErrorCode::bad_value, {name, "given", std::string(of) + " is not"});
  check_output(name, grad);
  agree_all(of, view, name, grad);
  return check_memory(name, grad) > 0 ? grad : View<float, Axes...>();
}

}  // namespace

tiles::BackwardProblem check_backward(const AnyQ& q, const AnyK& k, const AnyV& v,
                                      const AnyOutIn& out, const LseIn& lse,
                                      const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                                      const AnyGradK& grad_k, const AnyGradV& grad_v,
                                      const AttentionOptions& options,
                                      const BackwardOptions& backward) {
  if (options.block_table)
    fail(ErrorCode::bad_value, {"block_table", "given", "a paged cache has no gradients"});
  plain_type("k", k.type());
  plain_type("v", v.type());
  tiles::BackwardProblem p;
  p.forward = check_scores(q, k, options);
  check_values(q, k, v, options, p.forward);
  const Elements elements = elements_of(q, options);

  const auto rows = [&](const char* name, const AnyOutIn& view) {
    plain_type(name, view.type());
    check_memory(name, view, tiles::bytes_of(view.type()));
    like_queries(name, view, q, elements);
    agree(DepthV::name, "v", p.forward.d_v, name, view.extent<DepthV>());
    return stored(view);
  };
  const auto numbers = [&](const char* name, const LseIn& view) {
    check_memory(name, view);
    like_queries(name, view, q, elements);
    return array_of(view);
  };
  p.out = rows("out", out);
  p.lse = numbers("lse", lse);
  p.grad_out = rows("grad_out", grad_out);
  if (backward.grad_lse) p.grad_lse = numbers("grad_lse", backward.grad_lse);

  p.grad_q = gradient("q", q, "grad_q", grad_q);
  p.grad_k = gradient("k", k, "grad_k", grad_k);
  p.grad_v = gradient("v", v, "grad_v", grad_v);
  const auto bias = optional_gradient("bias", options.bias, "grad_bias", backward.grad_bias);
  const auto slopes = optional_gradient("alibi_slopes", options.alibi_slopes, "grad_alibi_slopes",
                                        backward.grad_alibi_slopes);
  const auto sinks = optional_gradient("sinks", options.sinks, "grad_sinks", backward.grad_sinks);
  p.grad_bias = pair_array("grad_bias", bias, q, p.forward.longest.seq_kv, elements);
  p.grad_slopes = per_head("grad_alibi_slopes", slopes, p.forward.heads, elements);
  p.grad_sinks = per_head("grad_sinks", sinks, p.forward.heads, elements);
  p.queries = q.extent<axis::Query>();
  return p;
}

}  // namespace rapt::problem
