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
std::atomic<bool> in_child{false};
void watch_forks() {
  [[maybe_unused]] static const int watching =
      pthread_atfork(nullptr, nullptr, [] { in_child.store(true, std::memory_order_relaxed); });
}

class Tbb final : public Executor {
 public:
  int workers() const override {
    if (in_child.load(std::memory_order_relaxed)) return 1;
    const KeepErrno keep_errno;
    const int arena = tbb::this_task_arena::max_concurrency();
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

}  // namespace

const Executor& serial_executor() {
  static const Serial serial;
  return serial;
}

const Executor& default_executor() {
#ifdef RAPT_WITHOUT_TBB
  return serial_executor();
#else
  static const Tbb executor;
  return executor;
#endif
}

}  // namespace rapt
