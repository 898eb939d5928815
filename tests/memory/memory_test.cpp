// Memory that runs out, at every place where the library asks for some; and the allocator that an
// engine may set.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/allocations.hpp"
#include "support/attention_case.hpp"
#include "support/every_call.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

TEST(EveryCall, IsEveryFunctionThatCanFail) {
  std::set<std::string> names = {"rapt_version",
                                 "rapt_last_error",
                                 "rapt_dense",
                                 "rapt_serial_executor",
                                 "rapt_plan_destroy",
                                 "rapt_layer_destroy",
                                 "rapt_layer_activations_destroy"};
  for (const EveryCall::Call& call : EveryCall(8).calls) names.insert(call.name);
  std::set<std::string> exported;
  std::ifstream file(RAPT_C_FUNCTIONS);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("rapt_")) exported.insert(line);
  EXPECT_EQ(names, exported);
}

// On a thread of its own, which has kept no memory and seen no config: whether the n-th allocation
// came at all.
bool fails_at(std::int64_t n, const EveryCall::Call& call) {
  bool came = false;
  std::thread([&] {
    fails_after = n;
    const rapt_status status = call.run();
    came = fails_after < 0;
    fails_after = -1;
    EXPECT_EQ(status, came ? RAPT_OUT_OF_MEMORY : RAPT_OK)
        << call.name << ", allocation " << n << ": " << rapt_last_error();
  }).join();
  return came;
}

TEST(OutOfMemory, IsAStatusOfEveryFunctionAndLeaksNothing) {  // B47, R11
  if (RAPT_THREAD_SANITIZER) GTEST_SKIP() << "ThreadSanitizer brings its own operator new";
  const EveryCall every(32, rapt_serial_executor());
  std::int64_t failures = 0;
  for (const EveryCall::Call& call : every.calls) {
    ASSERT_EQ(call.run(), RAPT_OK) << call.name;
    // Thousands of like ones: some of them.
    const std::int64_t step = std::string(call.name) == "rapt_test_executor" ? 401 : 1;
    std::int64_t n = 0;
    while (true) {
      const std::int64_t before = live;
      if (!fails_at(n, call)) break;
      ASSERT_EQ(live, before) << call.name << ", allocation " << n << " leaves memory behind";
      n += step;
      ++failures;
    }
  }
  EXPECT_GT(failures, 200);
}

// What is only allocated once in a process: each time in a process of its own.
TEST(OutOfMemory, OfTheFirstUseIsAStatusAndTheSecondWorks) {
  if (RAPT_THREAD_SANITIZER) GTEST_SKIP() << "ThreadSanitizer brings its own operator new";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  enum { kWorks = 10, kFails = 11, kBroken = 12 };
  const auto first_use = [](std::int64_t n) {
    const EveryCall every(32, rapt_serial_executor());
    fails_after = n;
    const rapt_status status = every.calls[0].run();
    const bool came = fails_after < 0;
    fails_after = -1;
    const bool right = status == (came ? RAPT_OUT_OF_MEMORY : RAPT_OK);
    if (!right || every.calls[0].run() != RAPT_OK) return kBroken;
    return came ? kFails : kWorks;
  };
  for (std::int64_t n = 0, works = 0; works == 0; ++n) {
    EXPECT_EXIT(
        _exit(first_use(n)),
        [&](int status) {
          works = WIFEXITED(status) && WEXITSTATUS(status) != kFails;
          return WIFEXITED(status) && WEXITSTATUS(status) != kBroken;
        },
        "")
        << n;
  }
}

// An engine's memory, which counts, which is poisoned, and which may have an end.
class Engine {
 public:
  Engine() { set_allocator(allocator()); }
  ~Engine() {
    set_allocator({});
    EXPECT_TRUE(blocks_.empty());
  }
  Allocator allocator() {
    return {[](void* context, std::size_t bytes) {
              return static_cast<Engine*>(context)->allocate(bytes);
            },
            [](void* context, void* memory, std::size_t bytes) {
              static_cast<Engine*>(context)->deallocate(memory, bytes);
            },
            this};
  }
  std::size_t blocks() const {
    const std::lock_guard lock(mutex_);
    return blocks_.size();
  }
  std::atomic<std::int64_t> asked{0}, fails_at{-1};
  std::atomic<std::size_t> crooked{0};  // bytes beyond a multiple of 64

 private:
  void* allocate(std::size_t bytes) {
    EXPECT_GT(bytes, 0u);
    if (asked++ == fails_at) return nullptr;
    void* const memory = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
    std::memset(memory, 0xff, bytes);  // NaN
    auto* const given = static_cast<char*>(memory) + crooked;
    const std::lock_guard lock(mutex_);
    blocks_[given] = bytes;
    return given;
  }
  void deallocate(void* memory, std::size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      const auto block = blocks_.find(memory);
      ASSERT_NE(block, blocks_.end());
      EXPECT_EQ(block->second, bytes);
      blocks_.erase(block);
    }
    std::free(static_cast<char*>(memory) - crooked);
  }
  mutable std::mutex mutex_;
  std::map<void*, std::size_t> blocks_;
};

