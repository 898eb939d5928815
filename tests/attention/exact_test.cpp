// Results that are exact, bit for bit, whatever the order of summation; and logits far from 0.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

const std::vector<Blocks> kSmall = {few_keys_lanes(1), few_keys_lanes(16), few_keys_rows(1),
                                    few_keys_rows(16)};

AttentionCase medium() {
  AttentionCase c;
  c.batch = {2};
  c.heads = 4;
  c.kv_heads = 2;
  c.seq_q = 21;
  c.seq_kv = 64;
  c.d_k = 16;
  c.d_v = 24;
  return c;
}

// Keys whose scores are `others`, but one, in turn, is `best`.
AttentionData one_winner(float best, float others) {
  AttentionCase c = medium();
  c.scale = 1.0f;
  AttentionData data(c);
  data.q.fill([&](std::int64_t n) { return n % c.d_k == 0 ? 1.0f : 0.0f; });
  data.k.fill([&](std::int64_t n) {
    const std::int64_t key = n / c.d_k % c.seq_kv, head = n / c.d_k / c.seq_kv;
    return n % c.d_k != 0 ? 0.0f : key == (17 * head + 5) % c.seq_kv ? best : others;
  });
  data.q.seal();
  data.k.seal();
  return data;
}

TEST(AttentionExact, AWinnerByFarTakesItsValueBitForBit) {  // B33
  const float max = std::numeric_limits<float>::max();
  for (auto [best, others] : {std::pair{0.0f, -200.0f},
                              {200.0f, 0.0f},
                              {-1e4f, -1.1e4f},
                              {1e4f, 0.0f},
                              {-1e6f, -2e6f},
                              {-1e30f, -2e30f},
                              {1e30f, -1e30f},
                              {-1e38f, -3e38f},
                              {-1e38f, -max},
                              {max, -1e38f}}) {
    AttentionData data = one_winner(best, others);
    for_each_way(kSmall, [&] {
      data.run();
      for (std::int64_t n = 0; n < data.out.size(); ++n) {
        const std::int64_t d = n % 24, h = n / 24 / 21 % 4, b = n / 24 / 21 / 4;
        const std::int64_t head = b * 2 + h / 2, key = (17 * head + 5) % 64;
        ASSERT_EQ(data.out[n], data.v[(head * 64 + key) * 24 + d]) << best << " over " << others;
      }
      for (float x : data.lse.values()) ASSERT_EQ(x, best);
    });
  }
}

TEST(AttentionExact, EqualScoresGiveTheMeanOfIntegers) {
  AttentionCase c = medium();
  c.data = Data::integers;
  AttentionData data(c);
  data.q.fill([](std::int64_t) { return 0.0f; });
  data.q.seal();
  for_each_way(kSmall, [&] {
    data.run();
    for (std::int64_t n = 0; n < data.out.size(); ++n) {
      const std::int64_t d = n % 24, h = n / 24 / 21 % 4, b = n / 24 / 21 / 4;
      float sum = 0;
      for (std::int64_t j = 0; j < 64; ++j) sum += data.v[((b * 2 + h / 2) * 64 + j) * 24 + d];
      ASSERT_EQ(data.out[n], sum / 64);
    }
  });
}

TEST(AttentionExact, TheMeanOfAConstantIsTheConstant) {
  AttentionCase c = medium();
  c.seq_kv = 61;
  AttentionData data(c);
  data.v.fill([](std::int64_t) { return 0.7f; });
  data.v.seal();
  for_each_way(kSmall, [&] {
    data.run();
    for (float x : data.out.values()) ASSERT_NEAR(x, 0.7f, 4 * sum_error(61) * 0.7);
  });
}

TEST(AttentionExact, ScalingTheValuesByAPowerOfTwoScalesTheResult) {
  for (bool masked : {false, true}) {
    AttentionCase c = medium();
    c.causal = masked;
    AttentionData once(c), scaled(c);
    for (std::int64_t n = 0; n < scaled.v.size(); ++n) scaled.v[n] *= 0x1p20f;
    scaled.v.seal();
    for_each_way(kSmall, [&] {
      once.run();
      scaled.run();
      for (std::int64_t n = 0; n < once.out.size(); ++n)
        ASSERT_EQ(once.out[n] * 0x1p20f, scaled.out[n]);
    });
  }
}

