// The backward pass of an attention case: its inputs, its gradients in guarded memory, and what
// these must be.
#pragma once

#include <vector>

#include "support/attention_case.hpp"

namespace rapt::tests {

// Gradients of one batch element, by the reference, and their error bounds. What the batch shares
// is a sum of what each element adds: so errors, and magnitudes for the rounding of sums.
template <class... Axes>
struct BoundedArray {
  reference::Array<Axes...> value, error, magnitude;
  explicit BoundedArray(const reference::Array<Axes...>& of)
      : value(of), error(reference::along<Axes>(of)...), magnitude(reference::along<Axes>(of)...) {}
};
struct ExpectedGradients {
  BoundedArray<axis::Head, axis::Query, axis::DepthK> q;
  BoundedArray<axis::KvHead, axis::Key, axis::DepthK> k;
  BoundedArray<axis::KvHead, axis::Key, axis::DepthV> v;
  BoundedArray<axis::Head, axis::Query, axis::Key> bias;
  BoundedArray<axis::Head> slopes, sinks;
};
// `out_type`: what the out of the forward pass was rounded to; `rounded`: see expect_attention().
ExpectedGradients expect_gradients(const reference::Problem<float>& problem, Type out_type,
                                   bool rounded,
                                   View<const float, axis::Head, axis::Query, axis::DepthV> dout,
                                   View<const float, axis::Head, axis::Query> dlse);

// A case like one of attention whose arrays have gradients: not paged, no int8 and no groups.
AttentionCase differentiable(AttentionCase c);

class BackwardData {
 public:
  explicit BackwardData(const AttentionCase& c);

  // attention() on the target in use, and then attention_backward().
  void run(const Executor* executor = nullptr);
  void run_backward(const Executor* executor = nullptr);  // on what the last run left
  // What run_backward() does around its call.
  void prepare();
  void finish();
  // call(q, k, v, out, lse, grad_out, ..., options, backward_options), as attention_backward().
  template <class Call>
  auto with_arguments(const Executor* executor, const Call& call) const {
    using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
    AttentionOptions options = attention.options();
    options.executor = executor;
    options.lse = {};
    return call(attention.stored_q(), attention.stored_k(), attention.stored_v(),
                AnyOutIn(attention.stored_out()), LseIn(attention.lse_view()),
                stored_[0].view<AnyOutIn, Head, Query, DepthV>(),
                stored_[1].view<AnyGradQ, Head, Query, DepthK>(),
                stored_[2].view<AnyGradK, KvHead, Key, DepthK>(),
                stored_[3].view<AnyGradV, KvHead, Key, DepthV>(), options, backward_options());
  }
  BackwardOptions backward_options() const;

  using Expected = std::vector<ExpectedGradients>;  // of each batch element
  Expected expect() const;
  void check(const Expected& expected) const;

  // All gradients, one after the other.
  std::vector<float> values() const;

  AttentionData attention;
  Tensor<float> dout, dlse, dq, dk, dv, dbias, dslopes, dsinks;
  bool with_dlse;

 private:
  BackwardData(const AttentionCase& c, Random random);
  template <class... Axes>
  View<float, Axes...> grad(const Tensor<float>& tensor, bool given) const {
    return given ? tensor.view<Axes...>() : View<float, Axes...>();
  }

  std::vector<StoredTensor> stored_;  // dout, dq, dk, dv
  Type dq_type_, dk_type_, dv_type_;
};

}  // namespace rapt::tests
