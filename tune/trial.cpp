#include "trial.hpp"

#include <time.h>

#include <algorithm>
#include <chrono>

#include "bench/threads.hpp"
#include "rapt/config.hpp"

namespace rapt::tune {

volatile std::sig_atomic_t stop_signal = 0;

namespace {

// Of one timing at least: a thousand times what reading the clock and refilling the caches' first
// lines cost.
constexpr double kSeconds = 1e-3;

// On one thread only the time that this thread was running: when another program had the core, it
// is not counted. On several threads the waiting belongs to it.
double now(int threads) {
#ifdef CLOCK_THREAD_CPUTIME_ID
  timespec time;
  if (threads == 1 && ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0) {
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
#endif
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Trial::Trial(const bench::Shape& shape, int threads)
    : shape_(shape), threads_(threads), case_(bench::make_case(shape)) {}

double Trial::time(int calls) {
  if (stop_signal != 0) throw Interrupted();
  double seconds = 0;
  bench::on_threads(threads_, [&](const Executor& executor) {
    const double start = now(threads_);
    for (int i = 0; i < calls; ++i) case_->run(executor);
    seconds = now(threads_) - start;
  });
  return seconds / calls;
}

double Trial::seconds(const std::string& config) {
  load_config(config);
  if (warm_.insert(config).second) time(1);
  if (calls_ == 0) {
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
