// Every wrong option of attention is an Error whose sentence names it and both values, thrown
// before one byte of an output was written. What only looks wrong is taken.
#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/tensor.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr ErrorCode kMismatch = ErrorCode::extent_mismatch, kRank = ErrorCode::wrong_rank,
                    kRange = ErrorCode::extent_range, kValue = ErrorCode::bad_value,
                    kNull = ErrorCode::null_data, kTooLarge = ErrorCode::too_large;
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min(),
                       kMost = std::numeric_limits<std::int64_t>::max();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// A call that is right, to be made wrong in one place. Arrays are larger than any view of them.
struct Call {
  Tensor<float> floats{{4000}}, out_memory{{4000}}, lse_memory{{400}};
  std::vector<BFloat16> halves = std::vector<BFloat16>(4000);
  std::vector<std::int8_t> bytes = std::vector<std::int8_t>(4000);
  std::vector<Int4Group> groups = std::vector<Int4Group>(400);
  std::vector<std::uint64_t> words = std::vector<std::uint64_t>(100);
  std::vector<std::int32_t> segments = std::vector<std::int32_t>(100);
  std::vector<std::int32_t> lengths, offsets, table, cu_q, cu_kv;
  Tensor<bool> truths{{400}};
  AnyQ q;
  AnyK k;
  AnyV v;
  AnyOut out;
  AttentionOptions options;

  Call() {
    floats.fill([](std::int64_t n) { return static_cast<float>(n % 5); });
    truths.fill([](std::int64_t) { return true; });
    out_memory.reset();
    lse_memory.reset();
  }
  void run() const { attention(q, k, v, out, options); }
  bool untouched() const { return out_memory.unchanged() && lse_memory.unchanged(); }
};

using Make = std::function<void(Call&)>;

// Primes, so that a sentence shows which extent it means.
void rectangular(Call& c) {
  c.q = {c.floats.data(), {2, 6, 5, 7}};
  c.k = {c.floats.data(), {2, 3, 11, 7}};
  c.v = {c.floats.data(), {2, 3, 11, 13}};
  c.out = {c.out_memory.data(), {2, 6, 5, 13}};
  c.options.lse = {c.lse_memory.data(), {2, 6, 5}};
}

// With lengths: the first cache is full, the second empty.
void lengths(Call& c) {
  rectangular(c);
  c.lengths = {11, 0};
  c.options.kv_lengths = {c.lengths.data(), {2}};
}

// Pages of 4 keys, 7 in the pool, at most 3 for a sequence. The second sequence has none.
void paged(Call& c) {
  lengths(c);
  c.lengths = {9, 0};
  c.k = {c.floats.data(), {7, 3, 4, 7}};
  c.v = {c.floats.data(), {7, 3, 4, 13}};
  c.table = {6, 0, 2, -1, 7, INT_MIN};
  c.options.block_table = {c.table.data(), {2, 3}};
}

// Three sequences: 4, 0 and 5 queries on 6, 7 and 0 keys.
void packed(Call& c) {
  c.cu_q = {0, 4, 4, 9};
  c.cu_kv = {0, 6, 13, 13};
  c.q = {c.floats.data(), {6, 9, 7}};
  c.k = {c.floats.data(), {3, 13, 7}};
  c.v = {c.floats.data(), {3, 13, 13}};
  c.out = {c.out_memory.data(), {6, 9, 13}};
  c.options.lse = {c.lse_memory.data(), {6, 9}};
  c.options.cu_seqlens_q = {c.cu_q.data(), {4}};
  c.options.cu_seqlens_kv = {c.cu_kv.data(), {4}};
}

// The call so made throws this code with this sentence, and nothing was written.
void wrong(const Make& right, const Make& change, ErrorCode code, const std::string& sentence) {
  SCOPED_TRACE(sentence);
  Call call;
  right(call);
  change(call);
  try {
    call.run();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(error.what(), sentence);
  }
  EXPECT_TRUE(call.untouched());
}

