// Many callers at once, calls inside the caller's own tasks, and how many threads a call may use.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/attention_case.hpp"
#include "support/executors.hpp"
#include "support/gemm_case.hpp"
#include "support/pool.hpp"
#include "support/ways.hpp"

#ifndef RAPT_WITHOUT_TBB
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_scheduler_observer.h>
#endif

namespace rapt::tests {
namespace {

// Ends the process when a test hangs; a hang is a failure, not a wait.
class Watchdog {
 public:
  explicit Watchdog(unsigned seconds) { alarm(seconds); }
  ~Watchdog() { alarm(0); }
};

AttentionCase several_tasks(std::uint64_t seed) {
  AttentionCase c;
  c.batch = {2};
  c.heads = 6;
  c.kv_heads = 3;
  c.seq_q = 150;
  c.seq_kv = 65;
  c.d_k = c.d_v = 20;
  c.causal = true;
  c.seed = seed;
  return c;
}

// A problem of a thread of its own, with the bits that it must give.
struct Job {
  explicit Job(std::uint64_t seed)
      : data(several_tasks(seed)), product([&] {
          GemmCase g;
          g.m = 90;
          g.n = 130;
          g.k = 70;
          g.seed = seed;
          return g;
        }()) {
    data.run(&serial_executor());
    out = data.out.values();
    product.run(&serial_executor());
    c = product.c.values();
  }
  // Only what threads do: no check of memory, which would take most of the time.
  bool again(const Executor* executor = nullptr) {
    AttentionOptions options = data.options();
    options.executor = executor;
    attention(data.q_view(), data.k_view(), data.v_view(), data.out_view(), options);
    GemmOptions with = product.options();
    with.executor = executor;
    gemm(product.a_view(), product.b_view(), product.c_view(), with);
    return same_bits(out, data.out.values()) && same_bits(c, product.c.values());
  }
  AttentionData data;
  GemmData product;
  std::vector<float> out, c;
};

TEST(Callers, ManyThreadsAtOnce) {  // B12
  const Watchdog watchdog(300);
  for (const kernels::Kernels* kernels : all_targets()) {
    const Forced forced(*kernels);
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (std::uint64_t i = 0; i < 8; ++i) {
      callers.emplace_back([&, i] {
        Job job(i + 1);
        for (std::int64_t n = cases(50); n > 0; --n) wrong += !job.again();
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0);
  }
}

TEST(Callers, OnePoolSharedByThreads) {
  const Watchdog watchdog(300);
  const Pool pool(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (std::uint64_t i = 0; i < 8; ++i) {
    callers.emplace_back([&, i] {
      Job job(i + 1);
      for (std::int64_t n = cases(20); n > 0; --n) wrong += !job.again(&pool);
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

// An engine whose tasks call rapt, on its own pool and on the default executor.
TEST(Callers, TasksOfAPool) {  // B12
  const Watchdog watchdog(300);
  const Pool pool(3);
  struct Context {
    const Pool& pool;
    std::vector<Job> jobs;
    std::atomic<int> wrong{0};
  } context{pool, {}};
  for (std::uint64_t seed = 1; seed <= 8; ++seed) context.jobs.emplace_back(seed);
  for (std::int64_t n = cases(10); n > 0; --n) {
    pool.parallel_for(
        8,
        [](const void* given, std::int64_t task, int) {
          auto& c = *static_cast<Context*>(const_cast<void*>(given));
          Job& job = c.jobs[static_cast<std::size_t>(task)];
          c.wrong += !job.again(&c.pool) + !job.again();
        },
        &context);
  }
  EXPECT_EQ(context.wrong, 0);
}

// A call inside a task of a call: rapt's memory is kept for each thread, and the inner one needs
// its own.
class CallingExecutor final : public Executor {
 public:
  explicit CallingExecutor(Job& inner) : inner_(inner) {}
  int workers() const override { return 1; }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    for (std::int64_t i = 0; i < tasks; ++i) {
      task(context, i, 0);
      if (i == 0) inner_right = inner_right && inner_.again(&serial_executor());
    }
  }
  mutable bool inner_right = true;

 private:
  Job& inner_;
};

TEST(Callers, ACallInsideACall) {
  Job outer(1), inner(2);
  const CallingExecutor executor(inner);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(outer.again(&executor));
  EXPECT_TRUE(executor.inner_right);
}

std::size_t threads_of_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

TEST(Callers, SerialStartsNoThread) {  // B31
  if (!std::filesystem::exists("/proc/self/task")) GTEST_SKIP() << "no /proc";
  const std::size_t before = threads_of_process();
  Job job(1);
  EXPECT_TRUE(job.again(&serial_executor()));
  EXPECT_EQ(threads_of_process(), before);
}

#ifndef RAPT_WITHOUT_TBB

TEST(Callers, TasksOfTheCallerThatHoldAMutex) {  // B30
  const Watchdog watchdog(300);
  std::mutex mutex;  // held across the call: a waiting thread that took another outer task would
                     // wait for itself
  std::atomic<int> wrong{0};
  Job job(3);
  tbb::parallel_for(0, static_cast<int>(cases(60)), [&](int) {
    const std::lock_guard lock(mutex);
    wrong += !job.again();
  });
  EXPECT_EQ(wrong, 0);
}

TEST(Callers, TasksInAnArenaOfTheCaller) {  // B30
  const Watchdog watchdog(300);
  const Pool pool(2);
  std::vector<Job> jobs;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) jobs.emplace_back(seed);
  std::atomic<int> wrong{0};
  tbb::task_arena(3).execute([&] {
    for (std::int64_t n = cases(10); n > 0; --n) {
      tbb::parallel_for(std::size_t{0}, jobs.size(),
                        [&](std::size_t i) { wrong += !jobs[i].again(&pool) + !jobs[i].again(); });
    }
  });
  EXPECT_EQ(wrong, 0);
}

// Which threads work in an arena at the same time.
class Observer final : public tbb::task_scheduler_observer {
 public:
  explicit Observer(tbb::task_arena& arena) : task_scheduler_observer(arena) { observe(true); }
  ~Observer() override { observe(false); }
  void on_scheduler_entry(bool) override {
    const int inside = ++now_;
    for (int seen = most; inside > seen && !most.compare_exchange_weak(seen, inside);) {
    }
  }
  void on_scheduler_exit(bool) override { --now_; }
  std::atomic<int> most{0};

 private:
  std::atomic<int> now_{0};
};

TEST(Callers, TheArenaOfTheCallerIsTheLimit) {
  for (int threads : {1, 2, 3}) {
    tbb::task_arena arena(threads);
    Observer observer(arena);
    Job job(4);
    arena.execute([&] {
      EXPECT_EQ(default_executor().workers(), threads);
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(job.again());
    });
    EXPECT_LE(observer.most, threads);
  }
}

TEST(Callers, WorkersAreNumberedBelowTheirCount) {
  struct Context {
    std::atomic<int> running[64] = {};
    std::atomic<int> wrong{0}, done{0};
    int workers = default_executor().workers();
  } context;
  default_executor().parallel_for(
      1000,
      [](const void* given, std::int64_t, int worker) {
        auto& c = *static_cast<Context*>(const_cast<void*>(given));
        if (worker < 0 || worker >= c.workers || worker >= 64) {
          ++c.wrong;
          return;
        }
        if (c.running[worker]++ != 0) ++c.wrong;  // two tasks at once as the same worker
        std::this_thread::yield();
        --c.running[worker];
        ++c.done;
      },
      &context);
  EXPECT_EQ(context.wrong, 0);
  EXPECT_EQ(context.done, 1000);
}

#endif

}  // namespace
}  // namespace rapt::tests
