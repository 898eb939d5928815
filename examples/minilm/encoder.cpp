#include "encoder.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <stdexcept>

namespace minilm {
namespace {

using rapt::axis::Column;
using rapt::axis::DepthK;
using rapt::axis::DepthV;
using rapt::axis::Head;
using rapt::axis::Inner;
using rapt::axis::Key;
using rapt::axis::KvHead;
using rapt::axis::Query;
using rapt::axis::Row;

// The threads that run rapt's tasks also run the row-wise steps: body(row) for row in [0, rows).
template <class Body>
void for_each(const rapt::Executor& executor, std::int64_t rows, const Body& body) {
  constexpr std::int64_t kRows = 16;  // of a task: microseconds of work, above the cost of starting
  const auto block = [&](std::int64_t task) {
    for (std::int64_t row = task * kRows; row < std::min(rows, (task + 1) * kRows); ++row)
      body(row);
  };
  using Block = decltype(block);
  executor.parallel_for((rows + kRows - 1) / kRows,
                        [](const void* context, std::int64_t task, int) {
                          (*static_cast<const Block*>(context))(task);
                        },
                        &block);
}

// sum_i term(i), in 16 partial sums that a vector register holds: in one alone each addition would
// wait for the one before it. The order is fixed, so a row's bits do not depend on its batch.
template <class Term>
float sum(std::int64_t n, const Term& term) {
  constexpr std::int64_t kLanes = 16;
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (std::int64_t i = n - n % kLanes; i < n; ++i) lanes[i % kLanes] += term(i);
  float total = 0;
  for (const float lane : lanes) total += lane;
  return total;
}

}  // namespace

// What flows through the layers, allocated once for a batch. tokens = batch * seq.
struct Encoder::Activations {
  Activations(const Config& config, const Batch& batch)
      : tokens(batch.size * batch.seq),
        hidden(static_cast<std::size_t>(tokens * config.hidden_size)),
        qkv(hidden.size() * 3),
        context(hidden.size()),
        intermediate(static_cast<std::size_t>(tokens * config.intermediate_size)) {}

  std::int64_t tokens;
  std::vector<float> hidden;        // [tokens, hidden]
  std::vector<float> qkv;           // [tokens, 3, hidden], and hidden is [heads, d_k]
  std::vector<float> context;       // [tokens, hidden]
  std::vector<float> intermediate;  // [tokens, intermediate]
};

Encoder::Encoder(const std::string& directory, const rapt::Executor& executor)
    : executor_(executor),
      config_(read_config(directory + "/config.json")),
      weights_(directory + "/model.safetensors") {
  const std::int64_t hidden = config_.hidden_size;
  const auto linear = [&](const std::string& name, std::int64_t in, std::int64_t out) {
    return Linear{weights_.f32(name + ".weight", {out, in}), weights_.f32(name + ".bias", {out}),
                  in, out};
  };
  const auto norm = [&](const std::string& name) {
    return LayerNorm{weights_.f32(name + ".weight", {hidden}),
                     weights_.f32(name + ".bias", {hidden})};
  };
  word_embeddings_ =
      weights_.f32("embeddings.word_embeddings.weight", {config_.vocab_size, hidden});
  position_embeddings_ = weights_.f32("embeddings.position_embeddings.weight",
                                      {config_.max_position_embeddings, hidden});
  type_embeddings_ =
      weights_.f32("embeddings.token_type_embeddings.weight", {config_.type_vocab_size, hidden});
  embedding_norm_ = norm("embeddings.LayerNorm");
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const std::string layer = "encoder.layer." + std::to_string(i) + ".";
    layers_.push_back(
        {.query = linear(layer + "attention.self.query", hidden, hidden),
         .key = linear(layer + "attention.self.key", hidden, hidden),
         .value = linear(layer + "attention.self.value", hidden, hidden),
         .attention_output = linear(layer + "attention.output.dense", hidden, hidden),
         .attention_norm = norm(layer + "attention.output.LayerNorm"),
         .intermediate = linear(layer + "intermediate.dense", hidden, config_.intermediate_size),
         .output = linear(layer + "output.dense", config_.intermediate_size, hidden),
         .output_norm = norm(layer + "output.LayerNorm")});
  }
}

