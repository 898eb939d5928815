// MultiHeadAttention: the five steps of the layer, each a call of the public API.
#include "rapt/layer.hpp"

#include <cmath>
#include <cstring>
#include <numbers>
#include <random>

#include "problem/axes.hpp"

namespace rapt {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using problem::fail;

// What a token becomes before it is split into heads.
std::int64_t width(const LayerShape& s) { return s.d_model > 0 ? s.d_model : s.embedding; }

void check_shape(const LayerShape& s) {
  const auto positive = [](const char* axis, std::int64_t extent, std::int64_t low) {
    problem::within(axis, "the layer", extent, low, std::int64_t{1} << 20);
  };
  positive(Embedding::name, s.embedding, 1);
  positive(Model::name, s.d_model, 0);
  positive(Head::name, s.heads, 1);
  positive(DepthK::name, s.d_k, 1);
  positive(DepthV::name, s.d_v, 1);
}

std::string shape_text(std::initializer_list<std::int64_t> extents) {
  std::string text;
  for (const std::int64_t extent : extents)
    text += (text.empty() ? "[" : ", ") + std::to_string(extent);
  return text + "]";
}

void check_parameter(const char* name, const std::vector<double>& values,
                     std::initializer_list<std::int64_t> extents, bool optional) {
  std::int64_t wanted = 1;
  for (const std::int64_t extent : extents) wanted *= extent;
  if (optional && values.empty()) return;
  if (static_cast<std::int64_t>(values.size()) != wanted) {
    throw Error(ErrorCode::extent_mismatch,
                std::string("parameter ") + name + " has shape [" + std::to_string(values.size()) +
                    "] (flat), but the layer's shape gives " + shape_text(extents) + " = " +
                    std::to_string(wanted) + " elements");
  }
}

// Normal deviates by Box and Muller from a generator that every standard library implements alike
// (std::normal_distribution is not).
class Normal {
 public:
  explicit Normal(std::uint64_t seed) : bits_(seed) {}
  double operator()() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  double uniform() { return (static_cast<double>(bits_() >> 11) + 0.5) * 0x1p-53; }  // (0, 1)
  std::mt19937_64 bits_;
};

std::vector<double> he_normal(Normal& normal, std::int64_t count, std::int64_t fan_in) {
  std::vector<double> values(static_cast<std::size_t>(count));
  const double deviation = std::sqrt(2.0 / static_cast<double>(fan_in));
  for (double& value : values) value = deviation * normal();
  return values;
}

LayerParameters initial(const LayerShape& s, std::uint64_t seed) {
  check_shape(s);
  Normal normal(seed);
  LayerParameters p;
  if (s.d_model > 0) p.qkv = he_normal(normal, 3 * s.embedding * s.d_model, s.embedding);
  p.w_q = he_normal(normal, s.heads * width(s) * s.d_k, width(s));
  p.w_k = he_normal(normal, s.heads * width(s) * s.d_k, width(s));
  p.w_v = he_normal(normal, s.heads * width(s) * s.d_v, width(s));
  p.output = he_normal(normal, s.heads * s.d_v * s.embedding, s.heads * s.d_v);
  return p;
}

// Where the parts of projections_ begin.
struct Offsets {
  std::int64_t qkv, w_q, w_k, w_v, output, b_q, b_k, b_v, b_output, end;
  explicit Offsets(const LayerShape& s) {
    const std::int64_t w = width(s);
    qkv = 0;
    w_q = qkv + 3 * s.embedding * s.d_model;
    w_k = w_q + w * s.heads * s.d_k;
    w_v = w_k + w * s.heads * s.d_k;
    output = w_v + w * s.heads * s.d_v;
    b_q = output + s.heads * s.d_v * s.embedding;
    b_k = b_q + s.heads * s.d_k;
    b_v = b_k + s.heads * s.d_k;
    b_output = b_v + s.heads * s.d_v;
    end = b_output + s.embedding;
  }
};

// Extents or strides: those of the batch axes, then two more.
using Numbers = std::array<std::int64_t, kMaxBatchAxes + 3>;

// A matrix product over all tokens. Every product of the layer has the shape [batch..., seq, in]
// [in, out].
struct TokenProduct {
  int batch_axes = 0;
  Numbers extents{};  // batch axes
  std::int64_t seq = 0;
  std::int64_t elements = 1;  // of the batch

  template <class Axis, class T>
  explicit TokenProduct(const View<T, Axis, Embedding>& tokens)
      : batch_axes(tokens.batch_axes()), seq(tokens.template extent<Axis>()) {
    for (int i = 0; i < batch_axes; ++i) {
      extents[static_cast<std::size_t>(i)] = tokens.batch_extent(i);
      elements *= tokens.batch_extent(i);
    }
  }

