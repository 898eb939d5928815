// New keys and values into a KV cache.
#pragma once

#include "tiles/attention.hpp"
#include "tiles/rope.hpp"

namespace rapt::tiles {

// rapt::append_kv(), checked.
struct AppendProblem {
  Batch batch;  // packed or paged: one axis, the sequences
  Index kv_heads = 0, d_k = 0, d_v = 0;
  Index new_keys = 0;                       // of all batch elements
  Index seq_new = 0;                        // of one, where they are not packed
  const std::int32_t* first_new = nullptr;  // cumulative, where packed
  Stored<const std::byte> k_new, v_new;     // [head, new key, depth]
  Stored<std::byte> k_cache, v_cache;       // [head, key, depth]; paged: [page, ...]
  Array<float> k_scales, v_scales;          // [head, key] of int8
  Array<const std::int32_t> kv_lengths;     // [element]
  Array<const std::int32_t> positions;      // [element, new key], in row_stride; may be absent
  Pages pages;
  Rope rope;

  Index rows() const { return new_keys; }
  Index row_floats() const { return kv_heads * (d_k + d_v); }
};

// One new key and its value, of all heads.
void run_row(const AppendProblem& problem, const kernels::Kernels& kernels, Index row);

}  // namespace rapt::tiles
