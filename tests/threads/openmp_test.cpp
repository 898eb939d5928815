// OpenMP as the executor of an engine: it keeps the contract, and gives the same bits.
#include <gtest/gtest.h>
#include <omp.h>

#include "rapt/executor.hpp"
#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

class OpenMp final : public Executor {
 public:
  explicit OpenMp(int threads) : threads_(threads) {}
  int workers() const override { return threads_; }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (std::int64_t i = 0; i < tasks; ++i) task(context, i, omp_get_thread_num());
  }

 private:
  int threads_;
};

TEST(OpenMp, KeepsTheContract) {
  for (int threads : {1, 2, 5}) EXPECT_EQ(test_executor(OpenMp(threads)), "") << threads;
}

TEST(OpenMp, GivesTheSameBits) {
  const OpenMp executor(3);
  Seeds(91, cases(100)).for_each([&](std::uint64_t seed) {
    AttentionData data(AttentionCase::random(seed));
    for_each_way({few_keys_lanes(16), few_keys_rows(16)}, [&] {
      data.run(&serial_executor());
      const std::vector<float> out = data.out.values();
      data.run(&executor);
      ASSERT_TRUE(same_bits(out, data.out.values())) << data.of.describe();
    });
  });
}

}  // namespace
}  // namespace rapt::tests
