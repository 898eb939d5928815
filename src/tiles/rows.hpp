// The rows of a task: which batch element, KV head, query and query head each of them is.
#pragma once

#include <algorithm>

#include "tiles/attention.hpp"

namespace rapt::tiles {

// Rows [first, first + count) of the group * seq_q rows that share one KV head.
struct Rows {
  const AttentionProblem* problem;
  Sequence sequence;
  Index kv_head, first, count;

  Index query(Index r) const { return (first + r) / problem->group; }
  Index head(Index r) const { return kv_head * problem->group + (first + r) % problem->group; }
  // What row r is to masks by position: it sees itself at key position(r).
  Index position(Index r) const { return query(r) + sequence.q_offset; }
  Index first_position() const { return position(0); }
  Index last_position() const { return position(count - 1); }

  Rows part(Index begin, Index n) const {
    return {problem, sequence, kv_head, first + begin, std::min(n, count - begin)};
  }

  // Element [head, query] of an array like q.
  template <class T>
  T* at(const Array<T>& array, Index r) const {
    return problem->batch.element(array, sequence.number) + head(r) * array.head_stride +
           (sequence.first_query + query(r)) * array.row_stride;
  }
  // Element [head] of an array like sinks.
  template <class T>
  T& of_head(const Array<T>& array, Index r) const {
    return problem->batch.element(array, sequence.number)[head(r) * array.head_stride];
  }
};

}  // namespace rapt::tiles
