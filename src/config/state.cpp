// The config of the process: which one is in use, who replaced it, and a snapshot that costs a call
// next to nothing.
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#if !defined(__linux__) && __has_include(<unistd.h>)
#include <unistd.h>  // issetugid
#endif

#include "config/config.hpp"
#include "rapt/config.hpp"
#include "rapt/error.hpp"

// The rows of the header become one string, a row on each line, for the one parser.
#define RAPT_ROW(...) "RAPT_ROW(" #__VA_ARGS__ ")\n"
static constexpr char kCompiledIn[] =
#ifdef RAPT_CONFIG_HEADER
#include RAPT_CONFIG_HEADER
#else
#include "config/builtin.hpp"
#endif
    "";
#undef RAPT_ROW

namespace rapt::config {
namespace {

struct Process {
  std::mutex mutex;                          // guards config
  std::shared_ptr<const Config> config;      // null until it is first needed
  std::atomic<std::uint64_t> generation{0};  // grows whenever config changes; 0: null
};

// Never destroyed, because a call may come from a static destructor or from a thread that outlives
// main.
Process& process() {
  static Process& process = *new Process;
  return process;
}

Config compiled_in() {
  try {
    return parse({kCompiledIn, sizeof kCompiledIn - 1});
  } catch (const Error& error) {
    throw Error(error.code(), std::string("the config that was compiled in: ") + error.what());
  }
}

// RAPT_CONFIG, unless this process has rights that its user has not.
const char* config_path() {
#if defined(__linux__)
  const char* path = secure_getenv("RAPT_CONFIG");
#elif __has_include(<unistd.h>)
  const char* path = issetugid() ? nullptr : std::getenv("RAPT_CONFIG");
#else
  const char* path = std::getenv("RAPT_CONFIG");
#endif
  return path != nullptr && *path != '\0' ? path : nullptr;
}

Config first_config() {
  const char* const path = config_path();
  if (path == nullptr) return compiled_in();
  try {
    return parse(read_trusted_file(path));
  } catch (const Error& error) {
    throw Error(error.code(), std::string("RAPT_CONFIG=") + path + ": " + error.what());
  }
}

// The caller's errno, through the system calls of a first use.
struct KeepErrno {
  int value = errno;
  ~KeepErrno() { errno = value; }
};

// Under the mutex. A failure leaves everything as it was, so the next call tries again and throws
// again: a config that was asked for and cannot be had is never quietly replaced by another.
void load_first(Process& process) {
  if (process.config) return;
  const KeepErrno keep_errno;
  process.config = std::make_shared<const Config>(first_config());
  process.generation.fetch_add(1, std::memory_order_release);
}

// What a thread saw last. Its shared_ptr has a control block of this thread's own (which holds the
// process's), so that callers in many threads do not write to one counter.
struct Seen {
  std::uint64_t generation = 0;
  std::shared_ptr<const Config> config;
  ~Seen();
};
thread_local bool seen_is_gone = false;  // this thread is past its destructors
thread_local Seen seen;
Seen::~Seen() { seen_is_gone = true; }

}  // namespace

std::shared_ptr<const Config> current() {
  Process& p = process();
  if (seen_is_gone) {
    const std::lock_guard lock(p.mutex);
    load_first(p);
    return p.config;
  }
  if (seen.generation == 0 || seen.generation != p.generation.load(std::memory_order_acquire)) {
    const std::lock_guard lock(p.mutex);
    load_first(p);
    const Config* const config = p.config.get();
    seen.config = std::shared_ptr<const Config>(config, [keep = p.config](const Config*) {});
    seen.generation = p.generation.load(std::memory_order_relaxed);
  }
  return seen.config;
}

}  // namespace rapt::config

namespace rapt {

void load_config(std::string_view text) {
  auto config = std::make_shared<const config::Config>(text.empty() ? config::compiled_in()
                                                                    : config::parse(text));
  config::Process& process = config::process();
  const std::lock_guard lock(process.mutex);
  process.config.swap(config);  // the old one is freed after the lock
  process.generation.fetch_add(1, std::memory_order_release);
}

std::string config_text() {
  // Never empty, because load_config takes an empty text for something else.
  return "// What has no row here is computed from the cache sizes of the machine.\n" +
         config::format(*config::current());
}

}  // namespace rapt
