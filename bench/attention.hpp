// One attention of a shape: where each of its rows lies, and the call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rapt/attention.hpp"
#include "rapt/plan.hpp"
#include "shapes.hpp"
#include "stored.hpp"

namespace rapt::bench {

// Rows of q and out are [batch, heads, seq_q], those of k and v [batch, kv_heads, seq_kv]. Packed
// they are [heads, all positions], in pages [pages, kv_heads, page]; with `bshd` heads come last.
struct AttentionArrays {
  StoredRows q, k, v, out;
};

// Those of the backward pass: rows of grad_out lie as those of out, each gradient's as those of
// what it is of. lse lies as out does, a number for each row.
struct BackwardArrays {
  AttentionArrays forward;
  StoredRows dout, dq, dk, dv;
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

  // Rows of queries that fill up a batch element, which have no gradients.
  std::vector<std::int64_t> padding() const;

  // Whether query i of a head attends a key.
  bool attended(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key) const;
  // What is added to the scaled and capped score of such a pair.
  double bias(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key) const;
  // The score of the sink of a head, where there are sinks.
  double sink(std::int64_t head) const { return sinks_[static_cast<std::size_t>(head)]; }
  static constexpr float kSoftcap = 30;  // where scores are capped
  // What a weight is multiplied by: 0 where dropout drops it.
  double kept(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key) const;
  static constexpr float kDropout = 0.125f;

  // What the last forward pass left, of the row of a query, and the gradient of that.
  double lse(std::int64_t q_row) const { return lse_[static_cast<std::size_t>(q_row)]; }
  double dlse(std::int64_t q_row) const {
    return dlse_.empty() ? 0 : dlse_[static_cast<std::size_t>(q_row)];
  }
  // Gradients that the last backward pass left; of a bias [1 or heads, positions, seq_kv].
  std::span<float> dbias() const { return dbias_; }
  std::span<float> dslopes() const { return dslopes_; }
  std::span<float> dsinks() const { return dsinks_; }
  std::size_t bias_at(std::int64_t batch, std::int64_t head, std::int64_t query,
                      std::int64_t key) const {
    return pair(shape_.modifiers.bias, batch, head, query, key);
  }

  // One call of rapt, and how it is done.
  void run(const AttentionArrays& arrays, const Executor& executor) const;
  Explanation explain(const AttentionArrays& arrays) const;
  // What run() makes and runs. It refers to this and to the arrays.
  AttentionPlan plan(const AttentionArrays& arrays, const Executor& executor) const;
  // And of the gradients, from what a call of run() left in out and lse.
  void run_backward(const BackwardArrays& arrays, const Executor& executor) const;
  Explanation explain_backward(const BackwardArrays& arrays) const;
  AttentionBackwardPlan plan_backward(const BackwardArrays& arrays, const Executor& executor) const;

 private:
  std::int64_t element(const std::vector<std::int32_t>& starts, std::int64_t batch) const {
    return starts[static_cast<std::size_t>(batch)];
  }
  // Where the pair of a query and a key is in mask, bias and tree.
  std::int64_t position(std::int64_t batch, std::int64_t query) const {
    return shape_.modifiers.packed_q ? element(q_starts_, batch) + query : query;
  }
  std::int64_t positions() const {
    return shape_.modifiers.packed_q ? q_starts_.back() : sizes_.seq_q;
  }
  std::size_t pair(Pairs pairs, std::int64_t batch, std::int64_t head, std::int64_t query,
                   std::int64_t key) const {
    const std::int64_t h = pairs == Pairs::each ? head : 0;
    return static_cast<std::size_t>((h * positions() + position(batch, query)) * width_ + key);
  }
  void make_pages(std::int64_t page);
  void make_pairs();

  template <class AnyView>
  AnyView view(const StoredRows& rows, std::int64_t batch, std::int64_t heads,
               std::int64_t seq) const;
  template <class AnyView>
  AnyView queries(const StoredRows& rows) const;
  template <class AnyView>
  AnyView keys(const StoredRows& rows) const;
  ScalesView scales(const StoredRows& rows) const;
  LseView numbers(std::vector<float>& each) const;
  template <class Call>
  auto with_backward(const BackwardArrays& arrays, const Executor* executor,
                     const Call& call) const;
  AttentionOptions options(const AttentionArrays& arrays) const;

  Shape shape_;
  AttentionSizes sizes_;
  std::vector<std::int32_t> lengths_;               // keys of each batch element
  std::vector<std::int32_t> q_starts_, kv_starts_;  // queries and keys before each, and of all
  std::vector<std::int32_t> offsets_;               // of each, where they are not all the same
  std::int64_t width_ = 0;                          // keys of a row of mask and bias
  std::int64_t pages_ = 0, pool_ = 0;               // of each batch element, and in memory
  std::vector<std::int32_t> block_table_;           // [batch, pages]
  std::vector<std::int32_t> q_segments_, kv_segments_;
  std::vector<std::uint8_t> mask_;   // bool: [1 or heads, positions, seq_kv]
  std::vector<float> bias_;          // the same
  std::vector<std::uint64_t> tree_;  // [positions, words]
  std::vector<float> slopes_, sinks_;
  mutable std::vector<float> lse_, dlse_;  // [batch, heads, seq_q], or packed; as rows of q lie
  mutable std::vector<float> dbias_, dslopes_, dsinks_;
};

}  // namespace rapt::bench
