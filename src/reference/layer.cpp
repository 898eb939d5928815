// The multi-head attention layer: its five steps, every sum over a named axis.
#include "reference/reference.hpp"

namespace rapt::reference {
namespace {

// Step 1 of the layer: [Seq, Embedding] -> [Seq, Model], the sum over the embedding.
template <class Seq>
Array<Seq, Model> project(const View<const float, Seq, Embedding>& tokens, const double* weights,
                          Along<Model> model) {
  const View<const double, Embedding, Model> w(weights,
                                               {along<Embedding>(tokens).extent, model.extent});
  Array<Seq, Model> result(along<Seq>(tokens), model);
  for (At<Seq> t : along<Seq>(tokens))
    for (At<Model> m : model)
      for (At<Embedding> e : along<Embedding>(tokens))
        at(result, t, m) += at(tokens, t, e) * at(w, e, m);
  return result;
}

// Step 2: [Seq, In] -> [Heads, Seq, Depth], the sum over In: every head projects every token with
// its weights.
template <class Heads, class Depth, class In, class Seq, class Tokens>
Array<Heads, Seq, Depth> split(const Tokens& tokens, const std::vector<double>& weights,
                               const std::vector<double>& bias, Along<Head> heads,
                               std::int64_t depth) {
  const View<const double, Heads, In, Depth> w(weights.data(),
                                               {heads.extent, along<In>(tokens).extent, depth});
  const View<const double, Heads, Depth> b(bias.data(), {heads.extent, depth});
  Array<Heads, Seq, Depth> result(Along<Heads>{heads.extent}, along<Seq>(tokens),
                                  Along<Depth>{depth});
  for (At<Heads> h : along<Heads>(w))
    for (At<Seq> t : along<Seq>(tokens))
      for (At<Depth> d : along<Depth>(w)) {
        if (!bias.empty()) at(result, h, t, d) = at(b, h, d);
        for (At<In> x : along<In>(tokens)) at(result, h, t, d) += at(tokens, t, x) * at(w, h, x, d);
      }
  return result;
}

// Step 5: [Head, Query, DepthV] -> [Query, Embedding], the sum over heads and d_v: the heads
// concatenated.
Array<Query, Embedding> concatenate(const Array<Head, Query, DepthV>& heads,
                                    const LayerShape& shape, const LayerParameters& parameters) {
  const View<const double, Head, DepthV, Embedding> w(parameters.output.data(),
                                                      {shape.heads, shape.d_v, shape.embedding});
  Array<Query, Embedding> result(along<Query>(heads), along<Embedding>(w));
  for (At<Query> i : along<Query>(heads))
    for (At<Embedding> e : along<Embedding>(w)) {
      if (!parameters.b_output.empty())
        at(result, i, e) = parameters.b_output[static_cast<std::size_t>(e.value)];
      for (At<Head> h : along<Head>(heads))
        for (At<DepthV> d : along<DepthV>(heads))
          at(result, i, e) += at(heads, h, i, d) * at(w, h, d, e);
    }
  return result;
}

}  // namespace

Array<Query, Embedding> layer(const LayerShape& shape, const LayerParameters& parameters,
                              TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                              const AttentionOptions& options) {
  const auto& [qkv, w_q, w_k, w_v, output, b_q, b_k, b_v, b_output] = parameters;
  const Along<Head> heads{shape.heads};

  const auto attend = [&]<class In>(const auto& q_in, const auto& k_in, const auto& v_in, In) {
    const auto q = split<Head, DepthK, In, Query>(q_in, w_q, b_q, heads, shape.d_k);  // 2
    const auto k = split<KvHead, DepthK, In, Key>(k_in, w_k, b_k, heads, shape.d_k);
    const auto v = split<KvHead, DepthV, In, Key>(v_in, w_v, b_v, heads, shape.d_v);
    const Problem<double> problem{q, k, v, options};
    const auto map = salience(problem);                              // 3
    return concatenate(attention(problem, map), shape, parameters);  // 4, 5
  };
  if (shape.d_model == 0)
    return attend(q_tokens, k_tokens, v_tokens, Embedding{});  // no first projection
  const Along<Model> model{shape.d_model};
  const std::int64_t stack =
      shape.embedding * shape.d_model;  // stride between the weights of q, k and v
  return attend(project(q_tokens, qkv.data(), model),
                project(k_tokens, qkv.data() + stack, model),  // 1
                project(v_tokens, qkv.data() + 2 * stack, model), Model{});
}

}  // namespace rapt::reference
