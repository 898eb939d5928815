// The backward pass of MultiHeadAttention: its five steps, last step first, each a call of the
// public API.
#include <algorithm>

#include "api/layer.hpp"
#include "parallel/memory.hpp"
#include "tiles/workspace.hpp"

namespace rapt {
namespace {

using namespace rapt::layers;  // NOLINT(google-build-using-namespace)

// Gradients that the steps leave for each other, and those of one matrix of weights and one bias
// before they are kept in f64.
struct Steps {
  float *out, *q, *k, *v, *model, *weights, *bias;

  Steps(const LayerShape& s, const LayerActivations& kept, tiles::Workspace& workspace) {
    const auto like = [&](const std::vector<float>& of) {
      return workspace.floats(static_cast<kernels::Index>(of.size()));
    };
    out = like(kept.out);
    q = like(kept.q);
    k = like(kept.k);
    v = like(kept.v);
    model = like(std::max(kept.model_q, kept.model_k,
                          [](const auto& a, const auto& b) { return a.size() < b.size(); }));
    const std::int64_t depth = std::max(s.d_k, s.d_v);
    weights = workspace.floats(std::max(layer_width(s), s.embedding) *
                               std::max(s.heads * depth, s.d_model));
    bias = workspace.floats(std::max(s.heads * depth, s.embedding));
  }
};

}  // namespace

void MultiHeadAttention::backward(TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                                  const LayerActivations& kept, TokensView grad_result,
                                  LayerGradients& gradients, const AttentionOptions& options,
                                  const BackwardOptions& attention) const {
  problem::check_layer_backward(shape_, q_tokens, k_tokens, v_tokens, kept, grad_result, gradients);
  const LayerShape& s = shape_;
  const Offsets at(s);
  const TokenProduct queries(q_tokens), keys(k_tokens);
  tiles::Workspace count(nullptr);
  Steps(s, kept, count);
  const parallel::Block memory(count.used());
  tiles::Workspace workspace(memory.data());
  const Steps grad(s, kept, workspace);

  // Of rows W [in, out] + bias: those of rows where they are wanted, of W and bias in the
  // workspace.
  const auto product = [&](View<const float, Row, Inner> rows, std::int64_t weight, std::int64_t in,
                           std::int64_t out, View<const float, Row, Column> grad_to,
                           View<float, Row, Inner> grad_rows, bool weights_too, bool bias_too) {
    GemmBackwardOptions with;
    if (bias_too) with.grad_bias = View<float, Column>(grad.bias, {out});
    with.executor = options.executor;
    View<float, Inner, Column> grad_weights;
    if (weights_too) grad_weights = {grad.weights, {in, out}};
    gemm_backward(rows, {projections_.data() + weight, {in, out}}, grad_to, grad_rows, grad_weights,
                  with);
  };
  LayerParameters& of = gradients.parameters;
  const auto store_bias = [&](std::vector<double>& to, const std::vector<double>& parameter) {
    to.assign(grad.bias, grad.bias + parameter.size());
  };

  // Steps 5, 4 and 3. What may be refused comes before anything of the caller's is written.
  const std::int64_t columns = s.heads * s.d_v;
  const auto out = queries.dense<const float>(kept.out.data(), columns);
  const auto grad_rows = as_result(queries.as_rows(grad_result));
  product(out, at.output, columns, s.embedding, grad_rows, queries.dense(grad.out, columns), false,
          false);
  attention_backward(
      queries.split_heads<Head, Query, DepthK>(kept.q.data(), s.heads, s.d_k),
      keys.split_heads<KvHead, Key, DepthK>(kept.k.data(), s.heads, s.d_k),
      keys.split_heads<KvHead, Key, DepthV>(kept.v.data(), s.heads, s.d_v),
      queries.split_heads<Head, Query, DepthV>(kept.out.data(), s.heads, s.d_v),
      queries.dense_lse(kept.lse.data(), s.heads),
      queries.split_heads<Head, Query, DepthV, const float>(grad.out, s.heads, s.d_v),
      queries.split_heads<Head, Query, DepthK>(grad.q, s.heads, s.d_k),
      keys.split_heads<KvHead, Key, DepthK>(grad.k, s.heads, s.d_k),
      keys.split_heads<KvHead, Key, DepthV>(grad.v, s.heads, s.d_v), options, attention);
  product(out, at.output, columns, s.embedding, grad_rows, {}, true, !parameters_.b_output.empty());
  of.output.assign(grad.weights, grad.weights + columns * s.embedding);
  store_bias(of.b_output, parameters_.b_output);

  // Steps 2 and 1 for one of q, k, v.
  of.qkv.resize(parameters_.qkv.size());
  const auto to_tokens = [&](const auto& tokens, const auto& grad_tokens, std::int64_t stack,
                             const std::vector<float>& model, std::int64_t weight,
                             std::int64_t depth, const float* grad_heads, auto& grad_weight,
                             auto& grad_bias, const std::vector<double>& bias) {
    const TokenProduct all(tokens);
    const std::int64_t width = layer_width(s), row = s.heads * depth;
    const bool first = s.d_model == 0;
    product(first ? all.as_rows(tokens) : all.dense(model.data(), width), weight, width, row,
            as_result(all.dense(grad_heads, row)),
            first ? all.as_rows(grad_tokens) : all.dense(grad.model, width), true, !bias.empty());
    store_bias(grad_bias, bias);
    // [width, heads * depth] -> [heads, width, depth]
    grad_weight.resize(static_cast<std::size_t>(width * row));
    double* to = grad_weight.data();
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t x = 0; x < width; ++x, to += depth)
        std::copy_n(grad.weights + x * row + h * depth, depth, to);
    if (first) return;
    const std::int64_t matrix = s.embedding * s.d_model;
    product(all.as_rows(tokens), at.qkv + stack * matrix, s.embedding, s.d_model,
            as_result(all.template dense<const float>(grad.model, s.d_model)),
            all.as_rows(grad_tokens), true, false);
    std::copy_n(grad.weights, matrix, of.qkv.data() + stack * matrix);
  };
  const LayerParameters& p = parameters_;
  to_tokens(q_tokens, gradients.q_tokens, 0, kept.model_q, at.w_q, s.d_k, grad.q, of.w_q, of.b_q,
            p.b_q);
  to_tokens(k_tokens, gradients.k_tokens, 1, kept.model_k, at.w_k, s.d_k, grad.k, of.w_k, of.b_k,
            p.b_k);
  to_tokens(v_tokens, gradients.v_tokens, 2, kept.model_v, at.w_v, s.d_v, grad.v, of.w_v, of.b_v,
            p.b_v);
}

}  // namespace rapt
