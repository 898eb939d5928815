// Drawing a case, filling it, running it, checking it.
#include "support/attention_case.hpp"

#include <cmath>
#include <limits>

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using reference::At;
using Sizes = std::vector<std::int64_t>;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

Sizes extents(Sizes batch, std::initializer_list<std::int64_t> named) {
  batch.insert(batch.end(), named);
  return batch;
}

// [batch..., heads, seq_q, seq_kv] of a mask or a bias, with what is broadcast.
Sizes pair_extents(const AttentionCase& of, unsigned broadcast, std::int64_t seq_q,
                   std::int64_t seq_kv) {
  Sizes batch = of.batch;
  if (broadcast & 16 || of.packed_q) batch.clear();
  if (broadcast & 8 && !batch.empty()) batch.back() = 1;
  return extents(
      batch, {broadcast & 1 ? 1 : of.heads, broadcast & 2 ? 1 : seq_q, broadcast & 4 ? 1 : seq_kv});
}

std::int64_t product(const Sizes& sizes) {
  std::int64_t n = 1;
  for (std::int64_t size : sizes) n *= size;
  return n;
}

LengthsView lengths_view(const Sizes& batch, const std::vector<std::int32_t>& lengths) {
  Sizes strides(batch.size(), 1);
  for (std::size_t i = batch.size(); i-- > 1;) strides[i - 1] = strides[i] * batch[i];
  return {lengths.data(), batch.data(), batch.size(), strides.data(), strides.size()};
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
  if (random.percent(15)) c.window_left = random.between(0, c.seq_kv);
  if (random.percent(15)) c.window_right = random.between(0, c.seq_kv / 2);
  if (random.percent(10)) c.chunk = random.between(1, c.seq_kv);
  if (random.percent(15)) c.prefix = random.between(0, c.seq_kv + 1);
  if (random.percent(10)) c.tree_keys = random.between(1, std::min<std::int64_t>(c.seq_kv, 70));
  c.segments = random.percent(12);
  c.alibi = random.percent(15);
  c.sinks = random.percent(15);
  if (random.percent(15)) c.softcap = static_cast<float>(random.between(1, 30));
  if (random.percent(15)) c.cache = Cache::lengths;
  if (!c.q_offset) c.q_offsets = random.percent(15);
  if (c.batch.size() == 1) {
    if (random.percent(30)) c.cache = random.percent(50) ? Cache::packed : Cache::paged;
    c.page_size = random.percent(50) ? random.between(1, 9) : random.pick<std::int64_t>({16, 32});
    c.shared_pages = c.cache == Cache::paged && random.percent(60);
    c.packed_q = random.percent(25);
  }
  if (random.percent(50)) {
    const auto plain = [&] { return random.pick({Type::f32, Type::bf16, Type::f16}); };
    const auto any = [&](std::int64_t& depth) {
      const Type type = random.pick({Type::f32, Type::bf16, Type::f16, Type::int8, Type::int4});
      if (type == Type::int4) depth = (depth + 31) / 32 * 32;
      return type;
    };
    c.q_type = plain();
    c.out_type = plain();
    c.k_type = any(c.d_k);
    c.v_type = any(c.d_v);
    if (random.percent(30)) {
      c.q_type = c.k_type = c.v_type = c.out_type = Type::bf16;
      c.round_weights = random.percent(70) ? RoundWeights::always : RoundWeights::where_native;
    }
  }
  c.lse = random.percent(50);
  if (random.percent(60)) {
    c.data = static_cast<Data>(random.between(0, static_cast<std::int64_t>(Data::count) - 1));
  }
  return c;
}

