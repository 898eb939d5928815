// Tokenised sentences, and the batch that the encoder takes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace minilm {

struct Sentence {
  std::string text;
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> mask;  // 1: a token, 0: padding
};

// Reads what write_tokens.py writes: text <tab> ids <tab> mask on each line. Throws
// std::runtime_error with the file, the line and what is wrong with it.
std::vector<Sentence> read_sentences(const std::string& path);

// The sentences padded to the longest of them.
struct Batch {
  explicit Batch(std::span<const Sentence> sentences);

  std::int64_t size = 0;             // sentences
  std::int64_t seq = 0;              // tokens of each, with its padding
  std::vector<std::int32_t> ids;     // [size, seq]
  std::unique_ptr<bool[]> attended;  // [size, seq]: false for padding
};

}  // namespace minilm
