// Random attention problems against the f64 reference, on every target, in every algorithm, with
// the blocks in use and with small ones. A problem that fails prints its one-line reproducer, and
// that of the smallest problem like it.
#include <gtest/gtest.h>

#include "support/shrink.hpp"

namespace rapt::tests {
namespace {

// The test of one case, on every target.
auto agrees_with(const std::vector<Blocks>& blocks) {
  return [blocks](const AttentionCase& c) {
    AttentionData data(c);
    const auto expected = data.expect();
    for_each_way(blocks, [&] {
      data.run();
      data.check(expected);
    });
  };
}

TEST(AttentionRandom, AgreesWithTheReference) {  // B5, B7, B23, B27, B36, B37
  for_each_case(
      Seeds(1, cases(2600)),
      [](std::uint64_t seed) { return with_dropout(AttentionCase::random(seed)); },
      agrees_with(
          {few_keys_lanes(1), few_keys_lanes(16, 1), few_keys_rows(1), few_keys_rows(16, 2)}));
}

// Many more, of which each is cheap: combinations of options are what counts here.
TEST(AttentionRandom, SmallCasesAgreeWithTheReference) {
  for_each_case(
      Seeds(3, cases(16800)),
      [](std::uint64_t seed) { return with_dropout(AttentionCase::random(seed, 9)); },
      agrees_with({few_keys_lanes(3), few_keys_rows(2, 1)}));
}

TEST(AttentionRandom, AgreesWithTheReferenceInManyBlocks) {
  for_each_case(
      Seeds(2, cases(400)),
      [](std::uint64_t seed) {
        AttentionCase c = AttentionCase::random(seed, 300);
        c.heads = c.kv_heads * (c.heads / c.kv_heads > 2 ? 2 : 1);
        c.batch.assign(c.batch.empty() ? 0 : 1, 1);
        return c;
      },
      agrees_with({few_keys_lanes(16, 2), few_keys_rows(16)}));
}

// A new token of each sequence, and keys that are multiplied as bytes.
TEST(AttentionRandom, SingleRowsOfQuantizedKeysAgreeWithTheReference) {
  for_each_case(
      Seeds(4, cases(400)),
      [](std::uint64_t seed) {
        AttentionCase c = AttentionCase::random(seed, 60);
        c.heads = c.kv_heads;
        c.seq_q = 1;
        c.d_k = seed % 3 == 0 ? 256 : 128;
        c.k_type = seed % 2 == 0 ? Type::int8 : Type::int4;
        c.round_weights = RoundWeights::where_native;
        return c;
      },
      agrees_with({few_keys_rows(16), few_keys_rows(64, 2)}));
}

}  // namespace
}  // namespace rapt::tests
