// rapt-bench: every operation on every shape, for the ISA targets and thread counts that are asked
// for. See bench/README.md for what each number means.
#include <benchmark/benchmark.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "cases.hpp"
#include "config/config.hpp"
#include "limits.hpp"
#include "peak.hpp"
#include "rapt/rapt.hpp"
#include "shapes.hpp"
#include "shapes_file.hpp"
#include "threads.hpp"

namespace {

using namespace rapt::bench;
using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<std::string> isa = {"best"};
  std::vector<std::string> threads = {"1", "all"};
  std::vector<std::string> shapes;  // names must contain one of these; all when empty
  std::vector<std::string> tags;    // shapes must have one of these; all when empty
  std::vector<std::string> cases;   // lines like those of the list, in place of it
  std::string shape_list = rapt::bench::shapes_file();
  std::string config;   // a config header to load
  std::string against;  // another one: the best target is timed with both, turn by turn
  bool every_shape = false;
  bool limits = false;
};

bool g_failed = false;

// The operands of one shape at a time, and of the one that it is compared with: they can be large,
// and benchmarks of a shape follow one another.
struct Cases {
  std::string name;
  std::unique_ptr<Case> own, other;
};
Cases& cases_of(const Shape& shape) {
  static Cases made;
  if (made.name != shape.name) {
    made = {};
    made.own = make_case(shape);
    if (!shape.against.empty()) made.other = make_case(parse_shape(shape.against));
    made.name = shape.name;
  }
  return made;
}

// The limits that a result is judged by, measured in between its iterations.
class Limits {
 public:
  Limits(const Shape& shape, Case& which, const std::string& target, int threads)
      : fma_(Meter::fma(target, threads)) {
    if (shape.is_streaming()) read_ = Meter::read(target, threads, which.streamed());
  }
  void measure(double seconds) {
    fma_.measure(seconds);
    if (read_) read_->measure(seconds);
  }
  double gflops() const { return fma_.best(); }
  double gbytes() const { return read_ ? read_->best() : 0; }

 private:
  Meter fma_;
  std::optional<Meter> read_;
};