void taken(const Make& right, const Make& change) {
  Call call;
  right(call);
  change(call);
  EXPECT_NO_THROW(call.run());
  EXPECT_FALSE(call.untouched());
}

TEST(OptionErrors, TheCallsOfTheseTestsAreRight) {
  for (const Make& right : {Make(rectangular), Make(lengths), Make(paged), Make(packed)})
    taken(right, [](Call&) {});
}

TEST(OptionErrors, PositionsThatAreNone) {  // B19
  const auto least = [](const std::string& name, std::int64_t AttentionOptions::* option,
                        std::int64_t least) {
    for (std::int64_t value : {least - 1, kLeast}) {
      wrong(
          rectangular, [&](Call& c) { c.options.*option = value; }, kValue,
          name + " is " + std::to_string(value) + ", but must be at least " +
              std::to_string(least));
    }
    if (option == &AttentionOptions::tree_keys) return;
    for (std::int64_t value : {least, kMost})
      taken(rectangular, [&](Call& c) { c.options.*option = value; });
  };
  least("window_left", &AttentionOptions::window_left, -1);
  least("window_right", &AttentionOptions::window_right, -1);
  least("chunk", &AttentionOptions::chunk, 0);
  least("prefix", &AttentionOptions::prefix, 0);
  least("tree_keys", &AttentionOptions::tree_keys, 0);
}

TEST(OptionErrors, Softcap) {
  const auto softcap = [](float value, const std::string& text) {
    wrong(
        rectangular, [=](Call& c) { c.options.softcap = value; }, kValue,
        "softcap is " + text + ", but must be finite, and not negative");
  };
  softcap(-1, "-1.000000");
  softcap(kNaN, "nan");
  softcap(kInf, "inf");
}

TEST(OptionErrors, RoundWeights) {
  wrong(
      rectangular, [](Call& c) { c.options.round_weights = static_cast<RoundWeights>(3); }, kValue,
      "round_weights is 3, but must be where_native, never or always");
}

TEST(OptionErrors, Offsets) {  // B19
  const Make both = [](Call& c) {
    c.offsets = {INT_MIN, INT_MAX};
    c.options.q_offsets = {c.offsets.data(), {2}};
    c.options.q_offset = 3;
  };
  wrong(rectangular, both, kValue, "q_offset is 3, but q_offsets is given too");
  const auto extents = [&](std::initializer_list<std::int64_t> extents) {
    return [=](Call& c) {
      both(c);
      c.options.q_offset = {};
      c.options.q_offsets = {c.offsets.data(), extents};
    };
  };
  wrong(rectangular, extents({3}), kMismatch, "axis batch 0: q_offsets has 3, but q has 2");
  wrong(rectangular, extents({1, 2}), kRank, "batch axes: q_offsets has 2, but q has 1");
  wrong(packed, extents({2}), kMismatch, "axis batch 0: q_offsets has 2, but cu_seqlens_q has 3");
  for (bool causal : {false, true}) {  // any position is one
    taken(rectangular, [&](Call& c) {
      extents({2})(c);
      c.options.causal = causal;
      c.options.window_left = kMost;
    });
    for (std::int64_t offset : {kLeast, kMost}) {
      taken(rectangular, [&](Call& c) {
        c.options.q_offset = offset;
        c.options.causal = causal;
        c.options.chunk = kMost;
      });
    }
  }
}

TEST(OptionErrors, PerHead) {  // B45
  for (const auto& [name, option] : {std::pair{"alibi_slopes", &AttentionOptions::alibi_slopes},
                                     std::pair{"sinks", &AttentionOptions::sinks}}) {
    const auto extents = [&](std::initializer_list<std::int64_t> extents) {
      return [=, option = option](Call& c) { c.options.*option = {c.floats.data(), extents}; };
    };
    const std::string n = name;
    wrong(rectangular, extents({3}), kMismatch, "axis heads: " + n + " has 3, but q has 6");
    wrong(rectangular, extents({1}), kMismatch, "axis heads: " + n + " has 1, but q has 6");
    wrong(rectangular, extents({3, 6}), kMismatch, "axis batch 0: " + n + " has 3, but q has 2");
    wrong(rectangular, extents({1, 2, 6}), kRank, "batch axes: " + n + " has 2, but q has 1");
    wrong(rectangular, extents({-6}), kRange,
          "axis heads of " + n + " is -6, but must be from 0 to 1152921504606846976");
    taken(rectangular, extents({2, 6}));
    taken(packed, extents({3, 6}));
  }
}

