// Views: dense and strided ones, axes reordered by name, batch axes, errors of construction.
#include "rapt/view.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "rapt/attention.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

float memory[1000];

TEST(View, IsDenseUnlessStridesAreGiven) {
  const View<float, Head, Query, DepthK> view(memory, {2, 3, 5, 7, 11});
  EXPECT_EQ(view.batch_axes(), 2);
  EXPECT_EQ(view.batch_extent(0), 2);
  EXPECT_EQ(view.batch_extent(1), 3);
  EXPECT_EQ(view.extent<Head>(), 5);
  EXPECT_EQ(view.extent<Query>(), 7);
  EXPECT_EQ(view.extent<DepthK>(), 11);
  EXPECT_EQ(view.stride<DepthK>(), 1);
  EXPECT_EQ(view.stride<Query>(), 11);
  EXPECT_EQ(view.stride<Head>(), 77);
  EXPECT_EQ(view.batch_stride(1), 385);
  EXPECT_EQ(view.batch_stride(0), 1155);
  EXPECT_EQ(view.data(), memory);
  EXPECT_TRUE(view);
}

TEST(View, TakesAnyStrides) {
  const View<float, Query, DepthK> view(memory, {3, 4, 5}, {0, -7, 2});
  EXPECT_EQ(view.batch_stride(0), 0);
  EXPECT_EQ(view.stride<Query>(), -7);
  EXPECT_EQ(view.stride<DepthK>(), 2);
}

TEST(View, ReordersAxesByName) {
  // [batch, seq, heads, depth] in memory, as a function that wants [Head, Query, DepthK] reads it.
  const View<float, Query, Head, DepthK> tokens(memory, {2, 7, 5, 11});
  const QView q = tokens;
  EXPECT_EQ(q.batch_axes(), 1);
  EXPECT_EQ(q.batch_stride(0), 385);
  EXPECT_EQ(q.extent<Head>(), 5);
  EXPECT_EQ(q.stride<Head>(), 11);
  EXPECT_EQ(q.extent<Query>(), 7);
  EXPECT_EQ(q.stride<Query>(), 55);
  EXPECT_EQ(q.stride<DepthK>(), 1);
}

TEST(View, OfNothingIsAnOptionNotGiven) {
  const MaskView none;
  EXPECT_FALSE(none);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(none.extent<Key>(), 0);
}

TEST(View, WithAnExtentOfZeroKeepsItsStrides) {
  const View<float, Query, DepthK> view(memory, {3, 0, 5});
  EXPECT_EQ(view.extent<Query>(), 0);
  EXPECT_EQ(view.stride<Query>(), 5);
}

TEST(View,
     SurvivesExtentsThatOverflow) {  // B45: no undefined behaviour before the check refuses them
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const View<float, Head, Query, DepthK> view(memory, {kHuge, kHuge, kHuge, kHuge});
  EXPECT_EQ(view.extent<Query>(), kHuge);
  const View<float, Head, Query, DepthK> negative(
      memory, {-1, std::numeric_limits<std::int64_t>::min(), -3});
  EXPECT_EQ(negative.extent<DepthK>(), -3);
}

template <class Make>
std::string sentence(ErrorCode code, const Make& make) {
  try {
    make();
    return "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
}

TEST(View, RefusesAWrongNumberOfExtents) {
  EXPECT_EQ(sentence(ErrorCode::wrong_rank, [] { QView(memory, {2, 3}); }),
            "a view of [batch..., heads, seq_q, d_k] takes 3 to 7 extents, but 2 were given");
  EXPECT_EQ(sentence(ErrorCode::wrong_rank, [] { QView(memory, {1, 1, 1, 1, 1, 1, 1, 1}); }),
            "a view of [batch..., heads, seq_q, d_k] takes 3 to 7 extents, but 8 were given");
  EXPECT_EQ(sentence(ErrorCode::wrong_rank, [] { QView(memory, {2, 3, 4}, {1, 2}); }),
            "a view has 3 extents but 2 strides");
  EXPECT_EQ(sentence(ErrorCode::wrong_rank, [] { QView(memory, {}); }),
            "a view of [batch..., heads, seq_q, d_k] takes 3 to 7 extents, but 0 were given");
}

}  // namespace
}  // namespace rapt::tests
