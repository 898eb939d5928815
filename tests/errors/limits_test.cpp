// Sizes at the limits of 64 bits: what a plan says of them is refused, or is what 128 bits say.
#include <gtest/gtest.h>

#include <climits>
#include <new>
#include <string>

#include "parallel/run.hpp"
#include "plan/plan.hpp"
#include "problem/check.hpp"
#include "rapt/rapt.hpp"
#include "support/random.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using tiles::Index;
__extension__ using Wide = __int128;  // the keyword is for -Wpedantic

// The smallest and the largest blocks that a config may ask for.
Blocks all_of(int n) {
  Blocks blocks;
  blocks.name = "blocks of " + std::to_string(n);
  blocks.block_q = blocks.block_kv = blocks.split_kv = n;
  blocks.block_m = blocks.block_n = blocks.block_k = blocks.packed_kib = n;
  return blocks;
}
const std::vector<Blocks> kBlocks = [] {
  std::vector<Blocks> all = {all_of(1), all_of(8192), all_of(1), all_of(8192)};
  for (std::size_t i = 2; i < 4; ++i) all[i].short_rows = all[i].direct_rows = 8192;
  return all;
}();

// Numbers near powers of two, whose exponents add up to at most the limit.
class Sizes {
 public:
  Sizes(std::uint64_t seed, int limit) : random_(seed), left_(limit) {}
  Index operator()(int most = 62) {
    const auto exponent = static_cast<int>(random_.between(0, std::min(left_, most)));
    left_ -= exponent;
    const Index size = (Index{1} << exponent) + random_.between(-1, 1);
    return std::max<Index>(size, 1);
  }

 private:
  Random random_;
  int left_;
};

class ManyWorkers final : public Executor {
 public:
  int workers() const override { return INT_MAX; }
  void parallel_for(std::int64_t, Task, const void*) const override {}
};

// Calls check(): it may refuse. Counts what it did not.
template <class Check>
void unless_refused(const Check& check, std::int64_t& taken) {
  try {
    check();
    ++taken;
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ErrorCode::too_large || error.code() == ErrorCode::extent_range)
        << error.what();
  }
}

constexpr Wide kMost = Wide{1} << 60;

TEST(Limits, OfTheWorkspaceOfAttention) {  // B46
  float memory = 0;
  const ManyWorkers executor;
  std::int64_t taken = 0, parts = 0;
  Seeds(81, cases(3000)).for_each([&](std::uint64_t seed) {
    // Nothing is read: the strides of what is only read are 0.
    Sizes sizes(seed, 57), more(seed + 1, 57);
    const Index kv_heads = sizes(), group = sizes(20), seq_q = sizes(), batch = sizes(8);
    const Index d_k = sizes(10), d_v = sizes(10), seq_kv = more();
    const Index heads = kv_heads * group;
    const View<const float, Head, Query, DepthK> q(&memory, {batch, heads, seq_q, d_k},
                                                   {0, 0, 0, 0});
    const View<const float, KvHead, Key, DepthK> k(&memory, {batch, kv_heads, seq_kv, d_k},
                                                   {0, 0, 0, 0});
    const View<const float, KvHead, Key, DepthV> v(&memory, {batch, kv_heads, seq_kv, d_v},
                                                   {0, 0, 0, 0});
    const View<float, Head, Query, DepthV> out(&memory, {batch, heads, seq_q, d_v}, {1, 1, 1, 1});
    for (const Blocks& blocks : kBlocks) {
      const Forced forced(*all_targets().front(), &blocks);
      const auto check = [&] {
        const tiles::AttentionProblem problem = problem::check_attention(q, k, v, out, {});
        const tiles::AttentionPlan plan = plan::plan_attention(problem);
        Wide tasks = 0;
        for (const tiles::Cut& cut : plan.cuts) {
          EXPECT_GE(Wide{cut.row_blocks} * cut.block_q, Wide{seq_q} * group);
          EXPECT_GE(Wide{cut.parts} * cut.part_kv, Wide{seq_kv});
          tasks += Wide{cut.count} * kv_heads * cut.row_blocks * cut.parts;
          if (cut.parts == 1) continue;
          ++parts;
          EXPECT_GE(Wide{plan.unit_floats}, Wide{cut.parts} * cut.block_q * (d_v + 2));
        }
        EXPECT_TRUE(tasks == plan.tasks && tasks <= kMost);
        const Wide floats = Wide{plan.wave_units} * plan.unit_floats + Wide{plan.workspace};
        for (const Executor* on : {static_cast<const Executor*>(&executor), &serial_executor()}) {
          const Wide workers = plan.tasks <= 1 ? 1 : on->workers();
          const Wide wanted = (floats + plan.workspace * (workers - 1)) * Wide{sizeof(float)};
          EXPECT_TRUE(wanted >= 0 && wanted <= kMost);
          AttentionOptions options;
          options.executor = on;
          const AttentionPlan given(q, k, v, out, options);
          EXPECT_EQ(static_cast<std::size_t>(wanted), given.workspace_bytes());
        }
      };
      unless_refused(check, taken);
      ASSERT_FALSE(testing::Test::HasFailure())
          << "seed " << seed << ": batch " << batch << " heads " << heads << "/" << kv_heads
          << " seq " << seq_q << "/" << seq_kv << " d " << d_k << "/" << d_v << ", " << blocks.name;
    }
  });
  EXPECT_GT(taken, cases(300));
  EXPECT_GT(parts, 0);
}

