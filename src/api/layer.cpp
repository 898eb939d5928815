// MultiHeadAttention: the five steps of the layer, each a call of the public API.
#include "rapt/layer.hpp"

#include <cmath>
#include <cstring>
#include <numbers>
#include <random>

#include "parallel/memory.hpp"
#include "problem/axes.hpp"
#include "problem/check.hpp"
#include "tiles/workspace.hpp"

namespace rapt {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using problem::layer_width;

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
  problem::check_layer(s);
  Normal normal(seed);
  LayerParameters p;
  if (s.d_model > 0) p.qkv = he_normal(normal, 3 * s.embedding * s.d_model, s.embedding);
  p.w_q = he_normal(normal, s.heads * layer_width(s) * s.d_k, layer_width(s));
  p.w_k = he_normal(normal, s.heads * layer_width(s) * s.d_k, layer_width(s));
  p.w_v = he_normal(normal, s.heads * layer_width(s) * s.d_v, layer_width(s));
  p.output = he_normal(normal, s.heads * s.d_v * s.embedding, s.heads * s.d_v);
  return p;
}

// Where the parts of projections_ begin.
struct Offsets {
  std::int64_t qkv, w_q, w_k, w_v, output, b_q, b_k, b_v, b_output, end;
  explicit Offsets(const LayerShape& s) {
    const std::int64_t w = layer_width(s);
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

// What the steps leave for each other, [batch..., seq, columns].
struct Buffers {
  float *q, *k, *v, *out, *model;  // model: of one of q, k, v at a time

  Buffers(const LayerShape& s, const TokenProduct& queries, const TokenProduct& keys,
          tiles::Workspace& workspace) {
    const auto floats = [&](const char* name, const TokenProduct& tokens, std::int64_t columns) {
      problem::Range range(name, sizeof(float));
      range.axis("columns", columns, 1);
      range.axis("tokens", tokens.elements * tokens.seq, columns);
      return workspace.floats(range.count());
    };
    q = floats("q of the layer", queries, s.heads * s.d_k);
    k = floats("k of the layer", keys, s.heads * s.d_k);
    v = floats("v of the layer", keys, s.heads * s.d_v);
    out = floats("out of the layer", queries, s.heads * s.d_v);
    model = floats("a projection of the layer", queries.seq > keys.seq ? queries : keys, s.d_model);
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
  problem::check_layer(shape_);
  problem::check_layer(shape_, parameters_);
  const LayerShape& s = shape_;
  const LayerParameters& p = parameters_;

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
    const std::int64_t w = layer_width(s);
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
  const auto project = [&](View<const float, Row, Inner> rows, std::int64_t weight, std::int64_t in,
                           std::int64_t out, std::int64_t bias, View<float, Row, Column> to) {
    GemmOptions with;
    if (bias >= 0) with.bias = View<const float, Column>(weights + bias, {out});
    with.executor = options.executor;
    gemm(rows, View<const float, Inner, Column>(weights + weight, {in, out}), to, with);
  };

  const TokenProduct queries(q_tokens), keys(k_tokens);
  tiles::Workspace count(nullptr);
  Buffers(s, queries, keys, count);
  const parallel::Block memory(count.used());
  tiles::Workspace workspace(memory.data());
  const Buffers buffers(s, queries, keys, workspace);

  // Steps 1 and 2 for one of q, k, v: tokens -> [batch..., seq, heads * depth].
  const auto to_heads = [&](const auto& tokens, std::int64_t stack, std::int64_t weight,
                            std::int64_t bias, std::int64_t depth, float* heads) {
    const TokenProduct product(tokens);
    const auto to = as_result(product.dense(heads, s.heads * depth));
    if (s.d_model == 0) {
      project(product.as_rows(tokens), weight, s.embedding, s.heads * depth, bias, to);
    } else {
      const auto rows = product.dense(buffers.model, s.d_model);
      project(product.as_rows(tokens), at.qkv + stack * s.embedding * s.d_model, s.embedding,
              s.d_model, -1, as_result(rows));
      project(rows, weight, s.d_model, s.heads * depth, bias, to);
    }
  };
  to_heads(q_tokens, 0, at.w_q, at.b_q, s.d_k, buffers.q);
  to_heads(k_tokens, 1, at.w_k, at.b_k, s.d_k, buffers.k);
  to_heads(v_tokens, 2, at.w_v, at.b_v, s.d_v, buffers.v);

  // Steps 3 and 4.
  attention(queries.split_heads<Head, Query, DepthK, const float>(buffers.q, s.heads, s.d_k),
            keys.split_heads<KvHead, Key, DepthK, const float>(buffers.k, s.heads, s.d_k),
            keys.split_heads<KvHead, Key, DepthV, const float>(buffers.v, s.heads, s.d_v),
            queries.split_heads<Head, Query, DepthV, float>(buffers.out, s.heads, s.d_v), options);

  // Step 5.
  project(queries.dense<const float>(buffers.out, s.heads * s.d_v), at.output, s.heads * s.d_v,
          s.embedding, at.b_output, as_result(queries.as_rows(result)));
}

}  // namespace rapt
