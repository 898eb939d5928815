// Random attention problems: sizes, options, layouts and data from one seed, in guarded memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/bounds.hpp"
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
  bool lse = true;
  Data data = Data::normal;
  bool dense = false;  // all views dense; otherwise random strides
  std::uint64_t seed = 1;

  // Draws everything from a seed, sizes mostly around the edges of tiles and vectors.
  static AttentionCase random(std::uint64_t seed, std::int64_t largest = 70);
  std::string describe() const;
};

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
  reference::Problem<float> problem(const reference::Batch& batch) const;

  // Whether key j of KV head g is attended by any query of that batch element.
  bool any_attends(const reference::Problem<float>& problem, std::int64_t g, std::int64_t j) const;

  // Poisons out and lse, calls rapt::attention, and checks that only their elements were written.
  void run(const Executor* executor = nullptr);

  // Gates A and C, for the last run.
  std::vector<ExpectedAttention> expect() const;  // one for each batch element
  void check(const std::vector<ExpectedAttention>& expected, bool strict = false) const;

  AttentionCase of;
  Tensor<float> q, k, v, out, lse;
  Tensor<bool> mask;
  Tensor<float> bias;

 private:
  AttentionData(const AttentionCase& from, Random random);
};

}  // namespace rapt::tests
