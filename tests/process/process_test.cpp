// What belongs to the process is as it was before each call: the modes of the floating-point unit,
// errno, the signal mask; and a child after fork computes as its parent did.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cfenv>
#include <chrono>
#include <clocale>
#include <cstring>

#include "rapt/rapt.hpp"
#include "support/attention_case.hpp"
#include "support/executors.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rapt::tests {
namespace {

struct Work {
  Work()
      : attention([] {
          AttentionCase c = AttentionCase::random(9);
          c.batch = {2};
          c.seq_q = 150;
          c.seq_kv = 60;
          c.causal = true;
          return c;
        }()),
        product([] {
          GemmCase g;
          g.m = g.n = g.k = 130;
          return g;
        }()) {}
  void run(const Executor* executor = nullptr) {
    attention.run(executor);
    product.run(executor);
  }
  std::vector<float> bits() const {
    std::vector<float> all = attention.out.values();
    const std::vector<float> c = product.c.values();
    all.insert(all.end(), c.begin(), c.end());
    return all;
  }
  AttentionData attention;
  GemmData product;
};

unsigned x87_control_word() {
  unsigned short word = 0;
#if defined(__x86_64__)
  asm volatile("fnstcw %0" : "=m"(word));
#endif
  return word;
}

TEST(ProcessState, IsTheSameAfterEveryCall) {  // B10, B39
  Work work;
  for_each_way({few_keys_lanes(16), few_keys_rows(16), small_packed(16)}, [&] {
    errno = 1234;
    sigset_t before{}, after{};
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    const std::string locale = std::setlocale(LC_ALL, nullptr);
    const unsigned x87 = x87_control_word();
    work.run();
    EXPECT_EQ(errno, 1234);
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    EXPECT_EQ(std::memcmp(&before, &after, sizeof(before)), 0);
    EXPECT_EQ(locale, std::setlocale(LC_ALL, nullptr));
    EXPECT_EQ(std::fegetround(), FE_TONEAREST);
    EXPECT_EQ(x87_control_word(), x87);
  });
}

#if defined(__x86_64__)

TEST(ProcessState, KeepsTheModesOfTheCaller) {  // B10
  Work work;
  work.run(&serial_executor());
  const std::vector<float> bits = work.bits();
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040, kFlags = 0x003f;
  constexpr unsigned kRoundings[] = {0x0000, 0x2000, 0x4000, 0x6000};
  for_each_target([&] {
    for (unsigned flush : {0u, kFlushToZero, kFlushToZero | kDenormalsAreZero}) {
      for (unsigned rounding : kRoundings) {
        const unsigned before = _mm_getcsr();
        const unsigned wanted = (before & ~0xe040u & ~kFlags) | flush | rounding;
        _mm_setcsr(wanted);
        attention(work.attention.q_view(), work.attention.k_view(), work.attention.v_view(),
                  work.attention.out_view(), work.attention.options());
        gemm(work.product.a_view(), work.product.b_view(), work.product.c_view());
        const unsigned after = _mm_getcsr();
        _mm_setcsr(before);
        EXPECT_EQ(after & ~kFlags, wanted) << std::hex << after;
      }
    }
  });
  // Without denormals in the data, flushing them changes no bit, on whichever thread it is set.
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | kFlushToZero | kDenormalsAreZero);
  work.run();
  _mm_setcsr(before);
  EXPECT_TRUE(same_bits(bits, work.bits()));
}

#endif

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
