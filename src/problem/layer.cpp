// The layer's shape and the sizes of its parameters.
#include "problem/axes.hpp"
#include "problem/check.hpp"

namespace rapt::problem {

std::int64_t layer_width(const LayerShape& s) { return s.d_model > 0 ? s.d_model : s.embedding; }

std::array<LayerParameter, 9> layer_parameters(const LayerShape& s) {
  const std::int64_t width = layer_width(s);
  using P = LayerParameters;
  return {{{"qkv", &P::qkv, false, {3, s.embedding, s.d_model}},
           {"w_q", &P::w_q, false, {s.heads, width, s.d_k}},
           {"w_k", &P::w_k, false, {s.heads, width, s.d_k}},
           {"w_v", &P::w_v, false, {s.heads, width, s.d_v}},
           {"output", &P::output, false, {s.heads, s.d_v, s.embedding}},
           {"b_q", &P::b_q, true, {s.heads, s.d_k}},
           {"b_k", &P::b_k, true, {s.heads, s.d_k}},
           {"b_v", &P::b_v, true, {s.heads, s.d_v}},
           {"b_output", &P::b_output, true, {s.embedding}}}};
}

std::int64_t LayerParameter::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents) product *= extent;
  return product;
}

void check_layer(const LayerShape& s) {
  const auto positive = [](const char* axis, std::int64_t extent, std::int64_t low) {
    within(axis, "the layer", extent, low, std::int64_t{1} << 20);
  };
  positive(axis::Embedding::name, s.embedding, 1);
  positive(axis::Model::name, s.d_model, 0);
  positive(axis::Head::name, s.heads, 1);
  positive(axis::DepthK::name, s.d_k, 1);
  positive(axis::DepthV::name, s.d_v, 1);
  // The largest parameters, of [2^20, 2^20, 2^20] at most.
  const auto fits = [&](const char* parameter, std::int64_t width, std::int64_t depth) {
    Range range(parameter, sizeof(double));
    range.axis("depth", depth, 1);
    range.axis("width", width, depth);
    range.axis(axis::Head::name, s.heads, width * depth);
  };
  fits("w_q", layer_width(s), s.d_k);
  fits("w_v", layer_width(s), s.d_v);
  fits("output", s.embedding, s.d_v);
}

void check_layer(const LayerShape& s, const LayerParameters& p) {
  for (const LayerParameter& parameter : layer_parameters(s)) {
    const std::vector<double>& values = p.*parameter.values;
    const std::int64_t wanted = parameter.elements();
    if (parameter.optional && values.empty()) continue;
    if (static_cast<std::int64_t>(values.size()) == wanted) continue;
    std::string shape;
    for (const std::int64_t extent : parameter.extents)
      shape += (shape.empty() ? "[" : ", ") + std::to_string(extent);
    throw Error(ErrorCode::extent_mismatch, std::string("parameter ") + parameter.name +
                                                " has shape [" + std::to_string(values.size()) +
                                                "] (flat), but the layer's shape gives " + shape +
                                                "] = " + std::to_string(wanted) + " elements");
  }
}

namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

// result: what there is of the queries.
void check_tokens(const LayerShape& s, const TokensView& q_tokens, const KvTokensView& k_tokens,
                  const KvTokensView& v_tokens, const char* name, const TokensView& result) {
  const auto for_all = [&](const auto& check) {
    check("q_tokens", q_tokens);
    check("k_tokens", k_tokens);
    check("v_tokens", v_tokens);
    check(name, result);
  };
  for_all([&](const char* tokens, const auto& view) { check_memory(tokens, view); });
  for_all([&](const char* tokens, const auto& view) {
    agree_batch("q_tokens", q_tokens, tokens, view);
  });
  for_all([&](const char* tokens, const auto& view) {
    agree(Embedding::name, tokens, view.template extent<Embedding>(), "the layer", s.embedding);
  });
  agree(Key::name, "k_tokens", k_tokens.extent<Key>(), "v_tokens", v_tokens.extent<Key>());
  agree(Query::name, "q_tokens", q_tokens.extent<Query>(), name, result.extent<Query>());
}

template <class T, class Of, class... Axes>
void check_gradient(const char* of, const View<Of, Axes...>& view, const char* name,
                    const View<T, Axes...>& grad) {
  if (!grad) return;
  check_output(name, grad);
  agree_all(of, view, name, grad);
}

}  // namespace

void check_layer_forward(const LayerShape& s, const TokensView& q_tokens,
                         const KvTokensView& k_tokens, const KvTokensView& v_tokens,
                         const OutTokensView& result) {
  check_tokens(s, q_tokens, k_tokens, v_tokens, "result", result);
  check_output("result", result);
}

void check_layer_backward(const LayerShape& s, const TokensView& q_tokens,
                          const KvTokensView& k_tokens, const KvTokensView& v_tokens,
                          const LayerActivations& kept, const TokensView& grad_result,
                          const LayerGradients& gradients) {
  check_tokens(s, q_tokens, k_tokens, v_tokens, "grad_result", grad_result);
  check_gradient("q_tokens", q_tokens, "the gradient of q_tokens", gradients.q_tokens);
  check_gradient("k_tokens", k_tokens, "the gradient of k_tokens", gradients.k_tokens);
  check_gradient("v_tokens", v_tokens, "the gradient of v_tokens", gradients.v_tokens);

  std::int64_t queries = q_tokens.extent<Query>(), keys = k_tokens.extent<Key>();
  for (int i = 0; i < q_tokens.batch_axes(); ++i) {
    queries *= q_tokens.batch_extent(i);
    keys *= q_tokens.batch_extent(i);
  }
  const auto was_kept = [](const char* name, const std::vector<float>& values, std::int64_t rows,
                           std::int64_t columns) {
    agree("elements", name, static_cast<std::int64_t>(values.size()), "that of these tokens",
          rows * columns);
  };
  was_kept("kept.model_q", kept.model_q, queries, s.d_model);
  was_kept("kept.model_k", kept.model_k, keys, s.d_model);
  was_kept("kept.model_v", kept.model_v, keys, s.d_model);
  was_kept("kept.q", kept.q, queries, s.heads * s.d_k);
  was_kept("kept.k", kept.k, keys, s.heads * s.d_k);
  was_kept("kept.v", kept.v, keys, s.heads * s.d_v);
  was_kept("kept.out", kept.out, queries, s.heads * s.d_v);
  was_kept("kept.lse", kept.lse, queries, s.heads);
}

}  // namespace rapt::problem
