// "On n threads" in the sense of every figure here: 1 is the calling thread and no other, all is
// what oneTBB takes by itself, any other number is an arena of that size.
#pragma once

#include "rapt/executor.hpp"

#ifndef RAPT_WITHOUT_TBB
#include <oneapi/tbb/task_arena.h>
#endif

namespace rapt::bench {

// Calls work(executor), where a call of rapt with that executor runs on `threads` threads.
template <class Work>
void on_threads(int threads, Work work) {
  if (threads == 1) {
    work(serial_executor());
    return;
  }
#ifndef RAPT_WITHOUT_TBB
  if (threads != default_executor().workers()) {
    tbb::task_arena arena(threads);
    arena.execute([&] { work(default_executor()); });
    return;
  }
#endif
  work(default_executor());
}

}  // namespace rapt::bench
