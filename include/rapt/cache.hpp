// The KV cache, written: new keys and values go where attention() will read them.
#pragma once

#include <cstdint>

#include "rapt/attention.hpp"
#include "rapt/export.h"
#include "rapt/executor.hpp"
#include "rapt/rope.hpp"

namespace rapt {

using AnyKCache = AnyView<std::byte, axis::KvHead, axis::Key, axis::DepthK>;
using AnyVCache = AnyView<std::byte, axis::KvHead, axis::Key, axis::DepthV>;
using CacheScales = View<float, axis::KvHead, axis::Key>;

struct AppendOptions {
  // How many keys each batch element has already: its new ones follow them. Needed. The caller
  // adds the number of new keys to it afterwards, before it calls attention().
  LengthsView kv_lengths{};

  // Packed new keys: those of sequence b are [cu_seqlens_new[b], cu_seqlens_new[b + 1]) along
  // seq_kv of k_new and v_new, which have no batch axes then. The caches, kv_lengths and
  // block_table have one, the sequences.
  BoundariesView cu_seqlens_new{};

  // A paged cache, as in AttentionOptions: the caches are pools [pages, kv_heads, page_size, d].
  View<const std::int32_t, axis::Page> block_table{};

  // Written where a cache is int8, for the new keys alone: extents as the cache's without its
  // depth.
  CacheScales k_scales{}, v_scales{};

  // Rotates the new keys before they are stored. The position of new key n of batch element b is
  // kv_lengths[b] + n, unless positions [batch..., seq_new] (packed: [seq_new]) says otherwise.
  Rope rope{};
  PositionsView positions{};

  const Executor* executor = nullptr;  // default_executor() when null
};

// Shapes: k_new [batch..., kv_heads, seq_new, d_k] and v_new [batch..., kv_heads, seq_new, d_v]:
// f32, bf16 or f16; d_k and d_v from 1 to 1024. k_cache [batch..., kv_heads, capacity, d_k] and
// v_cache [batch..., kv_heads, capacity, d_v], each of a storage type of its own: f32, bf16, f16
// (the nearest), int8 or 4-bit groups (as quantize() stores them). Nothing but the new keys and
// values, and their scales, is written. The arrays must not overlap each other.
//
// Throws Error before anything is written: also where a batch element would grow beyond its
// capacity, where a page to be written is not one of the pool, and where two new keys would go to
// the same place of the same page. Thread-safe. The same bits on any executor.
RAPT_API void append_kv(const AnyK& k_new, const AnyV& v_new, const AnyKCache& k_cache,
                        const AnyVCache& v_cache, const AppendOptions& options);

}  // namespace rapt
