#include "cases.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "data.hpp"
#include "expected.hpp"
#include "rapt/rapt.hpp"

namespace rapt::bench {
namespace {

// Of so many numbers, in whole cache lines.
std::int64_t floats_of(Type type, std::int64_t numbers) {
  return (row_bytes(type, numbers) + 63) / 64 * 16;
}

// Normal numbers, stored by the library; a few rows at a time, because a cache is large.
void fill_rows(const StoredRows& rows, std::int64_t n, std::size_t start) {
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

class GemmCase : public Case {
 public:
  explicit GemmCase(const Shape& shape)
      : shape_(shape),
        s_(shape.gemm()),
        a_(floats_of(shape.a_type(), shape.modifiers.batch * s_.m * s_.k)),
        b_(floats_of(shape.modifiers.type, b_matrices() * s_.k * s_.n)),
        c_(floats_of(Type::f32, shape.modifiers.batch * s_.m * s_.n)) {
    const Modifiers& m = shape.modifiers;
    fill_rows(operands().a, m.batch * s_.m * s_.k, 0);
    const StoredRows b = operands().b;
    if (m.type == Type::int8) {
      scales_.assign(static_cast<std::size_t>(s_.n), 1.0f / 32);
      bias_.resize(4096);  // numbers to be rounded
      fill_normal(bias_, 333);
      for (std::int64_t i = 0; i < b_matrices() * s_.k * s_.n; ++i) {
        const float scaled = 32 * bias_[static_cast<std::size_t>(i) % bias_.size()];
        b.data[i] = static_cast<std::byte>(
            static_cast<std::int8_t>(std::lrint(std::clamp(scaled, -127.0f, 127.0f))));
      }
    } else {
      fill_rows(b, b_matrices() * s_.k * s_.n, 333);
    }
    bias_.resize(m.bias == Pairs::none ? 0 : static_cast<std::size_t>(s_.n));
    fill_normal(bias_, 777);
  }

  void run(const Executor& executor) override { call(&executor); }

  std::vector<Result> results() override { return {{"the result", Type::f32, c_.span()}}; }
  Expected expect() const override { return expected_gemm(shape_, operands()); }
  // What beta multiplies is there before each check.
  float before() const override { return shape_.modifiers.beta ? 1.0f : Case::before(); }

  std::span<const float> streamed() const override { return b_.span(); }

 private:
  std::int64_t b_matrices() const { return shape_.modifiers.one_b ? 1 : shape_.modifiers.batch; }
  GemmOperands operands() const {
    return {{shape_.a_type(), 1, reinterpret_cast<std::byte*>(a_.data())},
            {shape_.modifiers.type, 1, reinterpret_cast<std::byte*>(b_.data())},
            scales_.data(),
            bias_.empty() ? nullptr : bias_.data()};
  }

  void call(const Executor* executor) {
    const Modifiers& m = shape_.modifiers;
    GemmOptions options;
    options.executor = executor;
    options.beta = m.beta ? 1.0f : 0.0f;
    options.activation = m.activation;
    if (!bias_.empty()) options.bias = {bias_.data(), {s_.n}};
    if (m.type == Type::int8) options.b_scales = {scales_.data(), {s_.n}};
    // [batch, rows, columns], or the other way round.
    const auto matrix = [](auto make, std::int64_t batch, std::int64_t rows, std::int64_t columns,
                           bool transposed) {
      const std::int64_t extents[] = {batch, rows, columns};
      const std::int64_t strides[] = {rows * columns, transposed ? 1 : columns,
                                      transposed ? rows : 1};
      return make(extents, strides);
    };
    using A = AnyView<const std::byte, axis::Row, axis::Inner>;
    using B = AnyView<const std::byte, axis::Inner, axis::Column>;
    using C = View<float, axis::Row, axis::Column>;
    const StoredRows a = operands().a, b = operands().b;
    gemm(matrix([&](auto& e, auto& s) { return A(a.type, a.data, e, 3, s, 3); }, m.batch, s_.m,
                s_.k, m.transposed_a),
         matrix([&](auto& e, auto& s) { return B(b.type, b.data, e, 3, s, 3); }, b_matrices(), s_.k,
                s_.n, m.transposed_b),
         matrix([&](auto& e, auto& s) { return C(c_.data(), e, 3, s, 3); }, m.batch, s_.m, s_.n,
                m.transposed_c),
         options);
  }

  Shape shape_;
  GemmSizes s_;
  Buffer a_, b_, c_;
  std::vector<float> scales_, bias_;
};

// The operands of an attention and its result.
class AttentionOperands {
 public:
  explicit AttentionOperands(const Shape& shape)
      : layout(shape),
        q_(rows_of(shape.q_type(), shape.attention().d_k, layout.q_rows())),
        kv_(rows_of(shape.modifiers.type, shape.attention().d_k, layout.kv_rows()) +
            rows_of(shape.v_type(), shape.attention().d_v, layout.kv_rows()) +
            scales(shape.modifiers.type) + scales(shape.v_type())),
        out_(rows_of(shape.out_type(), shape.attention().d_v, layout.q_rows())) {
    // k, v, and the scales of both: what is streamed, in one piece.
    const AttentionSizes s = shape.attention();
    const Type k_type = shape.modifiers.type, v_type = shape.v_type();
    float* const k = kv_.data();
    float* const v = k + rows_of(k_type, s.d_k, layout.kv_rows());
    float* const k_scales = v + rows_of(v_type, s.d_v, layout.kv_rows());
    arrays = {rows(shape.q_type(), s.d_k, q_), rows(k_type, s.d_k, k, k_scales),
              rows(v_type, s.d_v, v, k_scales + scales(k_type)),
              rows(shape.out_type(), s.d_v, out_)};
    fill_rows(arrays.q, layout.q_rows(), 0);
    fill_rows(arrays.k, layout.kv_rows(), 333);
    fill_rows(arrays.v, layout.kv_rows(), 333 + static_cast<std::size_t>(layout.kv_rows() * s.d_k));
  }

  static StoredRows rows(Type type, std::int64_t depth, float* data, float* scales = nullptr) {
    return {type, depth, reinterpret_cast<std::byte*>(data), scales};
  }
  static StoredRows rows(Type type, std::int64_t depth, const Buffer& buffer) {
    return rows(type, depth, buffer.data());
  }
  static std::int64_t rows_of(Type type, std::int64_t depth, std::int64_t rows) {
    return floats_of(type, rows * depth);
  }
  Result out() const { return {"the result", arrays.out.type, out_.span()}; }
  std::span<const float> kv() const { return kv_.span(); }

  const AttentionLayout layout;
  AttentionArrays arrays{};

 private:
  std::int64_t scales(Type type) const {
    return type == Type::int8 ? (layout.kv_rows() + 15) / 16 * 16 : 0;
  }
  Buffer q_, kv_, out_;
};

class AttentionCase : public Case {
 public:
  explicit AttentionCase(const Shape& shape) : of_(shape) {
    const auto streamed = static_cast<std::size_t>(shape.streamed_bytes());
    streamed_ = of_.kv().first(std::min(streamed / sizeof(float), of_.kv().size()));
  }

  void run(const Executor& executor) override { of_.layout.run(of_.arrays, executor); }
  std::string explain() const override { return of_.layout.explain(of_.arrays).text(); }

  std::vector<Result> results() override { return {of_.out()}; }
  Expected expect() const override { return expected_attention(of_.layout, of_.arrays); }

  std::span<const float> streamed() const override { return streamed_; }

 private:
  AttentionOperands of_;
  std::span<const float> streamed_;
};

// The gradients, or (training) attention and they.
class BackwardCase : public Case {
 public:
  explicit BackwardCase(const Shape& shape)
      : trains_(shape.modifiers.pass == Pass::training),
        of_(shape),
        dout_(buffer(shape.dout_type(), shape.attention().d_v, of_.layout.q_rows())),
        dq_(buffer(shape.dq_type(), shape.attention().d_k, of_.layout.q_rows())),
        dk_(buffer(shape.dk_type(), shape.attention().d_k, of_.layout.kv_rows())),
        dv_(buffer(shape.dv_type(), shape.attention().d_v, of_.layout.kv_rows())) {
    const AttentionSizes s = shape.attention();
    const auto rows = [](Type type, std::int64_t depth, const Buffer& memory) {
      return AttentionOperands::rows(type, depth, memory);
    };
    arrays_ = {of_.arrays, rows(shape.dout_type(), s.d_v, dout_), rows(shape.dq_type(), s.d_k, dq_),
               rows(shape.dk_type(), s.d_k, dk_), rows(shape.dv_type(), s.d_v, dv_)};
    fill_rows(arrays_.dout, of_.layout.q_rows(), 555);
    const std::int64_t bytes = row_bytes(arrays_.dout.type, s.d_v);
    for (const std::int64_t row : of_.layout.padding())
      std::fill_n(arrays_.dout.data + row * bytes, bytes, std::byte{0});
    of_.layout.run(of_.arrays, default_executor());
  }

  void run(const Executor& executor) override {
    if (trains_) of_.layout.run(of_.arrays, executor);
    of_.layout.run_backward(arrays_, executor);
  }
  std::string explain() const override { return of_.layout.explain_backward(arrays_).text(); }

  std::vector<Result> results() override {
    std::vector<Result> all = {{"grad_q", arrays_.dq.type, dq_.span()},
                               {"grad_k", arrays_.dk.type, dk_.span()},
                               {"grad_v", arrays_.dv.type, dv_.span()},
                               {"grad_bias", Type::f32, of_.layout.dbias()},
                               {"grad_alibi_slopes", Type::f32, of_.layout.dslopes()},
                               {"grad_sinks", Type::f32, of_.layout.dsinks()}};
    if (trains_) all.push_back(of_.out());
    return all;
  }
  bool expects_anew() const override { return true; }
  Expected expect() const override {
    Expected all = expected_backward(of_.layout, arrays_);
    if (!trains_) return all;
    for (ExpectedElement& element : expected_attention(of_.layout, of_.arrays)) {
      element.result = 6;
      all.push_back(element);
    }
    return all;
  }

 private:
  static Buffer buffer(Type type, std::int64_t depth, std::int64_t rows) {
    return Buffer(AttentionOperands::rows_of(type, depth, rows));
  }

  const bool trains_;
  AttentionOperands of_;
  Buffer dout_, dq_, dk_, dv_;
  BackwardArrays arrays_{};
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

  std::vector<Result> results() override { return {{"the result", Type::f32, out_.span()}}; }
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
  const std::vector<Result> all = results();
  for (const Result& result : all) std::fill(result.memory.begin(), result.memory.end(), before());
  run(executor);
  if (expected_.empty() || expects_anew()) expected_ = expect();
  return compare(expected_, all);
}

std::unique_ptr<Case> make_case(const Shape& shape) {
  if (shape.operation == Operation::gemm) return std::make_unique<GemmCase>(shape);
  if (shape.operation == Operation::layer) return std::make_unique<LayerCase>(shape.layer());
  if (shape.modifiers.pass != Pass::forward) return std::make_unique<BackwardCase>(shape);
  return std::make_unique<AttentionCase>(shape);
}

}  // namespace rapt::bench
