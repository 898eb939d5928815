// rope() against its formula in long double, and what the formula says of single numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cache/storage.hpp"
#include "support/compare.hpp"
#include "support/executors.hpp"
#include "support/stored.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The two numbers of pair i.
std::pair<std::int64_t, std::int64_t> pair_of(const Rope& rope, std::int64_t i) {
  if (rope.pairing == Pairing::interleaved) return {2 * i, 2 * i + 1};
  return {i, i + rope.dims / 2};
}

// The formula, in place, for one row.
void reference(const Rope& rope, std::int64_t position, std::vector<long double>& x) {
  for (std::int64_t i = 0; i < rope.dims / 2; ++i) {
    long double angle =
        static_cast<long double>(position) * static_cast<long double>(rope.position_scale) *
        std::pow(static_cast<long double>(rope.base),
                 -2 * static_cast<long double>(i) / static_cast<long double>(rope.dims));
    if (rope.frequency_factors)
      angle /= static_cast<long double>(
          rope.frequency_factors.data()[i * rope.frequency_factors.stride<Pair>()]);
    const auto [a, b] = pair_of(rope, i);
    long double &xa = x[static_cast<std::size_t>(a)], &xb = x[static_cast<std::size_t>(b)];
    const auto magnitude = static_cast<long double>(rope.magnitude);
    const long double turned = magnitude * (xa * std::cos(angle) - xb * std::sin(angle));
    xb = magnitude * (xb * std::cos(angle) + xa * std::sin(angle));
    xa = turned;
  }
}

struct RopeCase {
  std::int64_t batch, heads, seq, depth;
  Random random;
  Storage x, out;
  Tensor<std::int32_t> first, positions;
  Tensor<float> factors;
  Rope rope;
  RopeOptions options;

  explicit RopeCase(std::uint64_t seed) : RopeCase(seed, Random(seed)) {}
  RopeCase(std::uint64_t seed, Random r)
      : batch(r.between(1, 3)),
        heads(r.between(1, 4)),
        seq(r.between(0, 5)),
        depth(r.between(1, 80)),
        random(seed ^ 1),
        x(r.pick({Type::f32, Type::f32, Type::bf16, Type::f16}), {batch, heads, seq, depth},
          random_layout(random, 4, true)),
        out(r.pick({Type::f32, Type::f32, Type::bf16, Type::f16}), {batch, heads, seq, depth},
            random_layout(random, 4, false)),
        first({batch}),
        positions({batch, seq}, random_layout(random, 2, true)),
        factors({depth / 2}) {
    x.fill([&](std::int64_t) { return static_cast<float>(r.normal()); });
    first.fill([&](std::int64_t) { return static_cast<std::int32_t>(r.between(0, 1 << 20)); });
    positions.fill(
        [&](std::int64_t) { return static_cast<std::int32_t>(r.between(-99, 1 << 20)); });
    factors.fill([&](std::int64_t) { return static_cast<float>(r.between(1, 40)) / 4; });
    rope.dims = r.percent(50) ? depth / 2 * 2 : r.between(0, depth / 2) * 2;
    rope.pairing = r.pick({Pairing::interleaved, Pairing::half});
    rope.base = r.pick({10000.0f, 500000.0f, 1e6f});
    if (r.percent(30)) rope.position_scale = r.pick({0.25f, 0.125f, 0.3f});
    if (r.percent(30)) rope.magnitude = 1.1386294f;
    if (r.percent(30) && rope.dims > 0 && rope.dims / 2 == depth / 2)
      rope.frequency_factors = factors.view<Pair>();
    if (r.percent(40)) {
      options.first_positions = first.view<>();
    } else if (r.percent(60)) {
      options.positions = positions.view<Position>();
    }
    out.seal();
  }
  std::int64_t position(std::int64_t b, std::int64_t n) const {
    return options.first_positions ? first[b] + n : options.positions ? positions[b * seq + n] : n;
  }
  void run(const Executor* executor = nullptr) {
    options.executor = executor;
    rapt::rope(x.view<AnyRows, Head, Query, DepthK>(), out.view<AnyRowsOut, Head, Query, DepthK>(),
               rope, options);
  }
};

