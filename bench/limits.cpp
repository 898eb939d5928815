#include "limits.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "data.hpp"
#include "peak.hpp"
#include "threads.hpp"

namespace rapt::bench {
namespace {

using Clock = std::chrono::steady_clock;

void print_fma(const std::string& target, int threads) {
  Meter meter = Meter::fma(target, threads);
  meter.measure(0.1);
  std::printf("  multiply-adds  %7.1f GFLOP/s (", meter.best());
  for (const Meter::Loop& loop : meter.loops()) {
    std::printf("%s%s %.0f", &loop == &meter.loops().front() ? "" : ", ", loop.how.c_str(),
                loop.best);
  }
  std::printf(")\n");
}

void print_reading(const std::string& target, int threads, const Buffer& memory) {
  const std::size_t most = memory.size() * sizeof(float) / 1024;
  for (std::size_t kib = 32; kib <= most; kib *= 4) {
    Meter meter = Meter::read(target, threads, memory.span().first(kib * 1024 / sizeof(float)));
    meter.measure(0.1);
    std::printf("  reading %3zu %s %6.1f GB/s (%s)\n", kib < 1024 ? kib : kib / 1024,
                kib < 1024 ? "KiB" : "MiB", meter.best(), meter.how().c_str());
  }
}

// Microseconds to run an empty task on every thread and to wait for all of them, the median of
// several, each after so long without work: threads that sleep must be woken.
double fork_join(const Executor& executor, std::chrono::milliseconds idle) {
  std::vector<double> seconds;
  for (int i = 0; i < 15; ++i) {
    if (idle.count() > 0) std::this_thread::sleep_for(idle);
    const Clock::time_point start = Clock::now();
    executor.parallel_for(executor.workers(), [](const void*, std::int64_t, int) {}, nullptr);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2] * 1e6;
}

}  // namespace

void print_limits(const std::vector<std::string>& targets, const std::vector<int>& threads) {
  const Buffer memory(std::int64_t{128} * 1024 * 1024 / sizeof(float));
  fill_normal(memory.span(), 0);
  for (const int n : threads) {
    for (const std::string& target : targets) {
      std::printf("%s, %d thread%s\n", target.c_str(), n, n > 1 ? "s" : "");
      print_fma(target, n);
      print_reading(target, n, memory);
    }
    on_threads(n, [n](const Executor& executor) {
      using std::chrono::milliseconds;
      std::printf("%d empty task%s: %.1f us hot, %.1f us after 1 ms, %.1f us after 100 ms\n\n", n,
                  n > 1 ? "s" : "", fork_join(executor, milliseconds(0)),
                  fork_join(executor, milliseconds(1)), fork_join(executor, milliseconds(100)));
    });
  }
}

}  // namespace rapt::bench
