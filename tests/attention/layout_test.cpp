// The order of axes in memory is a matter of strides only: every layout gives the same bits, also
// with offsets beyond what 32 bits hold.
#include <gtest/gtest.h>

#include <cstdint>

#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

const std::vector<Blocks> kSmall = {few_keys_lanes(16), few_keys_rows(16)};

AttentionCase medium() {
  AttentionCase c;
  c.batch = {2};
  c.heads = 6;
  c.kv_heads = 2;
  c.seq_q = 19;
  c.seq_kv = 37;
  c.d_k = 18;
  c.d_v = 22;
  c.causal = true;
  return c;
}

Tensor<float> copy_of(const Tensor<float>& from, const Layout& layout) {
  Tensor<float> to(from.extents(), layout);
  to.fill([&](std::int64_t n) { return from[n]; });
  to.seal();
  return to;
}

// [batch, heads, seq, depth] in memory as listed; the axes are counted as the views list them.
TEST(AttentionLayout, EveryLayoutGivesTheSameBits) {  // B27
  AttentionCase c = medium();
  c.dense = true;
  AttentionData dense(c);
  const Layout layouts[] = {
      {{0, 1, 2, 3}, 1, 0, 0, 0, Edge::start},
      {{0, 2, 1, 3}, 1, 0, 0, 0, Edge::end},        // [batch, seq, heads, depth]
      {{2, 1, 0, 3}, 1, 7, 0, 0, Edge::end},        // sequence outermost, padded
      {{0, 1, 2, 3}, 1, 64 - 18, 0, 0, Edge::end},  // rows padded to 64
      {{0, 1, 2, 3}, 1, 1024, 0, 0, Edge::start},
      {{0, 1, 3, 2}, 1, 0, 0, 0, Edge::end},    // depth is not innermost: K^T
      {{3, 2, 1, 0}, 1, 0, 0, 0, Edge::start},  // all reversed
      {{0, 1, 2, 3}, 3, 2, 0, 0, Edge::end},    // every third element
      {{0, 1, 2, 3}, 1, 0, 15, 0, Edge::end},   // every axis runs backwards (inputs only)
      {{0, 2, 1, 3}, 2, 5, 6, 0, Edge::start},
  };
  for_each_way(kSmall, [&] {
    dense.run();
    const std::vector<float> out = dense.out.values(), lse = dense.lse.values();
    for (const Layout& layout : layouts) {
      Layout written = layout;
      written.reversed = 0;
      const auto q = copy_of(dense.q, layout), k = copy_of(dense.k, layout),
                 v = copy_of(dense.v, layout);
      Tensor<float> result(dense.out.extents(), written);
      result.reset();
      AttentionOptions options = dense.options();
      attention(q.view<Head, Query, DepthK>(), k.view<KvHead, Key, DepthK>(),
                v.view<KvHead, Key, DepthV>(), result.view<Head, Query, DepthV>(), options);
      EXPECT_TRUE(same_bits(out, result.values())) << "layout " << &layout - layouts;
      EXPECT_TRUE(same_bits(lse, dense.lse.values()));
      EXPECT_TRUE(result.gaps_unchanged()) << "layout " << &layout - layouts;
    }
  });
}

TEST(AttentionLayout, AxesMayBeListedInAnyOrder) {
  AttentionCase c = medium();
  c.dense = true;
  AttentionData data(c);
  data.run();
  const std::vector<float> out = data.out.values();
  // The same memory, said the other way round.
  const View<const float, DepthK, Query, Head> q(
      data.q.data(), {2, c.d_k, c.seq_q, c.heads},
      {c.heads * c.seq_q * c.d_k, 1, c.d_k, c.seq_q * c.d_k});
  data.out.reset();
  attention(q, data.k_view(), data.v_view(), data.out_view(), data.options());
  EXPECT_TRUE(same_bits(out, data.out.values()));
}

TEST(AttentionLayout, MaskAndBiasBroadcastOnEachAxis) {
  for (unsigned broadcast = 0; broadcast < 32; ++broadcast) {
    for (bool as_bias : {false, true}) {
      AttentionCase c = medium();
      if (few_cases()) c.heads = 2, c.kv_heads = 1, c.seq_q = 5;
      (as_bias ? c.bias : c.mask) = Pairs::random;
      (as_bias ? c.bias_broadcast : c.mask_broadcast) = broadcast;
      c.causal = false;
      AttentionData data(c);
      const auto expected = data.expect();
      for_each_way(kSmall, [&] {
        data.run();
        data.check(expected);
      });
    }
  }
}

TEST(AttentionLayout, MaskAndBiasOfAnyStride) {
  AttentionCase c = medium();
  c.mask = Pairs::random;
  c.bias = Pairs::random;
  AttentionData data(c);
  const auto expected = data.expect();
  // Transposed, with gaps, running backwards.
  Tensor<bool> mask(data.mask.extents(), {{0, 3, 1, 2}, 2, 3, 12, 0, Edge::end});
  mask.fill([&](std::int64_t n) { return data.mask[n]; });
  const Tensor<float> bias = copy_of(data.bias, {{3, 0, 2, 1}, 3, 1, 5, 0, Edge::start});
  for_each_way(kSmall, [&] {
    data.out.reset();
    AttentionOptions options = data.options();
    options.mask = mask.view<Head, Query, Key>();
    options.bias = bias.view<Head, Query, Key>();
    attention(data.q_view(), data.k_view(), data.v_view(), data.out_view(), options);
    data.check(expected);
  });
}

