// append_kv(): every new key and value lands in its place as rope() and quantize() or convert()
// make it, nothing else changes, and attention() reads what was appended.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "cache/storage.hpp"
#include "support/executors.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr Type kAllTypes[] = {Type::f32, Type::bf16, Type::f16, Type::int8, Type::int4};

std::int64_t depth_for(Type type, Random& random) {
  return type == Type::int4 ? 32 * random.between(1, 3) : random.between(1, 70);
}

// k or v: what is new, the cache, and its scales.
struct Side {
  Storage fresh, cache;
  Tensor<float> scales;

  Side(Random& random, const std::vector<std::int64_t>& fresh_extents,
       const std::vector<std::int64_t>& cache_extents)
      : Side(random,
             random.pick({kAllTypes[0], kAllTypes[1], kAllTypes[2], kAllTypes[3], kAllTypes[4]}),
             fresh_extents, cache_extents) {}
  Side(Random& random, Type type, std::vector<std::int64_t> fresh_extents,
       std::vector<std::int64_t> cache_extents)
      : Side(random, type, depth_for(type, random), fresh_extents, cache_extents) {}
  Side(Random& random, Type type, std::int64_t depth, std::vector<std::int64_t>& fresh_extents,
       std::vector<std::int64_t>& cache_extents)
      : fresh(random.pick({Type::f32, Type::f32, Type::bf16, Type::f16}),
              with(fresh_extents, depth),
              random_layout(random, static_cast<int>(fresh_extents.size()) + 1, true)),
        cache(type, with(cache_extents, depth),
              type == Type::int4
                  ? Layout{}
                  : random_layout(random, static_cast<int>(cache_extents.size()) + 1, false)),
        scales(cache_extents, random_layout(random, static_cast<int>(cache_extents.size()), false)),
        depth(depth) {
    fresh.fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
    cache.seal();
    scales.seal();
  }
  static std::vector<std::int64_t> with(std::vector<std::int64_t> extents, std::int64_t depth) {
    extents.push_back(depth);
    return extents;
  }
  CacheScales scales_view() const {
    return cache.type() == Type::int8 ? scales.view<KvHead, Key>() : CacheScales();
  }
  std::int64_t depth;
};

struct AppendCase {
  bool packed, paged;
  std::int64_t elements, kv_heads, seq_new, capacity, page_size, pages_of_one;
  std::vector<std::int32_t> counts, lengths, boundaries{0}, table;
  std::unique_ptr<Side> k, v;
  Tensor<std::int32_t> positions{{1}};
  AppendOptions options;

  AppendCase(std::uint64_t seed, bool rotated) {
    Random random(seed);
    packed = random.percent(50);
    paged = random.percent(50);
    elements = random.between(1, 4);
    kv_heads = random.between(1, 3);
    seq_new = random.between(0, 6);
    page_size = random.between(1, 9);
    for (std::int64_t b = 0; b < elements; ++b) {
      counts.push_back(static_cast<std::int32_t>(packed ? random.between(0, 6) : seq_new));
      lengths.push_back(static_cast<std::int32_t>(random.between(0, 20)));
      boundaries.push_back(boundaries.back() + counts.back());
    }
    if (packed) seq_new = boundaries.back();
    capacity = 0;
    for (std::size_t b = 0; b < counts.size(); ++b)
      capacity = std::max<std::int64_t>(capacity, lengths[b] + counts[b]);
    capacity += random.between(0, 3);
    pages_of_one = (capacity + page_size - 1) / page_size;
    const std::int64_t pool = elements * pages_of_one + 2;
    if (paged) {  // pages in any order
      table.resize(static_cast<std::size_t>(pool));
      std::iota(table.begin(), table.end(), 0);
      for (std::size_t i = table.size() - 1; i > 0; --i)
        std::swap(table[i],
                  table[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i)))]);
      options.block_table = {table.data(), {elements, pages_of_one}};
    }
    std::vector<std::int64_t> fresh = {kv_heads, seq_new};
    if (!packed) fresh.insert(fresh.begin(), elements);
    const std::vector<std::int64_t> cache = {paged ? pool : elements, kv_heads,
                                             paged ? page_size : capacity};
    k = std::make_unique<Side>(random, fresh, cache);
    v = std::make_unique<Side>(random, fresh, cache);
    options.k_scales = k->scales_view();
    options.v_scales = v->scales_view();
    options.kv_lengths = {lengths.data(), {elements}};
    if (packed) options.cu_seqlens_new = {boundaries.data(), {elements + 1}};
    if (!rotated) return;
    options.rope.dims = random.between(0, k->depth / 2) * 2;
    options.rope.pairing = random.pick({Pairing::interleaved, Pairing::half});
    options.rope.magnitude = random.pick({1.0f, 1.25f});
    if (random.percent(50)) {
      std::vector<std::int64_t> extents = {seq_new};
      if (!packed) extents.insert(extents.begin(), elements);
      positions = Tensor<std::int32_t>(extents, random_layout(random, packed ? 1 : 2, true));
      positions.fill(
          [&](std::int64_t) { return static_cast<std::int32_t>(random.between(0, 999)); });
      options.positions = positions.view<Position>();
    }
  }
  void run(const Executor* executor = nullptr) {
    options.executor = executor;
    append_kv(k->fresh.view<AnyK, KvHead, Key, DepthK>(),
              v->fresh.view<AnyV, KvHead, Key, DepthV>(),
              k->cache.view<AnyKCache, KvHead, Key, DepthK>(),
              v->cache.view<AnyVCache, KvHead, Key, DepthV>(), options);
  }

  // Calls visit(row among the new ones, row of the cache, position).
  template <class Visit>
  void for_each_row(const Visit& visit) const {
    for (std::int64_t b = 0; b < elements; ++b) {
      const auto at = static_cast<std::size_t>(b);
      for (std::int64_t n = 0; n < counts[at]; ++n) {
        const std::int64_t key = lengths[at] + n;
        const std::int64_t source = packed ? boundaries[at] + n : n;
        for (std::int64_t h = 0; h < kv_heads; ++h) {
          const std::int64_t from = ((packed ? 0 : b) * kv_heads + h) * seq_new + source;
          const auto entry = static_cast<std::size_t>(b * pages_of_one + key / page_size);
          const std::int64_t to = paged
                                      ? (table[entry] * kv_heads + h) * page_size + key % page_size
                                      : (b * kv_heads + h) * capacity + key;
          const std::int64_t position =
              options.positions ? positions[(packed ? 0 : b) * seq_new + source] : key;
          visit(from, to, position);
        }
      }
    }
  }
};

