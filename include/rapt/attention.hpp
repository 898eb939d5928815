// Attention: out = softmax(scale * q k^T + bias, masked) v, one pass, no seq_q x seq_kv array.
//
// For each batch element, query head h, query i (g = the KV head of h):
//   s_j   = scale * sum_d q[h,i,d] k[g,j,d] + bias[h,i,j]        for every key j that i attends
//   out   = sum_j exp(s_j) v[g,j,:] / sum_j exp(s_j)             0 when i attends no key
//   lse   = log sum_j exp(s_j)                                   -inf when i attends no key
// Sources: Vaswani et al. 2017, section 3.2 (attention); Milakov and Gimelshein 2018 (online
// softmax); Dao et al. 2022, algorithm 1 (tiling). Masks select, they never add: NaN or Inf in a
// key or value that a query does not attend never reaches that query's row.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "rapt/export.hpp"
#include "rapt/executor.hpp"
#include "rapt/view.hpp"

namespace rapt {

using QView = View<const float, axis::Head, axis::Query, axis::DepthK>;
using KView = View<const float, axis::KvHead, axis::Key, axis::DepthK>;
using VView = View<const float, axis::KvHead, axis::Key, axis::DepthV>;
using OutView = View<float, axis::Head, axis::Query, axis::DepthV>;
using LseView = View<float, axis::Head, axis::Query>;
using MaskView = View<const bool, axis::Head, axis::Query, axis::Key>;
using BiasView = View<const float, axis::Head, axis::Query, axis::Key>;

struct AttentionOptions {
  std::optional<float> scale{};  // default 1 / sqrt(d_k)
  bool causal = false;           // attend j <= i + q_offset
  std::optional<std::int64_t>
      q_offset{};   // default seq_kv - seq_q: the last query sees the last key
  MaskView mask{};  // true = attend; an axis of extent 1 (batch axes too) is broadcast
  BiasView bias{};  // added to the scaled score; broadcast alike; -inf = not attended
  LseView lse{};    // written when given
  const Executor* executor = nullptr;  // default_executor() when null
};

// Shapes: q [batch..., heads, seq_q, d_k], k [batch..., kv_heads, seq_kv, d_k],
// v [batch..., kv_heads, seq_kv, d_v], out [batch..., heads, seq_q, d_v]; heads a multiple of
// kv_heads, d_k and d_v from 1 to 512, seq_q and seq_kv from 0. out and lse must not overlap
// anything else. Throws Error before anything is written. Safe to call from many threads at once.
RAPT_API void attention(QView q, KView k, VView v, OutView out,
                        const AttentionOptions& options = {});

// The salience map: the weights that attention gives to each key, rows summing to 1 (or 0 where
// nothing is attended). For looking and learning: computed by the reference, in double precision,
// and the one function here whose result is a [seq_q, seq_kv] array for each head. options.lse is
// not written. `activation`, when given, replaces softmax: it gets the scaled, biased scores of one
// row (n attended keys, in key order) and overwrites them with the weights.
using RowActivation = std::function<void(double* scores, std::int64_t n)>;
RAPT_API void salience_map(QView q, KView k,
                           View<float, axis::Head, axis::Query, axis::Key> salience,
                           const AttentionOptions& options = {},
                           const RowActivation& activation = {});

}  // namespace rapt
