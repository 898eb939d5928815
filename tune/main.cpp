// rapt-tune: measures this machine and writes a config header for it. See tune/README.md.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "atomic_file.hpp"
#include "judge.hpp"
#include "kernels/kernels.hpp"
#include "problems.hpp"
#include "progress.hpp"
#include "rapt/config.hpp"
#include "report.hpp"
#include "search.hpp"
#include "trial.hpp"

namespace {

using namespace rapt::tune;
using Clock = std::chrono::steady_clock;

struct Options {
  bool quick = false, full = false;
  double seconds = 0;
  std::vector<std::string> isa;
  std::string out;
  std::string shapes = RAPT_SHAPES_FILE;
};

Options parse(CLI::App& app, int argc, char** argv) {
  Options options;
  app.description("Measures this machine and writes a config header for rapt.");
  app.footer(
      "The header is loaded with rapt::load_config or RAPT_CONFIG=FILE, or compiled in with\n"
      "meson setup -Dconfig=FILE. Leave the machine alone while it is measured.");
  auto* quick = app.add_flag("--quick", options.quick, "at most 60 seconds for everything (default)");
  app.add_flag("--full", options.full, "more candidates, more rounds: at most 15 minutes")->excludes(quick);
  app.add_option("--seconds", options.seconds, "another limit, in seconds")->check(CLI::Range(0.1, 86400.0));
  app.add_option("--isa", options.isa,
                 "ISA targets, comma-separated, 'best' or 'all' (default: best and AVX2; with --full: all)")
      ->delimiter(',');
  app.add_option("--out,-o", options.out, "file to write (default: standard output)");
  app.add_option("--shapes", options.shapes, "list of shapes for the final judgement")
      ->capture_default_str()
      ->check(CLI::ExistingFile);
  app.set_version_flag("--version", "rapt-tune " RAPT_VERSION);
  app.parse(argc, argv);
  return options;
}

const rapt::kernels::Kernels* find_target(const std::string& name) {
  const rapt::kernels::KernelList all = rapt::kernels::all();
  for (int i = 0; i < all.size; ++i) {
    if (name == all.list[i]->target) return all.list[i];
  }
  return nullptr;
}

// Best first, each once.
std::vector<const rapt::kernels::Kernels*> wanted_targets(const Options& options) {
  const std::vector<std::string> known = rapt::targets();
  std::vector<std::string> names = options.isa;
  if (names.empty()) {
    names = options.full ? std::vector<std::string>{"all"} : std::vector<std::string>{"best"};
    if (!options.full && find_target("AVX2") != nullptr) names.push_back("AVX2");
  }
  std::vector<const rapt::kernels::Kernels*> wanted;
  const auto add = [&](const std::string& name) {
    if (find_target(name) == nullptr) rapt::set_target(name);  // throws a sentence that lists what there is
    const auto* kernels = find_target(name);
    if (std::find(wanted.begin(), wanted.end(), kernels) == wanted.end()) wanted.push_back(kernels);
  };
  for (const std::string& name : names) {
    if (name == "all") {
      for (const std::string& each : known) add(each);
    } else {
      add(name == "best" ? known.front() : name);
    }
  }
  return wanted;
}

// What is tuned, and the share of the time that it gets.
struct Item {
  Subject subject;
  double weight;
};

std::vector<Item> items_of(const std::vector<const rapt::kernels::Kernels*>& targets) {
  std::vector<Item> items;
  for (const auto* kernels : targets) {
    // The best target is the one that runs; the others matter to who forces them.
    const double target = kernels == targets.front() ? 3 : 1;
    for (const std::int64_t d : rapt::config::kHeadSizes) {
      items.push_back({{kernels, d}, target * (d == 64 || d == 128 ? 2 : 1)});
    }
    items.push_back({{kernels, 0}, target * 3});  // more numbers to find
  }
  return items;
}

// Now + seconds.
Clock::time_point in(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::vector<Result> tune(const Options& options, double limit, Progress& progress) {
  constexpr double kSearchShare = 0.7;  // of the time; the judgement has the rest
  const std::vector<Item> items = items_of(wanted_targets(options));
  const std::vector<Shape> bench_shapes = rapt::bench::read_shapes(options.shapes);
  double weights = 0;
  for (const Item& item : items) weights += item.weight;

  // What one item leaves of its time goes to those after it.
  std::vector<Result> results;
  double left = weights;
  for (const Item& item : items) {
    const double seconds = (limit * kSearchShare - progress.elapsed()) * item.weight / left;
    left -= item.weight;
    progress.begin(item.subject.name(), limit * kSearchShare * item.weight / weights);
    const Effort effort{options.full ? 8 : 4, options.full, in(seconds)};
    const Found found =
        search(item.subject, effort, [&](const std::string& step) { progress.step(step); });
    results.push_back({item.subject, found, {}});
    char gain[32];
    std::snprintf(gain, sizeof gain, "gain %.2f", found.gain);
    progress.note(item.subject.name() + ": " + (found.text.empty() ? found.why : gain));
  }

  left = 0;
  for (std::size_t i = 0; i < items.size(); ++i) left += results[i].found.text.empty() ? 0 : items[i].weight;
  const double search_time = progress.elapsed(), candidates = left;
  for (std::size_t i = 0; i < items.size(); ++i) {
    Result& result = results[i];
    if (result.found.text.empty()) continue;
    const double seconds = (limit - progress.elapsed()) * items[i].weight / left;
    left -= items[i].weight;
    progress.begin("judging " + result.subject.name(), (limit - search_time) * items[i].weight / candidates);
    const Effort effort{options.full ? 8 : 4, options.full, in(seconds)};
    const std::int64_t d = result.subject.head_size;
    result.judgement =
        judge(result.subject, result.found.text,
              d == 0 ? gemm_held_out(bench_shapes) : attention_held_out(d, bench_shapes), effort,
              [&](const std::string& step) { progress.step(step); });
    if (!result.tuned()) progress.note(result.subject.name() + ": dropped, " + result.judgement.refusal);
  }
  return results;
}

void on_signal(int number) { stop_signal = number; }

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESETHAND;  // the second one ends us at once
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

int run(const Options& options) {
  if (!options.out.empty()) check_writable(options.out);
  // The time to load, to write, and of the one timing that is under way when the time is over.
  const double limit = (options.seconds > 0 ? options.seconds : options.full ? 900 : 60) * 0.95;
  std::vector<Result> results;
  Progress progress(limit);
  try {
    results = tune(options, limit, progress);
  } catch (const Interrupted&) {
    progress.clear();
    std::fprintf(stderr, "rapt-tune: interrupted, nothing written\n");
    return 128 + stop_signal;
  }
  progress.clear();

  char how[64];
  std::snprintf(how, sizeof how, "%s, %.0f s", options.full ? "full" : "quick", progress.elapsed());
  const std::string text = header(results, how);
  const bool to_file = !options.out.empty();
  std::FILE* const console = to_file ? stdout : stderr;
  std::fputs(table(results, colours(::fileno(console))).c_str(), console);
  if (to_file) {
    write_whole_file(options.out, text);
    std::printf("wrote %s\n", options.out.c_str());
  } else {
    std::fputs(text.c_str(), stdout);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  try {
    const Options options = parse(app, argc, argv);
    catch_signals();
    return run(options);
  } catch (const CLI::Error& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rapt-tune: %s\n", error.what());
    return 1;
  }
}
