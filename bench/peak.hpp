// What the machine can do at most, measured beside whatever is judged by it: the rate of f32
// multiply-adds of an ISA target, and the rate at which memory (or a cache) is read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rapt::bench {

// ISA targets that this program has and this CPU runs, best first; Highway's names, the same as
// rapt's.
std::vector<std::string> peak_targets();

// Measures one limit again and again and keeps the best. Clocks drift, so measure() is called
// before, amid and after the work that the limit is for. Several loops compete (number of chains,
// of streams); what is clearly slower than the best is not tried again.
class Meter {
 public:
  // GFLOP/s of all `threads` together: independent chains of multiply-adds (a multiplication and an
  // addition where the ISA has no fused one), two operations per lane. Throws std::invalid_argument
  // for a target that is not in peak_targets().
  static Meter fma(std::string_view target, int threads);

  // GB/s (1e9 bytes) of all threads together, each reading its part of `data` from front to back.
  static Meter read(std::string_view target, int threads, std::span<const float> data);

  // Spends about this long, at least one window (a millisecond, or one pass over a part of data).
  void measure(double seconds);

  double best() const { return best_; }
  const std::string& how() const { return how_; }  // the loop that was best: "12 chains"

  // Each loop that competes, with the best that was seen of it.
  struct Loop {
    std::string how;
    // Does a little of the work (a pass, some microseconds) on thread i of n; returns flops or
    // bytes.
    double (*run)(std::span<const float> data, int i, int n);
    double best = 0;
  };
  const std::vector<Loop>& loops() const { return loops_; }

 private:
  Meter(int threads, std::span<const float> data) : threads_(threads), data_(data) {}
  double window(const Loop& loop) const;  // 1e9 units a second
  friend struct TargetLoops;

  int threads_;
  std::span<const float> data_;
  std::vector<Loop> loops_;
  std::size_t next_ = 0;
  double best_ = 0;
  std::string how_;
};

}  // namespace rapt::bench
