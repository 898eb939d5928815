// Random matrix products against the f64 reference, on every target, with the blocks in use and
// with small ones: b packed, b read in place, one element of k at a time.
#include <gtest/gtest.h>

#include "support/gemm_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

const std::vector<Blocks> kSmall = {small_packed(1), small_packed(16, 1), small_direct(8, 2)};

TEST(GemmRandom, AgreesWithTheReference) {  // B5, B16
  Seeds(21, cases(3000)).for_each([](std::uint64_t seed) {
    GemmData data(GemmCase::random(seed));
    const auto expected = data.expect();
    for_each_way(kSmall, [&] {
      data.run();
      data.check(expected);
    });
  });
}

TEST(GemmRandom, LargerThanAllBlocks) {
  Seeds(22, cases(30)).for_each([](std::uint64_t seed) {
    GemmCase g = GemmCase::random(seed, 300);
    g.batch.clear();
    g.k *= 3;
    GemmData data(g);
    const auto expected = data.expect();
    for_each_way({small_packed(64)}, [&] {
      data.run();
      data.check(expected);
    });
  });
}

}  // namespace
}  // namespace rapt::tests
