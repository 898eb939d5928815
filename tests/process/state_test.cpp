// What belongs to the caller's thread and process is after every call as it was before: the modes
// of the floating-point unit, the tile registers, errno, the signal mask, the locale.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cfenv>
#include <clocale>
#include <cstring>
#include <locale>
#include <string>
#include <utility>
#include <vector>

#include "process/work.hpp"
#include "rapt/rapt.hpp"
#include "support/every_call.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

// The control word of vector arithmetic, without the flags of what happened; and the bits that
// flush subnormal numbers.
#if defined(__x86_64__)
constexpr std::uint64_t kFlush = 0x8040;
std::uint64_t modes() {
  std::uint32_t mxcsr = 0;
  asm volatile("stmxcsr %0" : "=m"(mxcsr));
  return mxcsr & ~0x3fu;
}
void set_modes(std::uint64_t modes) {
  const auto mxcsr = static_cast<std::uint32_t>(modes);
  asm volatile("ldmxcsr %0" : : "m"(mxcsr));
}
#elif defined(__aarch64__)
constexpr std::uint64_t kFlush = std::uint64_t{1} << 24;
std::uint64_t modes() {
  std::uint64_t fpcr = 0;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
}
void set_modes(std::uint64_t modes) { asm volatile("msr fpcr, %0" : : "r"(modes)); }
#else  // nothing but rounding
constexpr std::uint64_t kFlush = 0;
std::uint64_t modes() { return static_cast<std::uint64_t>(std::fegetround()); }
void set_modes(std::uint64_t modes) { std::fesetround(static_cast<int>(modes)); }
#endif

// The x87's control word, and the direction of string instructions.
struct Legacy {
  std::uint16_t x87 = 0;
  std::uint64_t direction = 0;
  bool operator==(const Legacy&) const = default;
};
Legacy legacy() {
  Legacy now;
#if defined(__x86_64__)
  asm volatile("fnstcw %0" : "=m"(now.x87));
  asm volatile("pushfq; popq %0" : "=r"(now.direction));
  now.direction &= 0x400;
#endif
  return now;
}

// The tile registers of AMX, where the system grants them.
class Tiles {
 public:
#if defined(__x86_64__) && defined(SYS_arch_prctl)
  Tiles() : granted_(syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0) {
    errno = 0;
    if (!granted_) return;
    unsigned char config[64] = {1};
    for (int tile = 0; tile < 8; ++tile) {  // unlike those that anyone would set
      config[16 + 2 * tile] = static_cast<unsigned char>(4 + 4 * tile);
      config[48 + tile] = static_cast<unsigned char>(2 + tile);
    }
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  ~Tiles() {
    if (granted_) asm volatile("tilerelease");
  }
  std::string config() const {
    char config[64] = {};
    if (granted_) asm volatile("sttilecfg %0" : "=m"(config));
    return {config, sizeof(config)};
  }

 private:
  bool granted_;
#else
  std::string config() const { return ""; }
#endif
};

struct State {
  std::uint64_t modes = tests::modes();
  Legacy legacy = tests::legacy();
  int rounding = std::fegetround();
  int error = errno;
  std::string locale = std::setlocale(LC_ALL, nullptr);
  std::string cpp_locale = std::locale().name();
  sigset_t signals = [] {
    sigset_t now{};
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return now;
  }();
};

void expect_same(const State& before, const State& after, const char* name) {
  EXPECT_EQ(before.modes, after.modes) << name;
  EXPECT_EQ(before.legacy, after.legacy) << name;
  EXPECT_EQ(before.rounding, after.rounding) << name;
  EXPECT_EQ(before.error, after.error) << name;
  EXPECT_EQ(before.locale, after.locale) << name;
  EXPECT_EQ(before.cpp_locale, after.cpp_locale) << name;
  EXPECT_EQ(std::memcmp(&before.signals, &after.signals, sizeof(before.signals)), 0) << name;
}

TEST(ProcessState, IsTheSameAfterEveryFunction) {  // B10, B39
  const Tiles tiles;
  const std::string config = tiles.config();
  const EveryCall every(48);
  const std::uint64_t usual = modes();
  bool once = false;  // what takes long, and does not compute
  for_each_target([&] {
    for (const std::uint64_t flush : {std::uint64_t{0}, kFlush}) {
      for (const EveryCall::Call& call : every.calls) {
        if (std::string(call.name) == "rapt_test_executor" && std::exchange(once, true)) continue;
        set_modes(usual | flush);
        errno = 1234;
        const State before;
        const rapt_status status = call.run();
        const State after;
        set_modes(usual);
        EXPECT_EQ(status, RAPT_OK) << call.name << ": " << rapt_last_error();
        expect_same(before, after, call.name);
        EXPECT_EQ(tiles.config(), config) << call.name;
      }
    }
  });
}

TEST(ProcessState, IsTheSameAfterManyTasks) {  // B10, B39
  Work work;
  for_each_way({few_keys_lanes(16), few_keys_rows(16), small_packed(16)}, [&] {
    errno = 1234;
    const State before;
    work.run();
    expect_same(before, State(), "attention and gemm");
  });
}

TEST(ProcessState, KeepsTheModesOfTheCaller) {  // B10
  Work work;
  work.run(&serial_executor());
  const std::vector<float> bits = work.bits();
  const std::uint64_t usual = modes();
  for_each_target([&] {
    for (const std::uint64_t flush : {std::uint64_t{0}, kFlush}) {
      for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        set_modes(usual | flush);
        std::fesetround(rounding);
        const State before;
        attention(work.attention.q_view(), work.attention.k_view(), work.attention.v_view(),
                  work.attention.out_view(), work.attention.options());
        gemm(work.product.a_view(), work.product.b_view(), work.product.c_view());
        const State after;
        std::fesetround(FE_TONEAREST);
        set_modes(usual);
        expect_same(before, after, "attention and gemm");
      }
    }
  });
  // Without denormals in the data, flushing them changes no bit, on whichever thread it is set.
  set_modes(usual | kFlush);
  work.run();
  set_modes(usual);
  EXPECT_TRUE(same_bits(bits, work.bits()));
}

// A program whose language writes 1.234,5.
struct Commas : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(ProcessState, LocaleOfTheProgramChangesNoText) {  // B39
  Work work;
  const auto texts = [&] {
    return config_text() + explain(work.attention.q_view(), work.attention.k_view(),
                                   work.attention.v_view(), work.attention.out_view(),
                                   work.attention.options())
                               .text();
  };
  const std::string before = texts();
  const std::locale usual = std::locale::global(std::locale(std::locale(), new Commas));
  const std::string with_commas = texts();
  EXPECT_NO_THROW(load_config(config_text()));
  std::locale::global(usual);
  load_config("");
  EXPECT_EQ(before, with_commas);
}

}  // namespace
}  // namespace rapt::tests
