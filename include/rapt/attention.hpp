// Attention: out = softmax(scores, masked) v, one pass over the keys, no seq_q x seq_kv array.
//
// For each batch element, query head h, query i at position x = i + q_offset, and g the KV head of
// h:
//   s_j   = scale * sum_d q[h,i,d] k[g,j,d]                      for every key j that i attends
//   s_j   = softcap * tanh(s_j / softcap)                        where softcap > 0
//   s_j  += alibi_slopes[h] * (j - x) + bias[h,i,j]              where given
//   out   = sum_j exp(s_j) v[g,j,:] / sum_j exp(s_j)             0 when i attends no key
//   lse   = log sum_j exp(s_j)                                   -inf when i attends no key
// A sink is one more score of the row in both sums over j, without a value. With dropout, out sums
// over the keys that are kept.
// Sources: Vaswani et al. 2017, section 3.2 (attention); Milakov and Gimelshein 2018 (online
// softmax); Dao et al. 2022, algorithm 1 (tiling); Gemma 2 (softcap); Press et al. 2022 (ALiBi);
// Kwon et al. 2023 (pages); Beltagy et al. 2020 (window); Raffel et al. 2020 (prefix). Masks
// select, they never add: NaN or Inf in a key or value that a query does not attend never reaches
// that query's row.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "rapt/export.h"
#include "rapt/executor.hpp"
#include "rapt/types.hpp"
#include "rapt/view.hpp"

namespace rapt {

using QView = View<const float, axis::Head, axis::Query, axis::DepthK>;
using KView = View<const float, axis::KvHead, axis::Key, axis::DepthK>;
using VView = View<const float, axis::KvHead, axis::Key, axis::DepthV>;
using OutView = View<float, axis::Head, axis::Query, axis::DepthV>;
using LseView = View<float, axis::Head, axis::Query>;
using MaskView = View<const bool, axis::Head, axis::Query, axis::Key>;
using BiasView = View<const float, axis::Head, axis::Query, axis::Key>;

// One number for each batch element: extents [batch...], no named axis. Missing leading axes and
// those of extent 1 are broadcast.
using LengthsView = View<const std::int32_t>;
using BoundariesView = View<const std::int32_t, axis::Boundary>;
using ScalesView = View<const float, axis::KvHead, axis::Key>;
using SlopesView = View<const float, axis::Head>;  // [batch..., heads], batch axes broadcast

// For training: each weight is dropped with this probability, and those that are not are divided by
// 1 - probability. Which, is a function of the rest alone (of the pair: batch element, head, query
// and key), so that attention_backward() finds the same ones, and any order of work. lse and
// salience_map() are of all weights. Source: Salmon et al. 2011 (Philox 4x32-10: key seed, counter
// key / 4, query, batch element * heads + head, offset; word key % 4; dropped below probability *
// 2^32).
struct Dropout {
  float probability = 0;     // from 0, below 1
  std::uint64_t seed = 0;    // of a training run
  std::uint32_t offset = 0;  // of the call: its step and layer
};

// Whether the weights may be rounded to bf16 for their product with v, where q, k, v and out are
// all bf16: CPUs that multiply pairs of bf16 natively are nearly twice as fast on them. In the
// backward pass, where grad_out is bf16 too: the weights, and the gradients of the products q k,
// for theirs. Sums stay f32.
enum class RoundWeights {
  where_native,
  never,
  always,  // where it is slower, too: for the same rounding on every machine
};

// Who attends whom: a pair is attended when everything given here attends it. Nothing given: all.
struct AttentionOptions {
  std::optional<float> scale{};  // default 1 / sqrt(d_k)
  float softcap = 0;             // > 0: scores stay within (-softcap, softcap)
  SlopesView alibi_slopes{};     // [heads]
  SlopesView sinks{};            // [heads]

  // Position of query 0; position x sees itself at key x. Default: the last query sees the last
  // key, that is seq_kv - seq_q (of that batch element). One for all, or q_offsets, one each.
  std::optional<std::int64_t> q_offset{};
  LengthsView q_offsets{};

