// The shrinker, with failures made up, and the text form of cases.
#include "support/shrink.hpp"

#include <stdexcept>

namespace rapt::tests {
namespace {

// The smallest of some random cases that fail so, as text.
std::string smallest(const Fails& fails) {
  std::string text;
  for (std::uint64_t seed = 1, found = 0; found < 5; ++seed) {
    AttentionCase c = AttentionCase::random(seed);
    if (!fails(c)) continue;
    ++found;
    c = shrink(c, fails);
    EXPECT_TRUE(fails(c) && c.valid()) << c.describe();
    c.seed = 1;
    if (text.empty()) text = c.describe();
    EXPECT_EQ(c.describe(), text) << "seed " << seed;
  }
  return text;
}

TEST(Shrink, NothingIsLeftThatDoesNotMatter) {
  EXPECT_EQ(smallest([](const AttentionCase&) { return true; }), "dense=1");
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.causal && c.seq_kv >= 17; }),
            "seq_kv=17 causal=1 dense=1");
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.window_left >= 2; }),
            "window_left=2 dense=1");
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.q_offset && *c.q_offset < -3; }),
            "q_offset=-4 dense=1");
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.heads / c.kv_heads == 3; }),
            "heads=3 dense=1");
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.kv_heads == 2 && !c.dense; }),
            "heads=2 kv_heads=2");
}

TEST(Shrink, WhatIsTriedIsAProblemThatRaptTakes) {
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.cache == Cache::packed; }),
            "batch=1 cache=packed dense=1");
  EXPECT_EQ(smallest([](const AttentionCase& c) { return c.k_type == Type::int4; }),
            "d_k=32 k_type=int4 dense=1");
  Random random(5);
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    shrink(AttentionCase::random(seed, 20), [&](const AttentionCase& c) {
      EXPECT_NO_THROW(AttentionData(c).run()) << c.describe();
      return random.percent(60);
    });
  }
}

TEST(Shrink, AFailureInsideIsNotOneOfTheTest) {
  EXPECT_EQ(outcome([] {}), Outcome::right);
  EXPECT_EQ(outcome([] { EXPECT_EQ(1, 2); }), Outcome::wrong);
  EXPECT_EQ(outcome([] { throw std::runtime_error("here"); }), Outcome::thrown);
}

TEST(Shrink, ACaseIsOneLineAndBack) {
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
    const AttentionCase c = AttentionCase::random(seed);
    EXPECT_TRUE(c.valid()) << c.describe();
    EXPECT_EQ(AttentionCase::parse(c.describe()).describe(), c.describe());
  }
  AttentionCase c;
  c.batch = {2, 3};
  c.scale = 0.1f;
  c.mask = Pairs::empty_rows;
  EXPECT_EQ(c.describe(), "batch=2x3 scale=0.100000001 mask=empty_rows");
  EXPECT_EQ(AttentionCase::parse(c.describe()).scale, 0.1f);
  for (const char* wrong : {"head=1", "heads", "heads=", "heads=x", "heads=1y", "mask=nobody",
                            "batch=2x", "batch=x2", "batch=2y3"}) {
    EXPECT_THROW(AttentionCase::parse(wrong), std::invalid_argument) << wrong;
  }
}

}  // namespace
}  // namespace rapt::tests
