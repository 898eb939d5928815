// Attention as the tiles see it: plain numbers, the plan that cut them into tasks, and the
// algorithms.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/kernels.hpp"
#include "rapt/attention.hpp"
#include "tiles/array.hpp"

namespace rapt::tiles {

// Extents and strides of k or v in a paged cache.
struct Pages {
  Array<const std::int32_t> table;  // [sequence, page]; absent: the cache is not paged
  Index size = 0;                   // keys of a page
};

// A checked problem: every number here is known to be sound.
struct AttentionProblem {
  Batch batch;  // packed or paged: one axis, the sequences
  Index heads = 0, kv_heads = 0, group = 1;
  Index d_k = 0, d_v = 0;
  float scale = 1.0f, softcap = 0.0f;
  Dropout dropout;
  RoundWeights round_weights = RoundWeights::where_native;

  Stored<const std::byte> q, k, v;        // [head, position, depth]; paged: k and v [page, ...]
  Array<const float> k_scales, v_scales;  // [head, position] of int8
  Stored<std::byte> out;                  // [head, query, depth]
  Array<float> lse;                       // [head, query], no column; may be absent
  Pages pages;

  // Lengths. A batch element has those of `longest`, unless an array says otherwise.
  struct Lengths {
    Index seq_q = 0, seq_kv = 0;
  } longest;
  Array<const std::int32_t> kv_lengths;       // [sequence]
  const std::int32_t* first_query = nullptr;  // cumulative, where packed
  const std::int32_t* first_key = nullptr;

  // Masks and what is added to scores; arrays may be absent.
  std::optional<Index> q_offset;        // default: seq_kv - seq_q
  Array<const std::int32_t> q_offsets;  // [sequence]
  bool causal = false;
  Index window_left = -1, window_right = -1, chunk = 0, prefix = 0;
  Array<const std::int32_t> q_segments, kv_segments;  // [position], in row_stride
  Array<const std::uint64_t> tree;                    // [query, word]
  Index tree_keys = 0;
  Array<const bool> mask;            // [head, query, key]
  Array<const float> bias;           // the same
  Array<const float> slopes, sinks;  // [head]
};

// One batch element: how long it is, and where it begins in arrays that hold several end to end.
struct Sequence {
  Index number = 0;
  Index seq_q = 0, seq_kv = 0, q_offset = 0;
  Index first_query = 0, first_key = 0;
};

struct AttentionAlgorithm;

// How a batch element is cut: into units, each a block of rows of one KV head, and a unit into
// parts, each some of the keys; a part is a task. All of it depends on the element alone, never on
// the rest of the batch or the number of threads.
struct Cut {
  Sequence sequence;  // the first of `count` neighbours that are cut alike
  Index count = 1;
  const AttentionAlgorithm* algorithm = nullptr;
  Index block_q = 0;   // rows of a unit
  Index block_kv = 0;  // keys of one step of the online softmax
  Index row_blocks = 0;
  Index part_kv = 0;  // keys of a part
  Index parts = 1;    // of a unit: more than one are merged, in their order
  Index first_unit = 0, first_task = 0;

  // Rows: the query heads of one KV head are rows of the same tile, so that K and V are read once
  // for all. Position-major, so that neighbours in a tile see nearly the same keys: row = query *
  // group + (head % group).
  Index rows = 0;
};

// A problem cut into tasks. It depends on problem, ISA and config row alone, never on the number of
// threads, and not on where the arrays are: it may be run on others of the same layout.
struct AttentionPlan {
  const kernels::Kernels* kernels = nullptr;
  const kernels::TileKernel* tile = nullptr;
  std::vector<Cut> cuts;
  Index units = 0, tasks = 0;
  Index wave_units = 0;   // units of one wave: all of them, unless their parts need much memory
  Index unit_floats = 0;  // what the parts of a unit leave for their merging, a multiple of 16
  Index workspace = 0;    // floats that one worker needs, a multiple of 16
  // Of each batch element: how many of its first parts hold the very keys and values of the element
  // before it, and as many rows. Empty where no element shares any.
  std::vector<Index> joined;
};

// What a config row says.
struct AttentionBlocks {
  const kernels::TileKernel* tile;
  bool native_pairs;  // of the target
  Index block_q, block_kv, short_rows, split_kv;
};

struct Task;  // tiles/task.hpp

// The same functions for each algorithm; the list of them is in plan/plan.cpp.
struct AttentionAlgorithm {
  const char* name;
  // Null, or the sentence that says why this algorithm is not taken for such an element.
  const char* (*refuse)(const AttentionProblem&, const Sequence&, const AttentionBlocks&);
  // Fills the cut's blocks and parts.
  void (*cut)(const AttentionProblem&, const AttentionPlan&, const AttentionBlocks&, Cut&);
  // Floats that a worker needs.
  Index (*workspace)(const AttentionProblem&, const AttentionPlan&, const Cut&);
  void (*run)(const AttentionPlan&, const Task&, float* workspace);
};

// Whether all of it is bf16, of which RoundWeights may speak. `out`: its type.
inline bool all_bf16(const AttentionProblem& p, Type out) {
  return p.q.type == Type::bf16 && p.k.type == Type::bf16 && p.v.type == Type::bf16 &&
         out == Type::bf16;
}
// Null where products may be of pairs of bf16, or the sentence that says why not.
const char* refuse_pairs(const AttentionProblem&, Type out, const AttentionBlocks&);

extern const AttentionAlgorithm kFlashPairs;
extern const AttentionAlgorithm kFlashLanes;
extern const AttentionAlgorithm kFlashRowsPairs;
extern const AttentionAlgorithm kFlashRows;

}  // namespace rapt::tiles
