// Tasks: their numbers, and the merging of what several of them leave of the same rows.
#pragma once

#include "tiles/mask.hpp"

namespace rapt::tiles {

// The state of the online softmax of some rows: the output so far, not yet divided by the sum.
struct State {
  float* out;      // [rows, d_v]
  float* row_max;  // [rows], -inf at first
  float* row_sum;  // [rows]
};

// Units [first, first + count).
struct UnitRange {
  Index first, count;
};

// One part of a unit.
struct Task {
  const Cut* cut;
  UnitRange wave;
  Index unit, part;
  Rows rows;
  Keys keys;      // of the part, as far as the rows may attend them
  State partial;  // where the part leaves its state for the merging; out is null where it is the
                  // only one, and writes the rows itself
  float* shared;  // of the wave
  const Task* next = nullptr;  // that this worker may get next: for the memory to be asked for
};

// The rows of a unit, and how it was cut.
Rows rows_of_unit(const AttentionProblem& problem, const Cut& cut, Index unit);
const Cut& cut_of_unit(const AttentionPlan& plan, Index unit);

// The number of a unit's first task.
Index first_task(const AttentionPlan& plan, Index unit);

// `shared`: plan.unit_floats for each unit of the wave.
Task task_at(const AttentionProblem& problem, const AttentionPlan& plan, UnitRange wave,
             Index number, float* shared);

// Cascade: where neighbours in the batch share their first keys, the task of the first of them may
// read those once for all, and leaves in each of their partial states what they would.

// Whether another task does this one's work.
bool is_joined(const AttentionPlan& plan, const Task& task);
// Moves on to the next task that the first one does; false where there is none.
bool next_joined(const AttentionProblem& problem, const AttentionPlan& plan, Task& task);

// Whether the parts of a wave's units must be merged.
inline bool merges(const AttentionPlan& plan) { return plan.unit_floats > 0; }

// Merges the parts of a unit, if it has several, in their order, and writes its rows.
void merge_parts(const AttentionProblem& problem, const AttentionPlan& plan, UnitRange wave,
                 Index unit, float* shared);

// The state with which a task begins: nothing attended yet but, in the first part, the sinks.
void begin_rows(const Task& task, float* row_max, float* row_sum);

// out = state.out / sum and lse; overwrites state.out.
void write_rows(const AttentionPlan& plan, const Rows& rows, const State& state);
// lse alone.
void write_lse(const Rows& rows, const float* row_max, const float* row_sum);

}  // namespace rapt::tiles
