#include "toy.hpp"

#include <cmath>
#include <utility>

namespace train_toy {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

Examples::Examples(std::int64_t width, std::vector<float> given)
    : embedding(width), tokens(std::move(given)), target(size(kBatch * kQueries * width)) {
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t e = 0; e < embedding; ++e) {
      double sum = 0;
      for (std::int64_t j = 0; j < kKeys; ++j) {
        sum += tokens[size((b * kKeys + j) * embedding + e)];
        const std::int64_t i = j - (kKeys - kQueries);  // the query that sees tokens 0 to j
        if (i < 0) continue;
        target[size((b * kQueries + i) * embedding + e)] =
            static_cast<float>(sum / static_cast<double>(j + 1));
      }
    }
  }
}

rapt::TokensView Examples::queries() const {
  return {tokens.data() + (kKeys - kQueries) * embedding,
          {kBatch, kQueries, embedding},
          {kKeys * embedding, embedding, 1}};
}

rapt::KvTokensView Examples::keys() const { return {tokens.data(), {kBatch, kKeys, embedding}}; }

Examples Source::next() {
  std::vector<float> tokens(size(kBatch * kKeys * embedding_));
  const double width = std::sqrt(12.0);  // of the uniform distribution of variance 1
  for (float& x : tokens)
    x = static_cast<float>(width * (static_cast<double>(bits_() >> 11) * 0x1p-53 - 0.5));
  return {embedding_, std::move(tokens)};
}

Trainer::Trainer(rapt::MultiHeadAttention first, Kept kept, const rapt::Executor* executor)
    : layer_(std::move(first)), kept_(kept), executor_(executor) {}

double Trainer::loss(const Examples& examples) {
  rapt::AttentionOptions options;
  options.causal = true;  // query i at position i + 2: the last query sees the last key
  options.executor = executor_;
  const auto queries = examples.queries();
  const auto keys = examples.keys();
  const std::size_t n = examples.target.size();
  result_.resize(n);
  grad_result_.resize(n);
  layer_.forward(queries, keys, keys, {result_.data(), {kBatch, kQueries, examples.embedding}},
                 activations_, options);
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double error = double{result_[i]} - examples.target[i];
    sum += error * error;
    grad_result_[i] = static_cast<float>(2 * error / static_cast<double>(n));
  }
  layer_.backward(queries, keys, keys, activations_,
                  {grad_result_.data(), {kBatch, kQueries, examples.embedding}}, gradients_,
                  options);
  return sum / static_cast<double>(n);
}

void Trainer::descend(double rate) {
  rapt::LayerParameters next = layer_.parameters();
  using P = rapt::LayerParameters;
  for (const auto which :
       {&P::qkv, &P::w_q, &P::w_k, &P::w_v, &P::output, &P::b_q, &P::b_k, &P::b_v, &P::b_output}) {
    std::vector<double>& parameter = next.*which;
    const std::vector<double>& gradient = gradients_.parameters.*which;
    for (std::size_t i = 0; i < parameter.size(); ++i) {
      parameter[i] -= rate * gradient[i];
      if (kept_ == Kept::f32) parameter[i] = static_cast<float>(parameter[i]);
    }
  }
  layer_ = rapt::MultiHeadAttention(layer_.shape(), std::move(next));
}

}  // namespace train_toy
