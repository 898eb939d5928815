// The multi-head attention layer: shapes, initialisation, errors that show both shapes, and every
// step against the reference, for self-, cross- and causal attention with any number of batch axes.
#include "rapt/layer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "rapt/rapt.hpp"
#include "reference/reference.hpp"
#include "support/executors.hpp"
#include "support/tensor.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

constexpr LayerShape kPrimes{11, 13, 3, 5, 7};  // embedding, d_model, heads, d_k, d_v
constexpr LayerShape kWithoutProjection{11, 0, 3, 5, 7};

Tensor<float> tokens(std::vector<std::int64_t> extents, std::uint64_t seed,
                     const Layout& layout = {}) {
  Tensor<float> result(std::move(extents), layout);
  Random random(seed);
  result.fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
  result.seal();
  return result;
}

// Four products in a row of values of size 1 to 10, each with the error of f32.
constexpr double kTolerance = 5e-5;

void expect_reference(const MultiHeadAttention& layer, const Tensor<float>& q,
                      const Tensor<float>& k, const Tensor<float>& v,
                      const AttentionOptions& options, const Tensor<float>& result) {
  const auto q_view = q.view<Query, Embedding>();
  for_each_batch(q_view, [&](const Batch& batch) {
    AttentionOptions one = options;
    one.mask = batch_element(options.mask, batch);
    const auto expected = reference::layer(
        layer.shape(), layer.parameters(), TokensView(batch_element(q_view, batch)),
        KvTokensView(batch_element(k.view<Key, Embedding>(), batch)),
        KvTokensView(batch_element(v.view<Key, Embedding>(), batch)), one);
    const auto got = batch_element(result.view<Query, Embedding>(), batch);
    for (At<Query> i : along<Query>(expected)) {
      for (At<Embedding> e : along<Embedding>(expected)) {
        ASSERT_NEAR(at(got, i, e), at(expected, i, e), kTolerance) << i.value << " " << e.value;
      }
    }
  });
  EXPECT_TRUE(result.gaps_unchanged());
}

TEST(Layer, AgreesWithItsFiveStepsInTheReference) {
  Random random(1);
  for (const LayerShape& shape : {kPrimes, kWithoutProjection}) {
    const MultiHeadAttention layer(shape, 42);
    for (const std::vector<std::int64_t>& batch :
         {std::vector<std::int64_t>{}, {2}, {2, 3}, {1, 2, 1, 3}}) {
      for (bool cross : {false, true}) {
        for (bool causal : {false, true}) {
          if (batch.size() > 1 && causal == cross && few_cases()) continue;
          auto q_extents = batch, k_extents = batch;
          q_extents.insert(q_extents.end(), {17, 11});
          k_extents.insert(k_extents.end(), {cross ? 19 : 17, 11});
          const int rank = static_cast<int>(q_extents.size());
          const auto q = tokens(q_extents, 1, random_layout(random, rank, true));
          const auto k = cross ? tokens(k_extents, 2, random_layout(random, rank, true))
                               : tokens(q_extents, 1);
          const auto v = cross ? tokens(k_extents, 3, random_layout(random, rank, true))
                               : tokens(q_extents, 1);
          Tensor<float> result(q_extents, random_layout(random, rank, false));
          AttentionOptions options;
          options.causal = causal;
          for_each_way({few_keys_lanes(4), few_keys_rows(4), small_packed(4)}, [&] {
            result.reset();
            layer(q.view<Query, Embedding>(), k.view<Key, Embedding>(), v.view<Key, Embedding>(),
                  result.view<Query, Embedding>(), options);
            expect_reference(layer, q, k, v, options, result);
          });
        }
      }
    }
  }
}

TEST(Layer, TakesMaskLseAndExecutor) {
  const MultiHeadAttention layer(kPrimes, 7);
  const auto q = tokens({2, 17, 11}, 1), k = tokens({2, 19, 11}, 2);
  Tensor<float> result({2, 17, 11}), lse({2, 3, 17});
  Tensor<bool> mask({3, 17, 19});
  Random random(5);
  mask.fill([&](std::int64_t) { return random.percent(60); });
  AttentionOptions options;
  options.mask = mask.view<Head, Query, Key>();
  options.lse = lse.view<Head, Query>();
  const ThreadExecutor executor(2);
  options.executor = &executor;
  result.reset();
  layer(q.view<Query, Embedding>(), k.view<Key, Embedding>(), k.view<Key, Embedding>(),
        result.view<Query, Embedding>(), options);
  expect_reference(layer, q, k, k, options, result);
  for (float x : lse.values()) EXPECT_FALSE(std::isnan(x));
}

