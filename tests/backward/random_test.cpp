// Gradients of random attention problems against the f64 reference, on every target, with the
// blocks in use and with small ones. A problem that fails prints its one-line reproducer, and that
// of the smallest problem like it.
#include <gtest/gtest.h>

#include "support/backward_case.hpp"
#include "support/shrink.hpp"

namespace rapt::tests {
namespace {

auto agrees_with(const std::vector<Blocks>& blocks) {
  return [blocks](const AttentionCase& c) {
    BackwardData data(c);
    const auto expected = data.expect();
    for_each_way(blocks, [&] {
      data.run();
      data.check(expected);
    });
  };
}

TEST(BackwardRandom, AgreesWithTheReference) {
  for_each_case(
      Seeds(81, cases(800)),
      [](std::uint64_t seed) { return with_dropout(AttentionCase::random(seed)); },
      agrees_with({few_keys_lanes(1), few_keys_lanes(16, 1)}));
}

// Many more, of which each is cheap: combinations of options are what counts here.
TEST(BackwardRandom, SmallCasesAgreeWithTheReference) {
  for_each_case(
      Seeds(82, cases(4000)),
      [](std::uint64_t seed) { return with_dropout(AttentionCase::random(seed, 9)); },
      agrees_with({few_keys_lanes(3)}));
}

TEST(BackwardRandom, AgreesWithTheReferenceInManyBlocks) {
  for_each_case(
      Seeds(83, cases(200)),
      [](std::uint64_t seed) {
        AttentionCase c = AttentionCase::random(seed, 300);
        c.heads = c.kv_heads * (c.heads / c.kv_heads > 2 ? 2 : 1);
        c.batch.assign(c.batch.empty() ? 0 : 1, 1);
        return c;
      },
      agrees_with({few_keys_lanes(16, 2)}));
}

}  // namespace
}  // namespace rapt::tests