TEST(AttentionExact, DoublingTheHeadsOfAGroupRepeatsTheRows) {
  AttentionCase c = medium();
  c.heads = c.kv_heads = 2;
  AttentionCase doubled = c;
  doubled.heads = 4;
  AttentionData a(c), b(doubled);
  // Query heads 2h and 2h + 1 are head h; K and V are shared.
  b.q.fill([&](std::int64_t n) {
    const std::int64_t row = n / (c.seq_q * c.d_k), inside = n % (c.seq_q * c.d_k);
    return a.q[row / 2 * c.seq_q * c.d_k + inside];
  });
  b.k.fill([&](std::int64_t n) { return a.k[n]; });
  b.v.fill([&](std::int64_t n) { return a.v[n]; });
  for (auto* tensor : {&b.q, &b.k, &b.v}) tensor->seal();
  const std::int64_t head = c.seq_q * c.d_v;
  for_each_way({few_keys_lanes(16), few_keys_rows(16)}, [&] {
    a.run();
    b.run();
    const auto expected = b.expect();
    b.check(expected);
    for (std::int64_t n = 0; n < b.out.size(); ++n) {  // the two copies, bit for bit
      ASSERT_EQ(b.out[n], b.out[n / head % 2 == 1 ? n - head : n]) << n;
    }
  });
}

TEST(AttentionExact, AFullyMaskedBlockMoreChangesNoBit) {
  AttentionCase c = medium();
  c.mask = Pairs::random;
  c.mask_broadcast = 1;
  for (std::int64_t more : {16, 64}) {
    AttentionCase longer = c;
    longer.seq_kv += more;
    longer.mask = Pairs::random;
    AttentionData a(c), b(longer);
    const auto copy = [&](const Tensor<float>& from, Tensor<float>& to, std::int64_t depth) {
      to.fill([&](std::int64_t n) {
        const std::int64_t key = n / depth % longer.seq_kv, head = n / depth / longer.seq_kv;
        return key < c.seq_kv ? from[(head * c.seq_kv + key) * depth + n % depth] : 1.0f;
      });
      to.seal();
    };
    b.q.fill([&](std::int64_t n) { return a.q[n]; });
    b.q.seal();
    copy(a.k, b.k, c.d_k);
    copy(a.v, b.v, c.d_v);
    b.mask.fill([&](std::int64_t n) {
      const std::int64_t key = n % longer.seq_kv;
      return key < c.seq_kv && a.mask[n / longer.seq_kv * c.seq_kv + key];
    });
    b.mask.seal();
    for_each_way({few_keys_lanes(16), few_keys_rows(16)}, [&] {
      a.run();
      b.run();
    });
    // Only where the blocks are cut alike: 64 is a multiple of 16.
    for (const Blocks& blocks : {few_keys_lanes(16), few_keys_rows(16)}) {
      for (const kernels::Kernels* kernels : all_targets()) {
        const Forced forced(*kernels, &blocks);
        a.run();
        b.run();
        EXPECT_TRUE(same_bits(a.out.values(), b.out.values()));
        EXPECT_TRUE(same_bits(a.lse.values(), b.lse.values()));
      }
    }
  }
}

TEST(AttentionExact, HugeValuesAndTinyOnes) {
  for (float magnitude : {1e38f, 1e30f, 1e-30f, 1e-38f, 1e-42f}) {  // the last is denormal
    AttentionCase c = medium();
    AttentionData data(c);
    for (std::int64_t n = 0; n < data.v.size(); ++n) {
      data.v[n] = magnitude * std::clamp(data.v[n] / 4, -1.0f, 1.0f) / 64;
    }
    data.v.seal();
    const auto expected = data.expect();
    for_each_way(kSmall, [&] {
      data.run();
      data.check(expected);
    });
  }
}

TEST(AttentionExact, InfinityInAKeyIsNaNOrNothing) {
  AttentionCase c = medium();
  AttentionData data(c);
  // One key at -infinity against a positive query weighs nothing; at +infinity the row is NaN, as
  // in the reference.
  data.q.fill([](std::int64_t n) { return 1.0f + 0.1f * static_cast<float>(n % 7); });
  data.k[3 * c.d_k] = -std::numeric_limits<float>::infinity();              // kv head 0
  data.k[(c.seq_kv + 9) * c.d_k] = std::numeric_limits<float>::infinity();  // kv head 1
  data.q.seal();
  data.k.seal();
  const auto expected = data.expect();
  for_each_way(kSmall, [&] {
    data.run();
    data.check(expected);
  });
}

TEST(AttentionExact, ScalesOfEverySign) {
  for (float scale : {0.0f, -1.0f, -0.3f, 1e-38f, 1e-20f, 3.0f}) {
    AttentionCase c = medium();
    c.scale = scale;
    AttentionData data(c);
    const auto expected = data.expect();
    for_each_way(kSmall, [&] {
      data.run();
      data.check(expected);
    });
  }
}

}  // namespace
}  // namespace rapt::tests
