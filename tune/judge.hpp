// The last word on a row that the search has found: the default against it, in turns, on problems
// that the search has not seen, on one thread and on all.
#pragma once

#include <string>
#include <vector>

#include "search.hpp"

namespace rapt::tune {

struct Verdict {
  std::string shape;
  int threads;
  double default_seconds, tuned_seconds;  // smallest
  double weight;
  double gain() const { return default_seconds / tuned_seconds; }
};

struct Judgement {
  std::vector<Verdict> verdicts;
  std::string refusal;  // why the row is dropped after all; empty: it is kept

  double gain() const;  // weighted geometric mean
};

// As many of the shapes as the time allows, small ones first.
Judgement judge(const Subject& subject, const std::string& row,
                const std::vector<bench::Shape>& shapes, const Effort& effort,
                const Report& report);

}  // namespace rapt::tune
