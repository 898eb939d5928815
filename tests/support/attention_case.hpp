// Random attention problems: sizes, options, layouts and data from one seed, in guarded memory.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/bounds.hpp"
#include "support/stored.hpp"
#include "support/tensor.hpp"

namespace rapt::tests {

// What the numbers are drawn from.
enum class Data {
  normal,         // N(0, 1)
  large_queries,  // queries x 20: a few keys win
  value_mean_1,   // values N(1, 1): what blinds norms
  rising,         // every key scores higher than the ones before it
  falling,        // and lower
  one_dominant,   // one key far ahead
  equal,          // all scores equal
  far_below,      // all scores near -1e4
  integers,       // small integers
  count,
};

enum class Pairs {
  none,
  random,
  empty_rows,
  first_keys_out,
  middle_keys_out,
  last_keys_out,
  all_out
};

// How the keys and values of a batch lie in memory.
enum class Cache { full, lengths, packed, paged };

struct AttentionCase {
  std::vector<std::int64_t> batch;
  std::int64_t heads = 1, kv_heads = 1, seq_q = 1, seq_kv = 1, d_k = 1, d_v = 1;
  bool causal = false;
  std::optional<std::int64_t> q_offset;
  std::optional<float> scale;
  Pairs mask = Pairs::none, bias = Pairs::none;
  // Axes on which mask and bias are broadcast: bit 0 heads, 1 seq_q, 2 seq_kv, 3 batch axes of
  // extent 1, 4 no batch axes.
  unsigned mask_broadcast = 0, bias_broadcast = 0;
  // Masks by position, document and tree; what is added to scores; see AttentionOptions.
  std::int64_t window_left = -1, window_right = -1, chunk = 0, prefix = 0, tree_keys = 0;
  bool segments = false, alibi = false, sinks = false;
  float softcap = 0;
  // Batch elements of unequal length: seq_q and seq_kv are those of the longest. What is packed or
  // paged has exactly one batch axis.
  Cache cache = Cache::full;
  std::int64_t page_size = 1;
  bool shared_pages = false;  // a sequence begins with pages of the one before it
  bool packed_q = false, q_offsets = false;
  Type q_type = Type::f32, k_type = Type::f32, v_type = Type::f32, out_type = Type::f32;
  RoundWeights round_weights = RoundWeights::never;
  float dropout = 0;
  bool lse = true;
  Data data = Data::normal;
  bool dense = false;  // all views dense; otherwise random strides
  std::uint64_t seed = 1;

  // Draws everything from a seed, sizes mostly around the edges of tiles and vectors.
  static AttentionCase random(std::uint64_t seed, std::int64_t largest = 70);
  // One line that says everything, name=value for each field that is not the default; and back,
  // throwing std::invalid_argument where a word is none of these.
  std::string describe() const;
  static AttentionCase parse(const std::string& text);
  // Whether it is a problem that rapt takes.
  bool valid() const;
  // Whether weights may be rounded to bf16, see RoundWeights.
  bool may_round() const;
};

// One in five with dropout: its weights depend on the batch element's number, unlike all else.
AttentionCase with_dropout(AttentionCase c);

// Calls visit(name, field...) for each field of a case, or of some cases side by side.
template <class Visit, class... Case>
void for_each_field(const Visit& visit, Case&... c) {
  visit("batch", c.batch...);
  visit("heads", c.heads...);
  visit("kv_heads", c.kv_heads...);
  visit("seq_q", c.seq_q...);
  visit("seq_kv", c.seq_kv...);
  visit("d_k", c.d_k...);
  visit("d_v", c.d_v...);
  visit("causal", c.causal...);
  visit("q_offset", c.q_offset...);
  visit("scale", c.scale...);
  visit("mask", c.mask...);
  visit("bias", c.bias...);
  visit("mask_broadcast", c.mask_broadcast...);
  visit("bias_broadcast", c.bias_broadcast...);
  visit("window_left", c.window_left...);
  visit("window_right", c.window_right...);
  visit("chunk", c.chunk...);
  visit("prefix", c.prefix...);
  visit("tree_keys", c.tree_keys...);
  visit("segments", c.segments...);
  visit("alibi", c.alibi...);
  visit("sinks", c.sinks...);
  visit("softcap", c.softcap...);
  visit("cache", c.cache...);
  visit("page_size", c.page_size...);
  visit("shared_pages", c.shared_pages...);
  visit("packed_q", c.packed_q...);
  visit("q_offsets", c.q_offsets...);
  visit("q_type", c.q_type...);
  visit("k_type", c.k_type...);
  visit("v_type", c.v_type...);
  visit("out_type", c.out_type...);
  visit("round_weights", c.round_weights...);
  visit("dropout", c.dropout...);
  visit("lse", c.lse...);
  visit("data", c.data...);
  visit("dense", c.dense...);
  visit("seed", c.seed...);
}

// Sequence b of what is packed along seq_q or has the batch axes of the problem: of q, out, lse.
template <class AnyView>
AnyView queries_of(const AnyView& view, const AttentionOptions& options,
                   const reference::Batch& batch) {
  if (!view || !options.cu_seqlens_q) return batch_element(view, batch);
  const std::int32_t* first = options.cu_seqlens_q.data() + batch.position[0];
  const std::int64_t all = options.cu_seqlens_q.extent<axis::Boundary>() - 1;
  const bool broadcast = view.template extent<axis::Query>() != options.cu_seqlens_q.data()[all];
  return broadcast ? view : reference::slice<axis::Query>(view, first[0], first[1] - first[0]);
}

// One sequence of packed or paged arrays as a problem of its own. The keys and values of pages are
// copied to `gathered`, two more vectors.
using Gathered = std::vector<std::unique_ptr<std::vector<float>>>;
reference::Problem<float> sequence_at(QView q, KView k, VView v, const AttentionOptions& options,
                                      const reference::Batch& batch, Gathered& gathered);

// A case with memory.
class AttentionData {
 public:
  explicit AttentionData(const AttentionCase& from);