TEST(Rope, IsTheFormula) {
  Seeds(501, cases(400)).for_each([](std::uint64_t seed) {
    RopeCase c(seed);
    c.run();
    EXPECT_TRUE(c.out.gaps_unchanged());
    Comparison comparison;
    for (std::int64_t row = 0; row < c.batch * c.heads * c.seq; ++row) {
      const std::int64_t b = row / c.seq / c.heads, n = row % c.seq;
      std::vector<long double> want, from;
      for (std::int64_t d = 0; d < c.depth; ++d)
        from.push_back(static_cast<long double>(c.x[row * c.depth + d]));
      want = from;
      reference(c.rope, c.position(b, n), want);
      // What rope.hpp states; numbers that do not turn have no error but that of their storage.
      std::vector<double> bound(static_cast<std::size_t>(c.depth), 0);
      for (std::int64_t i = 0; i < c.rope.dims / 2; ++i) {
        const auto [a, other] = pair_of(c.rope, i);
        const auto at_a = static_cast<std::size_t>(a), at_b = static_cast<std::size_t>(other);
        bound[at_a] = bound[at_b] =
            0x1p-22 * std::abs(static_cast<double>(c.rope.magnitude)) *
            static_cast<double>(std::abs(from[at_a]) + std::abs(from[at_b]));
      }
      for (std::int64_t d = 0; d < c.depth; ++d) {
        const auto at = static_cast<std::size_t>(d);
        const auto value = static_cast<double>(want[at]);
        const double storage = rounding_of(c.out.type());
        comparison.add(c.out[row * c.depth + d], value, bound[at] * (1 + storage),
                       storage * std::abs(value) + floor_of(c.out.type()) + 0x1p-149,
                       row * c.depth + d);
      }
    }
    EXPECT_TRUE(comparison.within());
  });
}

TEST(Rope, TurnsByOneRadianAPosition) {
  for (Pairing pairing : {Pairing::interleaved, Pairing::half}) {
    Tensor<float> x({1, 3, 5});
    x.fill([](std::int64_t i) { return i % 5 == 0 ? 2.0f : i % 5 == 4 ? 7.0f : 0.0f; });
    const Rope by_pair{.dims = 4, .base = 1, .pairing = pairing};
    rope(x.view<Head, Query, DepthK>(), x.view<Head, Query, DepthK>(), by_pair);
    const std::int64_t partner = pairing == Pairing::interleaved ? 1 : 2;
    for (std::int64_t n = 0; n < 3; ++n) {
      EXPECT_FLOAT_EQ(x[n * 5], static_cast<float>(2 * std::cos(static_cast<double>(n))));
      EXPECT_FLOAT_EQ(x[n * 5 + partner], static_cast<float>(2 * std::sin(static_cast<double>(n))));
      EXPECT_EQ(x[n * 5 + 4], 7) << "a number beyond dims turned";
    }
  }
}

TEST(Rope, InPlaceAndOnAnyExecutorHasTheSameBits) {
  Seeds(502, cases(100)).for_each([](std::uint64_t seed) {
    RopeCase c(seed);
    c.run(&serial_executor());
    const auto rows = c.out.all_rows();
    const ThreadExecutor threads(3);
    const BackwardExecutor backward;
    for (const Executor* executor :
         {static_cast<const Executor*>(&threads), static_cast<const Executor*>(&backward),
          static_cast<const Executor*>(nullptr)}) {
      c.run(executor);
      EXPECT_EQ(rows, c.out.all_rows());
    }
    if (c.x.type() != c.out.type()) return;
    const AnyRowsOut x = c.x.view<AnyRowsOut, Head, Query, DepthK>();
    rope(x, x, c.rope, c.options);
    EXPECT_EQ(rows, c.x.all_rows());
  });
}

TEST(Rope, NaNStaysInItsPair) {
  for (Pairing pairing : {Pairing::interleaved, Pairing::half}) {
    Tensor<float> x({1, 2, 8});
    x.fill([](std::int64_t i) { return i == 8 + 2 ? kNaN : 1.0f; });
    const Rope six{.dims = 6, .pairing = pairing};
    rope(x.view<Head, Query, DepthK>(), x.view<Head, Query, DepthK>(), six);
    const std::int64_t partner = pairing == Pairing::interleaved ? 3 : 5;
    for (std::int64_t i = 0; i < 16; ++i)
      EXPECT_EQ(std::isnan(x[i]), i == 8 + 2 || i == 8 + partner) << i;
  }
}

}  // namespace
}  // namespace rapt::tests
