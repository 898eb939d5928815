// The loops behind peak.hpp, compiled for every ISA target. See src/kernels/kernels.cc for how
// foreach_target works.
#include "peak.hpp"

#include "kernels/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "peak.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#ifndef RAPT_BENCH_TARGET_LOOPS
#define RAPT_BENCH_TARGET_LOOPS
namespace rapt::bench {

using Run = double (*)(std::span<const float> data, int i, int n);
struct NamedRun {
  const char* how;
  Run run;
};

// The loops of one target.
struct TargetLoops {
  const char* target;
  std::vector<NamedRun> fma, read;

  static Meter meter(const std::vector<NamedRun>& loops, int threads, std::span<const float> data) {
    Meter made(threads, data);
    for (const NamedRun& loop : loops) made.loops_.push_back({loop.how, loop.run});
    return made;
  }
};

inline volatile float g_sink;  // what a loop computed, so that it must be computed

}  // namespace rapt::bench
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;

// Variables and not an array: vectors of SVE and RVV have no size that an array could use, and
// compilers keep arrays in memory.
// clang-format off
#define RAPT_EACH_CHAIN(DO)                                                       \
  DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)       \
  DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)
// clang-format on

// Chains of chain = chain * x + y, which settle at 2: every step depends on the one before it, so
// nothing can be left out, and latency is hidden when there are enough of them.
template <int kChains>
double FmaChains(std::span<const float>, int, int) {
  const F32 f32;
  const auto x = hn::Set(f32, 0.5f);
  const auto y = hn::Set(f32, 1.0f);
  constexpr int kRounds = 2000;
#define RAPT_DECLARE(I) auto chain##I = hn::Iota(f32, I);
  RAPT_EACH_CHAIN(RAPT_DECLARE)
  for (int round = 0; round < kRounds; ++round) {
#define RAPT_STEP(I) \
  if constexpr (I < kChains) chain##I = hn::MulAdd(chain##I, x, y);
#define RAPT_MULTIPLY(I) \
  if constexpr (I < kChains) chain##I = hn::Mul(chain##I, x);
#define RAPT_ADD_Y(I) \
  if constexpr (I < kChains) chain##I = hn::Add(chain##I, y);
#if HWY_NATIVE_FMA
    RAPT_EACH_CHAIN(RAPT_STEP)
#else
    // Where products and sums alternate, Zen 4 reaches 80 to 99 % of what its pipes can do, as it
    // happens.
    RAPT_EACH_CHAIN(RAPT_MULTIPLY)
    RAPT_EACH_CHAIN(RAPT_ADD_Y)
#endif
  }
#define RAPT_ADD(I) \
  if constexpr (I > 0 && I < kChains) chain0 = hn::Add(chain0, chain##I);
  RAPT_EACH_CHAIN(RAPT_ADD)
  g_sink = hn::GetLane(chain0);
  return 2.0 * kChains * kRounds * static_cast<double>(hn::Lanes(f32));
}
#undef RAPT_DECLARE
#undef RAPT_STEP
#undef RAPT_MULTIPLY
#undef RAPT_ADD_Y
#undef RAPT_ADD
#undef RAPT_EACH_CHAIN

// One pass over part i of n of data, as kStreams streams side by side, 8 vectors a step.
template <int kStreams, bool kPrefetch>
double ReadStreams(std::span<const float> data, int i, int n) {
  static_assert(8 % kStreams == 0);
  constexpr std::size_t kPerStream = 8 / kStreams;  // vectors of one stream in one step
  constexpr std::size_t kAhead = 2048 / sizeof(float);
  constexpr std::size_t kLine = 64 / sizeof(float);
  const F32 f32;
  const std::size_t lanes = hn::Lanes(f32);
  const std::size_t step = kPerStream * lanes;
  const std::size_t stream = data.size() / static_cast<std::size_t>(n) / kStreams / step * step;
  const float* from = data.data() + static_cast<std::size_t>(i) * stream * kStreams;
  auto sum0 = hn::Zero(f32), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  auto sum4 = sum0, sum5 = sum0, sum6 = sum0, sum7 = sum0;
  // Vector j of a step is vector j / kStreams of stream j % kStreams.
  const auto at = [&](std::size_t j) HWY_ATTR {
    return hn::LoadU(f32, from + j % kStreams * stream + j / kStreams * lanes);
  };
  for (std::size_t done = 0; done < stream; done += step, from += step) {
    if constexpr (kPrefetch) {
      for (std::size_t s = 0; s < kStreams; ++s) {
        for (std::size_t x = 0; x < step; x += kLine) hwy::Prefetch(from + s * stream + kAhead + x);
      }
    }
    sum0 = hn::Xor(sum0, at(0));
    sum1 = hn::Xor(sum1, at(1));
    sum2 = hn::Xor(sum2, at(2));
    sum3 = hn::Xor(sum3, at(3));
    sum4 = hn::Xor(sum4, at(4));
    sum5 = hn::Xor(sum5, at(5));
    sum6 = hn::Xor(sum6, at(6));
    sum7 = hn::Xor(sum7, at(7));
  }
  sum0 = hn::Xor(hn::Xor(hn::Xor(sum0, sum1), hn::Xor(sum2, sum3)),
                 hn::Xor(hn::Xor(sum4, sum5), hn::Xor(sum6, sum7)));
  g_sink = hn::GetLane(sum0);
  return static_cast<double>(stream * kStreams * sizeof(float));
}

const TargetLoops& Loops() {
  static const TargetLoops loops = {hwy::TargetName(HWY_TARGET),
                                    {
                                        {"12 chains", FmaChains<12>},
                                        {"8 chains", FmaChains<8>},
                                        {"10 chains", FmaChains<10>},
                                        {"14 chains", FmaChains<14>},
#if RAPT_MANY_REGISTERS
                                        {"16 chains", FmaChains<16>},
                                        {"20 chains", FmaChains<20>},
                                        {"24 chains", FmaChains<24>},
#endif
                                    },
                                    {{"1 stream", ReadStreams<1, false>},
                                     {"2 streams", ReadStreams<2, false>},
                                     {"4 streams", ReadStreams<4, false>},
                                     {"1 stream, prefetched", ReadStreams<1, true>},
                                     {"2 streams, prefetched", ReadStreams<2, true>},
                                     {"4 streams, prefetched", ReadStreams<4, true>}}};
  return loops;
}

}  // namespace rapt::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <barrier>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>