TEST(Allocator, GivesEveryWorkspaceAndGetsItBackWhenTheCallEnds) {
  EveryCall every(64);
  for (const EveryCall::Call& call : every.calls) {
    const std::string name = call.name;
    if (name == "rapt_set_allocator") continue;
    ASSERT_EQ(call.run(), RAPT_OK) << name;
    const std::vector<float> out = every.out();
    Engine engine;
    largest = 0;
    ASSERT_EQ(call.run(), RAPT_OK) << name;
    EXPECT_EQ(engine.blocks(), 0u) << name;
    const bool has_arrays = name.starts_with("rapt_layer") || name == "rapt_test_executor" ||
                            name == "rapt_salience_map";
    EXPECT_LE(largest, has_arrays ? SIZE_MAX : 4096) << name << " takes it by operator new";
    EXPECT_TRUE(same_bits(out, every.out())) << name;
    const bool has_workspace = name.starts_with("rapt_attention") ||
                               name.starts_with("rapt_plan_run") || name == "rapt_gemm_backward" ||
                               name == "rapt_layer_run" || name == "rapt_layer_forward" ||
                               name == "rapt_layer_backward";
    // A product whose columns are whole panels needs none; how wide those are is the target's.
    if (name != "rapt_gemm") {
      EXPECT_EQ(engine.asked > 0, has_workspace) << name;
    }
  }
}

TEST(Allocator, ThatHasNoMemoryIsAStatus) {
  const EveryCall every(64);
  Engine engine;
  for (const EveryCall::Call& call : every.calls) {
    const std::string name = call.name;
    if (name == "rapt_set_allocator") continue;
    for (std::int64_t n = 0;; ++n) {
      engine.asked = 0;
      engine.fails_at = n;
      const rapt_status status = call.run();
      EXPECT_EQ(engine.blocks(), 0u) << name;
      if (engine.asked <= n) {
        EXPECT_EQ(status, RAPT_OK) << name;
        break;
      }
      EXPECT_EQ(status, RAPT_OUT_OF_MEMORY) << name;
    }
  }
}

TEST(Allocator, OfCppThrowsBadAlloc) {
  AttentionData data(AttentionCase::random(3));
  GemmData product([] {
    GemmCase g;
    g.m = g.n = g.k = 20;
    return g;
  }());
  const MultiHeadAttention layer({8, 0, 2, 4, 4}, 1);
  const std::vector<float> tokens(16);
  std::vector<float> result(16);
  Engine engine;
  const auto refuse = [&] { engine.fails_at = engine.asked.load(); };
  refuse();
  EXPECT_THROW(attention(data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(),
                         data.options()),
               std::bad_alloc);
  refuse();
  EXPECT_THROW(gemm(product.a_view(), product.stored_b(), product.c_view()), std::bad_alloc);
  refuse();
  EXPECT_THROW(layer({tokens.data(), {2, 8}}, {tokens.data(), {2, 8}}, {tokens.data(), {2, 8}},
                     {result.data(), {2, 8}}),
               std::bad_alloc);
  EXPECT_EQ(engine.blocks(), 0u);
}

TEST(Allocator, ThatIsWrongIsRefused) {
  const EveryCall every(8);
  const auto says = [](const char* words) {
    EXPECT_NE(std::string(rapt_last_error()).find(words), std::string::npos) << rapt_last_error();
  };
  rapt_allocator half{};
  half.size = sizeof(half);
  half.allocate = [](void*, std::size_t) -> void* { return nullptr; };
  EXPECT_EQ(rapt_set_allocator(&half), RAPT_BAD_VALUE);
  says("allocator.deallocate is null, but allocate is given");
  half = {sizeof(half), nullptr, nullptr, [](void*, void*, std::size_t) {}};
  EXPECT_EQ(rapt_set_allocator(&half), RAPT_BAD_VALUE);
  says("allocator.allocate is null, but deallocate is given");

  Engine engine;
  engine.crooked = 16;
  EXPECT_EQ(every.calls[0].run(), RAPT_BAD_VALUE);
  says("allocator.allocate returned modulo 64 is 16, but must be 0");
}

// Set, and set back, while calls run: each block goes back to where it came from.
TEST(Allocator, MayBeSetWhileCallsRun) {
  Engine one, other;
  std::atomic<bool> ends{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      EveryCall every(16, rapt_serial_executor());
      while (!ends) EXPECT_EQ(every.calls[0].run(), RAPT_OK);
    });
  }
  for (int i = 0; i < 100; ++i) {
    set_allocator(one.allocator());
    std::this_thread::yield();
    set_allocator(other.allocator());
    std::this_thread::yield();
    set_allocator({});
    std::this_thread::yield();
  }
  ends = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(one.blocks() + other.blocks(), 0u);
}

// A call from a destructor of the thread, after that of the memory which the thread keeps.
struct CallsLate {
  const EveryCall::Call* call = nullptr;
  rapt_status* status = nullptr;
  ~CallsLate() {
    if (call != nullptr) *status = call->run();
  }
};
thread_local CallsLate calls_late;

TEST(Memory, MayBeAskedForWhenTheThreadHasDestroyedItsOwn) {  // B40
  const EveryCall every(64, rapt_serial_executor());
  rapt_status status = RAPT_UNKNOWN_ERROR;
  std::thread([&] {
    calls_late.call = &every.calls[0];  // made before the first call, so destroyed after it
    calls_late.status = &status;
    ASSERT_EQ(every.calls[0].run(), RAPT_OK);
  }).join();
  EXPECT_EQ(status, RAPT_OK);
}

}  // namespace
}  // namespace rapt::tests
