// Drawing a case, filling it, running it, checking it.
#include "support/attention_case.hpp"

#include <cmath>
#include <limits>
#include <sstream>

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using Sizes = std::vector<std::int64_t>;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

Sizes extents(Sizes batch, std::initializer_list<std::int64_t> named) {
  batch.insert(batch.end(), named);
  return batch;
}

// [batch..., heads, seq_q, seq_kv] of a mask or a bias, with what is broadcast.
Sizes pair_extents(const AttentionCase& of, unsigned broadcast) {
  Sizes batch = of.batch;
  if (broadcast & 16) batch.clear();
  if (broadcast & 8 && !batch.empty()) batch.back() = 1;
  return extents(batch, {broadcast & 1 ? 1 : of.heads, broadcast & 2 ? 1 : of.seq_q,
                         broadcast & 4 ? 1 : of.seq_kv});
}

// Where a size is likely to go wrong: small, or one off a multiple of a vector.
std::int64_t size(Random& random, std::int64_t largest) {
  const std::int64_t edge = random.pick<std::int64_t>({4, 8, 16, 32, 48, 64, 96, 128});
  std::int64_t n = random.percent(40)   ? random.between(1, std::min<std::int64_t>(largest, 9))
                   : random.percent(50) ? edge + random.between(-1, 1)
                                        : random.between(1, largest);
  return std::clamp<std::int64_t>(n, 1, largest);
}

bool attends(Pairs kind, Random& random, std::int64_t i, std::int64_t j, std::int64_t seq_kv) {
  switch (kind) {
    case Pairs::none:
      return true;
    case Pairs::random:
      return random.percent(70);
    case Pairs::empty_rows:
      return i % 3 != 1 && random.percent(80);
    case Pairs::first_keys_out:
      return j >= seq_kv / 2;
    case Pairs::middle_keys_out:
      return j < seq_kv / 3 || j >= seq_kv - seq_kv / 3;
    case Pairs::last_keys_out:
      return j < (seq_kv + 1) / 2;
    case Pairs::all_out:
      return false;
  }
  return true;
}

