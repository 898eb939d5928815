// The checks of writing into a KV cache.
#include <algorithm>
#include <tuple>
#include <vector>

#include "problem/arrays.hpp"
#include "problem/check.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

// `name` has the batch axes of the problem, whose extents `other` says.
template <class AnyView>
void expect_batch(const char* name, const AnyView& view, const char* other,
                  const tiles::Batch& batch) {
  if (view.batch_axes() != batch.axes) {
    fail(ErrorCode::wrong_rank,
         {other, std::int64_t{batch.axes}, name, std::int64_t{view.batch_axes()}});
  }
  for (int i = 0; i < batch.axes; ++i)
    agree(AxisName::batch(i), other, batch.extent[i], name, view.batch_extent(i));
}

// What an int8 cache keeps beside its rows: one scale for each key, and of its own.
template <class AnyCache>
tiles::Array<float> scales_of(const char* name, const CacheScales& scales, const char* cache_name,
                              const AnyCache& cache) {
  if (static_cast<bool>(scales) != (cache.type() == Type::int8) && cache.data() != nullptr) {
    fail(ErrorCode::bad_value,
         {name, scales ? "given" : "missing",
          std::string(cache_name) +
              (scales ? " is not int8" : " is int8, and needs a scale for each key")});
  }
  if (!scales) return {};
  check_output(name, scales);
  agree_batch(cache_name, cache, name, scales);
  agree(KvHead::name, cache_name, cache.template extent<KvHead>(), name, scales.extent<KvHead>());
  agree(Key::name, cache_name, cache.template extent<Key>(), name, scales.extent<Key>());
  return array_of(scales);
}

// What is new, by itself: shapes and types of k_new, v_new and where they go.
tiles::AppendProblem check_arrays(const AnyK& k_new, const AnyV& v_new, const AnyKCache& k_cache,
                                  const AnyVCache& v_cache, const AppendOptions& options) {
  plain_type("k_new", k_new.type());
  plain_type("v_new", v_new.type());
  check_memory("k_new", k_new, tiles::bytes_of(k_new.type()));
  check_memory("v_new", v_new, tiles::bytes_of(v_new.type()));
  check_output("k_cache", k_cache, tiles::bytes_of(k_cache.type()));
  check_output("v_cache", v_cache, tiles::bytes_of(v_cache.type()));
  agree_batch("k_new", k_new, "v_new", v_new);
  agree_batch("k_cache", k_cache, "v_cache", v_cache);
  const std::int64_t kv_heads = k_new.extent<KvHead>(), seq_new = k_new.extent<Key>();
  agree(KvHead::name, "k_new", kv_heads, "v_new", v_new.extent<KvHead>());
  agree(KvHead::name, "k_new", kv_heads, "k_cache", k_cache.extent<KvHead>());
  agree(KvHead::name, "k_new", kv_heads, "v_cache", v_cache.extent<KvHead>());
  agree(Key::name, "k_new", seq_new, "v_new", v_new.extent<Key>());
  agree(Key::name, "k_cache", k_cache.extent<Key>(), "v_cache", v_cache.extent<Key>());
  within(DepthK::name, "k_new", k_new.extent<DepthK>(), 1, kMaxDepth);
  within(DepthV::name, "v_new", v_new.extent<DepthV>(), 1, kMaxDepth);
  agree(DepthK::name, "k_new", k_new.extent<DepthK>(), "k_cache", depth_of<DepthK>(k_cache));
  agree(DepthV::name, "v_new", v_new.extent<DepthV>(), "v_cache", depth_of<DepthV>(v_cache));

  tiles::AppendProblem p;
  p.kv_heads = kv_heads;
  p.seq_new = seq_new;
  p.d_k = k_new.extent<DepthK>();
  p.d_v = v_new.extent<DepthV>();
  p.k_new = stored(k_new);
  p.v_new = stored(v_new);
  p.k_cache = stored(k_cache);
  p.v_cache = stored(v_cache);
  p.k_scales = scales_of("k_scales", options.k_scales, "k_cache", k_cache);
  p.v_scales = scales_of("v_scales", options.v_scales, "v_cache", v_cache);
  p.rope = checked_rope(options.rope, p.d_k);
  return p;
}

// Keys [first, end) of a page, which a batch element is about to write.
struct Claim {
  std::int64_t page, first, end, element, number;  // number: of the page in the element's table
};

std::string entry(const Claim& claim) {
  return "block_table[" + std::to_string(claim.element) + ", " + std::to_string(claim.number) + "]";
}

// Two writers of one place would leave it to chance which of them stays.
void refuse_shared_places(std::vector<Claim>& claims) {
  std::sort(claims.begin(), claims.end(), [](const Claim& a, const Claim& b) {
    return std::tie(a.page, a.first) < std::tie(b.page, b.first);
  });
  for (std::size_t i = 1; i < claims.size(); ++i) {
    const Claim &one = claims[i - 1], &other = claims[i];
    if (one.page != other.page || other.first >= one.end) continue;
    fail(ErrorCode::bad_value, {entry(other), other.page,
                                "key " + std::to_string(other.first) +
                                    " of that page is also written through " + entry(one)});
  }
}