double seconds_of(Case& which, const rapt::Executor& executor) {
  const Clock::time_point start = Clock::now();
  which.run(executor);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Configs {
  std::string used, against;  // texts; against empty: there is only one
};

// What a shape is timed against, turn by turn, so that what else happens on the machine meets both.
struct Rival {
  const char* counter;                                  // of the shape's speed to the rival's
  std::function<double(const rapt::Executor&)> gflops;  // of one call
  std::vector<double> ratios{};
};

std::vector<Rival> rivals_of(const Shape& shape, Cases& cases, const Configs& configs) {
  std::vector<Rival> rivals;
  if (!configs.against.empty()) {
    rivals.push_back({"against", [&](const rapt::Executor& executor) {
                        rapt::load_config(configs.against);
                        const double seconds = seconds_of(*cases.own, executor);
                        rapt::load_config(configs.used);
                        return shape.flops() / seconds * 1e-9;
                      }});
  }
  if (cases.other) {
    rivals.push_back(
        {"vs", [&, flops = parse_shape(shape.against).flops()](const rapt::Executor& executor) {
           seconds_of(*cases.other, executor);  // its operands come into the caches
           return flops / seconds_of(*cases.other, executor) * 1e-9;
         }});
  }
  return rivals;
}

double median_of(std::vector<double>& numbers) {
  std::sort(numbers.begin(), numbers.end());
  return numbers[numbers.size() / 2];
}

void time_case(benchmark::State& state, const Shape& shape, const std::string& target, int threads,
               const Configs& configs) {
  constexpr double kBetweenLimits = 0.05;  // seconds of work between two looks at the limits
  constexpr std::size_t kTurns = 5;  // with a rival, at least: their median is to mean something
  rapt::set_target(target);
  Cases& cases = cases_of(shape);
  Case& which = *cases.own;
  Limits limits(shape, which, target, threads);
  std::vector<Rival> rivals = rivals_of(shape, cases, configs);
  std::vector<double> seconds;

  on_threads(threads, [&](const rapt::Executor& executor) {
    std::string wrong = which.check(executor);
    if (wrong.empty() && cases.other) {
      wrong = cases.other->check(executor);
      if (!wrong.empty()) wrong = shape.against + ": " + wrong;
    }
    if (!wrong.empty()) {
      g_failed = true;
      state.SkipWithError(wrong.c_str());
      return;
    }
    limits.measure(0.01);
    seconds.push_back(
        seconds_of(which, executor));  // all is warm, but of small cases: a run like others
    double until_limits = kBetweenLimits;
    bool evicted = false;  // something else was read since the last call
    const auto turn = [&] {
      if (evicted) seconds_of(which, executor);
      evicted = cases.other != nullptr;
      seconds.push_back(seconds_of(which, executor));
      for (Rival& rival : rivals)
        rival.ratios.push_back(shape.flops() / seconds.back() * 1e-9 / rival.gflops(executor));
    };
    for ([[maybe_unused]] auto _ : state) {
      turn();
      state.SetIterationTime(seconds.back());
      until_limits -= seconds.back();
      if (until_limits < 0) {
        limits.measure(0.001);
        evicted = true;
        until_limits = kBetweenLimits;
      }
    }
    while (!rivals.empty() && rivals.front().ratios.size() < kTurns) turn();
    limits.measure(0.01);
  });
  if (state.error_occurred()) return;

  const double median = median_of(seconds);
  const double best = seconds.front();
  const double gflops = shape.flops() / best * 1e-9;
  state.counters["GFLOP/s"] = gflops;
  state.counters["median"] = shape.flops() / median * 1e-9;
  for (Rival& rival : rivals) state.counters[rival.counter] = median_of(rival.ratios);
  if (cases.other) state.SetLabel("vs " + shape.against);
  state.counters["peak"] = limits.gflops();
  state.counters["share"] = gflops / limits.gflops();
  if (shape.calls > 0) state.counters["calls"] = static_cast<double>(shape.calls);
  state.counters["flop/byte"] = shape.flops() / shape.bytes();
  if (shape.is_streaming()) {
    const double gbytes = shape.streamed_bytes() / best * 1e-9;
    // Each byte costs arithmetic of its own: where that takes longer than reading, it is the limit.
    const double fma_bound = limits.gflops() * shape.streamed_bytes() / shape.flops();
    state.counters["GB/s"] = gbytes;
    state.counters["read"] = limits.gbytes();
    state.counters["read_share"] = gbytes / limits.gbytes();
    state.counters["bound_share"] = gbytes / std::min(limits.gbytes(), fma_bound);
  }
}

std::vector<std::string> wanted_targets(const Options& options) {
  const std::vector<std::string> known = rapt::targets();
  std::vector<std::string> wanted;
  for (const std::string& name : options.isa) {
    if (name == "all") return known;
    if (name == "best") {
      wanted.push_back(known.front());
      continue;
    }
    rapt::set_target(name);  // throws a sentence that lists what there is
    wanted.push_back(name);
  }
  return wanted;
}

std::vector<int> wanted_threads(const Options& options) {
  std::vector<int> wanted;
  const int all = rapt::default_executor().workers();
  for (const std::string& count : options.threads) {
    const int n = count == "all" ? all : std::atoi(count.c_str());
    if (n < 1)
      throw std::invalid_argument("--threads takes numbers and 'all', not '" + count + "'");
    if (n > all)  // oneTBB would start no more than it does for all, and say so
      throw std::invalid_argument("--threads is " + count + ", but this process runs on " +
                                  std::to_string(all));
    if (std::find(wanted.begin(), wanted.end(), n) == wanted.end()) wanted.push_back(n);
  }
  return wanted;
}

// Part of the name, and a tag, where such were asked for.
bool is_wanted(const Shape& shape, const Options& options) {
  const auto any = [](const std::vector<std::string>& asked, auto fits) {
    return asked.empty() || std::any_of(asked.begin(), asked.end(), fits);
  };
  return any(options.shapes,
             [&](const std::string& part) { return shape.name.find(part) != std::string::npos; }) &&
         any(options.tags, [&](const std::string& tag) { return shape.has(tag); });
}

std::vector<Shape> wanted_shapes(const Options& options) {
  if (options.cases.empty()) return read_shapes(options.shape_list);
  std::vector<Shape> shapes;
  for (const std::string& line : options.cases) shapes.push_back(parse_line(line));
  return shapes;
}

// Shapes outermost: their operands are made once, and targets are compared within the same seconds.
int register_benchmarks(const Options& options, const Configs& configs) {
  const std::vector<std::string> targets = wanted_targets(options);
  const std::vector<int> threads = wanted_threads(options);
  int registered = 0;
  for (const Shape& shape : wanted_shapes(options)) {
    if (!is_wanted(shape, options)) continue;
    for (const std::string& target : targets) {
      const bool best = target == targets.front();
      if (!best && !options.every_shape && !shape.has("isa")) continue;
      for (const int n : threads) {
        const std::string name = shape.name + "/" + target + "/threads:" + std::to_string(n);
        benchmark::RegisterBenchmark(
            name.c_str(), [shape, target, n, own = best ? configs : Configs()](
                              benchmark::State& state) { time_case(state, shape, target, n, own); })
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond);
        ++registered;
      }
    }
  }
  return registered;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

template <class List>
std::string joined(const List& list) {
  std::string text;
  for (const auto& item : list) text += (text.empty() ? "" : ", ") + std::string(item);
  return text;
}

void add_context(const Options& options) {
  benchmark::AddCustomContext("cpu", rapt::config::cpu_name());
  benchmark::AddCustomContext("targets", joined(rapt::targets()));
  benchmark::AddCustomContext("all_threads", std::to_string(rapt::default_executor().workers()));
  benchmark::AddCustomContext(
      "config", options.config.empty() ? rapt::config_report().source : options.config);
  benchmark::AddCustomContext("compiler", __VERSION__);
}

// Google Benchmark reads its own flags from these; what the user gave comes last and wins.
void initialize_benchmark(const char* program, const std::vector<std::string>& flags) {
  static std::vector<std::string> words;  // Google Benchmark keeps a pointer to the program's name
  words = {program, "--benchmark_min_time=0.15", "--benchmark_counters_tabular=true"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int argc = static_cast<int>(words.size());
  benchmark::Initialize(&argc, argv.data());
  if (argc > 1) throw std::invalid_argument("no option is called " + std::string(argv[1]));
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Times rapt's operations, and the limits of the machine beside them. Every result is checked "
      "before "
      "it is timed. All --benchmark_... options of Google Benchmark work as well.");
  app.add_option("--isa", options.isa, "ISA targets: names, 'best' or 'all'")->delimiter(',');
  app.add_option("--threads", options.threads, "thread counts: numbers and 'all'")->delimiter(',');
  app.add_option("--shapes", options.shapes, "only shapes whose names contain one of these words");
  app.add_option("--tags", options.tags, "only shapes that have one of these tags")->delimiter(',');
  app.add_flag("--every-shape", options.every_shape,
               "every shape for every target, not only those tagged 'isa'");
  auto* list = app.add_option("--from,--shape-list", options.shape_list,
                              "the list of shapes, or what a program left with RAPT_TRACE");
  list->capture_default_str();
  app.add_option("--case", options.cases,
                 "in place of a list: a case like a line of it, as explain() prints it")
      ->excludes(list);
  app.add_option("--config", options.config,
                 "config header to use in place of the one compiled in");
  app.add_option("--against", options.against,
                 "config header: the first target is timed with it too, turn by turn");
  app.add_flag("--limits", options.limits, "only what the machine allows, and no benchmark");
  app.allow_extras();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  initialize_benchmark(argv[0], app.remaining());
  if (options.limits) {
    print_limits(wanted_targets(options), wanted_threads(options));
    return 0;
  }
  if (!options.config.empty()) {
    const rapt::ConfigReport report = rapt::load_config(read_file(options.config));
    if (!report.reason.empty()) std::fprintf(stderr, "rapt-bench: %s\n", report.reason.c_str());
  }
  Configs configs;
  if (!options.against.empty()) configs = {rapt::config_text(), read_file(options.against)};
  if (register_benchmarks(options, configs) == 0)
    throw std::invalid_argument("no shape is called so");
  add_context(options);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return g_failed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rapt-bench: %s\n", error.what());
    return 2;
  }
}
