#include "report.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "config/config.hpp"
#include "machine.hpp"
#include "race.hpp"

namespace rapt::tune {
namespace {

[[gnu::format(printf, 1, 2)]] std::string printed(const char* format, ...) {
  char text[512];
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  return text;
}

std::string time_text(double seconds) {
  if (seconds < 1e-3) return printed("%.1f us", seconds * 1e6);
  if (seconds < 1) return printed("%.2f ms", seconds * 1e3);
  return printed("%.3f s", seconds);
}

const Verdict& worst(const Judgement& judgement) {
  return *std::min_element(judgement.verdicts.begin(), judgement.verdicts.end(),
                           [](const Verdict& a, const Verdict& b) { return a.gain() < b.gain(); });
}

}  // namespace

std::string header(const std::vector<Result>& results, const std::string& how) {
  std::string text = "// The tuned config of one machine, written by rapt-tune " RAPT_VERSION ", " +
                     how + ", " + date() + ".\n";
  text += "// CPU: " + config::cpu_name() + "\n";
  text += "// " + std::to_string(threads()) + " threads; " + caches() + ".\n";
  text += "// Compiler: " + for_comment(compiler()) + ".\n";
  text +=
      "// Gains are over the formulas of src/config/defaults.cpp, geometric means: on the problems "
      "of the\n"
      "// search, and on those of the judgement (others, or all of the program's), with the least "
      "of "
      "those.\n"
      "// What has no row here was not tuned or keeps its default.\n";
  for (const Result& result : results) {
    text += "\n// " + result.subject.name() + ": ";
    if (!result.row) {
      text += "the default stays; " + for_comment(result.why_default) + ".\n";
      continue;
    }
    const Verdict& least = worst(result.judgement);
    text += printed("gain %.2f on the search; judged %.2f, at least %.2f (%s, %d %s)\n",
                    result.row->gain, result.judgement.gain(), least.gain(), least.shape.c_str(),
                    least.threads, least.threads == 1 ? "thread" : "threads");
    text += result.row->text;
  }
  (void)config::parse(text);  // what we write is what the library reads, or no file at all
  return text;
}

std::string table(const std::vector<Result>& results, bool colour) {
  const char* const green = colour ? "\033[32m" : "";
  const char* const grey = colour ? "\033[2m" : "";
  const char* const plain = colour ? "\033[0m" : "";
  std::string text = printed("%-24s %-26s %7s %11s %11s  %s\n", "row", "shape", "threads",
                             "default", "tuned", "gain");
  for (const Result& result : results) {
    std::string name = result.subject.name();
    if (!result.row) {
      text += printed("%-24s %skeeps the default: %s%s\n", name.c_str(), grey,
                      result.why_default.c_str(), plain);
      continue;
    }
    for (const Verdict& v : result.judgement.verdicts) {
      text +=
          printed("%-24s %-26s %7d %11s %11s  %s%.2f%s\n", name.c_str(), v.shape.c_str(), v.threads,
                  time_text(v.default_seconds).c_str(), time_text(v.tuned_seconds).c_str(),
                  v.gain() >= kMargin ? green : "", v.gain(), v.gain() >= kMargin ? plain : "");
      name.clear();
    }
  }
  return text;
}

}  // namespace rapt::tune
