// A pool of threads as an engine has one, and the mistakes that such pools are made with.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "rapt/executor.hpp"

namespace rapt::tests {

enum class Flaw {
  none,
  forgets_the_last_task,
  calls_a_task_twice,
  calls_one_task_more,
  counts_workers_from_1,
  calls_all_worker_0,
  returns_early,
  has_no_workers,
  throws,
  takes_one_call_at_a_time,    // a call from inside a task waits for ever
  counts_for_all_calls_alike,  // calls at the same time take each other's tasks
};

// n - 1 threads that help whoever calls. A caller works on its own call, so calls may be nested.
class Pool final : public Executor {
 public:
  explicit Pool(int n, Flaw flaw = Flaw::none) : workers_(n), flaw_(flaw) {
    for (int worker = 1; worker < n; ++worker) threads_.emplace_back([=, this] { help(worker); });
  }
  ~Pool() override {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int workers() const override { return flaw_ == Flaw::has_no_workers ? 0 : workers_; }

  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    std::unique_lock<std::mutex> alone(one_call_, std::defer_lock);
    if (flaw_ == Flaw::takes_one_call_at_a_time) alone.lock();
    if (flaw_ == Flaw::throws && tasks > 1) throw std::runtime_error("no thread is free");
    if (flaw_ == Flaw::forgets_the_last_task) --tasks;
    if (flaw_ == Flaw::calls_one_task_more) ++tasks;
    if (flaw_ == Flaw::calls_a_task_twice && tasks > 0) task(context, 0, 0);
    if (flaw_ == Flaw::counts_for_all_calls_alike) {
      for (next_ = 0; next_ < tasks; ++next_) task(context, next_, 0);
      return;
    }
    const auto job = std::make_shared<Job>();
    job->tasks = tasks;
    job->task = task;
    job->context = context;
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(job);
    }
    wake_.notify_all();
    pull(*job, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    std::erase(jobs_, job);
    if (flaw_ != Flaw::returns_early) done_.wait(lock, [&] { return job->helpers == 0; });
  }

 private:
  struct Job {
    std::int64_t tasks = 0;
    Task task = nullptr;
    const void* context = nullptr;
    std::atomic<std::int64_t> next{0};
    int helpers = 0;  // under mutex_
  };

  void pull(Job& job, int worker) const {
    if (flaw_ == Flaw::calls_all_worker_0) worker = 0;
    if (flaw_ == Flaw::counts_workers_from_1) worker += 1;
    for (std::int64_t i; (i = job.next.fetch_add(1, std::memory_order_relaxed)) < job.tasks;) {
      // So late that the caller has long looked: were it about to, the two would be a data race.
      if (flaw_ == Flaw::returns_early && worker > 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      job.task(job.context, i, worker);
    }
  }

  void help(int worker) const {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      std::shared_ptr<Job> job;
      wake_.wait(lock, [&] {
        const auto open = std::find_if(jobs_.begin(), jobs_.end(), [](const auto& candidate) {
          return candidate->next.load(std::memory_order_relaxed) < candidate->tasks;
        });
        job = open == jobs_.end() ? nullptr : *open;
        return ends_ || job != nullptr;
      });
      if (ends_) return;
      ++job->helpers;
      lock.unlock();
      pull(*job, worker);
      lock.lock();
      --job->helpers;
      done_.notify_all();
    }
  }

  const int workers_;
  const Flaw flaw_;
  mutable std::mutex mutex_, one_call_;
  mutable std::condition_variable wake_, done_;
  mutable std::deque<std::shared_ptr<Job>> jobs_;
  mutable std::atomic<std::int64_t> next_{0};
  bool ends_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace rapt::tests
