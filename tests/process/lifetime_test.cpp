// How processes begin and end around the library: pinned to one CPU, refused any thread, and with
// calls that still run when it exits. Each is a process of its own, from its start.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "process/work.hpp"
#include "rapt/rapt.hpp"
#include "support/executors.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

// EXPECT_EXIT starts this program anew, and runs one statement of one test in it.
class Lifetime : public testing::Test {
 protected:
  Lifetime() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

constexpr int kRight = 10, kWrong = 11;
int judge(bool right) { return right ? kRight : kWrong; }

// Whether the first use of the default executor gives the bits of the serial one.
bool first_use_is_right() {
  Work work;
  work.run();
  const std::vector<float> bits = work.bits();
  work.run(&serial_executor());
  return static_cast<bool>(same_bits(bits, work.bits()));
}

TEST_F(Lifetime, OnOneCpuTheTargetIsThatOfAll) {  // B9, B42
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  setenv("RAPT_EXPECT_TARGET", target().c_str(), 1);  // which main() looks at first of all
  // The new process counts its way to the same statement.
  for (std::size_t cpu = 0, left = 4; cpu < CPU_SETSIZE && left > 0; ++cpu) {
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) != 0) continue;
    --left;
    EXPECT_EXIT(_exit(judge(default_executor().workers() == 1 && first_use_is_right())),
                testing::ExitedWithCode(kRight), "")
        << "CPU " << cpu;
  }
  sched_setaffinity(0, sizeof(all), &all);
  unsetenv("RAPT_EXPECT_TARGET");
}

// From now on the system refuses this process a call, as the limit of a container would.
bool refuse(const std::vector<long>& calls, int error) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const long call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 1));
    program.push_back(
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog all = {static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) == 0;
}

TEST_F(Lifetime, WithoutAnyThreadTheResultIsTheSame) {  // B41
  EXPECT_EXIT(
      {
        if (!refuse({SYS_clone, SYS_clone3}, EAGAIN)) _exit(kRight);
        alarm(60);
        _exit(judge(first_use_is_right()));
      },
      testing::ExitedWithCode(kRight), "");
}

TEST_F(Lifetime, AtTheLimitOfProcessesTheResultIsTheSame) {  // B41
  EXPECT_EXIT(
      {
        alarm(60);
        const rlimit none{};
        // root has no limit, so nobody does this.
        if (setrlimit(RLIMIT_NPROC, &none) != 0 || (geteuid() == 0 && setuid(65534) != 0))
          _exit(kRight);
        _exit(judge(first_use_is_right()));
      },
      testing::ExitedWithCode(kRight), "");
}

TEST_F(Lifetime, WithoutTheTileRegistersTheResultIsTheSame) {  // B8
  EXPECT_EXIT(
      {
        if (!refuse({SYS_arch_prctl}, EPERM)) _exit(kRight);
        _exit(judge(first_use_is_right()));
      },
      testing::ExitedWithCode(kRight), "");
}

// exit() runs the destructors of the process while threads are inside the library.
TEST_F(Lifetime, EndsWhileThreadsCompute) {  // B40
  for (int i = 0; i < 5; ++i) {
    EXPECT_EXIT(
        {
          alarm(60);
          for (int thread = 0; thread < 3; ++thread) {
            std::thread([] {
              Work work;
              while (true) work.run();
            }).detach();
          }
          std::this_thread::sleep_for(std::chrono::milliseconds(10 + 7 * i));
          std::exit(kRight);
        },
        testing::ExitedWithCode(kRight), "");
  }
}

// A task of the caller's own pool calls exit(), in the middle of a call.
class ExitingExecutor final : public Executor {
 public:
  int workers() const override { return 2; }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    std::thread helper([&] {
      task(context, 0, 1);
      std::exit(kRight);
    });
    for (std::int64_t i = 1; i < tasks; ++i) task(context, i, 0);
    helper.join();
  }
};

TEST_F(Lifetime, EndsInsideACall) {  // B40
  EXPECT_EXIT(
      {
        alarm(60);
        Work work;
        work.run();  // the library's own threads are there too
        work.run(new ExitingExecutor);
        _exit(kWrong);
      },
      testing::ExitedWithCode(kRight), "");
}

// Called when the destructors of all libraries have run: registered before any of them begins, and
// not with atexit(), which would make it one of this program's.
void (*last_of_all)() = nullptr;
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_all)() = [] {
  on_exit(
      [](int, void*) {
        if (last_of_all != nullptr) last_of_all();
      },
      nullptr);
};

TEST_F(Lifetime, FirstCallAfterTheLastDestructor) {  // B40
  EXPECT_EXIT(
      {
        alarm(60);
        last_of_all = [] { _exit(judge(first_use_is_right())); };
        std::exit(kWrong);
      },
      testing::ExitedWithCode(kRight), "");
}

// A static object whose destructor calls, after all that the library had is destroyed.
struct CallsLast {
  Work work;
  std::vector<float> bits;
  ~CallsLast() {
    work.run();
    _exit(judge(static_cast<bool>(same_bits(bits, work.bits()))));
  }
};

TEST_F(Lifetime, CallsInTheLastDestructor) {  // B40
  EXPECT_EXIT(
      {
        alarm(60);
        static CallsLast last;
        last.work.run();
        last.bits = last.work.bits();
        std::exit(kWrong);
      },
      testing::ExitedWithCode(kRight), "");
}

}  // namespace
}  // namespace rapt::tests
