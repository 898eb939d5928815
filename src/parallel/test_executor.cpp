// test_executor(): calls an executor as rapt does, with tasks that watch who runs them.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rapt/executor.hpp"

namespace rapt {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// The counters of tasks are relaxed atomics, which order nothing: the ordering is the executor's to
// give, and ThreadSanitizer must not believe that it was given here.
constexpr auto kRelaxed = std::memory_order_relaxed;

std::string number(std::int64_t n) { return std::to_string(n); }

// One call of parallel_for, its tasks, and the first thing that went wrong with it.
class Call {
 public:
  using Work = std::function<void(std::int64_t task)>;

  // Of that many tasks, each of which does `work`, if any, and takes at least so long.
  Call(std::int64_t tasks, microseconds length, Work work = nullptr)
      : tasks_(tasks),
        length_(length),
        work_(std::move(work)),
        began_(size(tasks)),
        ended_(size(tasks)),
        wrote_(size(tasks)) {}

  void run(const Executor& executor) {
    try {
      workers_ = executor.workers();
      if (workers_ < 1)
        return breach("workers() is " + number(workers_) + ", but must be at least 1");
      busy_ = std::vector<std::atomic<bool>>(size(workers_));
      scratch_.assign(size(workers_), 0);
      before_ = kWritten;
      executor.parallel_for(tasks_, &Call::enter, this);
      look_back();
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
    } catch (const std::exception& error) {
      breach(std::string("the executor threw: ") + error.what());
    } catch (...) {
      breach("the executor threw something that is no std::exception");
    }
  }

  // "" where there is none so far.
  std::string breach() const {
    if (out_of_memory_) throw std::bad_alloc();
    const std::lock_guard lock(mutex_);
    return breach_;
  }
  bool went_wrong() const {
    const std::lock_guard lock(mutex_);
    return out_of_memory_ || !breach_.empty();
  }
  std::int64_t ended() const { return n_ended_.load(kRelaxed); }

 private:
  static constexpr std::int64_t kWritten = 1000;

  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
  std::string name(std::int64_t task) const {
    return "task " + number(task) + " of " + number(tasks_);
  }
  void breach(const std::string& sentence) {
    const std::lock_guard lock(mutex_);
    if (breach_.empty()) breach_ = sentence;
  }

  static void enter(const void* context, std::int64_t task, int worker) {
    Call* const call = static_cast<Call*>(const_cast<void*>(context));
    try {
      call->task(task, worker);
    } catch (const std::bad_alloc&) {
      call->out_of_memory_ = true;
    }
  }

  void task(std::int64_t i, int worker) {
    if (i < 0 || i >= tasks_)
      return breach("task " + number(i) + " was called, but the " + number(tasks_) +
                    " tasks are numbered from 0");
    if (worker < 0 || worker >= workers_)
      return breach(name(i) + " was called as worker " + number(worker) + ", but workers() is " +
                    number(workers_) + " and they are numbered from 0");
    if (began_[size(i)].exchange(true, kRelaxed))
      return breach(name(i) + " was called more than once");
    if (busy_[size(worker)].exchange(true, kRelaxed))
      return breach(name(i) + " was called as worker " + number(worker) +
                    " while another task ran as the same worker");
    if (before_ != kWritten) breach(name(i) + " does not see what was written before the call");
    scratch_[size(worker)] = i;  // as kernels use the memory of their worker
    if (length_.count() > 0) std::this_thread::sleep_for(length_);
    if (work_) work_(i);
    if (scratch_[size(worker)] != i)
      breach("the memory of worker " + number(worker) + " changed while " + name(i) + " ran");
    wrote_[size(i)] = kWritten + i;
    busy_[size(worker)].store(false, kRelaxed);
    ended_[size(i)].store(true, kRelaxed);
    n_ended_.fetch_add(1, kRelaxed);
  }

  // After parallel_for has returned.
  void look_back() {
    if (went_wrong()) return;
    const auto open = std::find_if(ended_.begin(), ended_.end(),
                                   [](const auto& ended) { return !ended.load(kRelaxed); });
    if (open != ended_.end()) {
      const std::int64_t i = open - ended_.begin();
      for (int wait = 0; wait < 200 && !open->load(kRelaxed); ++wait)
        std::this_thread::sleep_for(milliseconds(1));
      return breach(began_[size(i)].load(kRelaxed)
                        ? "parallel_for returned before " + name(i) + " had"
                        : name(i) + " was never called");
    }
    for (std::int64_t i = 0; i < tasks_; ++i) {
      if (wrote_[size(i)] != kWritten + i)
        breach("what " + name(i) + " wrote is not visible after parallel_for has returned");
    }
  }

