// The search for one row of the config: which numbers are varied, in which order, on which
// problems.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/shapes.hpp"
#include "config/config.hpp"
#include "kernels/kernels.hpp"

namespace rapt::tune {

// How thorough, and until when.
struct Effort {
  int rounds;  // of a race
  bool wide;   // blocks from a quarter to four times the default, not from half to twice
  std::chrono::steady_clock::time_point deadline;

  bool out_of_time() const { return std::chrono::steady_clock::now() >= deadline; }
  double left() const {  // seconds
    return std::chrono::duration<double>(deadline - std::chrono::steady_clock::now()).count();
  }
};

// One row of the config: attention with head_size, or gemm where head_size is 0.
struct Subject {
  const kernels::Kernels* kernels;
  std::int64_t head_size;

  std::string name() const;          // "attention AVX2 d=64", "gemm AVX2"
  std::string default_text() const;  // the formulas' row, as text
};

// A row that is faster than the default on the problems of the search, twice.
struct Found {
  std::string text;  // a config of this one row
  double gain;       // over the default
};

struct SearchResult {
  std::vector<Found> found;  // best first; the later ones change less of the default
  std::string why_none;      // a phrase, when nothing was found
};

// Called with what is going on, often.
using Report = std::function<void(const std::string& step)>;

// On these problems, for the subject.
SearchResult search(const Subject& subject, const std::vector<bench::Shape>& shapes,
                    const Effort& effort, const Report& report);

}  // namespace rapt::tune