// One scale for all keys of a (page, head), broadcast, and one for each key alike. Powers of two
// commute with every rounding, so f32 that has them multiplied in gives the same bits.
TEST(AttentionLayout, ScalesOfPages) {
  constexpr std::int64_t kPages = 5, kKvHeads = 2, kSize = 6, kDepth = 24, kLength = 23, kRows = 8;
  Tensor<std::int8_t> k({kPages, kKvHeads, kSize, kDepth}), v({kPages, kKvHeads, kSize, kDepth});
  Tensor<float> k_scales({kPages, kKvHeads, 1}), v_scales({kPages, kKvHeads, 1});
  Tensor<float> k_floats(k.extents()), v_floats(v.extents()), q({1, 2 * kKvHeads, kRows, kDepth}),
      expected(q.extents()), out(q.extents());
  Random random(5);
  const auto scale = [&](std::int64_t) {
    return std::ldexp(1.0f, static_cast<int>(random.between(-9, -4)));
  };
  const auto number = [&](std::int64_t) {
    return static_cast<std::int8_t>(random.between(-127, 127));
  };
  k.fill(number);
  v.fill(number);
  k_scales.fill(scale);
  v_scales.fill(scale);
  q.fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
  k_floats.fill([&](std::int64_t n) { return k[n] * k_scales[n / (kSize * kDepth)]; });
  v_floats.fill([&](std::int64_t n) { return v[n] * v_scales[n / (kSize * kDepth)]; });
  const std::int32_t table[] = {3, 0, 4, 1}, length = kLength;
  AttentionOptions options;
  options.causal = true;
  options.block_table = {table, {1, 4}};
  options.kv_lengths = {&length, {1}};
  AttentionOptions scaled = options;
  scaled.k_scales = k_scales.view<KvHead, Key>();
  scaled.v_scales = v_scales.view<KvHead, Key>();
  for_each_way(kSmall, [&] {
    attention(q.view<Head, Query, DepthK>(), k_floats.view<KvHead, Key, DepthK>(),
              v_floats.view<KvHead, Key, DepthV>(), expected.view<Head, Query, DepthV>(), options);
    attention(q.view<Head, Query, DepthK>(), k.view<KvHead, Key, DepthK>(),
              v.view<KvHead, Key, DepthV>(), out.view<Head, Query, DepthV>(), scaled);
    EXPECT_TRUE(same_bits(expected.values(), out.values()));
  });
}

// Strides that carry offsets beyond 2^31 and 2^32 elements, in address space without memory behind
// it.
TEST(AttentionLayout, OffsetsBeyond32Bits) {                         // B14, B15
  constexpr std::int64_t kFar = (std::int64_t{1} << 32) + 4096 + 5;  // elements
  constexpr auto kBytes = static_cast<std::size_t>(3 * kFar) * sizeof(float);
  if (sizeof(void*) < 8) GTEST_SKIP() << "a 32-bit address space";
  // Once for all: an emulator takes seconds to map them.
  const SparseMemory q_memory(kBytes), k_memory(kBytes), v_memory(kBytes), out_memory(kBytes),
      mask_memory(kBytes);
  if (mask_memory.bytes() == 0 || out_memory.bytes() == 0 || v_memory.bytes() == 0 ||
      k_memory.bytes() == 0 || q_memory.bytes() == 0) {
    GTEST_SKIP() << "the system refuses the address space";
  }
  for (int far_axis = 0; far_axis < 3; ++far_axis) {  // heads, positions, depth
    AttentionCase c;
    c.heads = c.kv_heads = far_axis == 0 ? 3 : 2;
    c.seq_q = c.seq_kv = far_axis == 1 ? 3 : 19;
    c.d_k = c.d_v = far_axis == 2 ? 2 : 8;
    c.dense = true;
    c.mask = Pairs::random;
    AttentionData data(c);
    const std::int64_t heads = c.heads, seq = c.seq_q, depth = c.d_k;
    std::int64_t strides[] = {seq * depth, depth, 1};
    const std::int64_t extents[] = {heads, seq, depth};
    strides[far_axis] = far_axis == 2 ? (std::int64_t{1} << 31) + 77 : kFar;
    std::int64_t mask_strides[] = {seq * seq, seq, 1};
    if (far_axis < 2) mask_strides[far_axis] = kFar;
    const std::int64_t mask_extents[] = {heads, seq, seq};
    const auto place = [&](const SparseMemory& memory, const Tensor<float>& from) {
      auto* to = reinterpret_cast<float*>(memory.data());
      for (std::int64_t n = 0; n < from.size(); ++n) {
        to[n / depth / seq * strides[0] + n / depth % seq * strides[1] + n % depth * strides[2]] =
            from[n];
      }
      return to;
    };
    const QView q(place(q_memory, data.q), extents, 3, strides, 3);
    const KView k(place(k_memory, data.k), extents, 3, strides, 3);
    const VView v(place(v_memory, data.v), extents, 3, strides, 3);
    auto* mask = reinterpret_cast<bool*>(mask_memory.data());
    for (std::int64_t n = 0; n < data.mask.size(); ++n) {
      mask[n / seq / seq * mask_strides[0] + n / seq % seq * mask_strides[1] +
           n % seq * mask_strides[2]] = data.mask[n];
    }
    auto* out = reinterpret_cast<float*>(out_memory.data());
    for_each_way(kSmall, [&] {
      data.run();
      AttentionOptions options;
      options.mask = MaskView(mask, mask_extents, 3, mask_strides, 3);
      attention(q, k, v, OutView(out, extents, 3, strides, 3), options);
      for (std::int64_t n = 0; n < data.out.size(); ++n) {
        ASSERT_EQ(out[n / depth / seq * strides[0] + n / depth % seq * strides[1] +
                      n % depth * strides[2]],
                  data.out[n])
            << "far axis " << far_axis << " element " << n;
      }
    });
  }
}

}  // namespace
}  // namespace rapt::tests
