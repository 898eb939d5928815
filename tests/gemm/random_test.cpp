// Random matrix products against the f64 reference, on every target, with the blocks in use and
// with small ones: b packed, b read in place, one element of k at a time.
#include <gtest/gtest.h>

#include <cmath>

#include "support/gemm_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

const std::vector<Blocks> kSmall = {small_packed(1), small_packed_b(4), small_packed(16, 1),
                                    small_direct(8, 2)};

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
    for_each_way({small_packed(64), small_packed_b(64)}, [&] {
      data.run();
      data.check(expected);
    });
  });
}

// On random data the error is far below the bound: in units of u sum |a| |b|, its rms is below 1
// (LAPACK's test ratio alarms at 16).
TEST(GemmRandom, ErrorsAreSmallInTheMean) {
  for (std::int64_t k : {1, 16, 128, 512}) {
    if (k > 128 && few_cases()) continue;
    GemmCase g;
    g.m = 96;
    g.n = 112;
    g.k = k;
    g.dense = true;
    GemmData data(g);
    const auto expected = data.expect();
    std::vector<double> sums;
    for (std::int64_t i = 0; i < data.c.size(); ++i) {
      double& sum = sums.emplace_back();
      for (std::int64_t x = 0; x < k; ++x)
        sum += std::abs(double{data.a[i / g.n * k + x]} * data.b[x * g.n + i % g.n]);
    }
    for_each_way(kSmall, [&] {
      data.run();
      data.check(expected);
      double squares = 0;
      for (std::int64_t i = 0; i < data.c.size(); ++i) {
        const double ratio =
            (data.c[i] - expected[0].c.data()[i]) / (kU * sums[static_cast<std::size_t>(i)]);
        squares += ratio * ratio;
      }
      EXPECT_LE(std::sqrt(squares / static_cast<double>(data.c.size())), 1) << "k " << k;
    });
  }
}

}  // namespace
}  // namespace rapt::tests
