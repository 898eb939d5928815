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
//   6  out_id = sum over seq_kv of p_ij v_gjd
// A row that attends nothing has p = 0, out = 0, lse = -inf, or the sink.
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
double score(const Problem<Real>&, At<Head>, At<Query>, At<Key>);  // steps 1 to 3

struct Salience {
  Array<Head, Query, Key> weights;  // p of step 5: each row sums to 1; 0 where not attended
  Array<Head, Query> lse;           // of step 5
};
template <class Real>
Salience salience(const Problem<Real>&, const RowActivation& activation = {});

template <class Real>
Array<Head, Query, DepthV> attention(const Problem<Real>&, const Salience&);  // step 6

// rapt::salience_map, for views with batch axes.
void salience_map(QView q, KView k, View<float, Head, Query, Key> result,
                  const AttentionOptions& options, const RowActivation& activation);

// The multi-head attention layer, its five steps (layer.cpp).
Array<Query, Embedding> layer(const LayerShape&, const LayerParameters&, TokensView q_tokens,
                              KvTokensView k_tokens, KvTokensView v_tokens,
                              const AttentionOptions& options = {});

// c = activation(alpha a b + beta c + bias)  (gemm.cpp).
Array<Row, Column> gemm(View<const float, Row, Inner> a, View<const float, Inner, Column> b,
                        View<const float, Row, Column> c, const GemmOptions& options = {});

}  // namespace rapt::reference