TEST(OptionErrors, Segments) {  // B29, B45
  const auto segments = [](std::initializer_list<std::int64_t> of_q,
                           std::initializer_list<std::int64_t> of_kv) {
    return [=](Call& c) {
      if (of_q.size() > 0) c.options.q_segments = {c.segments.data(), of_q};
      if (of_kv.size() > 0) c.options.kv_segments = {c.segments.data(), of_kv};
    };
  };
  wrong(rectangular, segments({5}, {}), kValue, "q_segments is given, but kv_segments is not");
  wrong(rectangular, segments({}, {11}), kValue, "kv_segments is given, but q_segments is not");
  wrong(rectangular, segments({4}, {11}), kMismatch, "axis seq_q: q_segments has 4, but q has 5");
  wrong(rectangular, segments({5}, {10}), kMismatch,
        "axis seq_kv: kv_segments has 10, but k has 11");
  wrong(rectangular, segments({3, 5}, {11}), kMismatch,
        "axis batch 0: q_segments has 3, but q has 2");
  wrong(rectangular, segments({5}, {1, 1, 11}), kRank,
        "batch axes: kv_segments has 2, but q has 1");
  // The keys of a paged sequence are those that its table has room for.
  wrong(paged, segments({5}, {11}), kMismatch,
        "axis seq_kv: kv_segments has 11, but block_table has 12");
  taken(paged, segments({5}, {12}));
  wrong(packed, segments({9}, {7}), kMismatch, "axis seq_kv: kv_segments has 7, but k has 13");
  wrong(packed, segments({3, 4}, {13}), kRank,
        "batch axes: a packed array has 0, but q_segments has 1");
  taken(packed, segments({9}, {13}));
}

TEST(OptionErrors, Tree) {  // B29, B45
  const auto tree = [](std::initializer_list<std::int64_t> extents, std::int64_t keys) {
    return [=](Call& c) {
      if (extents.size() > 0) c.options.tree = {c.words.data(), extents};
      c.options.tree_keys = keys;
    };
  };
  wrong(rectangular, tree({}, 5), kValue, "tree_keys is 5, but tree is not given");
  wrong(rectangular, tree({5, 1}, 65), kMismatch,
        "axis words: tree has 1, but a row of 65 tree_keys has 2");
  wrong(rectangular, tree({5, 2}, 64), kMismatch,
        "axis words: tree has 2, but a row of 64 tree_keys has 1");
  wrong(rectangular, tree({5, 1}, 0), kMismatch,
        "axis words: tree has 1, but a row of 0 tree_keys has 0");
  wrong(
      rectangular, tree({5, 1}, kMost), kMismatch,
      "axis words: tree has 1, but a row of 9223372036854775807 tree_keys has 144115188075855872");
  wrong(rectangular, tree({4, 1}, 5), kMismatch, "axis seq_q: tree has 4, but q has 5");
  wrong(rectangular, tree({3, 5, 1}, 5), kMismatch, "axis batch 0: tree has 3, but q has 2");
  taken(rectangular, tree({5, 2}, 65));  // more drafts than keys
  taken(packed, tree({9, 1}, 3));
}