// Row `row` of `fresh`, alone, rotated and stored by the public functions for that.
std::pair<std::vector<std::byte>, float> stored_row(const Side& side, std::int64_t row,
                                                    const Rope& by, std::int64_t position) {
  const std::int64_t d = side.depth;
  Storage one(Type::f32, {1, 1, d}), to(side.cache.type(), {1, 1, d});
  Tensor<float> scale({1, 1});
  one.fill([&](std::int64_t i) { return side.fresh[row * d + i]; });
  const auto first = static_cast<std::int32_t>(position);
  RopeOptions at;
  at.first_positions = {&first, {}};
  rope(one.view<AnyRows, KvHead, Key, DepthK>(), one.view<AnyRowsOut, KvHead, Key, DepthK>(), by,
       at);
  const AnyRows from = one.view<AnyRows, KvHead, Key, DepthK>();
  const AnyRowsOut out = to.view<AnyRowsOut, KvHead, Key, DepthK>();
  if (to.type() == Type::int8) {
    quantize(from, out, scale.view<KvHead, Key>());
  } else if (to.type() == Type::int4) {
    quantize(from, out);
  } else {
    convert(from, out);
  }
  return {to.row(0), scale[0]};
}

TEST(AppendKv, PutsEveryKeyInItsPlaceAndTouchesNothingElse) {
  for_each_target([] {
    Seeds(531, cases(300)).for_each([](std::uint64_t seed) {
      AppendCase c(seed, true);
      for (const Side* side : {c.k.get(), c.v.get()}) {
        SCOPED_TRACE(side == c.k.get() ? "k" : "v");
        auto rows = side->cache.all_rows();
        std::vector<float> scales = side->scales.values();
        const Rope by = side == c.k.get() ? c.options.rope : Rope{};
        c.for_each_row([&](std::int64_t from, std::int64_t to, std::int64_t position) {
          const auto at = static_cast<std::size_t>(to);
          std::tie(rows[at], scales[at]) = stored_row(*side, from, by, position);
        });
        c.run();
        EXPECT_EQ(side->cache.all_rows(), rows);
        EXPECT_TRUE(side->cache.gaps_unchanged());
        if (side->cache.type() == Type::int8) {
          EXPECT_TRUE(same_bits(side->scales.values(), scales));
          EXPECT_TRUE(side->scales.gaps_unchanged());
        } else {
          EXPECT_TRUE(side->scales.unchanged());
        }
      }
    });
  });
}

TEST(AppendKv, HasTheSameBitsOnAnyExecutor) {
  Seeds(532, cases(60)).for_each([](std::uint64_t seed) {
    AppendCase c(seed, true);
    c.run(&serial_executor());
    const auto k = c.k->cache.all_rows(), v = c.v->cache.all_rows();
    const ThreadExecutor threads(3);
    const BackwardExecutor backward;
    for (const Executor* executor :
         {static_cast<const Executor*>(&threads), static_cast<const Executor*>(&backward)}) {
      c.run(executor);
      EXPECT_EQ(k, c.k->cache.all_rows());
      EXPECT_EQ(v, c.v->cache.all_rows());
    }
  });
}

