#include "api/trace.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config/atomic_file.hpp"
#include "config/config.hpp"

namespace rapt::trace {
namespace {

// So many distinct problems are told apart (a long chat has one for each length); what comes then
// is counted together.
constexpr std::size_t kMost = 1 << 16;

struct Table {
  explicit Table(const char* name) : path(std::filesystem::absolute(name)) {}
  std::string path;  // not relative to where the program goes later
  pid_t owner = ::getpid();
  std::mutex mutex;  // guards what follows
  std::unordered_map<std::string, std::int64_t> calls;
  std::int64_t others = 0;  // calls of problems beyond kMost
  std::size_t written = 0;  // distinct problems in the file
  bool failed = false;      // and that was said
};

// Null where there is no trace. Never destroyed, because a call may come from a static destructor.
Table* table() {
  static Table* const table = [] {
    const char* const path = config::environment("RAPT_TRACE");
    return path == nullptr ? nullptr : new Table(path);
  }();
  return table;
}

std::string text_of(const Table& table) {
  std::vector<std::pair<std::string, std::int64_t>> lines(table.calls.begin(), table.calls.end());
  std::sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  std::string text = "# What a program computed, by RAPT_TRACE: a case, and how often.\n";
  for (const auto& [name, calls] : lines) text += name + "  calls:" + std::to_string(calls) + "\n";
  if (table.others > 0)
    text +=
        "# and " + std::to_string(table.others) + " calls of more problems than are told apart\n";
  return text;
}

// Under the mutex. A trace that cannot be written is a message, once, and never an error of a call.
void write(Table& table) {
  const int caller_errno = errno;
  try {
    config::write_whole_file(table.path, text_of(table));
    table.written = table.calls.size();
  } catch (const std::exception& error) {
    if (!std::exchange(table.failed, true))
      std::fprintf(stderr, "rapt: RAPT_TRACE: %s\n", error.what());
  }
  errno = caller_errno;
}

// At exit, or when the library is unloaded.
struct AtExit {
  ~AtExit() {
    Table& t = *table();
    if (t.owner != ::getpid()) return;  // and in it, another thread may have had the mutex
    const std::lock_guard lock(t.mutex);
    write(t);
  }
};

}  // namespace

bool on() {
  static const bool on = table() != nullptr;
  return on;
}

void count(const std::string& a_case) {
  if (a_case.empty()) return;
  static const AtExit at_exit;
  Table& t = *table();
  if (t.owner != ::getpid()) return;  // after fork: the file is the parent's
  const std::lock_guard lock(t.mutex);
  const auto found = t.calls.find(a_case);
  if (found != t.calls.end()) {
    ++found->second;
  } else if (t.calls.size() < kMost) {
    t.calls.emplace(a_case, 1);
  } else {
    ++t.others;
  }
  // A program that is killed leaves what was there when the list last doubled.
  if (t.calls.size() >= 2 * t.written && !t.failed) write(t);
}

}  // namespace rapt::trace
