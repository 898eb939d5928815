// The multi-head attention layer of "Attention Is All You Need", with every axis named.
#pragma once

#include <cstdint>
#include <vector>

#include "rapt/export.h"
#include "rapt/attention.hpp"
#include "rapt/backward.hpp"
#include "rapt/gemm.hpp"
#include "rapt/view.hpp"

namespace rapt {

using TokensView =
    View<const float, axis::Query, axis::Embedding>;  // q_tokens [batch..., seq_q, embedding]
using KvTokensView = View<const float, axis::Key,
                          axis::Embedding>;  // k_tokens, v_tokens [batch..., seq_kv, embedding]
using OutTokensView =
    View<float, axis::Query, axis::Embedding>;  // result [batch..., seq_q, embedding]
using OutKvTokensView =
    View<float, axis::Key, axis::Embedding>;  // gradients [batch..., seq_kv, embedding]

// Sizes of the layer. d_model = 0: the layer has no first projection, and heads project the tokens
// themselves (the usual transformer layer).
struct LayerShape {
  std::int64_t embedding = 0;
  std::int64_t d_model = 0;
  std::int64_t heads = 0;
  std::int64_t d_k = 0;
  std::int64_t d_v = 0;
};

// Parameters are owned, dense, row-major, kept in f64 (as they are initialised and trained) and
// computed in f32.
//
// clang-format off: a table
//   step                   parameters                        result
//   1 project the tokens   qkv      [3, embedding, d_model]  q, k, v [batch..., seq, d_model]
//   2 split into heads     w_q, w_k [heads, d_model, d_k]    q, k    [batch..., heads, seq, d_k]
//                          w_v      [heads, d_model, d_v]    v       [batch..., heads, seq_kv, d_v]
//   3, 4 attention                                           out     [batch..., heads, seq_q, d_v]
//   5 concatenate, project output   [heads, d_v, embedding]  result  [batch..., seq_q, embedding]
// clang-format on
// Without the first projection, d_model in step 2 is embedding. Biases are empty or full-sized.
struct LayerParameters {
  std::vector<double> qkv;                    // [3, embedding, d_model], or empty when d_model = 0
  std::vector<double> w_q, w_k, w_v, output;  // shapes above
  std::vector<double> b_q, b_k, b_v,
      b_output;  // [heads, d_k], [heads, d_k], [heads, d_v], [embedding], or empty
};

// What the forward pass keeps for the backward pass: dense arrays, sized by forward(), whose memory
// the next forward() uses again.
struct LayerActivations {
  std::vector<float> model_q, model_k, model_v;  // of step 1 [batch..., seq, d_model], or empty
  std::vector<float> q, k, v;                    // of step 2 [batch..., seq, heads, d_k or d_v]
  std::vector<float> out;                        // of step 4 [batch..., seq_q, heads, d_v]
  std::vector<float> lse;                        // of step 4 [batch..., heads, seq_q]
};

struct LayerGradients {
  // Each with the shape of what it is of, empty where the layer has none. A sum over the batch,
  // computed in f32.
  LayerParameters parameters;
  // Written when given, with the extents of the tokens. Where the three are one array, as in
  // self-attention, its gradient is the sum of these.
  OutTokensView q_tokens{};
  OutKvTokensView k_tokens{}, v_tokens{};
};

class RAPT_API MultiHeadAttention {
 public:
  // He-normal: every weight is N(0, 2 / fan_in), fan_in = the extent summed over; no biases. The
  // same seed gives the same parameters on every machine.
  MultiHeadAttention(const LayerShape& shape, std::uint64_t seed);

  // Given parameters. Throws extent_mismatch, showing both shapes, when one does not fit.
  MultiHeadAttention(const LayerShape& shape, LayerParameters parameters);

  const LayerShape& shape() const { return shape_; }
  const LayerParameters& parameters() const { return parameters_; }

  // Self-attention when the three token arrays are the same, cross-attention otherwise. options:
  // those of attention(); lse, mask and bias with this layer's heads. Thread-safe.
  void operator()(TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                  OutTokensView result, const AttentionOptions& options = {}) const;

  // The same bits, and what backward() needs.
  void forward(TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
               OutTokensView result, LayerActivations& kept,
               const AttentionOptions& options = {}) const;

  // The gradients of all parameters and of the tokens, from that of the result: calls of
  // gemm_backward() and attention_backward(), without a seq_q x seq_kv array. Tokens and options
  // are those of forward(), of which `kept` is; attention: what else is given and wanted, see
  // BackwardOptions. Every token must be finite, also one that nobody attends: in the gradients of
  // weights it is multiplied by 0. Throws Error before anything is written. Same bits for any
  // number of threads. Thread-safe.
  void backward(TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                const LayerActivations& kept, TokensView grad_result, LayerGradients& gradients,
                const AttentionOptions& options = {}, const BackwardOptions& attention = {}) const;

 private:
  LayerShape shape_;
  LayerParameters parameters_;
  std::vector<float>
      projections_;  // the parameters as the products read them, f32, concatenated over heads
};

}  // namespace rapt
