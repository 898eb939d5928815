// The sizes of a BERT model, from its config.json.
#pragma once

#include <cstdint>
#include <string>

namespace minilm {

// As config.json names them.
struct Config {
  std::int64_t hidden_size = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  std::int64_t type_vocab_size = 0;
  float layer_norm_eps = 0;
};

// Throws std::runtime_error when a field is missing or asks for something that this encoder does
// not compute.
Config read_config(const std::string& path);

}  // namespace minilm
