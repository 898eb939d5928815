// test_executor(): finds nothing in pools that are right, and every breach in those that are not.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "rapt/executor.hpp"
#include "support/executors.hpp"
#include "support/pool.hpp"

#ifndef RAPT_WITHOUT_TBB
#include <oneapi/tbb/task_arena.h>
#endif

namespace rapt::tests {
namespace {

TEST(TestExecutor, FindsNothingWrongWithTheLibrarysOwn) {
  EXPECT_EQ(test_executor(serial_executor()), "");
  EXPECT_EQ(test_executor(default_executor()), "");
#ifndef RAPT_WITHOUT_TBB
  for (int threads : {1, 2, 5}) {
    tbb::task_arena arena(threads);
    EXPECT_EQ(arena.execute([] { return test_executor(default_executor()); }), "") << threads;
  }
#endif
}

TEST(TestExecutor, FindsNothingWrongWithPoolsThatAreRight) {
  for (int threads : {1, 2, 5}) EXPECT_EQ(test_executor(Pool(threads)), "") << threads;
  EXPECT_EQ(test_executor(ThreadExecutor(2)), "");
  EXPECT_EQ(test_executor(BackwardExecutor()), "");
}

// Whether the sentence has all the words.
void expect_breach(Flaw flaw, std::initializer_list<const char*> words) {
  // It stays: one of them never gives its threads back.
  const Pool& pool = *new Pool(3, flaw);
  static std::vector<const Pool*> pools;
  pools.push_back(&pool);
  const std::string sentence = test_executor(pool);
  for (const char* word : words)
    EXPECT_NE(sentence.find(word), std::string::npos) << '"' << sentence << "\" lacks " << word;
}

TEST(TestExecutor, FindsEveryBreach) {
  expect_breach(Flaw::forgets_the_last_task, {"task 0 of 1 was never called"});
  expect_breach(Flaw::calls_a_task_twice, {"task 0 of 1 was called more than once"});
  expect_breach(Flaw::calls_one_task_more, {"task 0 was called, but the 0 tasks are numbered"});
  expect_breach(Flaw::counts_workers_from_1, {"was called as worker 3, but workers() is 3"});
  expect_breach(Flaw::calls_all_worker_0, {"as worker 0 while another task ran as the same"});
  expect_breach(Flaw::returns_early, {"parallel_for returned before task", "had"});
  expect_breach(Flaw::has_no_workers, {"workers() is 0, but must be at least 1"});
  expect_breach(Flaw::throws, {"the executor threw: no thread is free"});
  expect_breach(Flaw::counts_for_all_calls_alike, {"calls from 4 threads at once: task"});
  expect_breach(Flaw::takes_one_call_at_a_time,
                {"calls from inside a task: parallel_for does not return"});
}

}  // namespace
}  // namespace rapt::tests