TEST(OptionErrors, Lengths) {  // B19, B32
  const auto length = [](std::int32_t value) { return [=](Call& c) { c.lengths[1] = value; }; };
  wrong(lengths, length(12), kValue, "kv_lengths[1] is 12, but must be from 0 to 11");
  wrong(lengths, length(-1), kValue, "kv_lengths[1] is -1, but must be from 0 to 11");
  wrong(lengths, length(INT_MIN), kValue, "kv_lengths[1] is -2147483648, but must be from 0 to 11");
  wrong(lengths, length(INT_MAX), kValue, "kv_lengths[1] is 2147483647, but must be from 0 to 11");
  wrong(paged, length(13), kValue, "kv_lengths[1] is 13, but must be from 0 to 12");
  wrong(
      lengths, [](Call& c) { c.options.kv_lengths = {c.lengths.data(), {3}}; }, kMismatch,
      "axis batch 0: kv_lengths has 3, but q has 2");
  wrong(
      lengths, [](Call& c) { c.options.kv_lengths = {c.lengths.data(), {1, 2}}; }, kRank,
      "batch axes: kv_lengths has 2, but q has 1");
  taken(lengths, [](Call& c) { c.options.kv_lengths = {c.lengths.data(), {1}}; });
}

TEST(OptionErrors, PagesThatAreNotInThePool) {  // B19
  const auto page = [](std::size_t at, std::int32_t value) {
    return [=](Call& c) { c.table[at] = value; };
  };
  wrong(paged, page(0, -1), kValue, "block_table[0, 0] is -1, but k has 7 pages");
  wrong(paged, page(1, INT_MIN), kValue, "block_table[0, 1] is -2147483648, but k has 7 pages");
  wrong(paged, page(2, 7), kValue, "block_table[0, 2] is 7, but k has 7 pages");
  wrong(paged, page(2, INT_MAX), kValue, "block_table[0, 2] is 2147483647, but k has 7 pages");
  wrong(
      paged, [](Call& c) { c.lengths[1] = 1; }, kValue,
      "block_table[1, 0] is -1, but k has 7 pages");
  // Beyond a length nothing is a page, and nothing is read there.
  taken(paged, [](Call& c) {
    c.lengths[0] = 8;
    c.table[2] = INT_MAX;
  });
}

TEST(OptionErrors, Pools) {  // B45
  wrong(
      paged, [](Call& c) { c.options.kv_lengths = {}; }, kValue,
      "block_table is given, but needs kv_lengths");
  wrong(
      paged,
      [](Call& c) {
        c.k = {c.floats.data(), {7, 3, 0, 7}};
        c.v = {c.floats.data(), {7, 3, 0, 13}};
      },
      kRange, "axis page size (seq_kv) of k is 0, but must be from 1 to 1048576");
  wrong(
      paged, [](Call& c) { c.k = {c.floats.data(), {3, 4, 7}}; }, kRank,
      "batch axes: k has 0, but a pool of pages has 1");
  wrong(
      paged, [](Call& c) { c.k = {c.floats.data(), {1, 7, 3, 4, 7}}; }, kRank,
      "batch axes: k has 2, but a pool of pages has 1");
  wrong(
      paged, [](Call& c) { c.v = {c.floats.data(), {6, 3, 4, 13}}; }, kMismatch,
      "axis batch 0: k has 7, but v has 6");
  wrong(
      paged, [](Call& c) { c.v = {c.floats.data(), {7, 3, 5, 13}}; }, kMismatch,
      "axis seq_kv: k has 4, but v has 5");
  wrong(
      paged, [](Call& c) { c.options.block_table = {c.table.data(), {1, 3}}; }, kMismatch,
      "axis batch 0: q has 2, but block_table has 1");
  wrong(
      paged, [](Call& c) { c.options.block_table = {c.table.data(), {3}}; }, kRank,
      "batch axes: q has 1, but block_table has 0");
  wrong(
      paged,
      [](Call& c) {
        c.q = {c.floats.data(), {1, 2, 6, 5, 7}};
        c.out = {c.out_memory.data(), {1, 2, 6, 5, 13}};
      },
      kRank, "batch axes: q has 2, but the paged problem has 1");
}