// Every new key has a place of its own.
void check_places(const tiles::AppendProblem& p, std::int64_t capacity, std::int64_t pool) {
  std::vector<Claim> claims;
  for (std::int64_t b = 0; b < p.batch.size; ++b) {
    const std::int64_t length = *p.batch.element(p.kv_lengths, b);
    const std::int64_t count =
        p.first_new == nullptr ? p.seq_new : p.first_new[b + 1] - p.first_new[b];
    if (length < 0 || length > capacity || count > capacity - length) {
      fail(ErrorCode::bad_value,
           {"kv_lengths[" + std::to_string(b) + "]", length,
            "must be from 0, and with " + std::to_string(count) + " new keys at most " +
                std::to_string(capacity) + ", the capacity"});
    }
    if (!p.pages.table) continue;
    const std::int32_t* pages = p.batch.element(p.pages.table, b);
    const std::int64_t size = p.pages.size;
    for (std::int64_t key = length; key < length + count;) {
      const std::int64_t number = key / size, first = key % size;
      const std::int64_t end = std::min(size, first + length + count - key);
      const std::int64_t page = pages[number * p.pages.table.row_stride];
      const Claim claim{page, first, end, b, number};
      if (page < 0 || page >= pool) {
        fail(ErrorCode::bad_value,
             {entry(claim), page, "k_cache has " + std::to_string(pool) + " pages"});
      }
      claims.push_back(claim);
      key += end - first;
    }
  }
  refuse_shared_places(claims);
}

}  // namespace

tiles::AppendProblem check_append(const AnyK& k_new, const AnyV& v_new, const AnyKCache& k_cache,
                                  const AnyVCache& v_cache, const AppendOptions& options) {
  tiles::AppendProblem p = check_arrays(k_new, v_new, k_cache, v_cache, options);
  const bool packed = static_cast<bool>(options.cu_seqlens_new);
  const bool paged = static_cast<bool>(options.block_table);

  // The batch elements are those of k_new, or the sequences packed in it.
  const char* elements = packed ? "cu_seqlens_new" : "k_new";
  if (packed) {
    if (k_new.batch_axes() != 0)
      fail(ErrorCode::wrong_rank,
           {"k_new", std::int64_t{k_new.batch_axes()}, "a packed array", std::int64_t{0}});
    const BoundariesView& boundaries = options.cu_seqlens_new;
    within(Boundary::name, elements, boundaries.extent<Boundary>(), 1, kFar);
    p.batch.axes = 1;
    p.batch.size = p.batch.extent[0] = boundaries.extent<Boundary>() - 1;
    check_boundaries(elements, boundaries, p.batch.size, "k_new", p.seq_new);
    p.first_new = boundaries.data();
  } else {
    p.batch = flatten_batch(k_new);
  }

  std::int64_t capacity = k_cache.extent<Key>();
  if (paged) {
    const auto& table = options.block_table;
    if (k_cache.batch_axes() != 1)
      fail(ErrorCode::wrong_rank,
           {"k_cache", std::int64_t{k_cache.batch_axes()}, "a pool of pages", std::int64_t{1}});
    if (p.batch.axes != 1)
      fail(ErrorCode::wrong_rank,
           {elements, std::int64_t{p.batch.axes}, "the paged problem", std::int64_t{1}});
    within("page size (seq_kv)", "k_cache", capacity, 1, kernels::RowPages::kMost);
    check_memory("block_table", table);
    expect_batch("block_table", table, elements, p.batch);
    p.pages.size = capacity;
    p.pages.table.data = table.data();
    p.pages.table.row_stride = table.stride<Page>();
    p.pages.table.batch_stride[0] = table.batch_stride(0);
    // Lengths are int32: what lies beyond is never reached.
    capacity *= std::min(table.extent<Page>(), kFar >> 20);
  } else {
    expect_batch("k_cache", k_cache, elements, p.batch);
  }

  if (!options.kv_lengths)
    fail(ErrorCode::bad_value,
         {"kv_lengths", "missing", "append_kv() needs to know where to append"});
  check_memory("kv_lengths", options.kv_lengths);
  p.kv_lengths.data = options.kv_lengths.data();
  broadcast_batch("kv_lengths", options.kv_lengths, elements, p.batch, p.kv_lengths.batch_stride);
  if (options.positions) {
    tiles::Batch none;
    p.positions = positions_of(options.positions, "k_new", packed ? none : p.batch, p.seq_new);
  }

  // Nothing new, or no heads: nothing is written, and a batch of any size is not gone through.
  p.new_keys = p.kv_heads == 0 ? 0 : packed ? p.seq_new : p.batch.size * p.seq_new;
  if (p.new_keys > 0)
    check_places(p, capacity, k_cache.batch_axes() == 1 ? k_cache.batch_extent(0) : 0);
  return p;
}

}  // namespace rapt::problem
