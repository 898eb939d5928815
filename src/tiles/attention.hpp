// Attention as the tiles see it: plain numbers, the plan that cut them into tasks, and the
// algorithms.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"
#include "tiles/array.hpp"

namespace rapt::tiles {

// A checked problem: every number here is known to be sound.
struct AttentionProblem {
  Batch batch;
  Index heads = 0, kv_heads = 0, group = 1;
  Index seq_q = 0, seq_kv = 0, d_k = 0, d_v = 0;
  float scale = 1.0f;
  bool causal = false;
  Index q_offset = 0;

  Array<const float> q, k, v;  // [head, position, depth]
  Array<float> out;            // [head, query, depth]
  Array<float> lse;            // [head, query], no column; may be absent
  Array<const bool> mask;      // [head, query, key]; may be absent
  Array<const float> bias;     // the same

  // Rows: the query heads of one KV head are rows of the same tile, so that K and V are read once
  // for all. Position-major, so that neighbours in a tile see nearly the same keys: row = query *
  // group + (head % group).
  Index rows() const { return seq_q * group; }
};

struct AttentionAlgorithm;

// A problem cut into tasks. It depends on problem, ISA and config row alone, never on the number of
// threads.
struct AttentionPlan {
  const AttentionProblem* problem = nullptr;
  const kernels::Kernels* kernels = nullptr;
  const kernels::TileKernel* tile = nullptr;
  const AttentionAlgorithm* algorithm = nullptr;
  Index block_q = 0;   // rows of one task
  Index block_kv = 0;  // keys of one step of the online softmax
  Index row_blocks = 0;
  Index tasks = 0;      // batch * kv_heads * row_blocks
  Index workspace = 0;  // floats that one worker needs, a multiple of 16
};

// What a config row says.
struct AttentionBlocks {
  const kernels::TileKernel* tile;
  Index block_q, block_kv, short_rows;
};

// The same functions for each algorithm; the list of them is in plan/attention_plan.cpp.
struct AttentionAlgorithm {
  const char* name;
  // Null, or the sentence that says why this algorithm is not taken.
  const char* (*refuse)(const AttentionProblem&, const AttentionBlocks&);
  // Fills blocks, tasks and workspace.
  void (*cut)(AttentionPlan&, const AttentionBlocks&);
  void (*run)(const AttentionPlan&, Index task, float* workspace);
};

extern const AttentionAlgorithm kFlashLanes;
extern const AttentionAlgorithm kFlashRows;

}  // namespace rapt::tiles