AttentionData::Lengths::Lengths(const AttentionCase& of, Random& random) {
  const std::int64_t elements = product(of.batch);
  cumulative_q = cumulative_kv = {0};
  pages_of_one = (of.seq_kv + of.page_size - 1) / of.page_size;
  pages = elements * pages_of_one + 2;
  for (std::int64_t b = 0; b < elements; ++b) {
    // The first is the longest; some are empty.
    const auto draw = [&](bool varies, std::int64_t longest) {
      const bool whole = !varies || b == 0 || random.percent(20);
      return static_cast<std::int32_t>(whole ? longest : random.between(0, longest));
    };
    q.push_back(draw(of.packed_q, of.seq_q));
    kv.push_back(draw(of.cache != Cache::full, of.seq_kv));
    q_offsets.push_back(static_cast<std::int32_t>(random.between(-of.seq_q, of.seq_kv)));
    cumulative_q.push_back(cumulative_q.back() + q.back());
    cumulative_kv.push_back(cumulative_kv.back() + kv.back());
  }
  // Any order of pages, each used once.
  for (std::int64_t page = 0; page < elements * pages_of_one; ++page)
    table.push_back(static_cast<std::int32_t>(page + 1));
  for (std::size_t n = table.size(); n-- > 1;) {
    std::swap(table[n],
              table[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(n)))]);
  }
  for (std::int64_t b = 1; of.shared_pages && b < elements; ++b) {
    const auto own = table.begin() + b * pages_of_one;
    std::copy_n(own - pages_of_one, random.between(0, pages_of_one), own);
  }
}

AttentionCase with_dropout(AttentionCase c) {
  Random random(c.seed + 55);
  if (random.percent(20)) c.dropout = static_cast<float>(0.99 * random.uniform());
  return c;
}

std::int64_t AttentionData::elements() const { return product(of.batch); }
std::int64_t AttentionData::seq_q(std::int64_t b) const {
  return lengths_.q[static_cast<std::size_t>(b)];
}
std::int64_t AttentionData::seq_kv(std::int64_t b) const {
  return lengths_.kv[static_cast<std::size_t>(b)];
}

std::int64_t AttentionData::key_row(std::int64_t b, std::int64_t g, std::int64_t j) const {
  if (of.cache == Cache::packed) {
    return g * lengths_.cumulative_kv.back() + lengths_.cumulative_kv[static_cast<std::size_t>(b)] +
           j;
  }
  if (of.cache != Cache::paged) return (b * of.kv_heads + g) * of.seq_kv + j;
  const std::int64_t page =
      lengths_.table[static_cast<std::size_t>(b * lengths_.pages_of_one + j / of.page_size)];
  return (page * of.kv_heads + g) * of.page_size + j % of.page_size;
}

void AttentionData::for_each_element(
    const std::function<void(const reference::Batch&)>& visit) const {
  if (product(of.batch) == 0) return;
  const Sizes strides(of.batch.size(), 0);
  const View<const float> batch(nullptr, of.batch.data(), of.batch.size(), strides.data(),
                                strides.size());
  reference::for_each_batch(batch, visit);
}

AttentionData::AttentionData(const AttentionCase& from)
    : AttentionData(from, Random(from.seed), [&] {
        Random random(from.seed + 1);
        return Lengths(from, random);
      }()) {}

namespace {

Layout layout_of(const AttentionCase& c, Random& random, const Sizes& sizes, bool input) {
  return c.dense ? Layout() : random_layout(random, static_cast<int>(sizes.size()), input);
}

Sizes q_sizes(const AttentionCase& c, std::int64_t packed,
              std::initializer_list<std::int64_t> depth) {
  Sizes sizes = c.packed_q ? Sizes{c.heads, packed} : extents(c.batch, {c.heads, c.seq_q});
  sizes.insert(sizes.end(), depth);
  return sizes;
}

Sizes kv_sizes(const AttentionCase& c, std::int64_t packed, std::int64_t pages,
               std::int64_t depth) {
  if (c.cache == Cache::packed) return {c.kv_heads, packed, depth};
  if (c.cache == Cache::paged) return {pages, c.kv_heads, c.page_size, depth};
  return extents(c.batch, {c.kv_heads, c.seq_kv, depth});
}

}  // namespace