// Keys and values that come a few at a time, into a cache of pages: at every step, attention over
// the cache has the bits of attention over one array of all keys so far. 4-bit groups and 16-bit
// floats stand for floats, which the one array holds; int8 multiplies scores by its scale, so that
// the one array is int8 too.
TEST(AppendKv, AttentionReadsWhatWasAppended) {
  constexpr std::int64_t kElements = 2, kHeads = 4, kKvHeads = 2, kDepth = 32, kPage = 5,
                         kPages = 8;
  constexpr std::int64_t kCapacity = kPage * kPages;
  for_each_target([] {
    Seeds(533, cases(20)).for_each([](std::uint64_t seed) {
      Random random(seed);
      for (Type type : kAllTypes) {
        SCOPED_TRACE(static_cast<int>(type));
        Storage k_pool(type, {kElements * kPages, kKvHeads, kPage, kDepth}),
            v_pool(type, {kElements * kPages, kKvHeads, kPage, kDepth}),
            k_all(type, {kElements, kKvHeads, kCapacity, kDepth}),
            v_all(type, {kElements, kKvHeads, kCapacity, kDepth});
        Tensor<float> k_pool_scales({kElements * kPages, kKvHeads, kPage}),
            v_pool_scales({kElements * kPages, kKvHeads, kPage}),
            k_all_scales({kElements, kKvHeads, kCapacity}),
            v_all_scales({kElements, kKvHeads, kCapacity});
        std::vector<std::int32_t> table(kElements * kPages), lengths(kElements, 0);
        std::iota(table.rbegin(), table.rend(), 0);

        AppendOptions paged;
        paged.kv_lengths = {lengths.data(), {kElements}};
        paged.block_table = {table.data(), {kElements, kPages}};
        paged.rope = {.dims = 24};
        AppendOptions whole = paged;
        whole.block_table = {};
        AttentionOptions read_paged;
        read_paged.causal = true;
        read_paged.kv_lengths = paged.kv_lengths;
        AttentionOptions read_whole = read_paged;
        read_paged.block_table = paged.block_table;
        if (type == Type::int8) {
          read_paged.k_scales = paged.k_scales = k_pool_scales.view<KvHead, Key>();
          read_paged.v_scales = paged.v_scales = v_pool_scales.view<KvHead, Key>();
          read_whole.k_scales = whole.k_scales = k_all_scales.view<KvHead, Key>();
          read_whole.v_scales = whole.v_scales = v_all_scales.view<KvHead, Key>();
        }
        while (lengths[0] + 9 <= kCapacity) {
          const std::int64_t n = random.between(1, 9);
          Tensor<float> k({kElements, kKvHeads, n, kDepth}), v({kElements, kKvHeads, n, kDepth}),
              q({kElements, kHeads, n, kDepth}), out({kElements, kHeads, n, kDepth}),
              expected({kElements, kHeads, n, kDepth});
          for (Tensor<float>* tensor : {&k, &v, &q})
            tensor->fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
          const auto append = [&](const Storage& k_cache, const Storage& v_cache,
                                  const AppendOptions& options) {
            append_kv(k.view<KvHead, Key, DepthK>(), v.view<KvHead, Key, DepthV>(),
                      k_cache.view<AnyKCache, KvHead, Key, DepthK>(),
                      v_cache.view<AnyVCache, KvHead, Key, DepthV>(), options);
          };
          append(k_pool, v_pool, paged);
          append(k_all, v_all, whole);
          for (std::int32_t& length : lengths) length += static_cast<std::int32_t>(n);

          attention(q.view<Head, Query, DepthK>(), k_pool.view<AnyK, KvHead, Key, DepthK>(),
                    v_pool.view<AnyV, KvHead, Key, DepthV>(), out.view<Head, Query, DepthV>(),
                    read_paged);
          if (type == Type::int8) {
            attention(q.view<Head, Query, DepthK>(), k_all.view<AnyK, KvHead, Key, DepthK>(),
                      v_all.view<AnyV, KvHead, Key, DepthV>(), expected.view<Head, Query, DepthV>(),
                      read_whole);
          } else {
            Tensor<float> k_floats({kElements, kKvHeads, kCapacity, kDepth}),
                v_floats({kElements, kKvHeads, kCapacity, kDepth});
            k_floats.fill([&](std::int64_t i) { return k_all[i]; });
            v_floats.fill([&](std::int64_t i) { return v_all[i]; });
            attention(q.view<Head, Query, DepthK>(), k_floats.view<KvHead, Key, DepthK>(),
                      v_floats.view<KvHead, Key, DepthV>(), expected.view<Head, Query, DepthV>(),
                      read_whole);
          }
          ASSERT_TRUE(same_bits(out.values(), expected.values())) << "at " << lengths[0] << " keys";
        }
      }
    });
  });
}

}  // namespace
}  // namespace rapt::tests
