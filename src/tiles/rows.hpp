// The rows of a task: which batch element, KV head, query and query head each of them is.
#pragma once

#include <algorithm>

#include "tiles/attention.hpp"

namespace rapt::tiles {

// Rows [first, first + count) of the group * seq_q rows that share one KV head.
struct Rows {
  const AttentionProblem* problem;
  Index batch, kv_head, first, count;

  Index query(Index r) const { return (first + r) / problem->group; }
  Index head(Index r) const { return kv_head * problem->group + (first + r) % problem->group; }
  Index first_query() const { return query(0); }
  Index last_query() const { return query(count - 1); }

  Rows part(Index begin, Index n) const {
    return {problem, batch, kv_head, first + begin, std::min(n, count - begin)};
  }

  template <class T>
  T* at(const Array<T>& array, Index r) const {
    return problem->batch.element(array, batch) + head(r) * array.head_stride +
           query(r) * array.row_stride;
  }
};

// Task number -> rows. Tasks of one KV head follow each other, so that K and V stay in the cache;
// its late query blocks come first: under a causal mask they are the longest, and a task that
// starts last should be short.
inline Rows rows_of_task(const AttentionPlan& plan, Index task) {
  const AttentionProblem& p = *plan.problem;
  const Index block = plan.row_blocks - 1 - task % plan.row_blocks;
  const Index element = task / plan.row_blocks;
  const Index first = block * plan.block_q;
  return {&p, element / p.kv_heads, element % p.kv_heads, first,
          std::min(plan.block_q, p.rows() - first)};
}

}  // namespace rapt::tiles
