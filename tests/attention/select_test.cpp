// A mask is a select: what a row does not attend never reaches it, and NaN in what it attends
// always does.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using reference::At;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

const std::vector<Blocks> kSmall = {few_keys_lanes(1), few_keys_lanes(16, 1), few_keys_rows(1),
                                    few_keys_rows(16, 2)};

float poison() {
  float x;
  std::memcpy(&x, &kPoison, sizeof(x));
  return x;
}

// A random case that masks something.
AttentionCase masked(std::uint64_t seed) {
  AttentionCase c = AttentionCase::random(seed, 50);
  // What holds NaN and infinity.
  for (Type* type : {&c.k_type, &c.v_type}) {
    if (*type == Type::int8 || *type == Type::int4) *type = Type::bf16;
  }
  c.shared_pages = false;  // a key is that of one batch element
  Random random(seed + 1);
  if (c.mask == Pairs::none && c.bias == Pairs::none) {
    (random.percent(50) ? c.mask : c.bias) = static_cast<Pairs>(random.between(1, 5));
  }
  return c;
}

// Visits every key that a batch element has, with its number in the tensors k and v.
template <class Visit>
void for_each_key(const AttentionData& data, const Visit& visit) {
  std::int64_t b = 0;
  data.for_each_element([&](const reference::Batch& batch) {
    for (std::int64_t g = 0; g < data.of.kv_heads; ++g) {
      for (std::int64_t j = 0; j < data.seq_kv(b); ++j) visit(batch, g, j, data.key_row(b, g, j));
    }
    ++b;
  });
}

void fill_key(Tensor<float>& tensor, std::int64_t key, std::int64_t depth, float value) {
  for (std::int64_t d = 0; d < depth; ++d) tensor[key * depth + d] = value;
}

TEST(AttentionSelect, UnattendedKeysAndValuesNeverReachTheOutput) {  // B2, B32
  Seeds(11, cases(150)).for_each([](std::uint64_t seed) {
    const AttentionCase c = masked(seed);
    AttentionData clean(c), poisoned(c);
    const float values[] = {kNaN, kInf, poison()};
    std::int64_t n = 0;
    for_each_key(clean, [&](const reference::Batch& batch, std::int64_t g, std::int64_t j,
                            std::int64_t key) {
      if (clean.any_attends(clean.problem(batch), g, j)) return;
      fill_key(poisoned.k, key, c.d_k, values[n % 3]);
      fill_key(poisoned.v, key, c.d_v, values[++n % 3]);
    });
    poisoned.k.seal();
    poisoned.v.seal();
    for_each_way(kSmall, [&] {
      clean.run();
      poisoned.run();
      EXPECT_TRUE(same_bits(clean.out.values(), poisoned.out.values())) << c.describe();
      EXPECT_TRUE(same_bits(clean.lse.values(), poisoned.lse.values())) << c.describe();
    });
  });
}

// Poisons element `d` of one key of K or V and expects NaN in exactly the rows that attend the key,
// and the same bits as before in all others.
void expect_reach(const AttentionCase& c, std::uint64_t seed, bool in_v, float value) {
  AttentionData clean(c), poisoned(c);
  Random random(seed + 2);
  const std::int64_t g = random.between(0, c.kv_heads - 1), j = random.between(0, c.seq_kv - 1);
  const std::int64_t depth = in_v ? c.d_v : c.d_k, d = random.between(0, depth - 1);
  Tensor<float>& tensor = in_v ? poisoned.v : poisoned.k;
  tensor[clean.key_row(0, g, j) * depth + d] = value;  // of the first batch element
  tensor.seal();
  for_each_way(kSmall, [&] {
    clean.run();
    poisoned.run();
    std::string wrong;
    std::int64_t element = 0;
    clean.for_each_element([&](const reference::Batch& batch) {
      const reference::Problem<float> problem = clean.problem(batch);
      const OutView before = clean.out_of(batch), after = poisoned.out_of(batch);
      for (At<Head> h : problem.heads()) {
        for (At<Query> i : problem.queries()) {
          const bool reached =
              element == 0 && problem.kv_head(h).value == g && attended(problem, h, i, At<Key>{j});
          for (At<DepthV> x : reference::along<DepthV>(after)) {
            const bool nan = reached && (!in_v || x.value == d);
            const float is = at(after, h, i, x), was = at(before, h, i, x);
            const bool right =
                nan ? std::isnan(is) || (in_v && !std::isnan(value) && std::isinf(is))
                    : std::memcmp(&was, &is, sizeof(float)) == 0;
            if (right || !wrong.empty()) continue;
            wrong = "element " + std::to_string(element) + ", head " + std::to_string(h.value) +
                    ", query " + std::to_string(i.value) + " was " + std::to_string(was) +
                    " and is " + std::to_string(is);
          }
        }
      }
      ++element;
    });
    EXPECT_EQ(wrong, "") << "with " << value << " in key " << j << " of kv head " << g
                         << (in_v ? ", v[" : ", k[") << d << "]: " << c.describe();
  });
}

TEST(AttentionSelect, NaNInAKeyReachesExactlyTheRowsThatAttendIt) {  // B35
  Seeds(12, cases(150)).for_each([](std::uint64_t seed) {
    expect_reach(masked(seed), seed, false, kNaN);
  });
}

TEST(AttentionSelect, NaNInAValueReachesExactlyTheRowsThatAttendIt) {  // B2, B35
  Seeds(13, cases(150)).for_each([](std::uint64_t seed) {
    expect_reach(masked(seed), seed, true, kNaN);
  });
}

TEST(AttentionSelect, InfinityInAValueReachesExactlyTheRowsThatAttendIt) {  // B35
  Seeds(14, cases(75)).for_each([](std::uint64_t seed) {
    expect_reach(masked(seed), seed, true, kInf);
  });
}

