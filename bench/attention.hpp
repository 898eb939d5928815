// One attention of a shape: where each of its rows lies, and the call.
#pragma once

#include <cstdint>
#include <vector>

#include "rapt/attention.hpp"
#include "shapes.hpp"
#include "stored.hpp"

namespace rapt::bench {

// Rows of q and out are [batch, heads, seq_q], those of k and v [batch, kv_heads, seq_kv]. Packed
// (ragged) they are [heads, all positions], in pages [pages, kv_heads, page].
struct AttentionArrays {
  StoredRows q, k, v, out;
};

class AttentionLayout {
 public:
  explicit AttentionLayout(const Shape& shape);

  const Shape& shape() const { return shape_; }

  // How many rows the arrays have, and which of them is a query or a key of a batch element.
  std::int64_t q_rows() const;
  std::int64_t kv_rows() const;
  std::int64_t q_row(std::int64_t batch, std::int64_t head, std::int64_t query) const;
  std::int64_t kv_row(std::int64_t batch, std::int64_t kv_head, std::int64_t key) const;

  // One call of rapt.
  void run(const AttentionArrays& arrays, const Executor& executor) const;

 private:
  bool packs_q() const { return shape_.modifiers.ragged && shape_.operation != Operation::decode; }
  bool packs_kv() const { return shape_.modifiers.ragged; }
  std::int64_t total() const { return starts_.back(); }

  template <class AnyView>
  AnyView queries(const StoredRows& rows) const;
  template <class AnyView>
  AnyView keys(const StoredRows& rows) const;
  ScalesView scales(const StoredRows& rows) const;

  Shape shape_;
  AttentionSizes sizes_;
  std::vector<std::int32_t> lengths_;      // keys of each batch element
  std::vector<std::int32_t> starts_;       // keys before each, and of all
  std::int64_t pages_ = 0, pool_ = 0;      // of each batch element, and in memory
  std::vector<std::int32_t> block_table_;  // [batch, pages]
};

}  // namespace rapt::bench
