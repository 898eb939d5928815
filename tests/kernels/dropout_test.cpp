// The words of dropout on every target: those that the authors of Philox publish, and the same for
// any cut of keys and rows into tiles.
#include <gtest/gtest.h>

#include <vector>

#include "support/random.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using kernels::Drop;
using kernels::Index;

// The word of key `key` of the counter {key / 4, query, stream, offset}, found by halving: a weight
// is dropped where it is below the threshold.
std::uint32_t word(const kernels::Kernels& kernels, Drop drop, Index key) {
  std::vector<float> p(static_cast<std::size_t>(kernels.lanes));
  std::uint32_t low = 0;
  for (int bit = 31; bit >= 0; --bit) {
    std::fill(p.begin(), p.end(), 1.0f);
    drop.p = p.data();
    drop.row = kernels.lanes;
    drop.n = 1;
    drop.first_key = key;
    drop.threshold = low + (std::uint32_t{1} << bit);
    kernels.drop(drop);
    if (p[0] != 0) low = drop.threshold;
  }
  return low;
}

struct Known {
  std::uint32_t counter[4], key[2], words[4];
};

TEST(Dropout, HasTheWordsOfPhilox) {
  // kat_vectors of the authors' Random123, philox4x32 with 10 rounds.
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const kernels::Kernels* kernels : all_targets()) {
    for (const auto& [counter, key, words] : known) {
      const std::vector<std::uint32_t> query(static_cast<std::size_t>(kernels->lanes), counter[1]),
          stream(query.size(), counter[2]);
      Drop drop{};
      drop.rows = 1;
      drop.query = query.data();
      drop.stream = stream.data();
      drop.seed[0] = key[0];
      drop.seed[1] = key[1];
      drop.offset = counter[3];
      drop.factor = 1;
      for (Index n = 0; n < 4; ++n) {
        EXPECT_EQ(word(*kernels, drop, Index{counter[0]} * 4 + n), words[n])
            << kernels->target << " word " << n;
      }
    }
  }
}

TEST(Dropout, IsTheSameInAnyTile) {
  constexpr Index kKeys = 37, kRows = 29, kRow = 96;  // whole vectors of any target up to 64 lanes
  std::vector<std::uint32_t> query(kRow), stream(kRow);
  for (std::size_t r = 0; r < query.size(); ++r) {
    query[r] = static_cast<std::uint32_t>(r);
    stream[r] = static_cast<std::uint32_t>(r % 3);
  }
  std::vector<float> first;
  for (const kernels::Kernels* kernels : all_targets()) {
    for (Index keys : {kKeys, Index{1}, Index{5}, Index{8}}) {
      std::vector<float> p(kKeys * kRow, 3.0f);
      for (Index key = 0; key < kKeys; key += keys) {
        kernels->drop({.p = p.data() + key * kRow,
                       .row = kRow,
                       .n = std::min(keys, kKeys - key),
                       .first_key = key,
                       .rows = kRows,
                       .query = query.data(),
                       .stream = stream.data(),
                       .seed = {1, 2},
                       .offset = 3,
                       .threshold = 0x40000000u,
                       .factor = 2});
      }
      std::vector<float> used;
      int dropped = 0;
      for (Index key = 0; key < kKeys; ++key) {
        for (Index r = 0; r < kRows; ++r) {
          used.push_back(p[static_cast<std::size_t>(key * kRow + r)]);
          dropped += used.back() == 0;
          EXPECT_TRUE(used.back() == 0 || used.back() == 6);
        }
      }
      EXPECT_NEAR(dropped, 0.25 * kKeys * kRows, 60);  // 4 standard deviations
      if (first.empty()) first = used;
      EXPECT_EQ(first, used) << kernels->target << " keys " << keys;
    }
  }
}

}  // namespace
}  // namespace rapt::tests
