// quantize(), dequantize() and convert(): the stated errors, and what no scale can hold.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cache/storage.hpp"
#include "support/executors.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Numbers of any size: rows of a size of their own, from denormals to the largest.
struct QuantizeCase {
  std::int64_t batch, heads, seq, depth;
  Random random;
  Storage from, to, back;
  Tensor<float> scales;
  bool shared;

  QuantizeCase(std::uint64_t seed, Type type) : QuantizeCase(type, seed, Random(seed)) {}
  QuantizeCase(Type type, std::uint64_t seed, Random r)
      : batch(r.between(1, 3)),
        heads(r.between(1, 3)),
        seq(r.between(1, 9)),
        depth(type == Type::int4 ? 32 * r.between(1, 3) : r.between(1, 70)),
        random(seed ^ 1),
        from(r.pick({Type::f32, Type::f32, Type::bf16, Type::f16}), {batch, heads, seq, depth},
             random_layout(random, 4, true)),
        to(type, {batch, heads, seq, depth}, random_layout(random, 4, false)),
        back(Type::f32, {batch, heads, seq, depth}, random_layout(random, 4, false)),
        scales({batch, heads, r.percent(40) ? 1 : seq}, random_layout(random, 3, false)),
        shared(scales.size() != batch * heads * seq) {
    const int widest = from.type() == Type::f16 ? 15 : type == Type::int4 ? 18 : 127;
    std::int64_t power = 0;
    from.fill([&](std::int64_t i) {
      if (i % depth == 0) power = r.percent(60) ? 0 : r.between(-149, widest);
      return std::ldexp(static_cast<float>(r.uniform() * 2 - 1), static_cast<int>(power));
    });
    to.seal();
    back.seal();
    scales.seal();
  }
  View<float, KvHead, Key> scales_view() const {
    return to.type() == Type::int8 ? scales.view<KvHead, Key>() : View<float, KvHead, Key>();
  }
  void run(const Executor* executor = nullptr) const {
    quantize(from.view<AnyRows, KvHead, Key, DepthK>(), to.view<AnyRowsOut, KvHead, Key, DepthK>(),
             scales_view(), executor);
    dequantize(to.view<AnyRows, KvHead, Key, DepthV>(), scales_view(),
               back.view<AnyRowsOut, KvHead, Key, DepthV>(), executor);
  }
  double scale(std::int64_t row) const {
    return static_cast<double>(scales[shared ? row / seq : row]);
  }
};

TEST(Quantize, Int8IsWithinHalfAScale) {
  Seeds(511, cases(400)).for_each([](std::uint64_t seed) {
    const QuantizeCase c(seed, Type::int8);
    c.run();
    EXPECT_TRUE(c.to.gaps_unchanged());
    EXPECT_TRUE(c.scales.gaps_unchanged());
    EXPECT_TRUE(c.back.gaps_unchanged());
    const std::int64_t rows_of_scale = c.shared ? c.seq : 1;
    for (std::int64_t row = 0; row < c.to.rows(); ++row) {
      const double scale = c.scale(row);
      float largest = 0;
      const std::int64_t first = row / rows_of_scale * rows_of_scale * c.depth;
      for (std::int64_t i = 0; i < rows_of_scale * c.depth; ++i)
        largest = std::max(largest, std::abs(c.from[first + i]));
      if (largest == 0) {
        ASSERT_EQ(scale, 0);
      } else {
        const double want = std::max(static_cast<double>(largest) / 127, 0x1p-126);
        ASSERT_NEAR(scale, want, 0x1p-23 * want);
      }
      for (std::int64_t i = row * c.depth; i < (row + 1) * c.depth; ++i) {
        const double exact = scale * static_cast<double>(c.to[i]);
        ASSERT_LE(std::abs(static_cast<double>(c.from[i]) - exact), scale / 2 * (1 + 0x1p-20));
        ASSERT_EQ(c.back[i], static_cast<float>(exact));
        ASSERT_TRUE(std::isfinite(c.back[i]));
      }
    }
  });
}

TEST(Quantize, Int4IsWithinHalfAScale) {
  Seeds(512, cases(400)).for_each([](std::uint64_t seed) {
    const QuantizeCase c(seed, Type::int4);
    c.run();
    EXPECT_TRUE(c.to.gaps_unchanged());
    EXPECT_TRUE(c.back.gaps_unchanged());
    for (std::int64_t group = 0; group < c.to.rows() * c.depth / 32; ++group) {
      float largest = 0;
      for (std::int64_t i = group * 32; i < group * 32 + 32; ++i)
        largest = std::max(largest, std::abs(c.from[i]));
      float scale = to_float(to_f16(largest / 7));
      if (scale * 7.5f < largest)
        scale = to_float(Float16{static_cast<std::uint16_t>(to_f16(largest / 7).bits + 1)});
      for (std::int64_t i = group * 32; i < group * 32 + 32; ++i) {
        const double error =
            std::abs(static_cast<double>(c.from[i]) - static_cast<double>(c.to[i]));
        ASSERT_LE(error, static_cast<double>(scale) / 2 * (1 + 0x1p-20)) << largest;
        ASSERT_EQ(c.back[i], c.to[i]);
      }
    }
  });
}

TEST(Quantize, HasTheSameBitsOnAnyExecutor) {
  Seeds(513, cases(60)).for_each([](std::uint64_t seed) {
    for (Type type : {Type::int8, Type::int4}) {
      const QuantizeCase c(seed, type);
      c.run(&serial_executor());
      const auto rows = c.to.all_rows(), back = c.back.all_rows();
      const std::vector<float> scales = c.scales.values();
      const ThreadExecutor threads(3);
      const BackwardExecutor backward;
      for (const Executor* executor :
           {static_cast<const Executor*>(&threads), static_cast<const Executor*>(&backward)}) {
        c.run(executor);
        EXPECT_EQ(rows, c.to.all_rows());
        EXPECT_EQ(back, c.back.all_rows());
        if (type == Type::int8) {
          EXPECT_TRUE(same_bits(scales, c.scales.values()));
        }
      }
    }
  });
}

