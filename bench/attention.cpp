#include "attention.hpp"

#include <array>
#include <cmath>
#include <random>
#include <utility>

#include "rapt/rapt.hpp"

namespace rapt::bench {
namespace {

// 0 to n - 1 in an order that is always the same: where a cache has been in use for a while,
// neighbours in a sequence are none in memory.
std::vector<std::int32_t> shuffled(std::int64_t n) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::mt19937_64 random(1);
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<std::int32_t>(i);
    std::swap(order[i], order[random() % (i + 1)]);
  }
  return order;
}

constexpr std::int64_t kDropoutSeed = 0x123456789abcdef;
constexpr std::uint32_t kDropoutOffset = 3;

// A number that looks random, the same for the same pair.
std::uint64_t hash(std::int64_t head, std::int64_t query, std::int64_t key) {
  std::uint64_t x = static_cast<std::uint64_t>(head) * 0x9e3779b97f4a7c15u ^
                    static_cast<std::uint64_t>(query) * 0xbf58476d1ce4e5b9u ^
                    static_cast<std::uint64_t>(key) * 0x94d049bb133111ebu;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  return x ^ x >> 32;
}

}  // namespace

AttentionLayout::AttentionLayout(const Shape& shape)
    : shape_(shape), sizes_(shape.attention()), q_starts_{0}, kv_starts_{0} {
  const Modifiers& m = shape.modifiers;
  for (std::int64_t b = 0; b < sizes_.batch; ++b) {
    lengths_.push_back(static_cast<std::int32_t>(shape.keys(b)));
    kv_starts_.push_back(kv_starts_.back() + lengths_.back());
    q_starts_.push_back(q_starts_.back() + static_cast<std::int32_t>(shape.queries(b)));
    if (m.offsets.size() > 1) offsets_.push_back(static_cast<std::int32_t>(shape.offset(b)));
  }
  width_ = sizes_.seq_kv;
  if (m.page > 0) make_pages(m.page);
  make_pairs();
}

void AttentionLayout::make_pages(std::int64_t page) {
  pages_ = (sizes_.seq_kv + page - 1) / page;
  width_ = pages_ * page;
  const std::int64_t shared = shape_.shared_keys() / page;
  pool_ = shared + sizes_.batch * (pages_ - shared);
  const std::vector<std::int32_t> order = shuffled(pool_);
  for (std::int64_t b = 0; b < sizes_.batch; ++b) {
    for (std::int64_t n = 0; n < pages_; ++n) {
      const std::int64_t at = n < shared ? n : n + b * (pages_ - shared);
      block_table_.push_back(order[static_cast<std::size_t>(at)]);
    }
  }
}

// Seven of eight pairs are attended; biases are -1 to 1 in eighths; node i of a tree has the
// parent (i - 1) / 2.
void AttentionLayout::make_pairs() {
  const Modifiers& m = shape_.modifiers;
  const auto fill = [&](Pairs pairs, auto& array, auto value) {
    const std::int64_t heads = pairs == Pairs::each ? sizes_.heads : 1;
    for (std::int64_t h = 0; pairs != Pairs::none && h < heads; ++h) {
      for (std::int64_t i = 0; i < positions(); ++i) {
        for (std::int64_t j = 0; j < width_; ++j) array.push_back(value(hash(h, i, j)));
      }
    }
  };
  fill(m.mask, mask_, [](std::uint64_t x) { return std::uint8_t{x % 8 != 0}; });
  fill(m.bias, bias_, [](std::uint64_t x) { return static_cast<float>(x % 17) / 8 - 1; });
  for (std::int64_t h = 0; m.alibi && h < sizes_.heads; ++h)
    slopes_.push_back(std::ldexp(1.0f, static_cast<int>(-1 - h % 8)));
  for (std::int64_t h = 0; m.sinks && h < sizes_.heads; ++h)
    sinks_.push_back(static_cast<float>(h % 3 - 1));
  const auto rows = static_cast<std::size_t>(q_rows());
  if (m.lse || m.pass != Pass::forward) lse_.resize(rows);
  for (std::size_t row = 0; m.dlse && row < rows; ++row)
    dlse_.push_back(static_cast<float>(hash(0, static_cast<std::int64_t>(row), 1) % 17) / 8 - 1);
  for (const std::int64_t row : m.dlse ? padding() : std::vector<std::int64_t>())
    dlse_[static_cast<std::size_t>(row)] = 0;
  if (m.dbias) dbias_.resize(bias_.size());
  if (m.dalibi) dslopes_.resize(slopes_.size());
  if (m.dsinks) dsinks_.resize(sinks_.size());
  if (m.tree > 0) {
    const std::int64_t words = (m.tree + 63) / 64;
    tree_.resize(static_cast<std::size_t>(positions() * words));
    for (std::int64_t i = 0; i < positions(); ++i) {
      for (std::int64_t node = i % m.tree;; node = (node - 1) / 2) {
        tree_[static_cast<std::size_t>(i * words + node / 64)] |= std::uint64_t{1} << node % 64;
        if (node == 0) break;
      }
    }
  }
  // [batch, seq], or packed.
  for (std::int64_t b = 0; m.segments && b < sizes_.batch; ++b) {
    for (std::int64_t i = 0; i < (m.packed_q ? shape_.queries(b) : sizes_.seq_q); ++i)
      q_segments_.push_back(static_cast<std::int32_t>(shape_.document(b, i + shape_.offset(b))));
    for (std::int64_t j = 0; j < (m.packed_kv ? shape_.keys(b) : width_); ++j)
      kv_segments_.push_back(static_cast<std::int32_t>(shape_.document(b, j)));
  }
}

