// Executors of the tests: std::thread, in an order of their own, checking what rapt asks of them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "rapt/executor.hpp"

namespace rapt::tests {

// n threads, each of which takes every n-th task, the last tasks first.
class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(int n) : workers_(n) {}
  int workers() const override { return workers_; }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    std::vector<std::thread> threads;
    for (int worker = 0; worker < workers_; ++worker) {
      threads.emplace_back([=, this] {
        for (std::int64_t i = tasks - 1 - worker; i >= 0; i -= workers_) task(context, i, worker);
      });
    }
    for (std::thread& thread : threads) thread.join();
    calls += 1;
    most_tasks = std::max(most_tasks.load(), tasks);
  }
  mutable std::atomic<std::int64_t> calls{0}, most_tasks{0};

 private:
  int workers_;
};

// One thread, tasks from the last to the first, always as the highest worker.
class BackwardExecutor final : public Executor {
 public:
  int workers() const override { return 5; }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    for (std::int64_t i = tasks; i-- > 0;) task(context, i, 4);
  }
};

}  // namespace rapt::tests