namespace rapt::bench {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

const std::vector<const TargetLoops*>& all_loops() {
  static const std::vector<const TargetLoops*> list = [] {
    // Highway numbers targets so that a better one has a lower bit.
    std::vector<std::pair<int64_t, const TargetLoops*>> found;
    const int64_t supported = RAPT_SUPPORTED_TARGETS;
#define RAPT_VISIT(TARGET, NAMESPACE) \
  if (supported & TARGET) found.emplace_back(TARGET, &NAMESPACE::Loops());
    HWY_VISIT_TARGETS(RAPT_VISIT)
#undef RAPT_VISIT
    std::sort(found.begin(), found.end());
    // Without a compiled EMU128 or SCALAR, Highway visits the baseline again as the fallback.
    found.erase(std::unique(found.begin(), found.end()), found.end());
    std::vector<const TargetLoops*> result;
    for (const auto& [target, loops] : found) result.push_back(loops);
    return result;
  }();
  return list;
}

const TargetLoops& loops_of(std::string_view target) {
  for (const TargetLoops* loops : all_loops()) {
    if (loops->target == target) return *loops;
  }
  throw std::invalid_argument("no peak can be measured for target " + std::string(target));
}

}  // namespace

std::vector<std::string> peak_targets() {
  std::vector<std::string> names;
  for (const TargetLoops* loops : all_loops()) names.emplace_back(loops->target);
  return names;
}

Meter Meter::fma(std::string_view target, int threads) {
  return TargetLoops::meter(loops_of(target).fma, threads, {});
}

Meter Meter::read(std::string_view target, int threads, std::span<const float> data) {
  return TargetLoops::meter(loops_of(target).read, threads, data);
}

// The sum of the threads' own rates, each over the window that all of them share.
double Meter::window(const Loop& loop) const {
  constexpr double kSeconds = 1e-3;  // short enough to fall between two disturbances
  std::barrier start(threads_);
  std::vector<double> rates(static_cast<std::size_t>(threads_));
  const auto work = [&](int i) {
    start.arrive_and_wait();
    const Clock::time_point begin = Clock::now();
    double done = 0;
    double seconds = 0;
    do {
      done += loop.run(data_, i, threads_);
      seconds = since(begin);
    } while (seconds < kSeconds);
    rates[static_cast<std::size_t>(i)] = done / seconds;
  };
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads_; ++i) others.emplace_back(work, i);
    work(0);
  }
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum * 1e-9;
}

void Meter::measure(double seconds) {
  constexpr double kClearlySlower = 0.95;
  const Clock::time_point begin = Clock::now();
  do {
    // The next loop that has not lost yet; the best one never has, so there is one.
    while (loops_[next_].best > 0 && loops_[next_].best < kClearlySlower * best_) {
      next_ = (next_ + 1) % loops_.size();
    }
    Loop& loop = loops_[next_];
    next_ = (next_ + 1) % loops_.size();
    loop.best = std::max(loop.best, window(loop));
    if (loop.best > best_) {
      best_ = loop.best;
      how_ = loop.how;
    }
  } while (since(begin) < seconds);
}

}  // namespace rapt::bench

#endif  // HWY_ONCE