TEST(AttentionSelect, NaNInAQueryReachesItsRowAlone) {
  Seeds(15, cases(75)).for_each([](std::uint64_t seed) {
    const AttentionCase c = masked(seed);
    AttentionData clean(c), poisoned(c);
    const std::int64_t row = Random(seed + 2).between(0, clean.q.size() / c.d_k - 1);
    poisoned.q[row * c.d_k] = kNaN;
    poisoned.q.seal();
    for_each_way(kSmall, [&] {
      clean.run();
      poisoned.run();
      const std::vector<float> before = clean.out.values(), after = poisoned.out.values();
      // An empty row does not look at its query.
      for (std::int64_t n = 0; n < clean.out.size(); ++n) {
        const float was = before[static_cast<std::size_t>(n)],
                    is = after[static_cast<std::size_t>(n)];
        if (n / c.d_v == row) {
          ASSERT_TRUE(std::isnan(is) || (was == 0 && is == 0)) << n << " " << c.describe();
        } else {
          ASSERT_EQ(std::memcmp(&was, &is, sizeof(float)), 0) << n << " " << c.describe();
        }
      }
    });
  });
}

// Every row empty by one kind of mask.
AttentionCase all_masked(int kind) {
  AttentionCase c;
  c.batch = {2};
  c.heads = 6;
  c.kv_heads = 2;
  c.seq_q = 19;
  c.seq_kv = 37;
  c.d_k = 17;
  c.d_v = 23;
  if (kind == 0) c.mask = Pairs::all_out;
  if (kind == 1) c.bias = Pairs::all_out;
  if (kind == 2) c.causal = true, c.q_offset = -19;
  if (kind == 3) c.mask = Pairs::first_keys_out, c.bias = Pairs::last_keys_out;
  if (kind == 4) c.mask = Pairs::all_out, c.mask_broadcast = 1 | 2 | 4 | 16;
  if (kind == 5) c.bias = Pairs::all_out, c.bias_broadcast = 1 | 2 | 4 | 16;
  return c;
}

TEST(AttentionSelect, AnEmptyRowIsZeroAndItsLseMinusInfinity) {  // B3
  for (int kind = 0; kind < 6; ++kind) {
    AttentionCase c = all_masked(kind);
    AttentionData data(c);
    if (kind == 3) {  // together they leave nothing
      data.mask.fill([&](std::int64_t n) { return n % c.seq_kv % 2 == 0; });
      data.bias.fill([&](std::int64_t n) { return n % c.seq_kv % 2 == 0 ? -kInf : 1.0f; });
      data.mask.seal();
      data.bias.seal();
    }
    data.v[3] = kNaN;
    data.k[3] = kInf;
    data.v.seal();
    data.k.seal();
    for_each_way(kSmall, [&] {
      data.run();
      for (float x : data.out.values())
        ASSERT_TRUE(x == 0 && !std::signbit(x)) << x << ", kind " << kind;
      for (float x : data.lse.values()) ASSERT_EQ(x, -kInf) << "kind " << kind;
    });
  }
}

TEST(AttentionSelect, EmptyRowsAmongOthers) {  // B3
  for (Pairs kind : {Pairs::empty_rows, Pairs::first_keys_out, Pairs::last_keys_out}) {
    for (std::int64_t offset : {-7, -1, 0}) {
      AttentionCase c = all_masked(-1);
      c.mask = kind;
      c.causal = true;
      c.q_offset = offset;  // leaves the leading rows empty
      AttentionData data(c);
      const auto expected = data.expect();
      for_each_way(kSmall, [&] {
        data.run();
        data.check(expected);
      });
    }
  }
}

TEST(AttentionSelect, FullyMaskedBlocksFirstMiddleLastWithFallingAndRisingMaxima) {  // B1, B34
  for (Pairs kind :
       {Pairs::first_keys_out, Pairs::middle_keys_out, Pairs::last_keys_out, Pairs::none}) {
    for (Data values : {Data::rising, Data::falling, Data::one_dominant, Data::normal}) {
      if (few_cases() && values != Data::rising && values != Data::falling) continue;
      if (few_cases() && kind == Pairs::none) continue;
      for (bool as_bias : {false, true}) {
        AttentionCase c = all_masked(-1);
        if (few_cases()) c.batch = {}, c.heads = 2, c.kv_heads = 1;
        c.seq_q = 33;
        c.seq_kv = 101;
        c.data = values;
        (as_bias ? c.bias : c.mask) = kind;
        AttentionData data(c);
        const auto expected = data.expect();
        for_each_way({few_keys_lanes(1), few_keys_lanes(7), few_keys_lanes(16), few_keys_rows(1),
                      few_keys_rows(7), few_keys_rows(16)},
                     [&] {
                       data.run();
                       data.check(expected);
                     });
      }
    }
  }
}

TEST(AttentionSelect, LongRowWhoseFirstBlocksAreEmpty) {  // B1: n = 600, a window of 10
  AttentionCase c;
  c.heads = c.kv_heads = few_cases() ? 1 : 2;
  c.seq_q = c.seq_kv = 600;
  c.d_k = c.d_v = 8;
  c.mask = Pairs::random;
  c.mask_broadcast = 1 | 16;
  AttentionData data(c);
  data.mask.fill([&](std::int64_t n) {
    const std::int64_t i = n / 600, j = n % 600;
    return j <= i && j > i - 10;
  });
  data.mask.seal();
  const auto expected = data.expect();
  for_each_way(kSmall, [&] {
    data.run();
    data.check(expected);
  });
}

}  // namespace
}  // namespace rapt::tests
