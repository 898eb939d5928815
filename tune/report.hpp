// What the tuner says in the end: the header file, and a table for whoever watches.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "judge.hpp"
#include "search.hpp"

namespace rapt::tune {

struct Result {
  Subject subject;
  std::optional<Found> row;  // none: the default stays
  Judgement judgement;       // of the row
  std::string why_default;   // a phrase, when it stays
};

// The text of a config header. how: "quick, 41 s".
std::string header(const std::vector<Result>& results, const std::string& how);

// The measured problems, one on each line.
std::string table(const std::vector<Result>& results, bool colour);

}  // namespace rapt::tune
