// A child after fork computes as its parent did.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "process/work.hpp"
#include "rapt/rapt.hpp"
#include "support/executors.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

// Runs in a child that is killed when it hangs; whether it exited with 0.
template <class Run>
bool in_a_child(const Run& run) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(run() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool kThreadSanitizer = false;
#endif

TEST(Fork, AChildComputesWhatItsParentDid) {  // B11
  if (kThreadSanitizer)
    GTEST_SKIP() << "ThreadSanitizer does not follow a process with threads into its child";
  Work work;
  work.run();  // the threads are there
  const std::vector<float> bits = work.bits();
  for (std::int64_t i = cases(300); i > 0; --i) {
    // In the 200 us after a call oneTBB's threads fall asleep, and hold locks.
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(i % 200)) {
    }
    ASSERT_TRUE(in_a_child([&] {
      work.run(i % 10 == 0 ? &serial_executor() : nullptr);
      return static_cast<bool>(same_bits(bits, work.bits()));
    })) << "a child hung, crashed or computed something else";
    work.run();  // and the parent goes on
    ASSERT_TRUE(same_bits(bits, work.bits()));
  }
}

TEST(Fork, AChildMayStartThreadsOfItsOwn) {  // B11
  if (kThreadSanitizer)
    GTEST_SKIP() << "ThreadSanitizer does not follow a process with threads into its child";
  Work work;
  work.run();
  const std::vector<float> bits = work.bits();
  ASSERT_TRUE(in_a_child([&] {
    const ThreadExecutor executor(3);
    for (int i = 0; i < 5; ++i) work.run(&executor);
    return static_cast<bool>(same_bits(bits, work.bits()));
  }));
}

}  // namespace
}  // namespace rapt::tests
