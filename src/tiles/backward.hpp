// The backward pass as the tiles see it: plain numbers, and the plan that cut it into tasks.
#pragma once

#include <vector>

#include "tiles/attention.hpp"
#include "tiles/task.hpp"

namespace rapt::tiles {

// The one algorithm that there is, of floats and of pairs of bf16.
inline constexpr const char* kBackwardName = "flash_backward";
inline constexpr const char* kBackwardPairsName = "flash_backward_pairs";

// A checked problem.
struct BackwardProblem {
  AttentionProblem forward;               // without outputs
  Stored<const std::byte> out, grad_out;  // [head, query, depth]
  Array<const float> lse;                 // [head, query]
  Array<const float> grad_lse;            // [head, query]; may be absent
  Stored<std::byte> grad_q, grad_k, grad_v;
  Index queries = 0;  // of q: where packed, those of all sequences
  // May be absent. What is broadcast has the stride 0 here as there: the sum over that axis.
  Array<float> grad_bias;                // [head, query, key]
  Array<float> grad_slopes, grad_sinks;  // [head]
};

// How a batch element is cut. A unit is a KV head: its keys' gradients have a part from every row,
// so that a task holds the sums over some of the rows, for all keys. The parts of a unit are added
// in their order. All of it depends on the element alone.
struct BackwardCut {
  Sequence sequence;  // the first of `count` neighbours that are cut alike
  Index count = 1;
  Index rows = 0;      // group x seq_q
  Index block_q = 0;   // rows of a tile
  Index block_kv = 0;  // keys of a tile
  Index part_rows = 0, parts = 1;
  Index capacity = 0;  // keys that the element's arrays have: those beyond seq_kv do not exist
  Index first_unit = 0, first_task = 0;
};

struct BackwardPlan {
  const kernels::Kernels* kernels = nullptr;
  const kernels::TileKernel* tile = nullptr;
  const char* refuse_pairs = nullptr;  // null where products are of pairs of bf16; or why not
  std::vector<BackwardCut> cuts;
  Index units = 0, tasks = 0;
  Index wave_units = 0;         // units of one wave: all, unless their sums need much memory
  Index unit_floats = 0;        // for the sums of a unit, a multiple of 16
  Index slope_floats = 0;       // what each task leaves of the ALiBi slopes' gradients, likewise
  Index workspace = 0;          // floats that one worker needs, a multiple of 16
  Index head_tasks = 0;         // for the gradients of slopes and sinks: one for each head
  Index bias_tasks = 0;         // for that of the bias
  Index bias_queries = 0;       // of one of these
  Batch bias_own, bias_shared;  // batch axes that the bias has; those that it is broadcast on

  bool pairs() const { return refuse_pairs == nullptr; }
  const char* name() const { return pairs() ? kBackwardPairsName : kBackwardName; }
  Index shared() const { return wave_units * unit_floats + tasks * slope_floats; }
};

// Floats of the sums of one part over the gradients of its keys, in whole panels.
Index sum_floats(const BackwardProblem& problem, const BackwardPlan& plan, Index seq_kv);
// Whether a unit's first part sums in grad_k and grad_v themselves.
bool sums_in_place(const BackwardProblem& problem, const BackwardPlan& plan);
Index backward_workspace(const BackwardProblem& problem, const BackwardPlan& plan);

// Task `number`: gradients of some rows of q, and their part of those of a KV head's k and v.
void run_backward(const BackwardProblem& problem, const BackwardPlan& plan, UnitRange wave,
                  Index number, float* shared, float* workspace);
// Adds the parts of a unit of the wave, and writes its rows of grad_k and grad_v.
void finish_unit(const BackwardProblem& problem, const BackwardPlan& plan, UnitRange wave,
                 Index unit, float* shared, float* workspace);
// All rows of a unit of that cut: of its KV head.
Rows rows_of_unit(const BackwardProblem& problem, const BackwardCut& cut, Index unit);
// The tasks of a unit of the wave are [first_task(unit), first_task(unit + 1)).
Index first_task(const BackwardPlan& plan, Index unit);

// The gradients of one head's slopes and sinks, after all waves.
void run_head(const BackwardProblem& problem, const BackwardPlan& plan, Index head, float* shared,
              float* workspace);
// The gradients of some elements of the bias, summed over all pairs to which they are added.
void run_bias(const BackwardProblem& problem, const BackwardPlan& plan, Index task,
              float* workspace);
// Instead of both where there are no units: sums over nothing.
void write_zeros(const BackwardProblem& problem);

}  // namespace rapt::tiles
