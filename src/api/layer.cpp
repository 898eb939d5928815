// MultiHeadAttention: the five steps of the layer, each a call of the public API.
#include "rapt/layer.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "api/layer.hpp"
#include "parallel/memory.hpp"
#include "problem/axes.hpp"
#include "rapt/quantize.hpp"
#include "tiles/workspace.hpp"

namespace rapt {
namespace {

using namespace rapt::layers;  // NOLINT(google-build-using-namespace)

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

// Elements of what the steps leave, [batch..., seq, columns].
struct Sizes {
  std::int64_t model_q, model_kv, q, k, v, out, lse;

  Sizes(const LayerShape& s, const TokenProduct& queries, const TokenProduct& keys)
      : model_q(of("a projection of the layer", queries, s.d_model)),
        model_kv(of("a projection of the layer", keys, s.d_model)),
        q(of("q of the layer", queries, s.heads * s.d_k)),
        k(of("k of the layer", keys, s.heads * s.d_k)),
        v(of("v of the layer", keys, s.heads * s.d_v)),
        out(of("out of the layer", queries, s.heads * s.d_v)),
        lse(of("lse of the layer", queries, s.heads)) {}

 private:
  static std::int64_t of(const char* name, const TokenProduct& tokens, std::int64_t columns) {
    problem::Range range(name, sizeof(float));
    range.axis("columns", columns, 1);
    range.axis("tokens", tokens.elements * tokens.seq, columns);
    return range.count();
  }
};

// Where they leave it.
struct Steps {
  float *model_q, *model_k, *model_v, *q, *k, *v, *out;
};

// Where nothing is kept, the first projections of q, k and v take turns.
Steps steps_in(tiles::Workspace& workspace, const Sizes& sizes) {
  float* const model = workspace.floats(std::max(sizes.model_q, sizes.model_kv));
  Steps steps{model, model, model, nullptr, nullptr, nullptr, nullptr};
  steps.q = workspace.floats(sizes.q);
  steps.k = workspace.floats(sizes.k);
  steps.v = workspace.floats(sizes.v);
  steps.out = workspace.floats(sizes.out);
  return steps;
}

void run(const LayerShape& s, const float* weights, const TokensView& q_tokens,
         const KvTokensView& k_tokens, const KvTokensView& v_tokens, const OutTokensView& result,
         const Steps& steps, const AttentionOptions& options) {
  const Offsets at(s);
  const auto project = [&](View<const float, Row, Inner> rows, std::int64_t weight, std::int64_t in,
                           std::int64_t out, std::int64_t bias, View<float, Row, Column> to) {
    GemmOptions with;
    if (bias >= 0) with.bias = View<const float, Column>(weights + bias, {out});
    with.executor = options.executor;
    gemm(rows, View<const float, Inner, Column>(weights + weight, {in, out}), to, with);
  };

  // Steps 1 and 2 for one of q, k, v: tokens -> [batch..., seq, heads * depth].
  const auto to_heads = [&](const auto& tokens, std::int64_t stack, float* model,
                            std::int64_t weight, std::int64_t bias, std::int64_t depth,
                            float* heads) {
    const TokenProduct product(tokens);
    const auto to = as_result(product.dense(heads, s.heads * depth));
    if (s.d_model == 0) {
      project(product.as_rows(tokens), weight, s.embedding, s.heads * depth, bias, to);
    } else {
      const auto rows = product.dense(model, s.d_model);
      project(product.as_rows(tokens), at.qkv + stack * s.embedding * s.d_model, s.embedding,
              s.d_model, -1, as_result(rows));
      project(rows, weight, s.d_model, s.heads * depth, bias, to);
    }
  };
  to_heads(q_tokens, 0, steps.model_q, at.w_q, at.b_q, s.d_k, steps.q);
  to_heads(k_tokens, 1, steps.model_k, at.w_k, at.b_k, s.d_k, steps.k);
  to_heads(v_tokens, 2, steps.model_v, at.w_v, at.b_v, s.d_v, steps.v);

  // Steps 3 and 4.
  const TokenProduct queries(q_tokens), keys(k_tokens);
  attention(queries.split_heads<Head, Query, DepthK, const float>(steps.q, s.heads, s.d_k),
            keys.split_heads<KvHead, Key, DepthK, const float>(steps.k, s.heads, s.d_k),
            keys.split_heads<KvHead, Key, DepthV, const float>(steps.v, s.heads, s.d_v),
            queries.split_heads<Head, Query, DepthV, float>(steps.out, s.heads, s.d_v), options);

  // Step 5.
  project(queries.dense<const float>(steps.out, s.heads * s.d_v), at.output, s.heads * s.d_v,
          s.embedding, at.b_output, as_result(queries.as_rows(result)));
}

// [batch..., heads, seq_q] as rows of one number.
AnyRowsOut as_column(const LseView& lse) {
  Numbers extents{}, strides{};
  const auto axes = static_cast<std::size_t>(lse.batch_axes());
  for (int i = 0; i < lse.batch_axes(); ++i) {
    extents[static_cast<std::size_t>(i)] = lse.batch_extent(i);
    strides[static_cast<std::size_t>(i)] = lse.batch_stride(i);
  }
  extents[axes] = lse.extent<Head>();
  extents[axes + 1] = lse.extent<Query>();
  extents[axes + 2] = 1;
  strides[axes] = lse.stride<Head>();
  strides[axes + 1] = lse.stride<Query>();
  strides[axes + 2] = 1;
  return View<float, Head, Position, Depth>(lse.data(), extents.data(), axes + 3, strides.data(),
                                            axes + 3);
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
  problem::check_layer_forward(shape_, q_tokens, k_tokens, v_tokens, result);
  const Sizes sizes(shape_, TokenProduct(q_tokens), TokenProduct(k_tokens));
  tiles::Workspace count(nullptr);
  steps_in(count, sizes);
  const parallel::Block memory(count.used());
  tiles::Workspace workspace(memory.data());
  run(shape_, projections_.data(), q_tokens, k_tokens, v_tokens, result, steps_in(workspace, sizes),
      options);
}

void MultiHeadAttention::forward(TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                                 OutTokensView result, LayerActivations& kept,
                                 const AttentionOptions& options) const {
  problem::check_layer_forward(shape_, q_tokens, k_tokens, v_tokens, result);
  const TokenProduct queries(q_tokens);
  const Sizes sizes(shape_, queries, TokenProduct(k_tokens));
  const auto sized = [](std::vector<float>& values, std::int64_t n) {
    values.resize(static_cast<std::size_t>(n));
    return values.data();
  };
  const Steps steps{sized(kept.model_q, sizes.model_q),
                    sized(kept.model_k, sizes.model_kv),
                    sized(kept.model_v, sizes.model_kv),
                    sized(kept.q, sizes.q),
                    sized(kept.k, sizes.k),
                    sized(kept.v, sizes.v),
                    sized(kept.out, sizes.out)};
  const auto lse = queries.dense_lse(sized(kept.lse, sizes.lse), shape_.heads);
  AttentionOptions keeping = options;
  keeping.lse = lse;
  run(shape_, projections_.data(), q_tokens, k_tokens, v_tokens, result, steps, keeping);
  if (options.lse) convert(as_column(lse), as_column(options.lse), options.executor);
}

}  // namespace rapt
