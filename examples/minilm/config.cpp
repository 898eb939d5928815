#include "config.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace minilm {

Config read_config(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(file);
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(path + ": not valid JSON: " + error.what());
  }
  const auto field = [&](const char* name) -> const nlohmann::json& {
    if (!json.is_object() || !json.contains(name))
      throw std::runtime_error(path + ": has no field " + name);
    return json[name];
  };
  // Nested values by their type only.
  const auto text = [&](const char* name) -> std::string {
    return field(name).is_primitive() ? field(name).dump() : field(name).type_name();
  };
  const auto expect = [&](const char* name, const char* value) {
    if (field(name) != value) {
      throw std::runtime_error(path + ": " + name + " is " + text(name) +
                               ", but this encoder computes only \"" + value + "\"");
    }
  };
  const auto size = [&](const char* name) {
    // The upper limit keeps every product of two sizes far from overflow.
    if (!field(name).is_number_unsigned() || field(name) < 1 || field(name) > 10'000'000) {
      throw std::runtime_error(path + ": " + name + " is " + text(name) +
                               ", not a size from 1 to 10000000");
    }
    return field(name).get<std::int64_t>();
  };
  expect("model_type", "bert");
  expect("hidden_act", "gelu");
  expect("position_embedding_type", "absolute");
  if (!field("layer_norm_eps").is_number())
    throw std::runtime_error(path + ": layer_norm_eps is not a number");

  const Config config{.hidden_size = size("hidden_size"),
                      .num_attention_heads = size("num_attention_heads"),
                      .num_hidden_layers = size("num_hidden_layers"),
                      .intermediate_size = size("intermediate_size"),
                      .vocab_size = size("vocab_size"),
                      .max_position_embeddings = size("max_position_embeddings"),
                      .type_vocab_size = size("type_vocab_size"),
                      .layer_norm_eps = field("layer_norm_eps").get<float>()};
  if (config.hidden_size % config.num_attention_heads != 0) {
    throw std::runtime_error(path + ": hidden_size " + std::to_string(config.hidden_size) +
                             " is not a multiple of num_attention_heads " +
                             std::to_string(config.num_attention_heads));
  }
  return config;
}

}  // namespace minilm
