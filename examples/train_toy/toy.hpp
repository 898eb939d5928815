// The seed's training program, with a task that its layer can learn: each query is to give the mean
// of all tokens so far. Attention must become even, and value and output projection each other's
// inverse.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "rapt/rapt.hpp"

namespace train_toy {

inline constexpr std::int64_t kBatch = 32, kQueries = 11, kKeys = 13;

// One batch. Keys and values are all tokens, queries the last 11: under the causal mask, query i
// sees the tokens from the first to its own, i + 2.
struct Examples {
  Examples(std::int64_t embedding, std::vector<float> tokens);  // [kBatch, kKeys, embedding]

  rapt::TokensView queries() const;
  rapt::KvTokensView keys() const;

  std::int64_t embedding;
  std::vector<float> tokens;  // [kBatch, kKeys, embedding]
  std::vector<float> target;  // [kBatch, kQueries, embedding]
};

// Batches of tokens without end: independent numbers of mean 0 and variance 1.
class Source {
 public:
  Source(std::int64_t embedding, std::uint64_t seed) : embedding_(embedding), bits_(seed) {}
  Examples next();

 private:
  std::int64_t embedding_;
  std::mt19937_64 bits_;
};

// How the parameters are kept from step to step. Computed is in f32.
enum class Kept { f64, f32 };

class Trainer {
 public:
  Trainer(rapt::MultiHeadAttention first, Kept kept, const rapt::Executor* executor = nullptr);

  // The mean squared error on a batch, and its gradients.
  double loss(const Examples& examples);
  const rapt::LayerParameters& gradients() const { return gradients_.parameters; }

  // Plain gradient descent: parameter -= rate * gradient.
  void descend(double rate);

  const rapt::LayerParameters& parameters() const { return layer_.parameters(); }

 private:
  rapt::MultiHeadAttention layer_;
  Kept kept_;
  const rapt::Executor* executor_;
  rapt::LayerActivations activations_;
  rapt::LayerGradients gradients_;
  std::vector<float> result_, grad_result_;  // [kBatch, kQueries, embedding]
};

}  // namespace train_toy