  // By position. Keys j < prefix are attended whatever these three say.
  bool causal = false;                               // j <= x
  std::int64_t window_left = -1, window_right = -1;  // x - left <= j <= x + right; -1: no end
  std::int64_t chunk = 0;                            // > 0: x and j in the same chunk of this many
  std::int64_t prefix = 0;

  // By document: a query attends the keys with its own number. Given together.
  View<const std::int32_t, axis::Query> q_segments{};  // [seq_q], batch axes broadcast
  View<const std::int32_t, axis::Key> kv_segments{};   // [seq_kv]

  // A tree of drafts (speculative decoding): of the last tree_keys keys, a query attends those
  // whose bit is set in its row, key n at bit n % 64 of word n / 64. Keys before them it attends.
  View<const std::uint64_t, axis::Query, axis::Word> tree{};
  std::int64_t tree_keys = 0;

  // By pair: an axis of extent 1 (batch axes too) is broadcast.
  MaskView mask{};  // true = attend
  BiasView bias{};  // added to the score; -inf = not attended

  // Batch elements of unequal length.
  // A cache whose capacity is larger than its length: keys from kv_lengths[b] on do not exist.
  LengthsView kv_lengths{};
  // A paged cache: key n of batch element b is key n % page_size of page block_table[b, n /
  // page_size]. The one batch axis of k and v counts pages then, and their seq_kv is the page size,
  // from 1 to 2^20. Needs kv_lengths. Batch elements that follow each other and begin with the same
  // pages (a common prompt) have these read once for all of them: a cascade, with the same bits.
  View<const std::int32_t, axis::Page> block_table{};
  // Packed sequences: sequence b is positions [cu_seqlens[b], cu_seqlens[b + 1]) along seq_q (of q,
  // out, lse, mask, bias, q_segments, tree) or seq_kv (of k, v, kv_segments), and those arrays have
  // no batch axes. What stays unpacked has one batch axis, the sequences. The seq_kv of mask and
  // bias is that of the longest sequence.
  BoundariesView cu_seqlens_q{}, cu_seqlens_kv{};

  // What turns an int8 key or value into a number: one for each key, extents as k's without d_k; an
  // axis of extent 1 is broadcast (a page's keys, say).
  ScalesView k_scales{}, v_scales{};

  Dropout dropout{};
  RoundWeights round_weights = RoundWeights::where_native;

  LseView lse{};                       // written when given
  const Executor* executor = nullptr;  // default_executor() when null
};

// Shapes: q [batch..., heads, seq_q, d_k], k [batch..., kv_heads, seq_kv, d_k],
// v [batch..., kv_heads, seq_kv, d_v], out [batch..., heads, seq_q, d_v]; heads a multiple of
// kv_heads, d_k and d_v from 1 to 1024, seq_q and seq_kv from 0. out and lse must not overlap
// anything else. Throws Error before anything is written. Safe to call from many threads at once.
// Each of q, k, v and out has a storage type of its own: f32, bf16 or f16; k and v also int8 with
// scales, and 4-bit groups. All is computed in f32, but for RoundWeights, where denormals may count
// as 0, too.
using AnyQ = AnyView<const std::byte, axis::Head, axis::Query, axis::DepthK>;
using AnyK = AnyView<const std::byte, axis::KvHead, axis::Key, axis::DepthK>;
using AnyV = AnyView<const std::byte, axis::KvHead, axis::Key, axis::DepthV>;
using AnyOut = AnyView<std::byte, axis::Head, axis::Query, axis::DepthV>;
RAPT_API void attention(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                        const AttentionOptions& options = {});

// The salience map: the weights that attention gives to each key, rows summing to 1 (or 0 where
// nothing is attended). For looking and learning: computed by the reference, in double precision,
// and the one function here whose result is a [seq_q, seq_kv] array for each head. options.lse is
// not written; packed and paged sequences are not taken. `activation`, when given, replaces
// softmax: it gets the scaled, biased scores of one row (n attended keys, in key order) and
// overwrites them with the weights.
using RowActivation = std::function<void(double* scores, std::int64_t n)>;
RAPT_API void salience_map(QView q, KView k,
                           View<float, axis::Head, axis::Query, axis::Key> salience,
                           const AttentionOptions& options = {},
                           const RowActivation& activation = {});

}  // namespace rapt