AttentionData::AttentionData(const AttentionCase& c, Random random, const Lengths& lengths)
    : of(c),
      q(q_sizes(c, lengths.cumulative_q.back(), {c.d_k}),
        layout_of(c, random, q_sizes(c, 0, {1}), true)),
      k(kv_sizes(c, lengths.cumulative_kv.back(), lengths.pages, c.d_k),
        layout_of(c, random, kv_sizes(c, 0, 0, 1), true)),
      v(kv_sizes(c, lengths.cumulative_kv.back(), lengths.pages, c.d_v),
        layout_of(c, random, kv_sizes(c, 0, 0, 1), true)),
      out(q_sizes(c, lengths.cumulative_q.back(), {c.d_v}),
          layout_of(c, random, q_sizes(c, 0, {1}), false)),
      lse(q_sizes(c, lengths.cumulative_q.back(), {}),
          layout_of(c, random, q_sizes(c, 0, {}), false)),
      mask(pair_extents(c, c.mask_broadcast, c.packed_q ? lengths.cumulative_q.back() : c.seq_q,
                        c.cache == Cache::paged ? lengths.pages_of_one * c.page_size : c.seq_kv)),
      bias(pair_extents(c, c.bias_broadcast, c.packed_q ? lengths.cumulative_q.back() : c.seq_q,
                        c.cache == Cache::paged ? lengths.pages_of_one * c.page_size : c.seq_kv)),
      q_segments(c.packed_q ? Sizes{lengths.cumulative_q.back()} : extents(c.batch, {c.seq_q})),
      kv_segments(
          c.cache == Cache::packed
              ? Sizes{lengths.cumulative_kv.back()}
              : extents(c.batch,
                        {c.cache == Cache::paged ? lengths.pages_of_one * c.page_size : c.seq_kv})),
      tree(c.packed_q ? Sizes{lengths.cumulative_q.back(), (c.tree_keys + 63) / 64}
                      : extents(c.batch, {c.seq_q, (c.tree_keys + 63) / 64})),
      slopes({c.heads}),
      sinks({c.heads}),
      lengths_(lengths) {
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
  // Documents of a few tokens each, in both alike.
  const auto document = [](std::int64_t i) { return static_cast<std::int32_t>(i / 7 % 4); };
  q_segments.fill(document);
  kv_segments.fill(document);
  tree.fill([&](std::int64_t) { return random.bits() | random.bits(); });
  slopes.fill([&](std::int64_t h) { return std::exp2(-static_cast<float>(h % 8) - 1); });
  sinks.fill([&](std::int64_t h) {
    return h % 5 == 4 ? kMinusInfinity : static_cast<float>(2 * random.normal());
  });
  // What no batch element has must never be looked at.
  std::vector<bool> used(static_cast<std::size_t>(k.size() / std::max<std::int64_t>(c.d_k, 1)));
  for (std::int64_t b = 0; b < elements(); ++b) {
    for (std::int64_t g = 0; g < c.kv_heads; ++g)
      for (std::int64_t j = 0; j < seq_kv(b); ++j)
        used[static_cast<std::size_t>(key_row(b, g, j))] = true;
  }
  for (std::size_t key = 0; key < used.size(); ++key) {
    if (used[key]) continue;
    const auto at = static_cast<std::int64_t>(key);
    for (std::int64_t d = 0; d < c.d_k; ++d) k[at * c.d_k + d] = std::nanf("");
    for (std::int64_t d = 0; d < c.d_v; ++d) v[at * c.d_v + d] = std::nanf("");
  }
  stored_.reserve(4);
  stored_.emplace_back(c.q_type, q, layout_of(c, random, q.extents(), true));
  stored_.emplace_back(c.k_type, k, layout_of(c, random, k.extents(), true));
  stored_.emplace_back(c.v_type, v, layout_of(c, random, v.extents(), true));
  stored_.emplace_back(c.out_type, out, layout_of(c, random, out.extents(), false));
  for (int i = 0; i < 3; ++i) stored_[static_cast<std::size_t>(i)].round();
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
  options.softcap = of.softcap;
  options.window_left = of.window_left;
  options.window_right = of.window_right;
  options.chunk = of.chunk;
  options.prefix = of.prefix;
  if (of.segments) {
    options.q_segments = q_segments.view<Query>();
    options.kv_segments = kv_segments.view<Key>();
  }
  if (of.tree_keys > 0) {
    options.tree = tree.view<Query, Word>();
    options.tree_keys = of.tree_keys;
  }
  if (of.alibi) options.alibi_slopes = slopes.view<Head>();
  if (of.sinks) options.sinks = sinks.view<Head>();
  if (of.q_offsets) options.q_offsets = lengths_view(of.batch, lengths_.q_offsets);
  const auto boundaries = [](const std::vector<std::int32_t>& cumulative) {
    return BoundariesView(cumulative.data(), {static_cast<std::int64_t>(cumulative.size())});
  };
  if (of.packed_q) options.cu_seqlens_q = boundaries(lengths_.cumulative_q);
  if (of.cache == Cache::packed) options.cu_seqlens_kv = boundaries(lengths_.cumulative_kv);
  if (of.cache == Cache::lengths || of.cache == Cache::paged)
    options.kv_lengths = lengths_view(of.batch, lengths_.kv);
  if (of.cache == Cache::paged)
    options.block_table = {lengths_.table.data(), {of.batch[0], lengths_.pages_of_one}};
  if (stored_[1].scales()) options.k_scales = stored_[1].scales()->view<KvHead, Key>();
  if (stored_[2].scales()) options.v_scales = stored_[2].scales()->view<KvHead, Key>();
  options.round_weights = of.round_weights;
  options.dropout = {of.dropout, of.seed, static_cast<std::uint32_t>(of.seed >> 7)};
  options.lse = lse_view();
  return options;
}