TEST(Layer, WithNothingToDo) {  // B22
  const MultiHeadAttention layer(kPrimes, 7);
  for (auto [batch, seq_q, seq_kv] : {std::tuple{0, 5, 7}, {2, 0, 7}, {2, 5, 0}}) {
    const auto q = tokens({batch, seq_q, 11}, 1), k = tokens({batch, seq_kv, 11}, 2);
    Tensor<float> result({batch, seq_q, 11});
    result.reset();
    layer(q.view<Query, Embedding>(), k.view<Key, Embedding>(), k.view<Key, Embedding>(),
          result.view<Query, Embedding>());
    for (float x : result.values()) EXPECT_EQ(x, 0);
  }
}

TEST(Layer, IsHeNormalAtFirst) {
  const LayerShape shape{64, 96, 8, 16, 24};
  const MultiHeadAttention layer(shape, 1);
  const LayerParameters& p = layer.parameters();
  const auto expect_normal = [](const std::vector<double>& values, std::int64_t count,
                                double fan_in) {
    ASSERT_EQ(static_cast<std::int64_t>(values.size()), count);
    double sum = 0, squares = 0, beyond = 0;
    const double sigma = std::sqrt(2 / fan_in);
    for (double x : values) {
      sum += x;
      squares += x * x;
      beyond += std::abs(x) > 2 * sigma;
    }
    const auto n = static_cast<double>(count);
    EXPECT_NEAR(sum / n, 0, 5 * sigma / std::sqrt(n));
    EXPECT_NEAR(squares / n, sigma * sigma, 5 * sigma * sigma * std::sqrt(2 / n));
    EXPECT_NEAR(beyond / n, 0.0455, 5 * std::sqrt(0.0455 / n))
        << "as many beyond two deviations as a normal has";
  };
  expect_normal(p.qkv, 3 * 64 * 96, 64);
  expect_normal(p.w_q, 8 * 96 * 16, 96);
  expect_normal(p.w_k, 8 * 96 * 16, 96);
  expect_normal(p.w_v, 8 * 96 * 24, 96);
  expect_normal(p.output, 8 * 24 * 64, 8 * 24);
  for (const auto* bias : {&p.b_q, &p.b_k, &p.b_v, &p.b_output}) EXPECT_TRUE(bias->empty());
  EXPECT_NE(p.w_q, p.w_k);
}

TEST(Layer, TheSameSeedGivesTheSameParameters) {
  const MultiHeadAttention a(kPrimes, 3), b(kPrimes, 3), c(kPrimes, 4);
  EXPECT_EQ(a.parameters().qkv, b.parameters().qkv);
  EXPECT_EQ(a.parameters().output, b.parameters().output);
  EXPECT_NE(a.parameters().qkv, c.parameters().qkv);
}

