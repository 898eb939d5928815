#include "doctor.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "bench/cases.hpp"
#include "bench/data.hpp"
#include "bench/peak.hpp"
#include "bench/threads.hpp"
#include "config/config.hpp"
#include "machine.hpp"
#include "parallel/quota.hpp"
#include "rapt/rapt.hpp"

extern char** environ;

namespace rapt::tune {
namespace {

using Clock = std::chrono::steady_clock;

// A line: what it is about, in a column of its own.
[[gnu::format(printf, 2, 3)]] void line(const char* about, const char* format, ...) {
  std::printf("%-12s ", about);
  std::va_list values;
  va_start(values, format);
  std::vprintf(format, values);
  va_end(values);
  std::printf("\n");
  std::fflush(stdout);
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  return text;
}

// Cores of the CPUs that are online, whose hardware threads share one each; 0 where nothing says.
std::size_t cores() {
  std::set<std::string> siblings;
  for (long cpu = 0; cpu < ::sysconf(_SC_NPROCESSORS_CONF); ++cpu) {
    siblings.insert(first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                               "/topology/thread_siblings_list"));
  }
  siblings.erase("");
  return siblings.size();
}

// CPUs that the affinity of this process leaves, on which threads may run.
int allowed_cpus() {
  cpu_set_t set[16];  // for 16384 CPUs
  return ::sched_getaffinity(0, sizeof set, set) == 0 ? CPU_COUNT_S(sizeof set, set) : 1;
}

// What is wrong, to be said at the end.
using Troubles = std::vector<std::string>;

void isa_targets(Troubles& troubles) {
  const std::vector<std::string> all = targets();
  const std::string chosen = target();
  line("ISA targets", "%s (of this build, on this CPU); %s is used", joined(all).c_str(),
       chosen.c_str());
  if (chosen != all.front())
    troubles.push_back("RAPT_TARGET asks for " + chosen + ", and " + all.front() + " is faster");
  // What the CPU has, and no target is made for.
  std::ifstream file("/proc/cpuinfo");
  const std::string cpuinfo(std::istreambuf_iterator<char>(file), {});
  const std::pair<const char*, const char*> wide[] = {
      {" avx512bw", "AVX3"}, {" avx2", "AVX"}, {" sve", "SVE"}, {" asimd", "N"}};
  for (const auto& [flag, best] : wide) {
    const auto has = [name = std::string_view(best)](const std::string& target) {
      return target.starts_with(name) || target.starts_with("SVE");
    };
    if (cpuinfo.find(flag) != std::string::npos && std::none_of(all.begin(), all.end(), has))
      troubles.push_back("the CPU has" + std::string(flag) +
                         ", and this build has no target for it: "
                         "built with an old compiler, or with -Dtargets?");
  }
  if (all.front() == "EMU128" || all.front() == "SCALAR")
    troubles.push_back("no SIMD target runs on this CPU: " + all.front() + " stands in, slowly");
}

void thread_counts(Troubles& troubles) {
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  const int allowed = allowed_cpus();
  const int quota = parallel::cpu_quota("/"), workers = threads();
  line("threads", "%d by default: %ld CPUs, affinity leaves %d, control groups %s", workers, online,
       allowed, quota == 0 ? "do not limit them" : ("grant " + std::to_string(quota)).c_str());
  if (quota > 0 && quota < allowed)
    troubles.push_back("a container's quota grants " + std::to_string(quota) + " of " +
                       std::to_string(allowed) +
                       " CPUs: pools that count CPUs start too many "
                       "threads (rapt's default does not)");
  const std::size_t n = cores();
  if (n > 0 && static_cast<std::size_t>(workers) > n)
    troubles.push_back(std::to_string(workers) + " threads are on " + std::to_string(n) +
                       " cores (SMT): half as many may be as fast");
  if (&default_executor() == &serial_executor() && allowed > 1)
    troubles.push_back(
        "this build is without oneTBB: without an executor of yours, one thread runs");
  std::ifstream file("/proc/loadavg");
  double load = 0;
  if (file >> load && load > 0.5 * allowed) {
    char text[128];
    std::snprintf(text, sizeof text,
                  "the load is %.1f on %d CPUs: other programs run, the figures are too low", load,
                  allowed);
    troubles.push_back(text);
  }
}

void config_in_use(Troubles& troubles) {
  const ConfigReport report = config_report();
  line("config", "%s: %lld rows, %lld used, %lld ignored", report.source.c_str(),
       static_cast<long long>(report.read), static_cast<long long>(report.used),
       static_cast<long long>(report.ignored));
  const char* const named = config::environment("RAPT_CONFIG");
  line("", "RAPT_CONFIG  %s", named == nullptr ? "not set" : named);
  const std::string installed = config::installed_path();
  line("", "installed    %s%s", installed.empty() ? "nowhere: no HOME" : installed.c_str(),
       !installed.empty() && ::access(installed.c_str(), F_OK) != 0
           ? " (not there: rapt-tune --install writes it)"
           : "");
  if (!report.reason.empty()) troubles.push_back("config: " + report.reason);
  for (const std::string& file : report.refused) troubles.push_back("config refused: " + file);
}

void variables(Troubles& troubles) {
  static const std::set<std::string, std::less<>> known = {"RAPT_CONFIG", "RAPT_TARGET",
                                                           "RAPT_TRACE", "RAPT_VERBOSE"};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable(*entry);
    if (!variable.starts_with("RAPT_")) continue;
    line("environment", "%s", *entry);
    const std::string name(variable.substr(0, variable.find('=')));
    if (!known.contains(name))
      troubles.push_back(name + " is set, which rapt does not know");
    else if (name == "RAPT_TRACE" || name == "RAPT_VERBOSE")
      troubles.push_back(name + " is set: every call takes some microseconds more");
  }
}

