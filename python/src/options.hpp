// The options of attention by their names, read from whatever has named values: the keywords of
// Python, the attributes and operands of XLA. To add an option, add its line here, and where
// signatures.hpp says it to people.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "array.hpp"

namespace rapt::python {

// read.value(name, field) sets a field where the name is given; read.array(name, view) a view.
template <class Reader>
void read_options(Reader& read, AttentionOptions& o) {
  std::array<std::int64_t, 2> window{-1, -1};
  read.value("causal", o.causal);
  read.array("q_offset", o.q_offsets);
  read.value("window", window);
  o.window_left = window[0];
  o.window_right = window[1];
  read.array("mask", o.mask);
  read.array("bias", o.bias);
  read.value("softcap", o.softcap);
  read.array("alibi_slopes", o.alibi_slopes);
  read.array("sinks", o.sinks);
  read.value("scale", o.scale);
  read.array("kv_lengths", o.kv_lengths);
  read.array("block_table", o.block_table);
  read.value("chunk", o.chunk);
  read.value("prefix", o.prefix);
  read.array("q_segments", o.q_segments);
  read.array("kv_segments", o.kv_segments);
  o.tree_keys = read.array("tree", o.tree);
  read.array("k_scales", o.k_scales);
  read.array("v_scales", o.v_scales);
  read.value("dropout_p", o.dropout.probability);
  read.value("dropout_seed", o.dropout.seed);
  read.value("dropout_offset", o.dropout.offset);
  std::optional<bool> round_weights;
  read.value("round_weights", round_weights);
  if (round_weights) o.round_weights = *round_weights ? RoundWeights::always : RoundWeights::never;
}

// Packed sequences.
template <class Reader>
void read_boundaries(Reader& read, AttentionOptions& o) {
  read.array("cu_seqlens_q", o.cu_seqlens_q);
  read.array("cu_seqlens_kv", o.cu_seqlens_kv);
}

}  // namespace rapt::python
