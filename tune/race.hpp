// Which of several candidates is fastest, from timings on a machine that does other things as well.
//
// After gemma.cpp's matrix-product tuner: candidates take turns, so that a change of clock or a
// neighbour's load hits all alike; of each the smallest time counts, because interruptions only
// ever add; after the first round whoever is far behind stops running; a few rounds are enough.
//
// Highway's hwy/auto_tune.h does nearly this, and is not used for three reasons. Its
// CostDistribution estimates a typical cost of microseconds under contention for a thread pool; we
// time milliseconds on one thread, where the minimum of turns repeats to 1 % and a winsorized mean
// of four samples does not. Its AutoTune has no candidate that must be beaten by a margin, and one
// cost for each candidate where we have one for each shape. And it sorts 14 numbers with vqsort, a
// library that nothing else here needs.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

namespace rapt::tune {

// Seconds of one run of a candidate on a shape.
using Measure = std::function<double(std::size_t candidate, std::size_t shape)>;
using OutOfTime = std::function<bool()>;

// Noise: smaller differences are not believed.
inline constexpr double kMargin = 1.02;
// A candidate that is so far behind the best after one, two, ... rounds does not win: the more
// often it ran, the less is noise.
inline constexpr double kHopeless[] = {1.25, 1.15, 1.10, 1.06};

// The shapes of a race, and what a gain on each of them is worth.
struct Shapes {
  std::vector<double> weights;
  Shapes(std::size_t n) : weights(n, 1.0) {}  // NOLINT(google-explicit-constructor): all the same
  explicit Shapes(std::vector<double> each) : weights(std::move(each)) {}
};

struct RaceResult {
  // seconds[candidate][shape], the smallest of all complete rounds; empty when a candidate was not
  // timed.
  std::vector<std::vector<double>> seconds;
  std::vector<double> weights;
  int rounds = 0;

  // Weighted geometric mean over the shapes of the candidate's time by candidate 0's; infinite when
  // it was not timed.
  double cost(std::size_t candidate) const;
  // The cheapest candidate of those that lose to candidate 0 on no shape by more than the margin.
  std::size_t winner() const;
};

// Candidate 0 is the one to beat and runs in every round. A round that the time cuts short does not
// count.
RaceResult race(std::size_t candidates, const Shapes& shapes, int rounds, const Measure& measure,
                const OutOfTime& out_of_time);

// Two candidates, more closely: 0 is the default, 1 challenges it. One entry for each shape.
struct Duel {
  std::vector<double> seconds[2];  // smallest
  std::vector<double> weights;
  std::vector<double> by_minimum;  // default's smallest time by the challenger's
  std::vector<double> by_median;   // median of default's time by the challenger's, turn by turn
  int rounds = 0;

  // What is surely gained over all shapes: the less favourable of the two measures.
  double gain() const;
  // Slower by more than the margin by both measures.
  bool loses(std::size_t shape) const;
  bool loses_anywhere() const;
};
Duel duel(const Shapes& shapes, int rounds, const Measure& measure, const OutOfTime& out_of_time);

// The number of rows up to which `few` is the algorithm to take, when `many` is taken for all above
// it: one of `rows` (ascending), 0, or `by_default`, which stays unless another is better by the
// margin. few[i], many[i]: seconds with rows[i] rows.
std::size_t crossover(const std::vector<std::size_t>& rows, const std::vector<double>& few,
                      const std::vector<double>& many, std::size_t by_default);

}  // namespace rapt::tune