bool AttentionLayout::attended(std::int64_t batch, std::int64_t head, std::int64_t query,
                               std::int64_t key) const {
  const Modifiers& m = shape_.modifiers;
  if (!shape_.keys_of(batch, query).has(key)) return false;
  if (m.mask != Pairs::none && mask_[pair(m.mask, batch, head, query, key)] == 0) return false;
  const std::int64_t node = key - (shape_.keys(batch) - m.tree);
  if (m.tree == 0 || node < 0) return true;
  const std::int64_t words = (m.tree + 63) / 64;
  const auto word = static_cast<std::size_t>(position(batch, query) * words + node / 64);
  return (tree_[word] >> node % 64 & 1) != 0;
}

double AttentionLayout::bias(std::int64_t batch, std::int64_t head, std::int64_t query,
                             std::int64_t key) const {
  const Modifiers& m = shape_.modifiers;
  double sum = 0;
  if (m.alibi) {
    sum += double{slopes_[static_cast<std::size_t>(head)]} *
           static_cast<double>(key - query - shape_.offset(batch));
  }
  if (m.bias != Pairs::none) sum += double{bias_[pair(m.bias, batch, head, query, key)]};
  return sum;
}

// Philox 4x32-10, as attention.hpp says: written here once more, because results are checked with
// it.
double AttentionLayout::kept(std::int64_t batch, std::int64_t head, std::int64_t query,
                             std::int64_t key) const {
  if (!shape_.modifiers.dropout) return 1;
  const auto word = [](std::int64_t n) { return static_cast<std::uint32_t>(n); };
  std::array<std::uint32_t, 4> x = {word(key / 4), word(query), word(batch * sizes_.heads + head),
                                    kDropoutOffset};
  std::array<std::uint32_t, 2> seed = {word(kDropoutSeed), word(kDropoutSeed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * x[0],
                        b = std::uint64_t{0xCD9E8D57u} * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ seed[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ seed[1], static_cast<std::uint32_t>(a)};
    seed = {seed[0] + 0x9E3779B9u, seed[1] + 0xBB67AE85u};
  }
  const double limit = double{kDropout} * 0x1p32;
  return x[static_cast<std::size_t>(key % 4)] < limit ? 0 : 1 / (1 - double{kDropout});
}

std::int64_t AttentionLayout::q_rows() const {
  return sizes_.heads *
         (shape_.modifiers.packed_q ? q_starts_.back() : sizes_.batch * sizes_.seq_q);
}

std::int64_t AttentionLayout::kv_rows() const {
  if (pool_ > 0) return pool_ * sizes_.kv_heads * shape_.modifiers.page;
  return sizes_.kv_heads *
         (shape_.modifiers.packed_kv ? kv_starts_.back() : sizes_.batch * sizes_.seq_kv);
}

namespace {

// Of a dense array [heads, seq], or [seq, heads] with bshd.
std::int64_t row_in(bool bshd, std::int64_t heads, std::int64_t seq, std::int64_t head,
                    std::int64_t position) {
  return bshd ? position * heads + head : head * seq + position;
}

}  // namespace

std::int64_t AttentionLayout::q_row(std::int64_t batch, std::int64_t head,
                                    std::int64_t query) const {
  const Modifiers& m = shape_.modifiers;
  const std::int64_t first = m.packed_q ? 0 : batch * sizes_.heads * sizes_.seq_q;
  return first + row_in(m.bshd, sizes_.heads, positions(), head, position(batch, query));
}

std::vector<std::int64_t> AttentionLayout::padding() const {
  std::vector<std::int64_t> rows;
  for (std::int64_t b = 0; shape_.modifiers.padded && b < sizes_.batch; ++b) {
    for (std::int64_t h = 0; h < sizes_.heads; ++h) {
      for (std::int64_t i = shape_.queries(b); i < sizes_.seq_q; ++i)
        rows.push_back(q_row(b, h, i));
    }
  }
  return rows;
}

std::int64_t AttentionLayout::kv_row(std::int64_t batch, std::int64_t kv_head,
                                     std::int64_t key) const {
  const Modifiers& m = shape_.modifiers;
  const std::int64_t heads = sizes_.kv_heads;
  if (pool_ > 0) {
    const auto entry = static_cast<std::size_t>(batch * pages_ + key / m.page);
    return block_table_[entry] * heads * m.page +
           row_in(m.bshd, heads, m.page, kv_head, key % m.page);
  }
  if (m.packed_kv)
    return row_in(m.bshd, heads, kv_starts_.back(), kv_head, element(kv_starts_, batch) + key);
  return batch * heads * sizes_.seq_kv + row_in(m.bshd, heads, sizes_.seq_kv, kv_head, key);
}

// batch 0: no such axis.
template <class AnyView>
AnyView AttentionLayout::view(const StoredRows& rows, std::int64_t batch, std::int64_t heads,
                              std::int64_t seq) const {
  const std::int64_t d = row_elements(rows.type, rows.depth);
  const bool bshd = shape_.modifiers.bshd;
  const std::int64_t extents[] = {batch, heads, seq, d};
  const std::int64_t strides[] = {heads * seq * d, bshd ? d : seq * d, bshd ? heads * d : d, 1};
  const int from = batch == 0 ? 1 : 0;
  const auto rank = static_cast<std::size_t>(4 - from);
  return with_element(rows.type, [&](auto) {
    using Byte = std::remove_pointer_t<decltype(AnyView().data())>;
    return AnyView(rows.type, static_cast<Byte*>(rows.data), extents + from, rank, strides + from,
                   rank);
  });
}

template <class AnyView>
AnyView AttentionLayout::queries(const StoredRows& rows) const {
  return view<AnyView>(rows, shape_.modifiers.packed_q ? 0 : sizes_.batch, sizes_.heads,
                       positions());
}

template <class AnyView>
AnyView AttentionLayout::keys(const StoredRows& rows) const {
  if (pool_ > 0) return view<AnyView>(rows, pool_, sizes_.kv_heads, shape_.modifiers.page);
  if (shape_.modifiers.packed_kv) return view<AnyView>(rows, 0, sizes_.kv_heads, kv_starts_.back());
  return view<AnyView>(rows, sizes_.batch, sizes_.kv_heads, sizes_.seq_kv);
}

// Scales lie as the rows do.
ScalesView AttentionLayout::scales(const StoredRows& rows) const {
  if (rows.type != Type::int8) return {};
  StoredRows one = rows;
  one.depth = 1;
  const AnyK as_keys = keys<AnyK>(one);
  std::int64_t extents[3] = {0, as_keys.extent<axis::KvHead>(), as_keys.extent<axis::Key>()};
  std::int64_t strides[3] = {0, as_keys.stride<axis::KvHead>(), as_keys.stride<axis::Key>()};
  const int from = as_keys.batch_axes() == 0 ? 1 : 0;
  if (from == 0) {
    extents[0] = as_keys.batch_extent(0);
    strides[0] = as_keys.batch_stride(0);
  }
  const auto rank = static_cast<std::size_t>(3 - from);
  return {rows.scales, extents + from, rank, strides + from, rank};
}

AttentionOptions AttentionLayout::options(const AttentionArrays& arrays) const {
  const Modifiers& m = shape_.modifiers;
  const AttentionSizes& s = sizes_;
  AttentionOptions o;
  o.causal = m.causal;
  o.window_left = m.left;
  o.window_right = m.right;
  o.chunk = m.chunk;
  o.prefix = m.prefix;
  if (m.offsets.size() == 1) o.q_offset = m.offsets[0];
  if (!offsets_.empty()) o.q_offsets = {offsets_.data(), {s.batch}};
  if (m.softcap) o.softcap = kSoftcap;
  if (m.dropout) o.dropout = {kDropout, kDropoutSeed, kDropoutOffset};
  if (m.alibi) o.alibi_slopes = {slopes_.data(), {s.heads}};
  if (m.sinks) o.sinks = {sinks_.data(), {s.heads}};
  const auto pairs = [&](Pairs which) {
    return std::array<std::int64_t, 3>{which == Pairs::each ? s.heads : 1, positions(), width_};
  };
  if (m.mask != Pairs::none) {
    const auto e = pairs(m.mask);
    o.mask = {reinterpret_cast<const bool*>(mask_.data()), {e[0], e[1], e[2]}};
  }
  if (m.bias != Pairs::none) {
    const auto e = pairs(m.bias);
    o.bias = {bias_.data(), {e[0], e[1], e[2]}};
  }
  if (m.tree > 0) {
    o.tree = {tree_.data(), {positions(), (m.tree + 63) / 64}};
    o.tree_keys = m.tree;
  }
  if (m.segments) {
    using QSegments = decltype(o.q_segments);
    using KvSegments = decltype(o.kv_segments);
    o.q_segments = m.packed_q ? QSegments(q_segments_.data(), {positions()})
                              : QSegments(q_segments_.data(), {s.batch, s.seq_q});
    o.kv_segments = m.packed_kv ? KvSegments(kv_segments_.data(), {kv_starts_.back()})
                                : KvSegments(kv_segments_.data(), {s.batch, width_});
  }
  if (pool_ > 0) o.block_table = {block_table_.data(), {s.batch, pages_}};
  if (pool_ > 0 || (!m.lengths.empty() && !m.packed_kv))
    o.kv_lengths = {lengths_.data(), {s.batch}};
  if (m.packed_kv) o.cu_seqlens_kv = {kv_starts_.data(), {s.batch + 1}};
  if (m.packed_q) o.cu_seqlens_q = {q_starts_.data(), {s.batch + 1}};
  o.k_scales = scales(arrays.k);
  o.v_scales = scales(arrays.v);
  if (!lse_.empty()) o.lse = numbers(lse_);
  return o;
}

// One of each row of q. Rows lie as its rows do.
LseView AttentionLayout::numbers(std::vector<float>& each) const {
  const std::int64_t heads = sizes_.heads, seq = positions();
  const bool bshd = shape_.modifiers.bshd;
  const std::int64_t extents[] = {sizes_.batch, heads, seq};
  const std::int64_t strides[] = {heads * seq, bshd ? 1 : seq, bshd ? heads : 1};
  const int from = shape_.modifiers.packed_q ? 1 : 0;
  const auto rank = static_cast<std::size_t>(3 - from);
  return {each.data(), extents + from, rank, strides + from, rank};
}

void AttentionLayout::run(const AttentionArrays& arrays, const Executor& executor) const {
  AttentionOptions o = options(arrays);
  o.executor = &executor;
  attention(queries<AnyQ>(arrays.q), keys<AnyK>(arrays.k), keys<AnyV>(arrays.v),
            queries<AnyOut>(arrays.out), o);
}

AttentionPlan AttentionLayout::plan(const AttentionArrays& arrays, const Executor& executor) const {
  AttentionOptions o = options(arrays);
  o.executor = &executor;
  return {queries<AnyQ>(arrays.q), keys<AnyK>(arrays.k), keys<AnyV>(arrays.v),
          queries<AnyOut>(arrays.out), o};
}

Explanation AttentionLayout::explain(const AttentionArrays& arrays) const {
  return rapt::explain(queries<AnyQ>(arrays.q), keys<AnyK>(arrays.k), keys<AnyV>(arrays.v),
                       queries<AnyOut>(arrays.out), options(arrays));
}

// Calls call(q, k, v, ...) with what attention_backward() takes.
template <class Call>
auto AttentionLayout::with_backward(const BackwardArrays& arrays, const Executor* executor,
                                    const Call& call) const {
  const Modifiers& m = shape_.modifiers;
  AttentionOptions o = options(arrays.forward);
  o.executor = executor;
  BackwardOptions b;
  if (m.dlse) b.grad_lse = numbers(dlse_);
  if (m.dbias) b.grad_bias = o.bias.over(dbias_.data());
  if (m.dalibi) b.grad_alibi_slopes = o.alibi_slopes.over(dslopes_.data());
  if (m.dsinks) b.grad_sinks = o.sinks.over(dsinks_.data());
  return call(queries<AnyQ>(arrays.forward.q), keys<AnyK>(arrays.forward.k),
              keys<AnyV>(arrays.forward.v), queries<AnyOutIn>(arrays.forward.out),
              LseIn(numbers(lse_)), queries<AnyOutIn>(arrays.dout), queries<AnyGradQ>(arrays.dq),
              keys<AnyGradK>(arrays.dk), keys<AnyGradV>(arrays.dv), o, b);
}

void AttentionLayout::run_backward(const BackwardArrays& arrays, const Executor& executor) const {
  with_backward(arrays, &executor, [](const auto&... all) { attention_backward(all...); });
}

Explanation AttentionLayout::explain_backward(const BackwardArrays& arrays) const {
  return with_backward(arrays, nullptr,
                       [](const auto&... all) { return rapt::explain_backward(all...); });
}

AttentionBackwardPlan AttentionLayout::plan_backward(const BackwardArrays& arrays,
                                                     const Executor& executor) const {
  return with_backward(arrays, &executor,
                       [](const auto&... all) { return AttentionBackwardPlan(all...); });
}

}  // namespace rapt::bench
