#include "cases.hpp"

#include <algorithm>
#include <limits>

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
  AttentionCase(const AttentionSizes& sizes, bool causal)
      : sizes_(sizes),
        causal_(causal),
        q_(sizes.batch * sizes.heads * sizes.seq_q * sizes.depth),
        kv_(2 * sizes.batch * sizes.kv_heads * sizes.seq_kv * sizes.depth),
        out_(static_cast<std::int64_t>(q_.size())),
        v_(kv_.data() + kv_.size() / 2) {
    fill_normal(q_.span(), 0);
    fill_normal(kv_.span(), 333);
  }

  void run(const Executor& executor) override {
    AttentionOptions options;
    options.causal = causal_;
    options.executor = &executor;
    const auto& s = sizes_;
    attention({q_.data(), {s.batch, s.heads, s.seq_q, s.depth}},
              {kv_.data(), {s.batch, s.kv_heads, s.seq_kv, s.depth}},
              {v_, {s.batch, s.kv_heads, s.seq_kv, s.depth}},
              {out_.data(), {s.batch, s.heads, s.seq_q, s.depth}}, options);
  }

  std::span<float> result() override { return out_.span(); }
  Expected expect() const override {
    return expected_attention(sizes_, causal_, q_.data(), kv_.data(), v_);
  }

  std::span<const float> streamed() const override { return kv_.span(); }

 private:
  AttentionSizes sizes_;
  bool causal_;
  Buffer q_, kv_, out_;
  const float* v_;  // the second half of kv_
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
  std::fill(out.begin(), out.end(), std::numeric_limits<float>::quiet_NaN());
  run(executor);
  return compare(expected_, out);
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
  return std::make_unique<AttentionCase>(shape.attention(), shape.operation == Operation::causal);
}

}  // namespace rapt::bench