const char* name(Pairs kind) {
  constexpr const char* kNames[] = {"none",           "random",          "empty rows",
                                    "first keys out", "middle keys out", "last keys out",
                                    "all out"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace

AttentionCase AttentionCase::random(std::uint64_t seed, std::int64_t largest) {
  Random random(seed);
  AttentionCase c;
  c.seed = random.bits();
  const std::int64_t axes = random.percent(50) ? 1 : random.between(0, 3);
  for (std::int64_t i = 0; i < axes; ++i) c.batch.push_back(random.between(1, 3));
  c.kv_heads = random.between(1, 3);
  c.heads = c.kv_heads * (random.percent(50) ? 1 : random.between(1, 9));
  c.seq_q = size(random, largest);
  c.seq_kv = size(random, 2 * largest);
  c.d_k = size(random, 70);
  c.d_v = random.percent(50) ? c.d_k : size(random, 70);
  c.causal = random.percent(40);
  if (random.percent(25)) c.q_offset = random.between(-c.seq_q - 1, c.seq_kv + 1);
  if (random.percent(20)) c.scale = static_cast<float>(random.normal());
  if (random.percent(35)) c.mask = static_cast<Pairs>(random.between(1, 6));
  if (random.percent(25)) c.bias = static_cast<Pairs>(random.between(1, 6));
  if (random.percent(60)) c.mask_broadcast = static_cast<unsigned>(random.between(0, 31));
  if (random.percent(60)) c.bias_broadcast = static_cast<unsigned>(random.between(0, 31));
  c.lse = random.percent(50);
  if (random.percent(60)) {
    c.data = static_cast<Data>(random.between(0, static_cast<std::int64_t>(Data::count) - 1));
  }
  return c;
}

std::string AttentionCase::describe() const {
  std::ostringstream text;
  text << "batch [";
  for (std::int64_t b : batch) text << " " << b;
  text << " ] heads " << heads << " kv_heads " << kv_heads << " seq_q " << seq_q << " seq_kv "
       << seq_kv << " d_k " << d_k << " d_v " << d_v << (causal ? " causal" : "");
  if (q_offset) text << " q_offset " << *q_offset;
  if (scale) text << " scale " << *scale;
  if (mask != Pairs::none) text << " mask " << name(mask) << " broadcast " << mask_broadcast;
  if (bias != Pairs::none) text << " bias " << name(bias) << " broadcast " << bias_broadcast;
  text << (lse ? " lse" : "") << " data " << static_cast<int>(data) << (dense ? " dense" : "");
  return text.str();
}

AttentionData::AttentionData(const AttentionCase& from) : AttentionData(from, Random(from.seed)) {}

AttentionData::AttentionData(const AttentionCase& c, Random random)
    : of(c),
      q(extents(c.batch, {c.heads, c.seq_q, c.d_k}),
        c.dense ? Layout() : random_layout(random, static_cast<int>(c.batch.size()) + 3, true)),
      k(extents(c.batch, {c.kv_heads, c.seq_kv, c.d_k}),
        c.dense ? Layout() : random_layout(random, static_cast<int>(c.batch.size()) + 3, true)),
      v(extents(c.batch, {c.kv_heads, c.seq_kv, c.d_v}),
        c.dense ? Layout() : random_layout(random, static_cast<int>(c.batch.size()) + 3, true)),
      out(extents(c.batch, {c.heads, c.seq_q, c.d_v}),
          c.dense ? Layout() : random_layout(random, static_cast<int>(c.batch.size()) + 3, false)),
      lse(extents(c.batch, {c.heads, c.seq_q}),
          c.dense ? Layout() : random_layout(random, static_cast<int>(c.batch.size()) + 2, false)),
      mask(pair_extents(c, c.mask_broadcast)),
      bias(pair_extents(c, c.bias_broadcast)) {
  const Data data = c.data;
  // The direction along which queries and keys are given their scores.
  std::vector<double> direction(static_cast<std::size_t>(c.d_k));
  for (double& x : direction) x = random.normal() / std::sqrt(static_cast<double>(c.d_k));
  const auto along = [&](std::int64_t i) { return direction[static_cast<std::size_t>(i % c.d_k)]; };
  const std::int64_t winner = random.between(0, std::max<std::int64_t>(c.seq_kv - 1, 0));
  const bool directed = data == Data::rising || data == Data::falling ||
                        data == Data::one_dominant || data == Data::far_below;

  q.fill([&](std::int64_t i) {
    if (data == Data::integers) return static_cast<float>(random.between(-3, 3));
    if (data == Data::equal) return 0.0f;
    if (directed) return static_cast<float>(8 * along(i) + 0.1 * random.normal());
    return static_cast<float>(random.normal() * (data == Data::large_queries ? 20 : 1));
  });
  k.fill([&](std::int64_t i) {
    if (data == Data::integers) return static_cast<float>(random.between(-3, 3));
    if (!directed) return static_cast<float>(random.normal());
    const std::int64_t j = i / c.d_k % c.seq_kv;
    const double place = static_cast<double>(j) / static_cast<double>(c.seq_kv);
    double height = 0;
    if (data == Data::rising) height = 40 * place;
    if (data == Data::falling) height = -40 * place;
    if (data == Data::one_dominant) height = j == winner ? 60 : 0;
    if (data == Data::far_below) height = -1e4;
    return static_cast<float>(height * along(i) + 0.1 * random.normal());
  });
  v.fill([&](std::int64_t) {
    if (data == Data::integers) return static_cast<float>(random.between(-9, 9));
    return static_cast<float>(random.normal() + (data == Data::value_mean_1 ? 1 : 0));
  });
  // Whether pair n of a mask or a bias, which may be broadcast, is attended.
  const auto attended = [&](Pairs kind, const Sizes& e, std::int64_t n) {
    return attends(kind, random, n / e.back() % e[e.size() - 2], n % e.back(), e.back());
  };
  mask.fill([&](std::int64_t n) { return attended(c.mask, mask.extents(), n); });
  bias.fill([&](std::int64_t n) {
    const auto value = static_cast<float>(random.normal());
    return attended(c.bias, bias.extents(), n) ? value : kMinusInfinity;
  });
  for (auto* tensor : {&q, &k, &v, &bias}) tensor->seal();
  mask.seal();
}

AttentionOptions AttentionData::options() const {
  AttentionOptions options;
  options.scale = of.scale;
  options.causal = of.causal;
  options.q_offset = of.q_offset;
  if (of.mask != Pairs::none) options.mask = mask.view<Head, Query, Key>();
  if (of.bias != Pairs::none) options.bias = bias.view<Head, Query, Key>();
  options.lse = lse_view();
  return options;
}

reference::Problem<float> AttentionData::problem(const reference::Batch& batch) const {
  return reference::problem_at(q_view(), k_view(), v_view(), options(), batch);
}

bool AttentionData::any_attends(const reference::Problem<float>& problem, std::int64_t g,
                                std::int64_t j) const {
  for (reference::At<Head> h : problem.heads()) {
    if (problem.kv_head(h).value != g) continue;
    for (reference::At<Query> i : problem.queries()) {
      if (attended(problem, h, i, reference::At<Key>{j})) return true;
    }
  }
  return false;
}

void AttentionData::run(const Executor* executor) {
  out.reset();
  lse.reset();
  AttentionOptions given = options();
  given.executor = executor;
  attention(q_view(), k_view(), v_view(), out_view(), given);
  EXPECT_TRUE(out.gaps_unchanged()) << "out, " << of.describe();
  EXPECT_TRUE(lse.gaps_unchanged()) << "lse, " << of.describe();
  for (const auto* tensor : {&q, &k, &v, &bias}) EXPECT_TRUE(tensor->unchanged()) << of.describe();
  EXPECT_TRUE(mask.unchanged()) << of.describe();
}

std::vector<ExpectedAttention> AttentionData::expect() const {
  std::vector<ExpectedAttention> expected;
  reference::for_each_batch(q_view(), [&](const reference::Batch& batch) {
    expected.push_back(expect_attention(problem(batch)));
  });
  return expected;
}

void AttentionData::check(const std::vector<ExpectedAttention>& expected, bool strict) const {
  Comparison out_comparison, lse_comparison;
  std::size_t element = 0;
  reference::for_each_batch(q_view(), [&](const reference::Batch& batch) {
    compare_out(expected[element], batch_element(out_view(), batch), out_comparison);
    if (of.lse) compare_lse(expected[element], batch_element(lse_view(), batch), lse_comparison);
    ++element;
  });
  EXPECT_TRUE(strict ? out_comparison.strict() : out_comparison.within())
      << "out, " << of.describe();
  EXPECT_TRUE(lse_comparison.within()) << "lse, " << of.describe();
}

}  // namespace rapt::tests