TEST(OptionErrors, TablesThatNoMemoryHolds) {  // B45, B46
  const auto pages = [](std::int64_t extent) {
    return [=](Call& c) { c.options.block_table = {c.table.data(), {2, extent}, {0, 0}}; };
  };
  wrong(paged, pages(-1), kRange,
        "axis pages of block_table is -1, but must be from 0 to 1152921504606846976");
  wrong(paged, pages(kMost), kTooLarge,
        "block_table is too large: axis pages has extent 9223372036854775807 with stride 0, "
        "beyond what memory can hold");
  // Its pages fit, the keys on them do not.
  wrong(
      paged,
      [&](Call& c) {
        c.k = {c.floats.data(), {7, 3, 1 << 20, 7}, {0, 0, 0, 1}};
        c.v = {c.floats.data(), {7, 3, 1 << 20, 13}, {0, 0, 0, 1}};
        pages(std::int64_t{1} << 45)(c);
      },
      kRange, "axis pages of block_table is 35184372088832, but must be from 0 to 1099511627776");
}

TEST(OptionErrors, Boundaries) {  // B19, B45
  for (bool of_q : {true, false}) {
    const std::string name = of_q ? "cu_seqlens_q" : "cu_seqlens_kv", array = of_q ? "q" : "k";
    const auto at = [=](std::size_t i, std::int32_t value) {
      return [=](Call& c) { (of_q ? c.cu_q : c.cu_kv)[i] = value; };
    };
    const auto is = [&](const char* i, const char* value, const std::string& but) {
      return name + "[" + i + "] is " + value + ", but " + but;
    };
    wrong(packed, at(0, 1), kValue, is("0", "1", "the first sequence begins at 0"));
    wrong(packed, at(0, -1), kValue, is("0", "-1", "the first sequence begins at 0"));
    const std::string second = of_q ? "4" : "6";
    wrong(packed, at(2, 3), kValue, is("2", "3", "lengths are not negative: it follows " + second));
    wrong(packed, at(2, INT_MIN), kValue,
          is("2", "-2147483648", "lengths are not negative: it follows " + second));
    wrong(packed, at(1, 14), kValue,
          of_q ? is("2", "4", "lengths are not negative: it follows 14")
               : is("2", "13", "lengths are not negative: it follows 14"));
    const std::string extent = of_q ? "9" : "13";
    wrong(packed, at(3, 14), kValue,
          is("3", "14", "the packed axis of " + array + " has " + extent));
    wrong(packed, at(3, INT_MAX), kValue,
          is("3", "2147483647", "the packed axis of " + array + " has " + extent));
    if (of_q) wrong(packed, at(3, 8), kValue, is("3", "8", "the packed axis of q has 9"));
    const auto view = [=](const BoundariesView& boundaries) {
      return
          [=](Call& c) { (of_q ? c.options.cu_seqlens_q : c.options.cu_seqlens_kv) = boundaries; };
    };
    const std::vector<std::int32_t> memory(20);
    const BoundariesView with_batch{memory.data(), {1, 4}}, strided{memory.data(), {4}, {2}};
    wrong(packed, view(with_batch), kRank,
          "batch axes: " + name + " has 1, but " + array + " has 0");
    wrong(packed, view(strided), kValue, "the stride of " + name + " is 2, but must be 1");
  }
  const auto number = [](std::int64_t n) {
    return [=](Call& c) { c.options.cu_seqlens_kv = {c.cu_kv.data(), {n}}; };
  };
  wrong(packed, number(3), kMismatch,
        "axis sequences + 1: cu_seqlens_kv has 3, but cu_seqlens_q has 4");
  wrong(packed, number(-4), kRange,
        "axis sequences + 1 of cu_seqlens_kv is -4, but must be from 0 to 1152921504606846976");
  wrong(
      packed, [](Call& c) { c.options.cu_seqlens_q = {c.cu_q.data(), {0}}; }, kRange,
      "axis sequences + 1 of cu_seqlens_q is 0, but must be from 1 to 1152921504606846976");
  wrong(
      packed, [](Call& c) { c.options.cu_seqlens_q = {c.cu_q.data(), {kLeast}}; }, kRange,
      "axis sequences + 1 of cu_seqlens_q is -9223372036854775808, but must be from 1 to "
      "1152921504606846976");
}

