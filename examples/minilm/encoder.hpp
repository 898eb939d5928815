// A BERT sentence encoder on rapt: token ids in, embeddings of length 1 out.
//
//   hidden = LayerNorm(word[id] + position[i] + type[0])          [batch, seq, hidden]
//   for each layer:
//     q, k, v  = Linear(hidden)                                   [batch, seq, heads, d_k] each
//     context  = attention(q, k, v, padding masked)               [batch, seq, heads, d_k]
//     hidden   = LayerNorm(hidden + Linear(context))
//     hidden   = LayerNorm(hidden + Linear(gelu(Linear(hidden))))
//   embedding = mean of hidden over a sentence's tokens, divided by its length
// Sources: Devlin et al. 2018 (BERT); Reimers and Gurevych 2019 (mean pooling); Wang et al. 2020
// (MiniLM).
#pragma once

#include <cstdint>
#include <rapt/rapt.hpp>
#include <string>
#include <vector>

#include "batch.hpp"
#include "config.hpp"
#include "safetensors.hpp"

namespace minilm {

// Weights point into the mapped file.
struct Linear {
  const float* weight;  // [out, in]
  const float* bias;    // [out]
  std::int64_t in, out;
};

struct LayerNorm {
  const float* weight;  // [hidden]
  const float* bias;    // [hidden]
};

struct Layer {
  Linear query, key, value, attention_output;
  LayerNorm attention_norm;
  Linear intermediate, output;
  LayerNorm output_norm;
};

class Encoder {
 public:
  // Reads config.json and model.safetensors in this directory. Throws std::runtime_error.
  explicit Encoder(const std::string& directory,
                   const rapt::Executor& executor = rapt::default_executor());

  const Config& config() const { return config_; }

  // [batch.size, hidden_size], rows of length 1. Throws std::runtime_error when a token or a length
  // is beyond the model's tables. Thread-safe.
  std::vector<float> encode(const Batch& batch) const;

  // The salience map of one head: [batch.size, seq, seq], how much each query token attends each
  // key token.
  std::vector<float> salience(const Batch& batch, std::int64_t layer, std::int64_t head) const;

 private:
  struct Activations;
  struct AttentionInputs {
    rapt::QView q;
    rapt::KView k;
    rapt::VView v;
    rapt::AttentionOptions options;
  };

  Activations embed(const Batch& batch) const;
  void project_qkv(const Layer& layer, Activations& x) const;
  AttentionInputs attention_inputs(const Batch& batch, const Activations& x, std::int64_t first,
                                   std::int64_t heads) const;
  void run_layer(const Layer& layer, const Batch& batch, Activations& x) const;
  std::vector<float> pool(const Batch& batch, const Activations& x) const;

  // y [rows, out] = activation(beta * y + x [rows, in] weight^T + bias), rows of y `y_stride`
  // apart.
  void apply(const Linear& linear, const float* x, float* y, std::int64_t rows,
             std::int64_t y_stride, rapt::Activation activation, float beta) const;
  void apply(const LayerNorm& norm, float* x,
             std::int64_t rows) const;  // in place, x [rows, hidden]

  const rapt::Executor& executor_;
  Config config_;
  SafetensorsFile weights_;
  const float* word_embeddings_;      // [vocab, hidden]
  const float* position_embeddings_;  // [positions, hidden]
  const float* type_embeddings_;      // [types, hidden]
  LayerNorm embedding_norm_;
  std::vector<Layer> layers_;
};

}  // namespace minilm
