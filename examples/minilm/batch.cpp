#include "batch.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <stdexcept>

namespace minilm {
namespace {

std::vector<std::int32_t> whole_numbers(const std::string& column, const std::string& where) {
  std::vector<std::int32_t> numbers;
  const char* at = column.data();
  const char* const end = at + column.size();
  while (at != end) {
    std::int32_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc() || number < 0 || (next != end && *next != ' ')) {
      throw std::runtime_error(where + ": '" + std::string(at, std::find(at, end, ' ')) +
                               "' is not a whole number");
    }
    numbers.push_back(number);
    at = next == end ? end : next + 1;
  }
  return numbers;
}

Sentence read_line(const std::string& line, const std::string& where) {
  const std::size_t first = line.find('\t');
  const std::size_t second = first == std::string::npos ? first : line.find('\t', first + 1);
  if (second == std::string::npos || line.find('\t', second + 1) != std::string::npos) {
    throw std::runtime_error(
        where + ": expected three columns: sentence <tab> token ids <tab> attention mask");
  }
  Sentence sentence{line.substr(0, first),
                    whole_numbers(line.substr(first + 1, second - first - 1), where),
                    whole_numbers(line.substr(second + 1), where)};
  if (sentence.ids.size() != sentence.mask.size()) {
    throw std::runtime_error(where + ": " + std::to_string(sentence.ids.size()) +
                             " token ids, but " + std::to_string(sentence.mask.size()) +
                             " mask values");
  }
  if (std::any_of(sentence.mask.begin(), sentence.mask.end(),
                  [](std::int32_t m) { return m > 1; })) {
    throw std::runtime_error(where + ": a mask value is neither 0 nor 1");
  }
  if (std::find(sentence.mask.begin(), sentence.mask.end(), 1) == sentence.mask.end()) {
    throw std::runtime_error(where + ": no token is attended, so the sentence has no embedding");
  }
  return sentence;
}

}  // namespace

std::vector<Sentence> read_sentences(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  std::vector<Sentence> sentences;
  std::string line;
  while (std::getline(file, line)) {
    sentences.push_back(read_line(line, path + ", line " + std::to_string(sentences.size() + 1)));
  }
  if (sentences.empty()) throw std::runtime_error(path + ": has no sentences");
  return sentences;
}

Batch::Batch(std::span<const Sentence> sentences)
    : size(static_cast<std::int64_t>(sentences.size())) {
  for (const Sentence& sentence : sentences)
    seq = std::max(seq, static_cast<std::int64_t>(sentence.ids.size()));
  ids.assign(static_cast<std::size_t>(size * seq), 0);
  attended = std::make_unique<bool[]>(static_cast<std::size_t>(size * seq));  // all false
  for (std::int64_t b = 0; b < size; ++b) {
    const Sentence& sentence = sentences[static_cast<std::size_t>(b)];
    std::copy(sentence.ids.begin(), sentence.ids.end(), ids.begin() + b * seq);
    std::transform(sentence.mask.begin(), sentence.mask.end(), attended.get() + b * seq,
                   [](std::int32_t m) { return m != 0; });
  }
}

}  // namespace minilm
