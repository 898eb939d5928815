// What the tuner says in the end: the header file, and a table for whoever watches.
#pragma once

#include <string>
#include <vector>

#include "judge.hpp"
#include "search.hpp"

namespace rapt::tune {

struct Result {
  Subject subject;
  Found found;
  Judgement judgement;
  bool tuned() const { return !found.text.empty() && judgement.refusal.empty(); }
  // Geometric mean of the held-out gains.
  double held_out_gain() const;
};

// The text of a config header. how: "quick, 41 s".
std::string header(const std::vector<Result>& results, const std::string& how);

// The measured problems, one on each line.
std::string table(const std::vector<Result>& results, bool colour);

}  // namespace rapt::tune