// One row through int8 and back.
std::vector<float> through_int8(const std::vector<float>& row, float& scale) {
  const auto n = static_cast<std::int64_t>(row.size());
  Storage from(Type::f32, {1, 1, n}), to(Type::int8, {1, 1, n}), back(Type::f32, {1, 1, n});
  Tensor<float> scales({1, 1});
  from.fill([&](std::int64_t i) { return row[static_cast<std::size_t>(i)]; });
  quantize(from.view<AnyRows, KvHead, Key, DepthK>(), to.view<AnyRowsOut, KvHead, Key, DepthK>(),
           scales.view<KvHead, Key>());
  dequantize(to.view<AnyRows, KvHead, Key, DepthK>(), scales.view<KvHead, Key>(),
             back.view<AnyRowsOut, KvHead, Key, DepthK>());
  scale = scales[0];
  std::vector<float> result;
  for (std::int64_t i = 0; i < n; ++i) result.push_back(back[i]);
  return result;
}

TEST(Quantize, WhatInt8CannotHoldIsNaN) {
  float scale = 0;
  for (float wrong : {kNaN, -kNaN, kInf, -kInf}) {
    for (float read : through_int8({1, wrong, 0, -3}, scale)) EXPECT_TRUE(std::isnan(read));
    EXPECT_TRUE(std::isnan(scale));
  }
  EXPECT_EQ(through_int8({0, -0.0f, 0}, scale), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(scale, 0);
  EXPECT_EQ(through_int8({127, -127, 64, 0.5f, 1.5f, -2.5f}, scale),
            (std::vector<float>{127, -127, 64, 0, 2, -2}))
      << "ties to even";
  EXPECT_EQ(scale, 1);
  for (float read : through_int8({kLargest, -kLargest}, scale))
    EXPECT_NEAR(std::abs(read) / kLargest, 1, 0x1p-22);
}

TEST(Quantize, ANaNStaysInWhatSharesItsScale) {
  Storage from(Type::f32, {2, 2, 3, 4}), to(Type::int8, {2, 2, 3, 4});
  from.fill(
      [](std::int64_t i) { return i == 12 * 2 + 5 ? kNaN : 1.0f; });  // batch 1, head 0, key 1
  Tensor<float> each({2, 2, 3}), page({2, 2, 1});
  for (Tensor<float>* scales : {&each, &page}) {
    quantize(from.view<AnyRows, KvHead, Key, DepthK>(), to.view<AnyRowsOut, KvHead, Key, DepthK>(),
             scales->view<KvHead, Key>());
    for (std::int64_t i = 0; i < scales->size(); ++i)
      EXPECT_EQ(std::isnan((*scales)[i]), i == (scales == &each ? 3 * 2 + 1 : 2)) << i;
  }
}

TEST(Quantize, WhatA4BitGroupCannotHoldIsNaN) {
  Storage from(Type::f32, {1, 1, 64}), to(Type::int4, {1, 1, 64});
  const auto run = [&](float wrong) {
    from.fill([&](std::int64_t i) { return i == 40 ? wrong : 1.0f; });
    quantize(from.view<AnyRows, KvHead, Key, DepthV>(), to.view<AnyRowsOut, KvHead, Key, DepthV>());
  };
  for (float wrong : {kNaN, -kNaN, kInf, -kInf, 458640.0f, -1e38f}) {
    run(wrong);
    for (std::int64_t i = 0; i < 64; ++i) EXPECT_EQ(std::isnan(to[i]), i >= 32) << wrong;
  }
  run(std::nextafter(-458640.0f, 0.0f));
  EXPECT_EQ(to[40], -7 * 65504.0f) << "the largest that an f16 scale holds";
  run(0x1p-30f);
  EXPECT_NEAR(to[0], 1, 0x1p-11) << "the largest is as near as an f16 scale is to its 7th part";
}

TEST(Convert, IsTheNearest) {
  Seeds(514, cases(200)).for_each([](std::uint64_t seed) {
    Random random(seed);
    for (Type from_type : kPlainTypes) {
      for (Type to_type : kPlainTypes) {
        const std::vector<std::int64_t> extents = {random.between(1, 3), 2, random.between(0, 5),
                                                   random.between(1, 70)};
        Storage from(from_type, extents, random_layout(random, 4, true));
        Storage to(to_type, extents, random_layout(random, 4, false));
        from.fill([&](std::int64_t) {  // any bits, NaN and infinities among them
          return random.percent(50)
                     ? static_cast<float>(random.normal())
                     : std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
        });
        to.seal();
        convert(from.view<AnyRows, Head, Query, DepthV>(),
                to.view<AnyRowsOut, Head, Query, DepthV>());
        EXPECT_TRUE(to.gaps_unchanged());
        for (std::int64_t i = 0; i < from.rows() * extents[3]; ++i) {
          const float want = to_type == Type::bf16  ? to_float(to_bf16(from[i]))
                             : to_type == Type::f16 ? to_float(to_f16(from[i]))
                                                    : from[i];
          if (std::isnan(want)) {
            ASSERT_TRUE(std::isnan(to[i]));
          } else {
            ASSERT_EQ(std::bit_cast<std::uint32_t>(to[i]), std::bit_cast<std::uint32_t>(want));
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace rapt::tests