std::vector<float> Encoder::encode(const Batch& batch) const {
  Activations x = embed(batch);
  for (const Layer& layer : layers_) run_layer(layer, batch, x);
  return pool(batch, x);
}

Encoder::Activations Encoder::embed(const Batch& batch) const {
  if (batch.seq > config_.max_position_embeddings) {
    throw std::runtime_error("a sentence has " + std::to_string(batch.seq) +
                             " tokens, but the model has " +
                             std::to_string(config_.max_position_embeddings) + " positions");
  }
  for (const std::int32_t id : batch.ids) {
    if (id < 0 || id >= config_.vocab_size) {
      throw std::runtime_error("token id " + std::to_string(id) + " is not in the vocabulary of " +
                               std::to_string(config_.vocab_size));
    }
  }
  Activations x(config_, batch);
  const std::int64_t hidden = config_.hidden_size;
  for_each(executor_, x.tokens, [&](std::int64_t token) {
    const float* word = word_embeddings_ + batch.ids[static_cast<std::size_t>(token)] * hidden;
    const float* position = position_embeddings_ + token % batch.seq * hidden;
    float* row = x.hidden.data() + token * hidden;
    for (std::int64_t d = 0; d < hidden; ++d) row[d] = word[d] + type_embeddings_[d] + position[d];
  });
  apply(embedding_norm_, x.hidden.data(), x.tokens);
  return x;
}

// q, k and v side by side in one array: three products that write columns of the same rows.
void Encoder::project_qkv(const Layer& layer, Activations& x) const {
  const std::int64_t hidden = config_.hidden_size;
  float* column = x.qkv.data();
  for (const Linear* linear : {&layer.query, &layer.key, &layer.value}) {
    apply(*linear, x.hidden.data(), column, x.tokens, 3 * hidden, rapt::Activation::none, 0);
    column += hidden;
  }
}

// `heads` heads of all sentences, from head `first` on, where they lie in the activations.
Encoder::AttentionInputs Encoder::attention_inputs(const Batch& batch, const Activations& x,
                                                   std::int64_t first, std::int64_t heads) const {
  const std::int64_t hidden = config_.hidden_size, d = hidden / config_.num_attention_heads;
  const std::initializer_list<std::int64_t> shape = {batch.size, batch.seq, heads, d};
  const std::initializer_list<std::int64_t> strides = {batch.seq * 3 * hidden, 3 * hidden, d, 1};
  const float* q = x.qkv.data() + first * d;
  AttentionInputs inputs;
  inputs.q = rapt::View<const float, Query, Head, DepthK>(q, shape, strides);
  inputs.k = rapt::View<const float, Key, KvHead, DepthK>(q + hidden, shape, strides);
  inputs.v = rapt::View<const float, Key, KvHead, DepthV>(q + 2 * hidden, shape, strides);
  // One row of the mask for all heads and queries of a sentence: padding is attended by none.
  inputs.options.mask = rapt::MaskView(batch.attended.get(), {batch.size, 1, 1, batch.seq});
  inputs.options.executor = &executor_;
  return inputs;
}

void Encoder::run_layer(const Layer& layer, const Batch& batch, Activations& x) const {
  const std::int64_t hidden = config_.hidden_size, heads = config_.num_attention_heads;
  project_qkv(layer, x);
  const auto [q, k, v, options] = attention_inputs(batch, x, 0, heads);
  rapt::attention(q, k, v,
                  rapt::View<float, Query, Head, DepthV>(
                      x.context.data(), {batch.size, batch.seq, heads, hidden / heads}),
                  options);

  // beta = 1: the residual is what the product is added to.
  apply(layer.attention_output, x.context.data(), x.hidden.data(), x.tokens, hidden,
        rapt::Activation::none, 1);
  apply(layer.attention_norm, x.hidden.data(), x.tokens);
  apply(layer.intermediate, x.hidden.data(), x.intermediate.data(), x.tokens,
        config_.intermediate_size, rapt::Activation::gelu, 0);
  apply(layer.output, x.intermediate.data(), x.hidden.data(), x.tokens, hidden,
        rapt::Activation::none, 1);
  apply(layer.output_norm, x.hidden.data(), x.tokens);
}

