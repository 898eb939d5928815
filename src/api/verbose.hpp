// RAPT_VERBOSE=1: one line on stderr for each call, with its problem, its path and its time.
#pragma once

#include <chrono>
#include <string>

#include "tiles/attention.hpp"
#include "tiles/backward.hpp"
#include "tiles/gemm.hpp"

namespace rapt::verbose {

// Whether the environment asks for it; looked up once.
bool on();

std::string line(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan);
std::string line(const tiles::BackwardProblem& problem, const tiles::BackwardPlan& plan);
std::string line(const tiles::GemmPlan& plan);

void print(const std::string& line, std::chrono::steady_clock::duration time);

// Runs what it is given, and prints about it where it is on.
template <class Run, class Line>
void timed(const Run& run, const Line& line) {
  if (!on()) return run();
  const auto start = std::chrono::steady_clock::now();
  run();
  print(line(), std::chrono::steady_clock::now() - start);
}

}  // namespace rapt::verbose
