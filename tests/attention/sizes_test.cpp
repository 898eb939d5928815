// Attention of every size around the edges of vectors and tiles: tails in each axis, nothing along
// an axis, one key, one query, groups of heads, causal offsets.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

const std::vector<Blocks> kSmall = {few_keys_lanes(16), few_keys_rows(16)};

void expect_right(const AttentionCase& c, const std::vector<Blocks>& blocks = kSmall) {
  AttentionData data(c);
  const auto expected = data.expect();
  for_each_way(blocks, [&] {
    data.run();
    data.check(expected);
  });
}

AttentionCase small(std::uint64_t seed) {
  AttentionCase c;
  c.heads = c.kv_heads = 1;
  c.seq_q = 5;
  c.seq_kv = 7;
  c.d_k = 3;
  c.d_v = 11;
  c.seed = seed;
  return c;
}

// The longest vector of this machine, in floats.
std::int64_t lanes() { return all_targets().front()->lanes; }

TEST(AttentionSizes, EveryTailOfTheQueries) {
  for (std::int64_t n = 1; n <= 4 * lanes() + 1; ++n) {
    AttentionCase c = small(static_cast<std::uint64_t>(n));
    c.seq_q = n;
    c.causal = n % 2 == 0;
    expect_right(c);
  }
}

TEST(AttentionSizes, EveryTailOfTheKeys) {
  for (std::int64_t n = 1; n <= 4 * lanes() + 1; ++n) {
    AttentionCase c = small(static_cast<std::uint64_t>(n));
    c.seq_kv = n;
    c.causal = n % 2 == 0;
    expect_right(c);
  }
}

TEST(AttentionSizes, EveryTailOfBothDepths) {
  for (std::int64_t n = 1; n <= 4 * lanes() + 1; ++n) {
    AttentionCase c = small(static_cast<std::uint64_t>(n));
    c.d_k = n;
    expect_right(c);
    std::swap(c.d_k, c.d_v);
    expect_right(c);
  }
}

TEST(AttentionSizes, MaskFlushToAGuardPageForAllSizes) {  // B21, B29
  for (std::int64_t seq_q = 1; seq_q <= 130; seq_q += few_cases() ? 13 : 3) {
    for (std::int64_t seq_kv = 1 + seq_q % 5; seq_kv <= 300; seq_kv += 37) {
      AttentionCase c = small(static_cast<std::uint64_t>(1000 * seq_q + seq_kv));
      c.seq_q = seq_q;
      c.seq_kv = seq_kv;
      c.mask = Pairs::random;
      c.mask_broadcast = 1 | 16;
      c.dense = seq_q % 2 == 0;
      expect_right(c, {few_keys_rows(32)});
    }
  }
}

TEST(AttentionSizes, TheDeepestHeads) {  // B7
  for (std::int64_t d : {256, 257, 576, 1023, 1024}) {
    if (d == 256 && few_cases()) continue;
    AttentionCase c = small(static_cast<std::uint64_t>(d));
    c.seq_q = 35;
    c.seq_kv = 67;
    c.d_k = d;
    c.d_v = d == 576 ? 512 : d > 1000 ? 1025 - d : d;
    expect_right(c);
  }
}

TEST(AttentionSizes, PrimesThatCannotBeMixedUp) {
  AttentionCase c;
  c.batch = {2, 3};
  c.kv_heads = 5;
  c.heads = 35;
  c.seq_q = 11;
  c.seq_kv = 13;
  c.d_k = 17;
  c.d_v = 19;
  c.causal = true;
  expect_right(c);
}

TEST(AttentionSizes, GroupsOfOneToTwelveHeads) {  // B36
  for (std::int64_t group = 1; group <= 12; ++group) {
    for (std::int64_t seq_q = 1; seq_q <= 9; ++seq_q) {
      AttentionCase c = small(static_cast<std::uint64_t>(100 * group + seq_q));
      c.kv_heads = 2;
      c.heads = 2 * group;
      c.seq_q = seq_q;
      c.seq_kv = 21;
      c.causal = seq_q % 2 == 0;
      expect_right(c);
    }
  }
}

