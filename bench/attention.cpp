#include "attention.hpp"

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

}  // namespace

AttentionLayout::AttentionLayout(const Shape& shape)
    : shape_(shape), sizes_(shape.attention()), starts_{0} {
  for (std::int64_t b = 0; b < sizes_.batch; ++b) {
    lengths_.push_back(static_cast<std::int32_t>(shape.keys(b)));
    starts_.push_back(starts_.back() + lengths_.back());
  }
  const std::int64_t page = shape.modifiers.page;
  if (page == 0) return;
  pages_ = (sizes_.seq_kv + page - 1) / page;
  const std::int64_t shared = shape.shared_keys() / page;
  pool_ = shared + sizes_.batch * (pages_ - shared);
  const std::vector<std::int32_t> order = shuffled(pool_);
  for (std::int64_t b = 0; b < sizes_.batch; ++b) {
    for (std::int64_t n = 0; n < pages_; ++n) {
      const std::int64_t at = n < shared ? n : n + b * (pages_ - shared);
      block_table_.push_back(order[static_cast<std::size_t>(at)]);
    }
  }
}

std::int64_t AttentionLayout::q_rows() const {
  return sizes_.heads * (packs_q() ? total() : sizes_.batch * sizes_.seq_q);
}

std::int64_t AttentionLayout::kv_rows() const {
  if (pool_ > 0) return pool_ * sizes_.kv_heads * shape_.modifiers.page;
  return sizes_.kv_heads * (packs_kv() ? total() : sizes_.batch * sizes_.seq_kv);
}

std::int64_t AttentionLayout::q_row(std::int64_t batch, std::int64_t head,
                                    std::int64_t query) const {
  if (packs_q()) return head * total() + starts_[static_cast<std::size_t>(batch)] + query;
  return (batch * sizes_.heads + head) * sizes_.seq_q + query;
}

std::int64_t AttentionLayout::kv_row(std::int64_t batch, std::int64_t kv_head,
                                     std::int64_t key) const {
  if (pool_ > 0) {
    const std::int64_t page = shape_.modifiers.page;
    const auto entry = static_cast<std::size_t>(batch * pages_ + key / page);
    return (block_table_[entry] * sizes_.kv_heads + kv_head) * page + key % page;
  }
  if (packs_kv()) return kv_head * total() + starts_[static_cast<std::size_t>(batch)] + key;
  return (batch * sizes_.kv_heads + kv_head) * sizes_.seq_kv + key;
}

template <class AnyView>
AnyView AttentionLayout::queries(const StoredRows& rows) const {
  const std::int64_t d = row_elements(rows.type, rows.depth);
  if (packs_q()) return rows.view<AnyView>({sizes_.heads, total(), d});
  return rows.view<AnyView>({sizes_.batch, sizes_.heads, sizes_.seq_q, d});
}

template <class AnyView>
AnyView AttentionLayout::keys(const StoredRows& rows) const {
  const std::int64_t d = row_elements(rows.type, rows.depth);
  if (pool_ > 0) return rows.view<AnyView>({pool_, sizes_.kv_heads, shape_.modifiers.page, d});
  if (packs_kv()) return rows.view<AnyView>({sizes_.kv_heads, total(), d});
  return rows.view<AnyView>({sizes_.batch, sizes_.kv_heads, sizes_.seq_kv, d});
}

ScalesView AttentionLayout::scales(const StoredRows& rows) const {
  if (rows.type != Type::int8) return {};
  if (pool_ > 0) return {rows.scales, {pool_, sizes_.kv_heads, shape_.modifiers.page}};
  if (packs_kv()) return {rows.scales, {sizes_.kv_heads, total()}};
  return {rows.scales, {sizes_.batch, sizes_.kv_heads, sizes_.seq_kv}};
}

void AttentionLayout::run(const AttentionArrays& arrays, const Executor& executor) const {
  const Modifiers& m = shape_.modifiers;
  AttentionOptions options;
  options.executor = &executor;
  options.causal = shape_.operation == Operation::causal;
  if (m.window > 0) options.window_left = m.window - 1;
  if (pool_ > 0) options.block_table = {block_table_.data(), {sizes_.batch, pages_}};
  if (pool_ > 0 || m.padded) options.kv_lengths = {lengths_.data(), {sizes_.batch}};
  // Padding follows what it pads, so that query i is at position i.
  if (m.padded && options.causal) options.q_offset = 0;
  if (packs_kv()) options.cu_seqlens_kv = {starts_.data(), {sizes_.batch + 1}};
  if (packs_q()) options.cu_seqlens_q = options.cu_seqlens_kv;
  options.k_scales = scales(arrays.k);
  options.v_scales = scales(arrays.v);
  attention(queries<AnyQ>(arrays.q), keys<AnyK>(arrays.k), keys<AnyV>(arrays.v),
            queries<AnyOut>(arrays.out), options);
}

}  // namespace rapt::bench