TEST(Limits, OfTheWorkspaceOfTheMatrixProduct) {  // B46
  float memory = 0;
  std::int64_t taken = 0;
  Seeds(82, cases(3000)).for_each([&](std::uint64_t seed) {
    Sizes sizes(seed, 58), more(seed + 1, 58);
    const Index m = sizes(), n = sizes(), batch = sizes(), k = more();
    Random random(seed + 2);
    // In place, or with rows that must be copied; b and a of one batch element, or of each.
    const Index row = random.between(0, 1) * 1024;
    const View<const float, Row, Inner> a(&memory, {m, k}, {row, 0});
    const View<const float, Inner, Column> b(&memory, {k, n}, {0, random.between(0, 1)});
    const View<float, Row, Column> c(&memory, {batch, m, n}, {1, 1, 1});
    for (const Blocks& blocks : kBlocks) {
      const Forced forced(*all_targets().front(), &blocks);
      const auto check = [&] {
        tiles::GemmPlan plan{.problem = problem::check_gemm(a, b, c, {})};
        plan::plan_gemm(plan);
        const tiles::GemmProblem& p = plan.problem;
        EXPECT_TRUE(Wide{p.m} * p.n * p.batch.size == Wide{m} * n * batch);
        EXPECT_GE(Wide{plan.row_blocks} * plan.block_m, Wide{p.m});
        EXPECT_GE(Wide{plan.column_blocks} * plan.block_n, Wide{p.n});
        EXPECT_TRUE(Wide{plan.units} == Wide{p.batch.size} * plan.column_blocks);
        EXPECT_TRUE(plan.wave_units >= 1 && plan.wave_units <= plan.units);
        EXPECT_TRUE(Wide{plan.units} * plan.row_blocks <= kMost);
        EXPECT_TRUE(plan.workspace >= 0 && plan.workspace <= Index{1} << 40);
        EXPECT_TRUE(plan.shared_workspace >= 0 && plan.shared_workspace <= kMost);
        if (plan.packs_a) {
          EXPECT_GE(Wide{plan.shared_workspace}, Wide{p.m} * p.k);
        } else if (std::string(plan.algorithm->name) == "gemm_packed" && plan.row_blocks > 1) {
          EXPECT_GE(Wide{plan.shared_workspace}, Wide{plan.wave_units} * plan.block_n * p.k);
        }
      };
      unless_refused(check, taken);
      ASSERT_FALSE(testing::Test::HasFailure())
          << "seed " << seed << ": batch " << batch << " m " << m << " n " << n << " k " << k
          << ", " << blocks.name;
    }
  });
  EXPECT_GT(taken, cases(300));
}

// What is refused is not merely large: the first size that is, in words.
TEST(Limits, AreNamed) {
  float memory = 0;
  constexpr Index kKeys = Index{1} << 56;
  const Blocks blocks = all_of(1);
  const Forced forced(*all_targets().front(), &blocks);
  const View<const float, Head, Query, DepthK> q(&memory, {1, 1, 1}, {0, 0, 0});
  const View<const float, KvHead, Key, DepthK> k(&memory, {1, kKeys, 1}, {0, 0, 0});
  const View<const float, KvHead, Key, DepthV> v(&memory, {1, kKeys, 1}, {0, 0, 0});
  const View<float, Head, Query, DepthV> out(&memory, {1, 1, 1});
  try {
    explain(q, k, v, out);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::too_large);
    EXPECT_NE(std::string(error.what()).find("what the parts of its keys leave"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace rapt::tests