TEST(AttentionSizes, FewerAndMoreQueriesThanKeysAndEveryOffset) {  // B37
  for (std::int64_t seq_kv : {1, 2, 13, 40}) {
    for (std::int64_t seq_q : {1, 2, 13, 41}) {
      for (std::int64_t offset = -seq_q - 2; offset <= seq_kv + 2;
           offset += 1 + (seq_q + seq_kv) / 12) {
        AttentionCase c = small(static_cast<std::uint64_t>(seq_kv));
        c.seq_q = seq_q;
        c.seq_kv = seq_kv;
        c.causal = true;
        c.q_offset = offset;
        expect_right(c);
      }
    }
  }
  for (std::int64_t offset :
       {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    AttentionCase c = small(1);
    c.causal = true;
    c.q_offset = offset > 0 ? 1000000 : -1000000;
    AttentionData data(c);
    const auto expected = data.expect();
    data.of.q_offset = offset;  // the same rows, without an overflow
    for_each_way(kSmall, [&] {
      data.run();
      data.check(expected);
    });
  }
}

// Every size that may be 0 is, one at a time; out holds NaN before.
TEST(AttentionSizes, NothingAlongAnAxis) {  // B22
  for (int axis = 0; axis < 4; ++axis) {
    AttentionCase c = small(3);
    c.batch = {3};
    c.kv_heads = 2;
    c.heads = 4;
    if (axis == 0) c.batch = {0};
    if (axis == 1) c.heads = c.kv_heads = 0;
    if (axis == 2) c.seq_q = 0;
    if (axis == 3) c.seq_kv = 0;
    for (bool causal : {false, true}) {
      c.causal = causal;
      AttentionData data(c);
      for_each_way(kSmall, [&] {
        data.run();
        // Without keys every row is empty.
        for (float x : data.out.values()) ASSERT_TRUE(x == 0 && !std::signbit(x));
        for (float x : data.lse.values()) ASSERT_EQ(x, -std::numeric_limits<float>::infinity());
      });
    }
  }
}

TEST(AttentionSizes, NoKeysNeedNoMemory) {
  AttentionCase c = small(4);
  c.batch = {2};
  c.heads = 4;
  c.kv_heads = 2;
  AttentionData data(c);
  for_each_way(kSmall, [&] {
    data.out.reset();
    attention(data.q_view(), KView(nullptr, {2, 2, 0, c.d_k}), VView(nullptr, {2, 2, 0, c.d_v}),
              data.out_view());
    for (float x : data.out.values()) ASSERT_TRUE(x == 0 && !std::signbit(x));
  });
}

// A context that grows by one key a step, as in generation.
TEST(AttentionSizes, DecodeStepAfterStep) {  // B17, B28, B32
  for (std::int64_t step = cases(1024); step > 0; --step) {
    AttentionCase c = small(static_cast<std::uint64_t>(step));
    c.kv_heads = 2;
    c.heads = 2 * (1 + step % 9);
    c.seq_q = 1;
    c.seq_kv = step;
    c.d_k = c.d_v = 16;
    c.causal = step % 2 == 0;
    c.data = step % 3 == 0 ? Data::value_mean_1 : Data::normal;
    AttentionData data(c);
    const auto expected = data.expect();
    for_each_target([&] {
      data.run();
      data.check(expected);
    });
  }
}

TEST(AttentionSizes, OneKeyIsItsValue) {
  AttentionCase c = small(5);
  c.seq_kv = 1;
  c.seq_q = 40;
  AttentionData data(c);
  for_each_way(kSmall, [&] {
    data.run();
    for (std::int64_t n = 0; n < data.out.size(); ++n) ASSERT_EQ(data.out[n], data.v[n % c.d_v]);
  });
}

TEST(AttentionSizes, ManyBatchAxesAndHeadsThatAreBroadcastByStride) {
  AttentionCase c = small(6);
  c.batch = {2, 1, 3, 2};
  c.kv_heads = 2;
  c.heads = 6;
  expect_right(c);
  // A view whose batch stride is 0 is one array read for all batch elements.
  AttentionData data(c);
  const auto k = data.k_view();
  const std::int64_t extents[] = {2, 1, 3, 2, 2, c.seq_kv, c.d_k};
  const std::int64_t strides[] = {
      0, 0, 0, 0, k.stride<axis::KvHead>(), k.stride<axis::Key>(), k.stride<axis::DepthK>()};
  const KView shared(k.data(), extents, 7, strides, 7);
  for_each_target([&] {
    data.out.reset();
    attention(data.q_view(), shared, data.v_view(), data.out_view(), data.options());
    Comparison comparison;
    reference::for_each_batch(data.q_view(), [&](const reference::Batch& batch) {
      const auto problem =
          reference::problem_at(data.q_view(), shared, data.v_view(), data.options(), batch);
      compare_out(expect_attention(problem), batch_element(data.out_view(), batch), comparison);
    });
    EXPECT_TRUE(comparison.within());
  });
}

}  // namespace
}  // namespace rapt::tests
