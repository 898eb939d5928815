// Forcing targets and block sizes through the public functions.
#include "support/ways.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "config/config.hpp"
#include "rapt/config.hpp"
#include "support/random.hpp"

namespace rapt::tests {

std::int64_t cases(std::int64_t n) {
  const char* text = std::getenv("RAPT_TEST_CASES");
  const double wanted = text == nullptr ? kDefaultCases : std::atof(text);
  return std::max<std::int64_t>(1, std::llround(wanted / kDefaultCases * static_cast<double>(n)));
}

bool few_cases() { return cases(20) < 3; }

void Seeds::for_each(const std::function<void(std::uint64_t)>& run) const {
  const auto traced = [&](std::uint64_t seed) {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    const testing::ScopedTrace trace(
        __FILE__, __LINE__,
        "again: RAPT_TEST_SEED=" + std::to_string(seed) + " <program> --gtest_filter=" +
            (test == nullptr ? "" : std::string(test->test_suite_name()) + "." + test->name()));
    run(seed);
  };
  if (const char* one = std::getenv("RAPT_TEST_SEED"))
    return traced(std::strtoull(one, nullptr, 10));
  Random seeds(base_);
  for (std::int64_t i = 0; i < count_ && !testing::Test::HasFatalFailure(); ++i) {
    traced(seeds.bits());
  }
}

Blocks few_keys_lanes(int block_kv, int tile) {
  Blocks blocks{"lanes, block_kv " + std::to_string(block_kv), tile};
  blocks.block_kv = block_kv;
  blocks.split_kv = 3 * block_kv;
  return blocks;
}

Blocks few_keys_rows(int split_kv, int tile) {
  Blocks blocks{"rows, split_kv " + std::to_string(split_kv), tile};
  blocks.split_kv = split_kv;
  blocks.short_rows = 8192;
  return blocks;
}

Blocks small_packed(int block_k, int tile) {
  Blocks blocks{"packed, block_k " + std::to_string(block_k), tile};
  blocks.block_k = block_k;
  return blocks;
}

Blocks small_packed_b(int block_k, int tile) {
  Blocks blocks{"b packed, block_k " + std::to_string(block_k), tile};
  blocks.block_k = block_k;
  blocks.packed_kib = 1 << 20;
  return blocks;
}

Blocks small_direct(int block_k, int tile) {
  Blocks blocks{"direct, block_k " + std::to_string(block_k), tile};
  blocks.block_k = block_k;
  blocks.direct_rows = 8192;
  return blocks;
}

std::string config_of(const kernels::Kernels& kernels, const Blocks& blocks) {
  const kernels::TileKernel& tile = kernels.tiles[blocks.tile % kernels.n_tiles];
  config::TargetRows rows{kernels.target, {}, {}};
  for (std::int64_t d : config::kHeadSizes) {
    rows.attention.push_back({d,
                              {tile.rows, tile.vectors},
                              blocks.block_q,
                              blocks.block_kv,
                              blocks.short_rows,
                              blocks.split_kv});
  }
  rows.gemm = {{tile.rows, tile.vectors}, blocks.block_m,   blocks.block_n, blocks.block_k,
               blocks.direct_rows,        blocks.packed_kib};
  return config::format({{rows}});
}

Forced::Forced(const kernels::Kernels& kernels, const Blocks* blocks)
    : trace_(
          __FILE__, __LINE__,
          std::string("target ") + kernels.target + (blocks == nullptr ? "" : ", " + blocks->name)),
      config_(blocks != nullptr) {
  set_target(kernels.target);
  EXPECT_EQ(target(), kernels.target);
  if (config_) load_config(config_of(kernels, *blocks));
}

Forced::~Forced() {
  if (config_) load_config("");
  set_target("");
}

std::vector<const kernels::Kernels*> all_targets() {
  const kernels::KernelList list = kernels::all();
  return {list.list, list.list + list.size};
}

void for_each_way(const std::vector<Blocks>& blocks, const std::function<void()>& body) {
  for (const kernels::Kernels* kernels : all_targets()) {
    {
      const Forced forced(*kernels);
      body();
    }
    for (const Blocks& each : blocks) {
      const Forced forced(*kernels, &each);
      body();
    }
  }
}

}  // namespace rapt::tests
