#include "cases.hpp"

#include <algorithm>
#include <cstring>

#include "data.hpp"
#include "expected.hpp"
#include "rapt/rapt.hpp"

namespace rapt::bench {
namespace {

class GemmCase : public Case {
 public:
  explicit GemmCase(const GemmSizes& sizes)
      : sizes_(sizes), a_(sizes.m * sizes.k), b_(sizes.k * sizes.n), c_(sizes.m * sizes.n) {
    fill_normal(a_.span(), 0);
    fill_normal(b_.span(), 333);
  }

  void run(const Executor& executor) override {
    GemmOptions options;
    options.executor = &executor;
    gemm({a_.data(), {sizes_.m, sizes_.k}}, {b_.data(), {sizes_.k, sizes_.n}},
         {c_.data(), {sizes_.m, sizes_.n}}, options);
  }

  std::span<float> result() override { return c_.span(); }
  Expected expect() const override { return expected_gemm(sizes_, a_.data(), b_.data()); }

  std::span<const float> streamed() const override { return b_.span(); }

 private:
  GemmSizes sizes_;
  Buffer a_, b_, c_;
};

class AttentionCase : public Case {
 public:
  explicit AttentionCase(const Shape& shape)
      : layout_(shape),
        type_(shape.modifiers.type),
        depth_(shape.attention().depth),
        q_(floats_of(plain_type(type_), layout_.q_rows())),
        kv_(2 * (floats_of(type_, layout_.kv_rows()) + scales())),
        out_(static_cast<std::int64_t>(q_.size())) {
    // k, v, and the scales of both: what is streamed, in one piece.
    float* const k = kv_.data();
    float* const v = k + floats_of(type_, layout_.kv_rows());
    float* const k_scales = v + (v - k);
    arrays_ = {rows(plain_type(type_), q_.data(), nullptr), rows(type_, k, k_scales),
               rows(type_, v, k_scales + scales()), rows(plain_type(type_), out_.data(), nullptr)};
    fill(arrays_.q, layout_.q_rows(), 0);
    fill(arrays_.k, layout_.kv_rows(), 333);
    fill(arrays_.v, layout_.kv_rows(), 333 + static_cast<std::size_t>(layout_.kv_rows() * depth_));
    const auto streamed = static_cast<std::size_t>(shape.streamed_bytes());
    streamed_ = kv_.span().first(std::min(streamed / sizeof(float), kv_.size()));
  }

  void run(const Executor& executor) override { layout_.run(arrays_, executor); }

  std::span<float> result() override { return out_.span(); }
  Type result_type() const override { return arrays_.out.type; }
  Expected expect() const override { return expected_attention(layout_, arrays_); }

  std::span<const float> streamed() const override { return streamed_; }

 private:
  // In whole cache lines.
  std::int64_t floats_of(Type type, std::int64_t rows) const {
    return (rows * row_bytes(type, depth_) + 63) / 64 * 16;
  }
  std::int64_t scales() const {
    return type_ == Type::int8 ? (layout_.kv_rows() + 15) / 16 * 16 : 0;
  }
  StoredRows rows(Type type, float* data, float* scales) const {
    return {type, depth_, reinterpret_cast<std::byte*>(data), scales};
  }

  // Normal numbers, stored by the library; a few rows at a time, because a cache is large.
  static void fill(const StoredRows& rows, std::int64_t n, std::size_t start) {
    constexpr std::int64_t kRows = 1024;
    std::vector<float> normal(static_cast<std::size_t>(kRows * rows.depth));
    for (std::int64_t row = 0; row < n; row += kRows) {
      const std::int64_t count = std::min(kRows, n - row);
      fill_normal(normal, start + static_cast<std::size_t>(row * rows.depth));
      const StoredRows part{rows.type, rows.depth,
                            rows.data + row * row_bytes(rows.type, rows.depth)};
      const AnyRows from(normal.data(), {1, count, rows.depth});
      const auto to = part.view<AnyRowsOut>({1, count, row_elements(rows.type, rows.depth)});
      if (rows.type == plain_type(rows.type)) {
        convert(from, to);
      } else if (rows.type == Type::int8) {
        quantize(from, to, {rows.scales + row, {1, count}});
      } else {
        quantize(from, to);
      }
    }
  }

  AttentionLayout layout_;
  Type type_;
  std::int64_t depth_;
  Buffer q_, kv_, out_;
  AttentionArrays arrays_{};
  std::span<const float> streamed_;
};

class LayerCase : public Case {
 public:
  explicit LayerCase(const LayerSizes& sizes)
      : sizes_(sizes),
        layer_({sizes.embedding, 0, sizes.heads, sizes.depth, sizes.depth}, 1),
        tokens_(sizes.batch * sizes.seq * sizes.embedding),
        out_(static_cast<std::int64_t>(tokens_.size())) {
    fill_normal(tokens_.span(), 0);
  }

  void run(const Executor& executor) override {
    AttentionOptions options;
    options.executor = &executor;
    const auto& s = sizes_;
    const KvTokensView kv(tokens_.data(), {s.batch, s.seq, s.embedding});
    layer_({tokens_.data(), {s.batch, s.seq, s.embedding}}, kv, kv,
           {out_.data(), {s.batch, s.seq, s.embedding}}, options);
  }

  std::span<float> result() override { return out_.span(); }
  Expected expect() const override {
    const LayerParameters& p = layer_.parameters();
    return expected_layer(sizes_, tokens_.data(),
                          {p.w_q.data(), p.w_k.data(), p.w_v.data(), p.output.data()});
  }

 private:
  LayerSizes sizes_;
  MultiHeadAttention layer_;
  Buffer tokens_, out_;
};

}  // namespace

std::string Case::check(const Executor& executor) {
  if (expected_.empty()) expected_ = expect();
  const std::span<float> out = result();
  // All bits set are NaN in every plain type.
  std::memset(out.data(), 0xff, out.size_bytes());
  run(executor);
  return compare(expected_, result_type(), out.data());
}

std::unique_ptr<Case> make_case(const Shape& shape) {
  switch (shape.operation) {
    case Operation::gemm:
      return std::make_unique<GemmCase>(shape.gemm());
    case Operation::layer:
      return std::make_unique<LayerCase>(shape.layer());
    case Operation::prefill:
    case Operation::causal:
    case Operation::decode:
      break;
  }
  return std::make_unique<AttentionCase>(shape);
}

}  // namespace rapt::bench