TEST(OptionErrors, WhatIsPackedHasNoBatchAxes) {
  const std::string sentence = "batch axes: a packed array has 0, but ";
  wrong(
      packed, [](Call& c) { c.q = {c.floats.data(), {1, 6, 9, 7}}; }, kRank, sentence + "q has 1");
  wrong(
      packed, [](Call& c) { c.k = {c.floats.data(), {1, 3, 13, 7}}; }, kRank, sentence + "k has 1");
  wrong(
      packed, [](Call& c) { c.v = {c.floats.data(), {1, 3, 13, 13}}; }, kRank,
      sentence + "v has 1");
  wrong(
      packed, [](Call& c) { c.out = {c.out_memory.data(), {1, 6, 9, 13}}; }, kRank,
      sentence + "out has 1");
  wrong(
      packed, [](Call& c) { c.options.lse = {c.lse_memory.data(), {1, 6, 9}}; }, kRank,
      sentence + "lse has 1");
  wrong(
      packed, [](Call& c) { c.options.mask = {c.truths.data(), {3, 6, 1, 1}}; }, kRank,
      sentence + "mask has 1");
  wrong(
      packed, [](Call& c) { c.options.bias = {c.floats.data(), {3, 6, 1, 1}}; }, kRank,
      sentence + "bias has 1");
  wrong(
      packed,
      [](Call& c) { c.options.tree = {c.words.data(), {3, 4, 1}}, c.options.tree_keys = 3; }, kRank,
      sentence + "tree has 1");
  // What stays unpacked has one: the sequences.
  wrong(
      packed, [](Call& c) { c.options.cu_seqlens_kv = {}; }, kRank,
      "batch axes: cu_seqlens_q has 1, but k has 0");
  wrong(
      packed,
      [](Call& c) {
        c.options.cu_seqlens_kv = {};
        c.k = {c.floats.data(), {2, 3, 11, 7}};
      },
      kMismatch, "axis batch 0: cu_seqlens_q has 3, but k has 2");
  wrong(
      packed, [](Call& c) { c.options.cu_seqlens_q = {}; }, kRank,
      "batch axes: cu_seqlens_kv has 1, but q has 0");
  // Pairs are as wide as the longest sequence, not as the packed axis.
  wrong(
      packed, [](Call& c) { c.options.bias = {c.floats.data(), {6, 9, 13}}; }, kMismatch,
      "axis seq_kv: bias has 13, but the longest of cu_seqlens_kv has 7");
  taken(packed, [](Call& c) { c.options.bias = {c.floats.data(), {6, 9, 7}}; });
}

TEST(OptionErrors, PackedKeysHaveNoOtherLengths) {
  const Make with_lengths = [](Call& c) {
    c.lengths = {6, 7, 0};
    c.options.kv_lengths = {c.lengths.data(), {3}};
  };
  wrong(packed, with_lengths, kValue,
        "cu_seqlens_kv is given, but packed sequences have no kv_lengths of their own");
  wrong(
      packed,
      [&](Call& c) {
        with_lengths(c);
        c.table = {0, 1, 2};
        c.options.block_table = {c.table.data(), {3, 1}};
      },
      kValue, "cu_seqlens_kv is given, but a paged cache is not packed: block_table is given too");
}

