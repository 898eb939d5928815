// The ways in which one problem is computed: every ISA target that this CPU runs, with the block
// sizes of the config in use and with small ones, so that short inputs have many blocks.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace rapt::tests {

// The environment variable RAPT_TEST_CASES says how many random problems of attention, and of the
// matrix product, are tested; other tests take cases in proportion: n of them at the default.
inline constexpr double kDefaultCases = 3000;
std::int64_t cases(std::int64_t n);
// Whether less than about a tenth of them is asked for, as under sanitizers and on emulated
// targets: then the least of several large sizes will do.
bool few_cases();

// The seed of case i of a test. RAPT_TEST_SEED=<seed> runs that one case alone; every failure
// prints it.
class Seeds {
 public:
  Seeds(std::uint64_t base, std::int64_t count) : base_(base), count_(count) {}
  void for_each(const std::function<void(std::uint64_t seed)>& run) const;

 private:
  std::uint64_t base_;
  std::int64_t count_;
};

// What a config row says, for all head sizes and operations alike.
struct Blocks {
  std::string name;  // for messages
  int tile = 0;      // index of the compiled register tile
  int block_q = 1, block_kv = 1, short_rows = 0, split_kv = 8192;
  int block_m = 1, block_n = 1, block_k = 1, direct_rows = 0, packed_kib = 0;
};

// Attention: the same work by the algorithm for many rows, where one block holds all rows in parts
// of 3 blocks of keys, and by the one for few, in parts that are merged.
Blocks few_keys_lanes(int block_kv, int tile = 0);
Blocks few_keys_rows(int split_kv, int tile = 0);
// Matrix product: the smallest blocks, a and b packed, b alone, or b read in place.
Blocks small_packed(int block_k, int tile = 0);
Blocks small_packed_b(int block_k, int tile = 0);
Blocks small_direct(int block_k, int tile = 0);

// The config text that says so for one target.
std::string config_of(const kernels::Kernels& kernels, const Blocks& blocks);

// While it lives, calls use this target, and these blocks when given. Fails the test when the
// target that runs is not the one that was forced.
class Forced {
 public:
  explicit Forced(const kernels::Kernels& kernels, const Blocks* blocks = nullptr);
  ~Forced();
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;

 private:
  testing::ScopedTrace trace_;
  bool config_;
};

// Every target of this build that this CPU runs, best first.
std::vector<const kernels::Kernels*> all_targets();

// Runs the body on every target: with the config in use, then once with each of the blocks.
void for_each_way(const std::vector<Blocks>& blocks, const std::function<void()>& body);
inline void for_each_target(const std::function<void()>& body) { for_each_way({}, body); }

}  // namespace rapt::tests
