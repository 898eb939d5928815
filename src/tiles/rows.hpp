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

  // Divisions take as long as all else here, and most problems need none.
  Index query(Index r) const {
    return problem->group == 1 ? first + r : (first + r) / problem->group;
  }
  Index head(Index r) const {
    return problem->group == 1 ? kv_head : kv_head * problem->group + (first + r) % problem->group;
  }
  // What row r is to masks by position: it sees itself at key position(r).
  Index position(Index r) const { return query(r) + sequence.q_offset; }
  Index first_position() const { return position(0); }
  Index last_position() const { return position(count - 1); }

  Rows part(Index begin, Index n) const {
    return {problem, sequence, kv_head, first + begin, std::min(n, count - begin)};
  }

  // Where element [head, query] of an array like q lies, of any row r. The batch element is looked
  // up here, once for all of them.
  template <class T>
  auto of(const Array<T>& array) const {
    T* const element =
        problem->batch.element(array, sequence.number) + sequence.first_query * array.row_stride;
    return [rows = *this, element, head_stride = array.head_stride,
            row_stride = array.row_stride](Index r) {
      return element + rows.head(r) * head_stride + rows.query(r) * row_stride;
    };
  }
  template <class T>
  T* at(const Array<T>& array, Index r) const {
    return of(array)(r);
  }
  // Element [head] of an array like sinks.
  template <class T>
  T& of_head(const Array<T>& array, Index r) const {
    return problem->batch.element(array, sequence.number)[head(r) * array.head_stride];
  }
};

}  // namespace rapt::tiles
