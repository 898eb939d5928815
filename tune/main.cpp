// rapt-tune: measures this machine and writes a config header for it. See tune/README.md.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/shapes_file.hpp"
#include "check.hpp"
#include "config/atomic_file.hpp"
#include "install.hpp"
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
  std::string out, check, from;
  bool install = false;
  std::string shapes = rapt::bench::shapes_file();
};

Options parse(CLI::App& app, int argc, char** argv) {
  Options options;
  app.description("Measures this machine and writes a config header for rapt.");
  app.footer(
      "The header is found by every program of this user after --install, else loaded with\n"
      "rapt::load_config or RAPT_CONFIG=FILE, or compiled in with meson setup -Dconfig=FILE.\n"
      "Leave the machine alone while it is measured.");
  auto* quick =
      app.add_flag("--quick", options.quick, "at most 60 seconds for everything (default)");
  app.add_flag("--full", options.full, "more candidates, more rounds: at most 15 minutes")
      ->excludes(quick);
  app.add_option("--seconds", options.seconds, "another limit, in seconds")
      ->check(CLI::Range(0.1, 86400.0));
  app.add_option(
         "--isa", options.isa,
         "ISA targets, comma-separated, 'best' or 'all' (default: best and AVX2; with --full: all)")
      ->delimiter(',');
  auto* out = app.add_option("--out,-o", options.out, "file to write (default: standard output)");
  app.add_flag("--install", options.install,
               "write it where the library finds it: the cache directory of this user, under this "
               "CPU's name; rows of targets that are not tuned now stay")
      ->excludes(out);
  app.add_option("--check", options.check,
                 "tune nothing: say for each row of a file whether it is used here, and why");
  app.add_option("--from", options.from,
                 "tune for a program: the problems that it left with RAPT_TRACE, weighted by time")
      ->check(CLI::ExistingFile);
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
    if (!options.full && options.from.empty() && find_target("AVX2") != nullptr)
      names.push_back("AVX2");
  }
  std::vector<const rapt::kernels::Kernels*> wanted;
  const auto add = [&](const std::string& name) {
    if (find_target(name) == nullptr)
      rapt::set_target(name);  // throws a sentence that lists what there is
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

// With a program's problems, of these alone.
std::vector<Item> items_of(const std::vector<const rapt::kernels::Kernels*>& targets,
                           const std::vector<Shape>& traced) {
  std::vector<Item> items;
  for (const auto* kernels : targets) {
    // The best target is the one that runs; the others matter to who forces them.
    const double target = kernels == targets.front() ? 3 : 1;
    for (const std::int64_t d : rapt::config::kHeadSizes) {
      items.push_back({{kernels, d}, target * (d == 64 || d == 128 ? 2 : 1)});
    }
    items.push_back({{kernels, 0}, target * 3});  // more numbers to find
  }
  if (traced.empty()) return items;
  std::erase_if(
      items, [&](const Item& item) { return of_program(traced, item.subject.head_size).empty(); });
  if (items.empty()) throw std::runtime_error("no row of the config is of these problems");
  return items;
}

// Now + seconds.
Clock::time_point in(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// What a row is searched on, and what it is judged on.
struct Problems {
  std::vector<Shape> search, held_out;
};

Problems problems_of(std::int64_t head_size, const std::vector<Shape>& traced,
                     const std::vector<Shape>& bench_shapes) {
  if (!traced.empty()) {
    constexpr std::size_t kSearched = 4;
    std::vector<Shape> all = of_program(traced, head_size), some = all;
    some.resize(std::min(some.size(), kSearched));
    return {some, all};
  }
  if (head_size == 0) return {gemm_search(), gemm_held_out(bench_shapes)};
  return {attention_search(head_size), attention_held_out(head_size, bench_shapes)};
}

// The first of the found rows that survives the judgement.
Result judge_first(const Subject& subject, const SearchResult& search,
                   const std::vector<Shape>& shapes, const Effort& effort, const Report& report) {
  Result result{subject, std::nullopt, {}, search.why_none};
  for (const Found& found : search.found) {
    result.judgement = judge(subject, found.text, shapes, effort, report);
    if (result.judgement.refusal.empty()) {
      result.row = found;
      return result;
    }
    result.why_default = result.judgement.refusal;
  }
  return result;
}

std::vector<Result> tune(const Options& options, double limit, Progress& progress) {
  constexpr double kSearchShare = 0.65;  // of the time; the judgement has the rest
  const int rounds = options.full ? 12 : 6;
  const std::vector<Shape> bench_shapes = rapt::bench::read_shapes(options.shapes);
  std::vector<Shape> traced;
  if (!options.from.empty()) traced = rapt::bench::read_shapes(options.from);
  if (!options.from.empty() && traced.empty())
    throw std::runtime_error(options.from + ": has no problems");
  const std::vector<Item> items = items_of(wanted_targets(options), traced);
  std::vector<Problems> problems;
  for (const Item& item : items)
    problems.push_back(problems_of(item.subject.head_size, traced, bench_shapes));
  const Report report = [&](const std::string& step) { progress.step(step); };
  const auto weight_from = [&](std::size_t first, const auto& counts) {
    double sum = 0;
    for (std::size_t i = first; i < items.size(); ++i) sum += counts(i) ? items[i].weight : 0;
    return sum;
  };

  // In both passes, what one item leaves of its time goes to those after it.
  std::vector<SearchResult> found;
  const auto every = [](std::size_t) { return true; };
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Subject& subject = items[i].subject;
    progress.begin(subject.name(), limit * kSearchShare * items[i].weight / weight_from(0, every));
    const double seconds =
        (limit * kSearchShare - progress.elapsed()) * items[i].weight / weight_from(i, every);
    found.push_back(
        search(subject, problems[i].search, {rounds, options.full, in(seconds)}, report));
    char gain[32] = "";
    if (!found[i].found.empty())
      std::snprintf(gain, sizeof gain, "gain %.2f", found[i].found[0].gain);
    progress.note(subject.name() + ": " + found[i].why_none + gain);
  }

  std::vector<Result> results;
  const auto any_found = [&](std::size_t i) { return !found[i].found.empty(); };
  const double judging = limit - progress.elapsed();
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Subject& subject = items[i].subject;
    double seconds = 0;
    if (any_found(i)) {
      progress.begin("judging " + subject.name(),
                     judging * items[i].weight / weight_from(0, any_found));
      seconds = (limit - progress.elapsed()) * items[i].weight / weight_from(i, any_found);
    }
    results.push_back(judge_first(subject, found[i], problems[i].held_out,
                                  {rounds, options.full, in(seconds)}, report));
    if (any_found(i)) {
      progress.note(subject.name() +
                    (results[i].row ? ": kept" : ": dropped, " + results[i].why_default));
    }
  }
  return results;
}

void on_signal(int number) { stop_signal = number; }

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESETHAND;  // the second one ends us at once
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

int run(const Options& options) {
  if (!options.check.empty()) {
    std::fputs(check(options.check).c_str(), stdout);
    return 0;
  }
  const std::string path = options.install ? rapt::config::installed_path() : options.out;
  if (options.install) {
    if (path.empty()) throw std::runtime_error("--install: neither XDG_CACHE_HOME nor HOME is set");
    make_directories(path);
  }
  if (!path.empty()) rapt::config::check_writable(path);
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
  std::snprintf(how, sizeof how, "%s%s, %.0f s", options.full ? "full" : "quick",
                options.from.empty() ? "" : " for a program", progress.elapsed());
  const std::string text = header(results, how);
  const bool to_file = !path.empty();
  std::FILE* const console = to_file ? stdout : stderr;
  std::fputs(table(results, colours(::fileno(console))).c_str(), console);
  if (to_file) {
    options.install ? install(path, text) : rapt::config::write_whole_file(path, text);
    std::printf("wrote %s\n", path.c_str());
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
