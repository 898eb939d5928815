#include "trial.hpp"

#include <algorithm>
#include <chrono>

#include "bench/threads.hpp"
#include "rapt/config.hpp"

namespace rapt::tune {

volatile std::sig_atomic_t stop_signal = 0;

namespace {

// Of one timing at least: a thousand times what reading the clock and refilling the caches' first lines cost.
constexpr double kSeconds = 1e-3;

}  // namespace

Trial::Trial(const bench::Shape& shape, int threads)
    : shape_(shape), threads_(threads), case_(bench::make_case(shape)) {}

double Trial::time(int calls) {
  if (stop_signal != 0) throw Interrupted();
  using Clock = std::chrono::steady_clock;
  double seconds = 0;
  bench::on_threads(threads_, [&](const Executor& executor) {
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < calls; ++i) case_->run(executor);
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  });
  return seconds / calls;
}

double Trial::seconds(const std::string& config) {
  load_config(config);
  if (calls_ == 0) {
    time(1);  // touches the memory, wakes the threads
    calls_ = static_cast<int>(std::clamp(kSeconds / std::max(time(1), 1e-9) + 1, 1.0, 1e6));
  }
  return time(calls_);
}

std::string Trial::check(const std::string& config) {
  if (stop_signal != 0) throw Interrupted();
  load_config(config);
  std::string wrong;
  bench::on_threads(threads_, [&](const Executor& executor) { wrong = case_->check(executor); });
  return wrong;
}

}  // namespace rapt::tune