  // The dense array [batch..., seq, columns].
  template <class T>
  View<T, Row, Inner> dense(T* data, std::int64_t columns) const {
    Numbers shape = extents, strides{};
    const auto axes = static_cast<std::size_t>(batch_axes);
    shape[axes] = seq;
    shape[axes + 1] = columns;
    std::int64_t stride = 1;
    for (std::size_t i = axes + 2; i-- > 0;) {
      strides[i] = stride;
      stride *= shape[i];
    }
    return {data, shape.data(), axes + 2, strides.data(), axes + 2};
  }

  // Tokens as the caller laid them out.
  template <class Axis, class T>
  View<T, Row, Inner> as_rows(const View<T, Axis, Embedding>& tokens) const {
    Numbers shape = extents, strides{};
    const auto axes = static_cast<std::size_t>(batch_axes);
    for (int i = 0; i < batch_axes; ++i)
      strides[static_cast<std::size_t>(i)] = tokens.batch_stride(i);
    shape[axes] = seq;
    shape[axes + 1] = tokens.template extent<Embedding>();
    strides[axes] = tokens.template stride<Axis>();
    strides[axes + 1] = tokens.template stride<Embedding>();
    return {tokens.data(), shape.data(), axes + 2, strides.data(), axes + 2};
  }

  // [batch..., seq, heads * depth] seen as [batch..., Head, Position, Depth].
  template <class HeadAxis, class Position, class Depth, class T>
  View<T, HeadAxis, Position, Depth> split_heads(T* data, std::int64_t heads,
                                                 std::int64_t depth) const {
    Numbers shape = extents, strides{};
    const auto axes = static_cast<std::size_t>(batch_axes);
    const std::int64_t row = heads * depth;
    shape[axes] = heads;
    shape[axes + 1] = seq;
    shape[axes + 2] = depth;
    strides[axes] = depth;
    strides[axes + 1] = row;
    strides[axes + 2] = 1;
    std::int64_t stride = seq * row;
    for (std::size_t i = axes; i-- > 0;) {
      strides[i] = stride;
      stride *= shape[i];
    }
    return {data, shape.data(), axes + 3, strides.data(), axes + 3};
  }
};

// A dense result is the same array, read as [Row, Column].
template <class T>
View<T, Row, Column> as_result(const View<T, Row, Inner>& rows) {
  Numbers shape{}, strides{};
  const auto axes = static_cast<std::size_t>(rows.batch_axes());
  for (int i = 0; i < rows.batch_axes(); ++i) {
    shape[static_cast<std::size_t>(i)] = rows.batch_extent(i);
    strides[static_cast<std::size_t>(i)] = rows.batch_stride(i);
  }
  shape[axes] = rows.template extent<Row>();
  shape[axes + 1] = rows.template extent<Inner>();
  strides[axes] = rows.template stride<Row>();
  strides[axes + 1] = rows.template stride<Inner>();
  return {rows.data(), shape.data(), axes + 2, strides.data(), axes + 2};
}

}  // namespace

MultiHeadAttention::MultiHeadAttention(const LayerShape& shape, std::uint64_t seed)
    : MultiHeadAttention(shape, initial(shape, seed)) {}

MultiHeadAttention::MultiHeadAttention(const LayerShape& shape, LayerParameters parameters)
    : shape_(shape), parameters_(std::move(parameters)) {
  check_shape(shape_);
  const LayerShape& s = shape_;
  const LayerParameters& p = parameters_;
  check_parameter("qkv", p.qkv, {3, s.embedding, s.d_model}, false);
  check_parameter("w_q", p.w_q, {s.heads, width(s), s.d_k}, false);
  check_parameter("w_k", p.w_k, {s.heads, width(s), s.d_k}, false);
  check_parameter("w_v", p.w_v, {s.heads, width(s), s.d_v}, false);
  check_parameter("output", p.output, {s.heads, s.d_v, s.embedding}, false);
  check_parameter("b_q", p.b_q, {s.heads, s.d_k}, true);
  check_parameter("b_k", p.b_k, {s.heads, s.d_k}, true);
  check_parameter("b_v", p.b_v, {s.heads, s.d_v}, true);
  check_parameter("b_output", p.b_output, {s.embedding}, true);

  const Offsets at(s);
  projections_.assign(static_cast<std::size_t>(at.end), 0.0f);  // an absent bias is zero
  const auto copy = [&](const std::vector<double>& from, std::int64_t to) {
    for (std::size_t i = 0; i < from.size(); ++i)
      projections_[static_cast<std::size_t>(to) + i] = static_cast<float>(from[i]);
  };
  copy(p.qkv, at.qkv);
  copy(p.output, at.output);
  copy(p.b_q, at.b_q);
  copy(p.b_k, at.b_k);
  copy(p.b_v, at.b_v);
  copy(p.b_output, at.b_output);
  // [heads, width, depth] -> [width, heads * depth]: the projections of all heads are one product.
  const auto concatenate = [&](const std::vector<double>& from, std::int64_t to,
                               std::int64_t depth) {
    const std::int64_t w = width(s);
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t x = 0; x < w; ++x) {
        for (std::int64_t d = 0; d < depth; ++d) {
          projections_[static_cast<std::size_t>(to + (x * s.heads + h) * depth + d)] =
              static_cast<float>(from[static_cast<std::size_t>((h * w + x) * depth + d)]);
        }
      }
    }
  };
  concatenate(p.w_q, at.w_q, s.d_k);
  concatenate(p.w_k, at.w_k, s.d_k);
  concatenate(p.w_v, at.w_v, s.d_v);
}

