// The config of the process: which one is in use, who replaced it, and a snapshot that costs a call
// next to nothing.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <mutex>
#include <utility>

#include "config/config.hpp"
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

// A bad one is a message too: it says what the formulas stand in for.
Config compiled_in() {
  Config config;
  try {
    config = parse({kCompiledIn, sizeof kCompiledIn - 1});
  } catch (const Error& error) {
    config.refused.push_back(std::string("the config that was compiled in: ") + error.what());
  }
  config.source = "compiled in";
  return config;
}

// The file of that name; or the config that was compiled in, and why.
Config from_file(const std::string& path, const std::string& source) {
  std::string reason;
  try {
    Config config = parse(read_trusted_file(path.c_str()));
    if (fits(config)) {
      config.source = source;
      return config;
    }
    reason = misfit(config);
  } catch (const Error& error) {
    reason = error.what();
  }
  Config config = compiled_in();
  config.refused.push_back(source + ": " + reason);
  return config;
}

Config first_config() {
  if (const char* const path = environment("RAPT_CONFIG"); path != nullptr)
    return from_file(path, std::string("RAPT_CONFIG=") + path);
  const std::string path = installed_path();
  // Nothing installed is the usual, and no message.
  if (path.empty() || ::access(path.c_str(), F_OK) != 0) return compiled_in();
  return from_file(path, path);
}

// The caller's errno, through the system calls of a first use.
struct KeepErrno {
  int value = errno;
  ~KeepErrno() { errno = value; }
};

// Under the mutex.
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
  const char* target = nullptr;  // whose row `gemm` is: the formulas divide a lot
  GemmRow gemm;
  ~Seen();
};
thread_local bool seen_is_gone = false;  // this thread is past its destructors
thread_local Seen seen;
Seen::~Seen() { seen_is_gone = true; }

// use(config) with the config of the process. What it calls must not ask for that again.
template <class Use>
auto with_current(const Use& use) {
  Process& p = process();
  if (seen_is_gone) {
    std::unique_lock lock(p.mutex);
    load_first(p);
    const std::shared_ptr<const Config> config = p.config;
    lock.unlock();
    return use(config);
  }
  if (seen.generation == 0 || seen.generation != p.generation.load(std::memory_order_acquire)) {
    const std::lock_guard lock(p.mutex);
    load_first(p);
    const Config* const config = p.config.get();
    seen.config = std::shared_ptr<const Config>(config, [keep = p.config](const Config*) {});
    seen.generation = p.generation.load(std::memory_order_relaxed);
    seen.target = nullptr;
  }
  return use(seen.config);
}

}  // namespace

bool fits(const Config& config) {
  return config.cpus.empty() ||
         std::find(config.cpus.begin(), config.cpus.end(), cpu_name()) != config.cpus.end();
}

std::shared_ptr<const Config> current() {
  return with_current([](const auto& config) { return config; });
}

AttentionRow current_attention_row(const char* target, Registers registers,
                                   std::int64_t head_size) {
  return with_current(
      [&](const auto& config) { return attention_row(*config, target, registers, head_size); });
}

GemmRow current_gemm_row(const char* target, Registers registers) {
  return with_current([&](const auto& config) {
    if (seen_is_gone) return gemm_row(*config, target, registers);
    if (seen.target != target) {
      seen.gemm = gemm_row(*config, target, registers);
      seen.target = target;
    }
    return seen.gemm;
  });
}

std::shared_ptr<const Config> load(std::string_view text) {
  Config config = text.empty() ? compiled_in() : parse(text);
  if (!text.empty()) config.source = "load_config";
  auto loaded = std::make_shared<const Config>(std::move(config));
  Process& p = process();
  std::shared_ptr<const Config> old = loaded;  // freed after the lock
  const std::lock_guard lock(p.mutex);
  p.config.swap(old);
  p.generation.fetch_add(1, std::memory_order_release);
  return loaded;
}

}  // namespace rapt::config
