// The sentences of all errors about inputs, in one table.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "rapt/error.hpp"

namespace rapt::problem {

// A word or a number of a sentence.
struct Word {
  std::string text;
  Word(const char* word) : text(word) {}         // NOLINT(google-explicit-constructor)
  Word(const std::string& word) : text(word) {}  // NOLINT(google-explicit-constructor)
  Word(std::int64_t number)
      : text(std::to_string(number)) {}  // NOLINT(google-explicit-constructor)
};

// Throws the error's sentence with its words put in: {0} is the first.
[[noreturn]] void fail(ErrorCode code, std::initializer_list<Word> words);

}  // namespace rapt::problem
