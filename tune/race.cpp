#include "race.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace rapt::tune {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

double geometric_mean(const std::vector<double>& values, const std::vector<double>& weights) {
  double logs = 0, all = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    logs += weights[i] * std::log(values[i]);
    all += weights[i];
  }
  return values.empty() ? 1.0 : std::exp(logs / all);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

double RaceResult::cost(std::size_t candidate) const {
  if (seconds.empty() || seconds[candidate].empty()) return kNever;
  std::vector<double> ratios;
  for (std::size_t shape = 0; shape < seconds[0].size(); ++shape) {
    ratios.push_back(seconds[candidate][shape] / seconds[0][shape]);
  }
  return geometric_mean(ratios, weights);
}

std::size_t RaceResult::winner() const {
  std::size_t best = 0;
  for (std::size_t candidate = 1; candidate < seconds.size(); ++candidate) {
    if (seconds[candidate].empty()) continue;
    bool loses = false;
    for (std::size_t shape = 0; shape < seconds[0].size(); ++shape) {
      loses |= seconds[candidate][shape] > seconds[0][shape] * kMargin;
    }
    if (!loses && cost(candidate) < cost(best)) best = candidate;
  }
  return best;
}

RaceResult race(std::size_t candidates, const Shapes& all, int rounds, const Measure& measure,
                const OutOfTime& out_of_time) {
  const std::size_t shapes = all.weights.size();
  RaceResult result;
  result.weights = all.weights;
  result.seconds.resize(candidates);
  std::vector<std::size_t> running(candidates);
  for (std::size_t i = 0; i < candidates; ++i) running[i] = i;

  for (int round = 0; round < rounds && running.size() > 1; ++round) {
    std::vector<std::vector<double>> seconds(candidates, std::vector<double>(shapes));
    for (std::size_t shape = 0; shape < shapes; ++shape) {
      for (const std::size_t candidate : running) {
        if (out_of_time()) return result;
        seconds[candidate][shape] = measure(candidate, shape);
      }
    }
    for (const std::size_t candidate : running) {
      std::vector<double>& best = result.seconds[candidate];
      if (best.empty()) best.assign(shapes, kNever);
      for (std::size_t shape = 0; shape < shapes; ++shape) {
        best[shape] = std::min(best[shape], seconds[candidate][shape]);
      }
    }
    ++result.rounds;
    double best = kNever;
    for (const std::size_t candidate : running) best = std::min(best, result.cost(candidate));
    const double hopeless =
        kHopeless[std::min<std::size_t>(static_cast<std::size_t>(round), std::size(kHopeless) - 1)];
    std::erase_if(running, [&](std::size_t candidate) {
      return candidate != 0 && result.cost(candidate) > best * hopeless;
    });
    std::reverse(running.begin(),
                 running.end());  // whoever ran last runs first: a drift has no favourite
  }
  return result;
}

double Duel::gain() const {
  return std::min(geometric_mean(by_minimum, weights), geometric_mean(by_median, weights));
}

bool Duel::loses(std::size_t shape) const {
  return std::max(by_minimum[shape], by_median[shape]) * kMargin < 1.0;
}

bool Duel::loses_anywhere() const {
  for (std::size_t shape = 0; shape < by_minimum.size(); ++shape) {
    if (loses(shape)) return true;
  }
  return false;
}

Duel duel(const Shapes& all, int rounds, const Measure& measure, const OutOfTime& out_of_time) {
  const std::size_t shapes = all.weights.size();
  Duel result;
  result.weights = all.weights;
  std::vector<std::vector<double>> ratios(shapes);
  for (std::vector<double>& seconds : result.seconds) seconds.assign(shapes, kNever);
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t shape = 0; shape < shapes; ++shape) {
      if (out_of_time())
        rounds = 0;  // the rest of this round is still run: shapes must not differ in rounds
      double seconds[2];
      const std::size_t first = static_cast<std::size_t>(round) % 2;
      for (const std::size_t candidate : {first, 1 - first}) {
        seconds[candidate] = measure(candidate, shape);
        double& best = result.seconds[candidate][shape];
        best = std::min(best, seconds[candidate]);
      }
      ratios[shape].push_back(seconds[0] / seconds[1]);
    }
    ++result.rounds;
  }
  for (std::size_t shape = 0; shape < shapes; ++shape) {
    result.by_minimum.push_back(result.seconds[0][shape] / result.seconds[1][shape]);
    result.by_median.push_back(median(ratios[shape]));
  }
  return result;
}

std::size_t crossover(const std::vector<std::size_t>& rows, const std::vector<double>& few,
                      const std::vector<double>& many, std::size_t by_default) {
  // Each number of rows weighs alike: relative times.
  const auto cost = [&](std::size_t last_few) {
    double logs = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      logs += std::log((rows[i] <= last_few ? few[i] : many[i]) / std::min(few[i], many[i]));
    }
    return std::exp(logs / static_cast<double>(rows.size()));
  };
  std::size_t best = 0;
  for (const std::size_t last_few : rows) {
    if (cost(last_few) < cost(best)) best = last_few;
  }
  return cost(best) * kMargin < cost(by_default) ? best : by_default;
}

}  // namespace rapt::tune
