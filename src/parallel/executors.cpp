// The executors that ship with rapt: serial, and oneTBB.
#include "rapt/executor.hpp"

#ifndef RAPT_WITHOUT_TBB
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel/quota.hpp"
#endif

namespace rapt {
namespace {

class Serial final : public Executor {
 public:
  int workers() const override { return 1; }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    for (std::int64_t i = 0; i < tasks; ++i) task(context, i, 0);
  }
};

#ifndef RAPT_WITHOUT_TBB
// oneTBB leaves errno behind when its first use looks for libraries and starts threads.
struct KeepErrno {
  int value = errno;
  ~KeepErrno() { errno = value; }
};

// oneTBB's threads do not follow a process into its child, and one that was just falling asleep
// leaves a lock held there for ever. So a child whose parent has used oneTBB does not.
std::atomic<bool> without_tbb{false};
void leave_tbb() { without_tbb.store(true, std::memory_order_relaxed); }
void watch_forks() {
  [[maybe_unused]] static const int watching = pthread_atfork(nullptr, nullptr, leave_tbb);
}

// A thread's first use of oneTBB may abort where oneTBB's own destructors run meanwhile, or have
// run. So the end of the process waits for those that have begun, and no more begin.
std::mutex first_uses;
void end_first_uses() {
  // A child's parent may have held the lock, and nobody gives it back there.
  if (without_tbb.load(std::memory_order_relaxed)) return;
  const std::lock_guard wait(first_uses);
  leave_tbb();
}
// For a process that ends before any use: oneTBB's library is older than this object, and lives on.
const struct AtExit {
  ~AtExit() { end_first_uses(); }
} at_exit;

bool may_use_tbb() {
  thread_local bool has_used = false;
  if (has_used) return true;
  const std::lock_guard lock(first_uses);
  // A oneTBB in the same binary may be younger than that object.
  [[maybe_unused]] static const int watching = std::atexit(end_first_uses);
  if (without_tbb.load(std::memory_order_relaxed)) return false;
  tbb::this_task_arena::isolate(
      [] { tbb::parallel_for(0, 2, [](int) {}, tbb::simple_partitioner()); });
  return has_used = true;
}

// Whether the system grants so many threads at once. oneTBB does not survive that it grants fewer
// than oneTBB wants (a limit of processes, or of a container), so it is asked before the first use.
bool starts_threads(int n) {
  std::vector<std::thread> threads;
  std::mutex all_at_once;
  std::unique_lock<std::mutex> lock(all_at_once);
  bool granted = true;
  try {
    threads.reserve(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i)
      threads.emplace_back([&] { const std::lock_guard wait(all_at_once); });
  } catch (const std::exception&) {
    granted = false;
  }
  lock.unlock();
  for (std::thread& thread : threads) thread.join();
  return granted;
}

class Tbb final : public Executor {
 public:
  int workers() const override {
    if (without_tbb.load(std::memory_order_relaxed)) return 1;
    const KeepErrno keep_errno;
    const int arena = tbb::this_task_arena::max_concurrency();
    if (arena <= 1) return 1;
    static const bool has_threads = starts_threads(tbb::info::default_concurrency() - 1);
    if (!has_threads) return 1;
    // Whoever made an arena of another size knows what it is for.
    static const int quota = parallel::cpu_quota("/");
    return quota > 0 && arena == tbb::info::default_concurrency() ? std::min(arena, quota) : arena;
  }

  // One puller a worker, each taking the next task until none is left: tasks start in order, the
  // long ones first. Pullers that find no thread of their own run later, and find nothing to do.
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    const int pullers = static_cast<int>(std::min<std::int64_t>(tasks, workers()));
    if (pullers <= 1) return serial_executor().parallel_for(tasks, task, context);
    watch_forks();
    const KeepErrno keep_errno;
    if (!may_use_tbb()) return serial_executor().parallel_for(tasks, task, context);
    std::atomic<std::int64_t> next{0};
    const auto pull = [&](int worker) {
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
        task(context, i, worker);
    };
    tbb::this_task_arena::isolate(
        [&] { tbb::parallel_for(0, pullers, pull, tbb::simple_partitioner()); });
  }
};
#endif

// Never destroyed, because calls may still run when the process ends.
template <class T>
union Forever {
  Forever() : executor() {}
  ~Forever() {}
  T executor;
};

}  // namespace

const Executor& serial_executor() {
  static const Forever<Serial> serial;
  return serial.executor;
}

const Executor& default_executor() {
#ifdef RAPT_WITHOUT_TBB
  return serial_executor();
#else
  static const Forever<Tbb> tbb;
  return tbb.executor;
#endif
}

}  // namespace rapt