void MultiHeadAttention::operator()(TokensView q_tokens, KvTokensView k_tokens,
                                    KvTokensView v_tokens, OutTokensView result,
                                    const AttentionOptions& options) const {
  const LayerShape& s = shape_;
  problem::check_memory("q_tokens", q_tokens);
  problem::check_memory("k_tokens", k_tokens);
  problem::check_memory("v_tokens", v_tokens);
  problem::check_output("result", result);
  problem::agree_batch("q_tokens", q_tokens, "k_tokens", k_tokens);
  problem::agree_batch("q_tokens", q_tokens, "v_tokens", v_tokens);
  problem::agree_batch("q_tokens", q_tokens, "result", result);
  problem::agree(Embedding::name, "q_tokens", q_tokens.extent<Embedding>(), "the layer",
                 s.embedding);
  problem::agree(Embedding::name, "k_tokens", k_tokens.extent<Embedding>(), "the layer",
                 s.embedding);
  problem::agree(Embedding::name, "v_tokens", v_tokens.extent<Embedding>(), "the layer",
                 s.embedding);
  problem::agree(Embedding::name, "result", result.extent<Embedding>(), "the layer", s.embedding);
  problem::agree(Key::name, "k_tokens", k_tokens.extent<Key>(), "v_tokens", v_tokens.extent<Key>());
  problem::agree(Query::name, "q_tokens", q_tokens.extent<Query>(), "result",
                 result.extent<Query>());

  const Offsets at(s);
  const float* const weights = projections_.data();
  const auto buffer = [](std::int64_t n) {
    return std::vector<float>(static_cast<std::size_t>(n));
  };
  const auto project = [&](View<const float, Row, Inner> rows, std::int64_t weight, std::int64_t in,
                           std::int64_t out, std::int64_t bias, View<float, Row, Column> to) {
    GemmOptions with;
    if (bias >= 0) with.bias = View<const float, Column>(weights + bias, {out});
    with.executor = options.executor;
    gemm(rows, View<const float, Inner, Column>(weights + weight, {in, out}), to, with);
  };

  // Steps 1 and 2 for one of q, k, v: tokens -> [batch..., seq, heads * depth].
  const auto heads_of = [&](const auto& tokens, std::int64_t stack, std::int64_t weight,
                            std::int64_t bias, std::int64_t depth) {
    const TokenProduct product(tokens);
    std::vector<float> heads = buffer(product.elements * product.seq * s.heads * depth);
    const auto to = as_result(product.dense(heads.data(), s.heads * depth));
    if (s.d_model == 0) {
      project(product.as_rows(tokens), weight, s.embedding, s.heads * depth, bias, to);
    } else {
      std::vector<float> model = buffer(product.elements * product.seq * s.d_model);
      const auto rows = product.dense(model.data(), s.d_model);
      project(product.as_rows(tokens), at.qkv + stack * s.embedding * s.d_model, s.embedding,
              s.d_model, -1, as_result(rows));
      project(rows, weight, s.d_model, s.heads * depth, bias, to);
    }
    return heads;
  };
  std::vector<float> q = heads_of(q_tokens, 0, at.w_q, at.b_q, s.d_k);
  std::vector<float> k = heads_of(k_tokens, 1, at.w_k, at.b_k, s.d_k);
  std::vector<float> v = heads_of(v_tokens, 2, at.w_v, at.b_v, s.d_v);

  // Steps 3 and 4.
  const TokenProduct queries(q_tokens), keys(k_tokens);
  std::vector<float> out = buffer(queries.elements * queries.seq * s.heads * s.d_v);
  attention(queries.split_heads<Head, Query, DepthK, const float>(q.data(), s.heads, s.d_k),
            keys.split_heads<KvHead, Key, DepthK, const float>(k.data(), s.heads, s.d_k),
            keys.split_heads<KvHead, Key, DepthV, const float>(v.data(), s.heads, s.d_v),
            queries.split_heads<Head, Query, DepthV, float>(out.data(), s.heads, s.d_v), options);

  // Step 5.
  project(queries.dense<const float>(out.data(), s.heads * s.d_v), at.output, s.heads * s.d_v,
          s.embedding, at.b_output, as_result(queries.as_rows(result)));
}

}  // namespace rapt