TEST(OptionErrors, StorageTypes) {  // B45
  const std::string must = ", but must be f32, bf16 or f16";
  wrong(
      rectangular, [](Call& c) { c.q = {c.bytes.data(), {2, 6, 5, 7}}; }, kValue,
      "the type of q is int8" + must);
  wrong(
      rectangular, [](Call& c) { c.q = {c.groups.data(), {2, 6, 5, 1}}; }, kValue,
      "the type of q is int4" + must);
  // In memory that is poisoned, so that a write would show.
  wrong(
      rectangular,
      [](Call& c) { c.out = {reinterpret_cast<std::int8_t*>(c.out_memory.data()), {2, 6, 5, 13}}; },
      kValue, "the type of out is int8" + must);
  wrong(
      rectangular,
      [](Call& c) { c.out = {reinterpret_cast<Int4Group*>(c.out_memory.data()), {2, 6, 5, 1}}; },
      kValue, "the type of out is int4" + must);
  // A group has 32 along the depth.
  wrong(
      rectangular, [](Call& c) { c.k = {c.groups.data(), {2, 3, 11, 1}}; }, kMismatch,
      "axis d_k: q has 7, but k has 32");
  wrong(
      rectangular, [](Call& c) { c.k = {c.groups.data(), {2, 3, 11, kMost}, {0, 0, 0, 1}}; },
      kTooLarge,
      "k is too large: axis d_k has extent 9223372036854775807 with stride 1, beyond what memory "
      "can hold");
  wrong(
      rectangular, [](Call& c) { c.v = {c.groups.data(), {2, 3, 11, 2}}; }, kMismatch,
      "axis d_v: v has 64, but out has 13");
}

TEST(OptionErrors, ScalesOfInt8) {  // B45
  const auto scales = [](std::initializer_list<std::int64_t> extents) {
    return [=](Call& c) {
      c.k = {c.bytes.data(), {2, 3, 11, 7}};
      if (extents.size() > 0) c.options.k_scales = {c.floats.data(), extents};
    };
  };
  wrong(rectangular, scales({}), kValue,
        "k_scales is missing, but k is int8, and needs a scale for each key");
  wrong(
      rectangular, [](Call& c) { c.v = {c.bytes.data(), {2, 3, 11, 13}}; }, kValue,
      "v_scales is missing, but v is int8, and needs a scale for each key");
  wrong(
      rectangular, [](Call& c) { c.options.k_scales = {c.floats.data(), {2, 3, 11}}; }, kValue,
      "k_scales is given, but k is not int8");
  wrong(
      rectangular,
      [](Call& c) {
        c.v = {c.halves.data(), {2, 3, 11, 13}};
        c.options.v_scales = {c.floats.data(), {2, 3, 11}};
      },
      kValue, "v_scales is given, but v is not int8");
  wrong(rectangular, scales({2, 3, 10}), kMismatch, "axis seq_kv: k_scales has 10, but k has 11");
  wrong(rectangular, scales({2, 6, 11}), kMismatch, "axis kv_heads: k_scales has 6, but k has 3");
  wrong(rectangular, scales({3, 3, 11}), kMismatch, "axis batch 0: k_scales has 3, but k has 2");
  wrong(rectangular, scales({1, 2, 3, 11}), kRank, "batch axes: k_scales has 2, but k has 1");
  taken(rectangular, scales({3, 11}));
  taken(rectangular, scales({1, 1}));
}

TEST(OptionErrors, NoMemory) {
  wrong(
      rectangular,
      [](Call& c) {
        c.k = AnyK(View<const std::int8_t, KvHead, Key, DepthK>(nullptr, {2, 3, 11, 7}));
      },
      kNull, "k has 462 elements but its data is null");
  wrong(
      rectangular,
      [](Call& c) {
        c.v = AnyV(View<const BFloat16, KvHead, Key, DepthV>(nullptr, {2, 3, 11, 13}));
      },
      kNull, "v has 858 elements but its data is null");
}

TEST(OptionErrors, ASalienceMapIsOfUnpackedSequences) {
  for (const Make& right : {Make(paged), Make(packed)}) {
    Call c;
    right(c);
    const QView q(c.floats.data(), {2, 6, 5, 7});
    const KView k(c.floats.data(), {2, 3, 11, 7});
    const View<float, Head, Query, Key> map(c.out_memory.data(), {2, 6, 5, 11});
    try {
      salience_map(q, k, map, c.options);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), kValue);
      EXPECT_EQ(std::string(error.what()),
                std::string(c.options.block_table ? "block_table" : "cu_seqlens_q") +
                    " is given, but a salience map is of unpacked sequences");
    }
    EXPECT_TRUE(c.untouched());
  }
}

}  // namespace
}  // namespace rapt::tests
