// The multi-head attention layer: its five steps, every sum over a named axis, and beside each step
// its derivative. dx is the gradient by x, with the axes of x, as on the page reference.hpp.
#include <tuple>
#include <utility>

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

// dtokens_te = sum over d_model of dresult_tm w_em, returned
// dw_em      = sum over seq of tokens_te dresult_tm, added
template <class Seq>
Array<Seq, Embedding> project_backward(const View<const float, Seq, Embedding>& tokens,
                                       const double* weights, const Array<Seq, Model>& dresult,
                                       double* dweights) {
  const Along<Model> model = along<Model>(dresult);
  const std::int64_t embedding = along<Embedding>(tokens).extent;
  const View<const double, Embedding, Model> w(weights, {embedding, model.extent});
  const View<double, Embedding, Model> dw(dweights, {embedding, model.extent});
  Array<Seq, Embedding> dtokens(along<Seq>(tokens), along<Embedding>(tokens));
  for (At<Seq> t : along<Seq>(tokens))
    for (At<Model> m : model)
      for (At<Embedding> e : along<Embedding>(tokens)) {
        at(dtokens, t, e) += at(dresult, t, m) * at(w, e, m);
        at(dw, e, m) += at(tokens, t, e) * at(dresult, t, m);
      }
  return dtokens;
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

// dtokens_tx = sum over heads and depth of dresult_htd w_hxd, returned
// dw_hxd     = sum over seq of tokens_tx dresult_htd, added
// db_hd      = sum over seq of dresult_htd, added where there is a bias
template <class In, class Heads, class Depth, class Seq, class Tokens>
Array<Seq, In> split_backward(const Tokens& tokens, const std::vector<double>& weights,
                              const Array<Heads, Seq, Depth>& dresult,
                              std::vector<double>& dweights, std::vector<double>& dbias) {
  const std::int64_t heads = along<Heads>(dresult).extent, depth = along<Depth>(dresult).extent,
                     width = along<In>(tokens).extent;
  const View<const double, Heads, In, Depth> w(weights.data(), {heads, width, depth});
  const View<double, Heads, In, Depth> dw(dweights.data(), {heads, width, depth});
  const View<double, Heads, Depth> db(dbias.data(), {heads, depth});
  Array<Seq, In> dtokens(along<Seq>(tokens), along<In>(tokens));
  for (At<Heads> h : along<Heads>(w))
    for (At<Seq> t : along<Seq>(tokens))
      for (At<Depth> d : along<Depth>(w)) {
        if (!dbias.empty()) at(db, h, d) += at(dresult, h, t, d);
        for (At<In> x : along<In>(tokens)) {
          at(dtokens, t, x) += at(dresult, h, t, d) * at(w, h, x, d);
          at(dw, h, x, d) += at(tokens, t, x) * at(dresult, h, t, d);
        }
      }
  return dtokens;
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

// dheads_hid = sum over the embedding of dresult_ie w_hde, returned
// dw_hde     = sum over seq_q of heads_hid dresult_ie, added
// db_e       = sum over seq_q of dresult_ie, added where there is a bias
Array<Head, Query, DepthV> concatenate_backward(const Array<Head, Query, DepthV>& heads,
                                                const LayerShape& shape,
                                                const LayerParameters& parameters,
                                                const View<const float, Query, Embedding>& dresult,
                                                LayerParameters& dparameters) {
  const View<const double, Head, DepthV, Embedding> w(parameters.output.data(),
                                                      {shape.heads, shape.d_v, shape.embedding});
  const View<double, Head, DepthV, Embedding> dw = w.over(dparameters.output.data());
  Array<Head, Query, DepthV> dheads(along<Head>(heads), along<Query>(heads), along<DepthV>(heads));
  for (At<Query> i : along<Query>(heads))
    for (At<Embedding> e : along<Embedding>(w)) {
      if (!parameters.b_output.empty())
        dparameters.b_output[static_cast<std::size_t>(e.value)] += at(dresult, i, e);
      for (At<Head> h : along<Head>(heads))
        for (At<DepthV> d : along<DepthV>(heads)) {
          at(dheads, h, i, d) += at(dresult, i, e) * at(w, h, d, e);
          at(dw, h, d, e) += at(heads, h, i, d) * at(dresult, i, e);
        }
    }
  return dheads;
}

LayerParameters zeros_like(const LayerParameters& parameters) {
  const auto& [qkv, w_q, w_k, w_v, output, b_q, b_k, b_v, b_output] = parameters;
  const auto size = [](const std::vector<double>& of) { return std::vector<double>(of.size()); };
  return {size(qkv), size(w_q), size(w_k), size(w_v),     size(output),
          size(b_q), size(b_k), size(b_v), size(b_output)};
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

LayerGradients layer_backward(const LayerShape& shape, const LayerParameters& parameters,
                              TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                              View<const float, Query, Embedding> dresult,
                              View<const double, Head, Query> dlse,
                              const AttentionOptions& options) {
  const auto& [qkv, w_q, w_k, w_v, output, b_q, b_k, b_v, b_output] = parameters;
  LayerParameters d = zeros_like(parameters);
  auto& [dqkv, dw_q, dw_k, dw_v, doutput, db_q, db_k, db_v, db_output] = d;
  const Along<Head> heads{shape.heads};

  // Of what comes to step 2; those of the tokens follow from it.
  const auto attend = [&]<class In>(const auto& q_in, const auto& k_in, const auto& v_in, In) {
    const auto q = split<Head, DepthK, In, Query>(q_in, w_q, b_q, heads, shape.d_k);
    const auto k = split<KvHead, DepthK, In, Key>(k_in, w_k, b_k, heads, shape.d_k);
    const auto v = split<KvHead, DepthV, In, Key>(v_in, w_v, b_v, heads, shape.d_v);
    const Problem<double> problem{q, k, v, options};
    const auto map = salience(problem);
    const auto dout =
        concatenate_backward(attention(problem, map), shape, parameters, dresult, d);  // 5
    const Gradients of = backward<double>(problem, map, dout, dlse);                   // 4, 3
    return std::tuple(split_backward<In>(q_in, w_q, of.q, dw_q, db_q),                 // 2
                      split_backward<In>(k_in, w_k, of.k, dw_k, db_k),
                      split_backward<In>(v_in, w_v, of.v, dw_v, db_v), of);
  };
  if (shape.d_model == 0) {  // no first projection
    auto [dq, dk, dv, of] = attend(q_tokens, k_tokens, v_tokens, Embedding{});
    return {std::move(d), std::move(dq), std::move(dk), std::move(dv), std::move(of)};
  }
  const Along<Model> model{shape.d_model};
  const std::int64_t stack = shape.embedding * shape.d_model;
  const double *const w = qkv.data(), *const w_of_k = w + stack, *const w_of_v = w + 2 * stack;
  const auto [dq, dk, dv, of] =
      attend(project(q_tokens, w, model), project(k_tokens, w_of_k, model),
             project(v_tokens, w_of_v, model), Model{});
  auto dq_tokens = project_backward(q_tokens, w, dq, dqkv.data());  // 1
  auto dk_tokens = project_backward(k_tokens, w_of_k, dk, dqkv.data() + stack);
  auto dv_tokens = project_backward(v_tokens, w_of_v, dv, dqkv.data() + 2 * stack);
  return {std::move(d), std::move(dq_tokens), std::move(dk_tokens), std::move(dv_tokens), of};
}

}  // namespace rapt::reference