OutView AttentionData::out_of(const reference::Batch& batch) const {
  return queries_of(out_view(), options(), batch);
}
LseView AttentionData::lse_of(const reference::Batch& batch) const {
  return queries_of(lse_view(), options(), batch);
}

reference::Problem<float> AttentionData::problem(const reference::Batch& batch) const {
  AttentionOptions given = options();
  given.k_scales = given.v_scales = {};  // k and v are floats here
  if (of.packed_q || of.cache == Cache::packed || of.cache == Cache::paged)
    return sequence_at(q_view(), k_view(), v_view(), given, batch, gathered_);
  return reference::problem_at(q_view(), k_view(), v_view(), given, batch);
}

reference::Problem<float> sequence_at(QView q, KView k, VView v, const AttentionOptions& options,
                                      const reference::Batch& batch, Gathered& gathered) {
  AttentionOptions one = options;
  one.q_offsets = one.kv_lengths = {};
  one.cu_seqlens_q = one.cu_seqlens_kv = {};
  one.block_table = {};
  one.lse = {};
  if (options.q_offsets) one.q_offset = reference::at(batch_element(options.q_offsets, batch));
  one.mask = queries_of(options.mask, options, batch);
  one.bias = queries_of(options.bias, options, batch);
  one.q_segments = queries_of(options.q_segments, options, batch);
  one.tree = queries_of(options.tree, options, batch);
  one.alibi_slopes = batch_element(options.alibi_slopes, batch);
  one.sinks = batch_element(options.sinks, batch);

  // The keys: where they begin on their axis, and how many there are.
  std::int64_t first = 0, n = k.extent<Key>();
  if (options.kv_lengths) n = reference::at(batch_element(options.kv_lengths, batch));
  if (options.cu_seqlens_kv) {
    const std::int32_t* boundary = options.cu_seqlens_kv.data() + batch.position[0];
    first = boundary[0];
    n = boundary[1] - boundary[0];
  } else {
    one.kv_segments = batch_element(options.kv_segments, batch);
  }
  if (one.kv_segments) one.kv_segments = reference::slice<Key>(one.kv_segments, first, n);
  // Pairs are as wide as the longest sequence, or broadcast.
  if (one.mask.extent<Key>() > 1) one.mask = reference::slice<Key>(one.mask, 0, n);
  if (one.bias.extent<Key>() > 1) one.bias = reference::slice<Key>(one.bias, 0, n);

  const auto keys_of = [&]<class Depth>(const View<const float, KvHead, Key, Depth>& view) {
    if (!options.block_table) {
      const auto whole = options.cu_seqlens_kv ? view : batch_element(view, batch);
      return reference::slice<Key>(whole, first, n);
    }
    const auto pages = batch_element(options.block_table, batch);
    const std::int64_t size = view.template extent<Key>();
    auto keys = std::make_unique<std::vector<float>>();
    for (At<KvHead> g : reference::along<KvHead>(view)) {
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int64_t number = reference::at(pages, At<Page>{j / size});
        const auto page = reference::batch_element(view, {1, {number}});
        for (At<Depth> d : reference::along<Depth>(view))
          keys->push_back(reference::at(page, g, At<Key>{j % size}, d));
      }
    }
    keys->push_back(0);  // so that it has an address
    gathered.push_back(std::move(keys));
    return View<const float, KvHead, Key, Depth>(
        gathered.back()->data(),
        {view.template extent<KvHead>(), n, view.template extent<Depth>()});
  };
  return {queries_of(q, options, batch), keys_of(k), keys_of(v), one, batch.position[0]};
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

