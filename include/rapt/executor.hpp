// Who runs the tasks. rapt cuts every call into tasks whose number and sizes come from the problem
// and the config alone; an executor only decides which thread runs which task. So results do not
// depend on it.
#pragma once

#include <cstdint>
#include <string>

#include "rapt/export.h"

namespace rapt {

// To run rapt on your own threads, derive from this and pass it in the options.
class RAPT_API Executor {
 public:
  // A task never throws, never waits for another task, and takes microseconds to milliseconds.
  using Task = void (*)(const void* context, std::int64_t task, int worker);

  virtual ~Executor() = default;

  // How many tasks may run at the same time, as seen from the calling thread. At least 1.
  virtual int workers() const = 0;

  // Calls task(context, i, worker) once for every i in [0, tasks), in any order, and returns when
  // all have returned. Two tasks of one call that run at the same time have different workers, each
  // in [0, workers()). Must give the memory ordering of a join: a task sees what was written before
  // the call, and what it wrote is visible after the return. Called from several threads at once,
  // and from inside a task of another call, where rapt is called so.
  virtual void parallel_for(std::int64_t tasks, Task task, const void* context) const = 0;
};

// Runs the tasks in order on the calling thread. No other thread is started or woken.
RAPT_API const Executor& serial_executor();

// oneTBB, in the task_arena that the caller is in (so task_arena{1} means one thread); serial when
// rapt was built without oneTBB, where the system refuses the threads at first use, and in a child
// of fork whose parent has used it, since threads do not follow. Used when the options name no
// executor. The waiting caller is isolated: it never picks up tasks of its own outside this call.
RAPT_API const Executor& default_executor();

// For the tests of whoever writes an executor: whether it keeps the contract above. Calls it with
// no task, one and many, from this thread, from four threads at once and from inside its own tasks,
// for some tenths of a second. Returns the first breach as a sentence, "" where there is none.
// Does not return where the executor never returns to this thread; that another call does not
// return is a breach, after some seconds without a task. A breach of memory ordering that this
// machine hides is found under ThreadSanitizer.
RAPT_API std::string test_executor(const Executor& executor);

}  // namespace rapt
