#include "judge.hpp"

#include <algorithm>
#include <cmath>

#include "machine.hpp"
#include "problems.hpp"
#include "race.hpp"
#include "rapt/config.hpp"
#include "trial.hpp"

namespace rapt::tune {
namespace {

constexpr int kFewestRounds = 3;

// One shape on so many threads. False when the time is over.
bool judge_one(const Subject& subject, const std::string& row, const bench::Shape& shape,
               int threads, const Effort& effort, const Report& report, Judgement& judgement) {
  const std::string by_default = subject.default_text();
  report("judged, " + shape.name + (threads == 1 ? "" : ", all threads"));
  Trial trial(shape, threads);
  if (const std::string wrong = trial.check(row); !wrong.empty()) {
    judgement.refusal = "wrong result on " + shape.name + ": " + wrong;
    return false;
  }
  const double seconds = trial.seconds(by_default);
  if (2 * kFewestRounds * seconds > effort.left()) return false;
  const std::string texts[] = {by_default, row};
  const auto fight = [&] {
    return duel(
        1, std::max(effort.rounds, kFewestRounds),
        [&](std::size_t candidate, std::size_t) { return trial.seconds(texts[candidate]); },
        [&] { return effort.out_of_time(); });
  };
  Duel result = fight();
  // A neighbour on the machine may spoil one duel, but hardly three: what looks slower is looked at
  // again.
  for (int again = 0; again < 2 && result.gain() * kMargin < 1; ++again) result = fight();
  judgement.verdicts.push_back({shape.name, threads, result.seconds[0][0], result.seconds[1][0],
                                time_weight(shape, result.seconds[0][0])});
  if (result.loses(0))
    judgement.refusal = "slower on " + shape.name + (threads == 1 ? "" : ", all threads");
  return judgement.refusal.empty();
}

}  // namespace

double Judgement::gain() const {
  double logs = 0, weights = 0;
  for (const Verdict& v : verdicts) {
    logs += v.weight * std::log(v.gain());
    weights += v.weight;
  }
  return verdicts.empty() ? 1.0 : std::exp(logs / weights);
}

Judgement judge(const Subject& subject, const std::string& row,
                const std::vector<bench::Shape>& shapes, const Effort& effort,
                const Report& report) {
  set_target(subject.kernels->target);
  std::vector<bench::Shape> by_size = shapes;
  std::sort(by_size.begin(), by_size.end(), [](const bench::Shape& a, const bench::Shape& b) {
    return a.flops() + a.bytes() < b.flops() + b.bytes();
  });
  Judgement judgement;
  for (const bench::Shape& shape : by_size) {
    if (!judge_one(subject, row, shape, 1, effort, report, judgement)) break;
    if (threads() > 1 && !judge_one(subject, row, shape, threads(), effort, report, judgement))
      break;
  }
  if (!judgement.refusal.empty()) return judgement;
  if (judgement.verdicts.empty()) judgement.refusal = "no time was left to confirm it";
  if (judgement.gain() < 1.0)
    judgement.refusal = "no gain on problems that the search had not seen";
  return judgement;
}

}  // namespace rapt::tune