template <class Make>
std::string sentence(ErrorCode code, const Make& make) {
  try {
    make();
    return "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
}

TEST(LayerErrors, AParameterThatDoesNotFitShowsBothShapes) {
  const LayerParameters right = MultiHeadAttention(kPrimes, 1).parameters();
  const auto wrong = [&](std::vector<double> LayerParameters::* which, std::size_t size,
                         const char* name, const char* shape) {
    LayerParameters p = right;
    (p.*which).resize(size);
    const std::string said =
        sentence(ErrorCode::extent_mismatch, [&] { MultiHeadAttention(kPrimes, p); });
    EXPECT_NE(said.find(name), std::string::npos) << said;
    EXPECT_NE(said.find(shape), std::string::npos) << said;
    EXPECT_NE(said.find(std::to_string(size)), std::string::npos) << said;
  };
  wrong(&LayerParameters::qkv, 428, "qkv", "[3, 11, 13]");
  wrong(&LayerParameters::qkv, 0, "qkv", "[3, 11, 13]");
  wrong(&LayerParameters::w_q, 194, "w_q", "[3, 13, 5]");
  wrong(&LayerParameters::w_k, 196, "w_k", "[3, 13, 5]");
  wrong(&LayerParameters::w_v, 1, "w_v", "[3, 13, 7]");
  wrong(&LayerParameters::output, 230, "output", "[3, 7, 11]");
  wrong(&LayerParameters::b_q, 14, "b_q", "[3, 5]");
  wrong(&LayerParameters::b_k, 16, "b_k", "[3, 5]");
  wrong(&LayerParameters::b_v, 22, "b_v", "[3, 7]");
  wrong(&LayerParameters::b_output, 12, "b_output", "[11]");
}

TEST(LayerErrors, ShapesWithoutMeaning) {
  for (LayerShape shape :
       {LayerShape{0, 13, 3, 5, 7}, LayerShape{11, -1, 3, 5, 7}, LayerShape{11, 13, 0, 5, 7},
        LayerShape{11, 13, 3, 0, 7}, LayerShape{11, 13, 3, 5, -7}}) {
    EXPECT_NE(sentence(ErrorCode::extent_range, [&] { MultiHeadAttention(shape, 1); }), "no error");
  }
}

TEST(LayerErrors, TokensThatDoNotFitLeaveTheResultAlone) {
  const MultiHeadAttention layer(kPrimes, 1);
  const auto q = tokens({2, 17, 11}, 1), k = tokens({2, 19, 11}, 2);
  Tensor<float> result({2, 17, 11});
  result.reset();
  const auto wrong = [&](TokensView q_tokens, KvTokensView k_tokens, KvTokensView v_tokens,
                         OutTokensView to, std::initializer_list<const char*> words) {
    const std::string said =
        sentence(ErrorCode::extent_mismatch, [&] { layer(q_tokens, k_tokens, v_tokens, to); });
    for (const char* word : words)
      EXPECT_NE(said.find(word), std::string::npos) << said << " lacks " << word;
    EXPECT_TRUE(result.unchanged());
  };
  const TokensView q_view = q.view<Query, Embedding>();
  const KvTokensView k_view = k.view<Key, Embedding>();
  const OutTokensView to = result.view<Query, Embedding>();
  wrong({q.data(), {2, 17, 10}}, k_view, k_view, to, {"embedding", "q_tokens", "10", "11"});
  wrong(q_view, {k.data(), {2, 19, 10}}, k_view, to, {"embedding", "k_tokens", "10", "11"});
  wrong(q_view, k_view, {k.data(), {2, 18, 11}}, to,
        {"seq_kv", "k_tokens", "19", "v_tokens", "18"});
  wrong(q_view, {k.data(), {1, 19, 11}}, k_view, to, {"batch 0", "q_tokens", "2", "k_tokens", "1"});
  wrong(q_view, k_view, k_view, {result.data(), {2, 16, 11}}, {"seq_q", "17", "result", "16"});
  AttentionOptions options;
  Tensor<bool> mask({17, 18});
  mask.fill([](std::int64_t) { return true; });
  options.mask = {mask.data(), {1, 17, 18}};
  EXPECT_THROW(layer(q_view, k_view, k_view, to, options), Error);
  EXPECT_TRUE(result.unchanged());
}

TEST(Layer, ABatchElementAloneGivesTheSameBits) {  // B26
  const MultiHeadAttention layer({128, 0, 4, 32, 32}, 9);
  const auto q = tokens({8, 3, 128}, 1);
  Tensor<float> together({8, 3, 128}), alone({8, 3, 128});
  for_each_target([&] {
    layer(q.view<Query, Embedding>(), q.view<Key, Embedding>(), q.view<Key, Embedding>(),
          together.view<Query, Embedding>());
    for_each_batch(q.view<Query, Embedding>(), [&](const Batch& batch) {
      layer(TokensView(batch_element(q.view<Query, Embedding>(), batch)),
            KvTokensView(batch_element(q.view<Key, Embedding>(), batch)),
            KvTokensView(batch_element(q.view<Key, Embedding>(), batch)),
            batch_element(alone.view<Query, Embedding>(), batch));
    });
    EXPECT_TRUE(same_bits(together.values(), alone.values()));
  });
}

}  // namespace
}  // namespace rapt::tests