// Peak and bandwidth, on one thread and on all.
void limits(Troubles& troubles) {
  const bench::Buffer memory(std::int64_t{128} << 20 >> 2);  // beyond most caches
  bench::fill_normal(memory.span(), 0);
  double alone = 0, read = 0;
  std::set<int> counts = {1, threads()};
  for (const int n : counts) {
    bench::Meter fma = bench::Meter::fma(target(), n);
    bench::Meter reading = bench::Meter::read(target(), n, memory.span());
    fma.measure(0.2);
    reading.measure(0.3);
    line("limits", "%d thread%s: %.0f GFLOP/s of multiply-adds, %.1f GB/s from memory", n,
         n == 1 ? "" : "s", fma.best(), reading.best());
    read = reading.best();
    if (n == 1) alone = fma.best();
    if (n > 1 && fma.best() < 0.7 * alone * n) {
      char text[160];
      std::snprintf(text, sizeof text,
                    "%d threads multiply %.1f times as fast as one: SMT, a lower clock or other "
                    "programs",
                    n, fma.best() / alone);
      troubles.push_back(text);
    }
  }
  if (read < 8) {  // one channel of DDR3 gave that in 2010
    char text[128];
    std::snprintf(text, sizeof text, "memory is slow, %.1f GB/s: decoding will be as slow", read);
    troubles.push_back(text);
  }
}

// Problems of all kinds on each ISA target, held against f64, for two seconds.
bool self_check(Troubles& troubles) {
  constexpr const char* kCases[] = {
      "attention/2,4,2,37,53,48,40/causal",
      "attention/1,4,2,5,90,72,72/mask/headbias/alibi/sinks/softcap/lse",
      "attention/3,6,2,9,70,64,64/left20/right3/chunk32/prefix4/bshd",
      "attention/2,4,2,8,80,64,64/bf16/tree8",
      "prefill/1,2,200,64",
      "causal/3,4,96,64/ragged",
      "decode/2,8,2,700,64/page16/shared",
      "decode/2,8,2,700,128/f16",
      "decode/2,8,2,700,64/int8/page16",
      "decode/1,8,2,700,64/int4",
      "gemm/67,83,129/bias/gelu",
      "gemm/5,300,200/int8",
      "gemm/40,50,60/batch3/ta/tb/beta",
  };
  std::vector<std::unique_ptr<bench::Case>> cases;
  for (const char* name : kCases) cases.push_back(bench::make_case(bench::parse_shape(name)));
  const std::string before = target();
  const std::vector<std::string> all = targets();
  std::vector<int> right(all.size());
  bool every = true;
  const Clock::time_point end = Clock::now() + std::chrono::seconds(2);
  do {
    for (std::size_t isa = 0; isa < all.size(); ++isa) {
      set_target(all[isa]);
      for (std::size_t i = 0; i < cases.size(); ++i) {
        const std::string wrong =
            cases[i]->check(right[isa] % 2 == 0 ? default_executor() : serial_executor());
        if (wrong.empty()) {
          ++right[isa];
        } else {
          every = false;
          troubles.push_back("WRONG on " + all[isa] + ": " + kCases[i] + ": " + wrong);
        }
      }
    }
  } while (every && Clock::now() < end);
  set_target(before);
  std::vector<std::string> words;
  for (std::size_t isa = 0; isa < all.size(); ++isa)
    words.push_back(all[isa] + " " + std::to_string(right[isa]));
  line("self-check", "results equal to f64's within f32's rounding: %s", joined(words).c_str());
  return every;
}

}  // namespace

bool doctor() {
  Troubles troubles;
  line("rapt", RAPT_VERSION ", built by %s", compiler().c_str());
  line("CPU", "%s", config::cpu_name().c_str());
  isa_targets(troubles);
  line("caches", "%s, as far as one core can use them", caches().c_str());
  thread_counts(troubles);
  config_in_use(troubles);
  variables(troubles);
  limits(troubles);
  const bool right = self_check(troubles);
  if (troubles.empty()) line("trouble", "none found");
  for (const std::string& trouble : troubles) line("trouble", "%s", trouble.c_str());
  return right;
}

}  // namespace rapt::tune