void AttentionData::prepare() {
  out.reset();
  lse.reset();
  for (StoredTensor& stored : stored_) stored.write();
  stored_[3].reset();
}

void AttentionData::finish() {
  EXPECT_TRUE(stored_[3].gaps_unchanged()) << "out, " << of.describe();
  stored_[3].read();
  EXPECT_TRUE(out.gaps_unchanged()) << "out, " << of.describe();
  EXPECT_TRUE(lse.gaps_unchanged()) << "lse, " << of.describe();
  for (const auto* tensor : {&q, &k, &v, &bias}) EXPECT_TRUE(tensor->unchanged()) << of.describe();
  EXPECT_TRUE(mask.unchanged()) << of.describe();
}

void AttentionData::run(const Executor* executor) {
  prepare();
  AttentionOptions given = options();
  given.executor = executor;
  attention(stored_q(), stored_k(), stored_v(), stored_out(), given);
  finish();
}

bool AttentionCase::may_round() const {
  return round_weights != RoundWeights::never && dropout == 0 && q_type == Type::bf16 &&
         k_type == Type::bf16 && v_type == Type::bf16 && out_type == Type::bf16;
}

std::vector<ExpectedAttention> AttentionData::expect() const {
  std::vector<ExpectedAttention> expected;
  for_each_element([&](const reference::Batch& batch) {
    expected.push_back(expect_attention(problem(batch), of.may_round()));
  });
  return expected;
}

void AttentionData::check(const std::vector<ExpectedAttention>& expected, bool strict) const {
  Comparison out_comparison, lse_comparison;
  std::size_t element = 0;
  for_each_element([&](const reference::Batch& batch) {
    compare_out(expected[element], out_of(batch), out_comparison, of.out_type);
    if (of.lse) compare_lse(expected[element], lse_of(batch), lse_comparison);
    ++element;
  });
  EXPECT_TRUE(strict ? out_comparison.strict() : out_comparison.within())
      << "out, " << of.describe();
  EXPECT_TRUE(lse_comparison.within()) << "lse, " << of.describe();
}

}  // namespace rapt::tests