  const std::int64_t tasks_;
  const microseconds length_;
  const Work work_;
  int workers_ = 0;
  std::int64_t before_ = 0;               // written before the call, read by its tasks
  std::vector<std::atomic<bool>> began_;  // [tasks]
  std::vector<std::atomic<bool>> ended_;  // [tasks]
  std::vector<std::int64_t> wrote_;       // [tasks], read after the call
  std::vector<std::atomic<bool>> busy_;   // [workers]
  std::vector<std::int64_t> scratch_;     // [workers]
  std::atomic<std::int64_t> n_ended_{0};
  std::atomic<bool> out_of_memory_{false};
  mutable std::mutex mutex_;  // of breach_; no task takes it that finds nothing wrong
  std::string breach_;
};

// One after the other, by one thread.
using Calls = std::vector<std::unique_ptr<Call>>;

void add(Calls& calls, std::int64_t tasks, microseconds length, Call::Work work = nullptr) {
  calls.push_back(std::make_unique<Call>(tasks, length, std::move(work)));
}

// Few tasks and many, short ones and such as overlap where the executor lets them.
Calls many_calls(const Executor& executor) {
  Calls calls;
  const std::int64_t n = std::clamp(executor.workers(), 1, 1 << 10);
  for (std::int64_t tasks : {std::int64_t{0}, std::int64_t{1}, std::int64_t{2}, n - 1, n, n + 1})
    add(calls, tasks, microseconds(50));
  add(calls, 4 * n + 60, microseconds(50));
  add(calls, 50000, microseconds(0));
  // On each other's heels: a thread that wakes up late finds the tasks of the next call.
  for (std::int64_t i = 0; i < 300; ++i) add(calls, i % 7, microseconds(0));
  return calls;
}

// All that is called, and the memory of its tasks.
class Test {
 public:
  explicit Test(const Executor& executor) : executor_(executor) {}

  std::string run() {
    lists_.push_back(many_calls(executor_));
    run_all(lists_[0]);
    if (const std::string breach = first_breach(); !breach.empty()) return breach;

    lists_.clear();
    for (int i = 0; i < kCallers; ++i) lists_.push_back(many_calls(executor_));
    if (const std::string breach = run_on_threads(kCallers); !breach.empty())
      return "calls from " + number(kCallers) + " threads at once: " + breach;

    lists_.clear();
    lists_.resize(2);  // a call, and those that each of its tasks makes
    constexpr std::int64_t kInner = 8;
    for (std::int64_t i = 0; i < kInner; ++i) add(lists_[1], 20, microseconds(50));
    add(lists_[0], kInner, microseconds(0),
        [this](std::int64_t task) { lists_[1][static_cast<std::size_t>(task)]->run(executor_); });
    if (const std::string breach = run_on_threads(1); !breach.empty())
      return "calls from inside a task: " + breach;
    return "";
  }

  Test* older = nullptr;

 private:
  static constexpr int kCallers = 4;

  void run_all(const Calls& calls) const {
    for (const auto& call : calls) {
      call->run(executor_);
      if (call->went_wrong()) return;
    }
  }

  // Each of the first n lists on a thread of its own, all at once.
  std::string run_on_threads(int n) {
    threads_.reserve(static_cast<std::size_t>(n));
    try {
      for (int i = 0; i < n; ++i) {
        ++running_;
        threads_.emplace_back([this, &calls = lists_[static_cast<std::size_t>(i)]] {
          run_all(calls);
          --running_;
        });
      }
    } catch (...) {  // there are no more threads
      --running_;
      end_threads();
      throw;
    }
    const bool ended = end_threads();
    const std::string breach = first_breach();
    return breach.empty() && !ended ? "parallel_for does not return" : breach;
  }

  // False when they do not end: then they are left to themselves. Waits are counted, not timed: the
  // process may have been stopped.
  bool end_threads() {
    std::int64_t before = 0;
    for (int patience = 0; running_ > 0 && patience < 5000; ++patience) {
      std::this_thread::sleep_for(milliseconds(1));
      std::int64_t now = 0;
      for (const Calls& calls : lists_)
        for (const auto& call : calls) now += call->ended();
      if (now != before) before = now, patience = 0;
    }
    const bool ended = running_ == 0;
    for (std::thread& thread : threads_) ended ? thread.join() : thread.detach();
    threads_.clear();
    return ended;
  }

  std::string first_breach() const {
    for (const Calls& calls : lists_) {
      for (const auto& call : calls) {
        if (std::string breach = call->breach(); !breach.empty()) return breach;
      }
    }
    return "";
  }

  const Executor& executor_;
  std::vector<Calls> lists_;
  std::vector<std::thread> threads_;
  std::atomic<int> running_{0};
};

// Of executors that broke the contract: their tasks may come at any time.
std::atomic<Test*> broken{nullptr};

}  // namespace

std::string test_executor(const Executor& executor) {
  auto test = std::make_unique<Test>(executor);
  std::string breach = test->run();
  if (!breach.empty()) {
    Test* const kept = test.release();
    kept->older = broken.exchange(kept);
  }
  return breach;
}

}  // namespace rapt