std::vector<float> Encoder::pool(const Batch& batch, const Activations& x) const {
  const std::int64_t hidden = config_.hidden_size;
  std::vector<float> embeddings(static_cast<std::size_t>(batch.size * hidden));
  for_each(executor_, batch.size, [&](std::int64_t b) {
    float* embedding = embeddings.data() + b * hidden;
    for (std::int64_t token = b * batch.seq; token < (b + 1) * batch.seq; ++token) {
      if (!batch.attended[static_cast<std::size_t>(token)]) continue;
      for (std::int64_t d = 0; d < hidden; ++d)
        embedding[d] += x.hidden[static_cast<std::size_t>(token * hidden + d)];
    }
    // The sum does for the mean: the division by the length takes out the number of tokens.
    const float length =
        std::sqrt(sum(hidden, [&](std::int64_t d) { return embedding[d] * embedding[d]; }));
    for (std::int64_t d = 0; d < hidden; ++d) embedding[d] /= length;
  });
  return embeddings;
}

std::vector<float> Encoder::salience(const Batch& batch, std::int64_t layer,
                                     std::int64_t head) const {
  const std::int64_t heads = config_.num_attention_heads;
  if (layer < 0 || layer >= config_.num_hidden_layers || head < 0 || head >= heads) {
    throw std::runtime_error("layer " + std::to_string(layer) + ", head " + std::to_string(head) +
                             ": the model has layers 0 to " +
                             std::to_string(config_.num_hidden_layers - 1) + " and heads 0 to " +
                             std::to_string(heads - 1));
  }
  Activations x = embed(batch);
  for (std::int64_t i = 0; i < layer; ++i)
    run_layer(layers_[static_cast<std::size_t>(i)], batch, x);
  project_qkv(layers_[static_cast<std::size_t>(layer)], x);

  const AttentionInputs inputs = attention_inputs(batch, x, head, 1);
  std::vector<float> salience(static_cast<std::size_t>(batch.size * batch.seq * batch.seq));
  rapt::salience_map(inputs.q, inputs.k, {salience.data(), {batch.size, 1, batch.seq, batch.seq}},
                     inputs.options);
  return salience;
}

void Encoder::apply(const Linear& linear, const float* x, float* y, std::int64_t rows,
                    std::int64_t y_stride, rapt::Activation activation, float beta) const {
  rapt::gemm(rapt::View<const float, Row, Inner>(x, {rows, linear.in}),
             // The weight is [out, in]: the axes the other way round, so it is read transposed.
             rapt::View<const float, Column, Inner>(linear.weight, {linear.out, linear.in}),
             rapt::View<float, Row, Column>(y, {rows, linear.out}, {y_stride, 1}),
             {.beta = beta,
              .bias = rapt::View<const float, Column>(linear.bias, {linear.out}),
              .activation = activation,
              .executor = &executor_});
}

void Encoder::apply(const LayerNorm& norm, float* x, std::int64_t rows) const {
  const std::int64_t hidden = config_.hidden_size;
  for_each(executor_, rows, [&](std::int64_t r) {
    float* row = x + r * hidden;
    const float mean =
        sum(hidden, [&](std::int64_t d) { return row[d]; }) / static_cast<float>(hidden);
    const float variance =
        sum(hidden, [&](std::int64_t d) { return (row[d] - mean) * (row[d] - mean); }) /
        static_cast<float>(hidden);
    const float scale = 1 / std::sqrt(variance + config_.layer_norm_eps);
    for (std::int64_t d = 0; d < hidden; ++d)
      row[d] = (row[d] - mean) * scale * norm.weight[d] + norm.bias[d];
  });
}

}  // namespace minilm
