// At most so many threads, of those that the default executor has.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "rapt/rapt.hpp"

namespace rapt::python {

class AtMost final : public Executor {
 public:
  explicit AtMost(std::optional<std::int64_t> threads) : threads_(threads) {
    if (threads && *threads < 1) {
      throw Error(ErrorCode::bad_value,
                  "threads is " + std::to_string(*threads) + ", but must be at least 1");
    }
  }
  // What goes into options. Null: all.
  const Executor* get() const { return threads_ ? this : nullptr; }

  int workers() const override {
    return static_cast<int>(std::min<std::int64_t>(*threads_, default_executor().workers()));
  }

  // One task of the default executor for each thread: it takes task after task until none is left.
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    if (workers() == 1) return serial_executor().parallel_for(tasks, task, context);
    struct Shared {
      std::int64_t tasks;
      Task task;
      const void* context;
      mutable std::atomic<std::int64_t> next{0};
    } const shared{tasks, task, context};
    default_executor().parallel_for(
        workers(),
        [](const void* all, std::int64_t thread, int) {
          const Shared& s = *static_cast<const Shared*>(all);
          for (std::int64_t i; (i = s.next.fetch_add(1, std::memory_order_relaxed)) < s.tasks;)
            s.task(s.context, i, static_cast<int>(thread));
        },
        &shared);
  }

 private:
  std::optional<std::int64_t> threads_;
};

}  // namespace rapt::python
