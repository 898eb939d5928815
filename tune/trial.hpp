// One problem, timed through the public API with the config row of a candidate.
#pragma once

#include <csignal>
#include <memory>
#include <set>
#include <string>

#include "bench/cases.hpp"
#include "bench/shapes.hpp"

namespace rapt::tune {

// The number of a signal that asked the tuner to stop, or 0.
extern volatile std::sig_atomic_t stop_signal;

struct Interrupted {};  // thrown between two timings once stop_signal is set

class Trial {
 public:
  // threads: 1, or those of the default executor.
  Trial(const bench::Shape& shape, int threads);

  // Seconds of one call with this config text and the ISA target that is set. The mean of so many
  // calls that the clock is exact; interruptions are the caller's business, who times in turns. The
  // first call with a config is not timed, because the library may take more memory in it than ever
  // before.
  double seconds(const std::string& config);

  // Empty when the result with this config is right, otherwise a sentence.
  std::string check(const std::string& config);

  const bench::Shape& shape() const { return shape_; }
  int threads() const { return threads_; }

 private:
  double time(int calls);

  bench::Shape shape_;
  int threads_;
  std::unique_ptr<bench::Case> case_;
  int calls_ = 0;               // of one timing; 0: not known yet
  std::set<std::string> warm_;  // configs that have run
};

}  // namespace rapt::tune
