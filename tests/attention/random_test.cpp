// Random attention problems against the f64 reference, on every target, in every algorithm, with
// the blocks in use and with small ones. Each problem prints its one-line reproducer when it fails.
#include <gtest/gtest.h>

#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

const std::vector<Blocks> kSmall = {few_keys_lanes(1), few_keys_lanes(16, 1), few_keys_rows(1),
                                    few_keys_rows(16, 2)};

TEST(AttentionRandom, AgreesWithTheReference) {  // B5, B7, B23, B27, B36, B37
  Seeds(1, cases(2600)).for_each([](std::uint64_t seed) {
    AttentionData data(AttentionCase::random(seed));
    const auto expected = data.expect();
    for_each_way(kSmall, [&] {
      data.run();
      data.check(expected);
    });
  });
}

TEST(AttentionRandom, AgreesWithTheReferenceInManyBlocks) {
  Seeds(2, cases(400)).for_each([](std::uint64_t seed) {
    AttentionCase c = AttentionCase::random(seed, 300);
    c.heads = c.kv_heads * (c.heads / c.kv_heads > 2 ? 2 : 1);
    c.batch.assign(c.batch.empty() ? 0 : 1, 1);
    AttentionData data(c);
    const auto expected = data.expect();
    for_each_way({few_keys_lanes(16, 2), few_keys_rows(16)}, [&] {
      data.run();
      data.check(expected);
    });
  });
}

}  // namespace
}  // namespace rapt::tests
