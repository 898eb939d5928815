// What rapt computes, in its plainest form: read this page and reference.cpp first. f64, no blocks,
// no tricks; the oracle of every test, and the code behind rapt::salience_map.
//
// The numeric contract, for query head h and query i, g the KV head of h. The kernels quote these
// numbers.
//   1  s_ij = scale * sum over d_k of q_hid k_gjd
//   2  s_ij = softcap * tanh(s_ij / softcap), where there is one
//   3  s_ij += slope_h (j - x) + bias_hij, with x = i + q_offset the position of i among the keys
//   4  i attends j, or not: a select. What is not attended is never looked at
//   5  p_ij = exp(s_ij - max) / sum, the maximum and the sum over the keys j that i attends;
//      lse_i = max + log(sum). A sink is one more score of the row in max and sum
//   6  out_id = sum over seq_kv of p_ij v_gjd; with dropout, of those p_ij that are kept, each
//      divided by 1 - probability
// A row that attends nothing has p = 0, out = 0, lse = -inf, or the sink.
//
// The backward pass (backward.cpp): a scalar L is computed from out and lse, and dx is the gradient
// of L by x, with the axes of x. dout and dlse are given; the derivative of each step, last step
// first, gives the others. What has an effect in several places (a key, on all queries of all heads
// of its group) has the sum of what each of them gives.
//   6  dv_gjd = sum over seq_q and the group's heads of p_ij dout_hid
//      dp_ij = sum over d_v of dout_hid v_gjd; with dropout, p_ij and dp_ij as in the forward step
//   5  ds_ij = p_ij (dp_ij - delta_i + dlse_i): p_ij grows with s_ij, at the expense of its row,
//      whose mean is delta_i = sum over seq_kv of p_ij dp_ij = sum over d_v of dout_hid out_hid
//      dsink_h = sum over seq_q of exp(sink_h - lse_i) (dlse_i - delta_i): a score whose dp is 0
//   4  ds_ij = 0 where i does not attend j: a select again
//   3  dbias_hij = ds_ij; dslope_h = sum over seq_q and seq_kv of ds_ij (j - x)
//   2  ds_ij *= 1 - tanh(s_ij / softcap)^2, of the s_ij of step 1
//   1  dq_hid = scale * sum over seq_kv of ds_ij k_gjd
//      dk_gjd = scale * sum over seq_q and the group's heads of ds_ij q_hid
//
// Inputs were already checked. Functions take one batch element, that is views without batch axes.
#pragma once

#include <cmath>

#include "rapt/rapt.hpp"
#include "reference/named.hpp"

namespace rapt::reference {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace): Head, Query, Key, ... as the
                             // paper says them

// One batch element of attention. Real is float for what users pass, double between the steps of
// the layer.
template <class Real>
struct Problem {
  View<const Real, Head, Query, DepthK> q;
  View<const Real, KvHead, Key, DepthK> k;
  View<const Real, KvHead, Key, DepthV> v;
  AttentionOptions options;  // lse, executor, and what tells batch elements apart are not looked at
  std::int64_t element = 0;  // its number in the batch, on which dropout depends

  Along<Head> heads() const { return along<Head>(q); }
  Along<Query> queries() const { return along<Query>(q); }
  Along<Key> keys() const { return along<Key>(k); }

  // The KV head that query head h reads: neighbouring heads share one.
  At<KvHead> kv_head(At<Head> h) const {
    return {h.value / (q.template extent<Head>() / k.template extent<KvHead>())};
  }
  double scale() const {
    return options.scale ? *options.scale
                         : 1 / std::sqrt(static_cast<double>(q.template extent<DepthK>()));
  }
  // Where query i stands among the keys.
  std::int64_t position(At<Query> i) const {
    return i.value + options.q_offset.value_or(keys().extent - queries().extent);
  }
};

// The batch element at that position of what users pass, with its own keys and q_offset: nothing
// packed or paged.
Problem<float> problem_at(QView q, KView k, VView v, AttentionOptions options, const Batch& batch);

template <class Real>
bool attended(const Problem<Real>&, At<Head>, At<Query>, At<Key>);  // step 4
template <class Real>
double product(const Problem<Real>&, At<Head>, At<Query>, At<Key>);  // step 1
template <class Real>
double score(const Problem<Real>&, At<Head>, At<Query>, At<Key>);  // steps 1 to 3

// The factor of a weight in step 6: 1, or with dropout 0 or 1 / (1 - probability).
template <class Real>
double kept(const Problem<Real>&, At<Head>, At<Query>, At<Key>);

struct Salience {
  Array<Head, Query, Key> weights;  // p of step 5: each row sums to 1; 0 where not attended
  Array<Head, Query> lse;           // of step 5
};
template <class Real>
Salience salience(const Problem<Real>&, const RowActivation& activation = {});

template <class Real>
Array<Head, Query, DepthV> attention(const Problem<Real>&, const Salience&);  // step 6

// Gradients of what goes into one batch element: of q, k, v, and of the options that it has.
struct Gradients {
  Array<Head, Query, DepthK> q;
  Array<KvHead, Key, DepthK> k;
  Array<KvHead, Key, DepthV> v;
  Array<Head, Query, Key> bias;  // the extents of the bias: an axis of extent 1 holds the sum
  Array<Head> alibi_slopes, sinks;
};
// dlse may be absent: 0.
template <class Real>
Gradients backward(const Problem<Real>&, const Salience&,
                   View<const Real, Head, Query, DepthV> dout, View<const Real, Head, Query> dlse);

// rapt::salience_map, for views with batch axes.
void salience_map(QView q, KView k, View<float, Head, Query, Key> result,
                  const AttentionOptions& options, const RowActivation& activation);

// The multi-head attention layer, its five steps (layer.cpp).
Array<Query, Embedding> layer(const LayerShape&, const LayerParameters&, TokensView q_tokens,
                              KvTokensView k_tokens, KvTokensView v_tokens,
                              const AttentionOptions& options = {});

// And its gradients (the same file): what dresult, and dlse or 0, make of them.
struct LayerGradients {
  LayerParameters parameters;  // empty where the layer has none
  Array<Query, Embedding> q_tokens;
  Array<Key, Embedding> k_tokens, v_tokens;
  Gradients attention;  // of the options, and of q, k and v between steps 2 and 3
};
LayerGradients layer_backward(const LayerShape&, const LayerParameters&, TokensView q_tokens,
                              KvTokensView k_tokens, KvTokensView v_tokens,
                              View<const float, Query, Embedding> dresult,
                              View<const double, Head, Query> dlse = {},
                              const AttentionOptions& options = {});

// c = activation(alpha a b + beta c + bias)  (gemm.cpp).
Array<Row, Column> gemm(View<const float, Row, Inner> a, View<const float, Inner, Column> b,
                        View<const float, Row, Column> c, const GemmOptions& options = {});

}  // namespace rapt::reference