  QView q_view() const { return q.view<axis::Head, axis::Query, axis::DepthK>(); }
  KView k_view() const { return k.view<axis::KvHead, axis::Key, axis::DepthK>(); }
  VView v_view() const { return v.view<axis::KvHead, axis::Key, axis::DepthV>(); }
  OutView out_view() const { return out.view<axis::Head, axis::Query, axis::DepthV>(); }
  LseView lse_view() const { return of.lse ? lse.view<axis::Head, axis::Query>() : LseView(); }
  AttentionOptions options() const;
  // One batch element, in memory of its own where it is paged.
  reference::Problem<float> problem(const reference::Batch& batch) const;
  OutView out_of(const reference::Batch& batch) const;
  LseView lse_of(const reference::Batch& batch) const;

  std::int64_t elements() const;  // of the batch
  // Calls visit(batch) for each element.
  void for_each_element(const std::function<void(const reference::Batch&)>& visit) const;
  std::int64_t seq_q(std::int64_t element) const;
  std::int64_t seq_kv(std::int64_t element) const;
  // The number of key j of KV head g in the tensors k and v, counted in keys.
  std::int64_t key_row(std::int64_t element, std::int64_t g, std::int64_t j) const;

  // Whether key j of KV head g is attended by any query of that batch element.
  bool any_attends(const reference::Problem<float>& problem, std::int64_t g, std::int64_t j) const;

  // Poisons out and lse, calls rapt::attention, and checks that only their elements were written.
  void run(const Executor* executor = nullptr);
  // What run() does before and after the call.
  void prepare();
  void finish();

  // Gates A and C, for the last run.
  std::vector<ExpectedAttention> expect() const;  // one for each batch element
  void check(const std::vector<ExpectedAttention>& expected, bool strict = false) const;

  // q, k and v as any storage type gives them, and out as any takes it.
  AnyQ stored_q() const { return stored_[0].view<AnyQ, axis::Head, axis::Query, axis::DepthK>(); }
  AnyK stored_k() const { return stored_[1].view<AnyK, axis::KvHead, axis::Key, axis::DepthK>(); }
  AnyV stored_v() const { return stored_[2].view<AnyV, axis::KvHead, axis::Key, axis::DepthV>(); }
  AnyOut stored_out() const {
    return stored_[3].view<AnyOut, axis::Head, axis::Query, axis::DepthV>();
  }

  AttentionCase of;
  Tensor<float> q, k, v, out, lse;  // as floats
  Tensor<bool> mask;
  Tensor<float> bias;
  Tensor<std::int32_t> q_segments, kv_segments;
  Tensor<std::uint64_t> tree;
  Tensor<float> slopes, sinks;

 private:
  // Lengths, offsets and pages, drawn from the seed.
  struct Lengths {
    std::vector<std::int32_t> q, kv, q_offsets;  // of each batch element
    std::vector<std::int32_t> cumulative_q, cumulative_kv;
    std::vector<std::int32_t> table;           // [element, pages of one]
    std::int64_t pages = 0, pages_of_one = 0;  // of the pool; of the longest
    Lengths(const AttentionCase& of, Random& random);
  };
  AttentionData(const AttentionCase& from, Random random, const Lengths& lengths);

  Lengths lengths_;
  std::vector<StoredTensor> stored_;  // q, k, v, out
  mutable Gathered gathered_;
};

}  // namespace rapt::tests
