// The layer's gradients against the reference: all parameters and the three token inputs, with and
// without the first projection; same bits; what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

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
constexpr std::int64_t kSeqQ = 17, kSeqKv = 19;

std::vector<std::int64_t> extents(std::vector<std::int64_t> batch, std::int64_t a, std::int64_t b) {
  batch.insert(batch.end(), {a, b});
  return batch;
}

MultiHeadAttention layer_of(const LayerShape& shape, bool biases) {
  LayerParameters p = MultiHeadAttention(shape, 42).parameters();
  Random random(6);
  const auto normal = [&](std::vector<double>& values, std::int64_t n) {
    for (; n > 0 && biases; --n) values.push_back(random.normal());
  };
  normal(p.b_q, shape.heads * shape.d_k);
  normal(p.b_k, shape.heads * shape.d_k);
  normal(p.b_v, shape.heads * shape.d_v);
  normal(p.b_output, shape.embedding);
  return {shape, p};
}

const std::map<std::string, std::vector<double> LayerParameters::*> kParameters = {
    {"qkv", &LayerParameters::qkv},          {"w_q", &LayerParameters::w_q},
    {"w_k", &LayerParameters::w_k},          {"w_v", &LayerParameters::w_v},
    {"b_q", &LayerParameters::b_q},          {"b_k", &LayerParameters::b_k},
    {"b_v", &LayerParameters::b_v},          {"output", &LayerParameters::output},
    {"b_output", &LayerParameters::b_output}};

// A layer, its tokens, and all that it gives for them.
struct Data {
  Data(const MultiHeadAttention& of, const std::vector<std::int64_t>& batch, std::uint64_t seed)
      : layer(of),
        q(make(batch, kSeqQ, seed, true)),
        k(make(batch, kSeqKv, seed + 1, true)),
        v(make(batch, kSeqKv, seed + 2, true)),
        grad_result(make(batch, kSeqQ, seed + 3, true)),
        result(make(batch, kSeqQ, seed + 4, false)),
        dq(make(batch, kSeqQ, seed + 5, false)),
        dk(make(batch, kSeqKv, seed + 6, false)),
        dv(make(batch, kSeqKv, seed + 7, false)) {
    gradients.q_tokens = dq.view<Query, Embedding>();
    gradients.k_tokens = dk.view<Key, Embedding>();
    gradients.v_tokens = dv.view<Key, Embedding>();
  }
  Tensor<float> make(const std::vector<std::int64_t>& batch, std::int64_t seq, std::uint64_t seed,
                     bool input) const {
    const auto shape = extents(batch, seq, layer.shape().embedding);
    Random random(seed);
    Tensor<float> tensor(shape, random_layout(random, static_cast<int>(shape.size()), input));
    tensor.fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
    tensor.seal();
    return tensor;
  }
  TokensView q_view() const { return q.view<Query, Embedding>(); }
  KvTokensView k_view() const { return k.view<Key, Embedding>(); }
  KvTokensView v_view() const { return v.view<Key, Embedding>(); }
  TokensView grad_view() const { return grad_result.view<Query, Embedding>(); }

  void run(const Executor* executor = nullptr) {
    options.executor = executor;
    for (auto* written : {&result, &dq, &dk, &dv}) written->reset();
    layer.forward(q_view(), k_view(), v_view(), result.view<Query, Embedding>(), kept, options);
    layer.backward(q_view(), k_view(), v_view(), kept, grad_view(), gradients, options, attention);
    for (const auto* written : {&result, &dq, &dk, &dv}) EXPECT_TRUE(written->gaps_unchanged());
    for (const auto* read : {&q, &k, &v, &grad_result}) EXPECT_TRUE(read->unchanged());
  }

  // All gradients, one after the other.
  std::vector<float> values() const {
    std::vector<float> all;
    for (const auto& [name, parameter] : kParameters)
      for (double x : gradients.parameters.*parameter) all.push_back(static_cast<float>(x));
    for (const auto* grad : {&dq, &dk, &dv})
      for (float x : grad->values()) all.push_back(x);
    return all;
  }

  // Those of the parameters, summed over the batch, and those of the tokens, one after the other.
  struct Expected {
    std::map<std::string, std::vector<double>> parameters;
    std::vector<double> q, k, v, bias;
  };
  Expected expect() const {
    Expected all;
    for_each_batch(q_view(), [&](const Batch& batch) {
      AttentionOptions one = options;
      one.mask = batch_element(options.mask, batch);
      View<const float, Head, Query> given = batch_element(attention.grad_lse, batch);
      Array<Head, Query> dlse(Along<Head>{layer.shape().heads}, Along<Query>{kSeqQ});
      if (given)
        for (At<Head> h : along<Head>(dlse))
          for (At<Query> i : along<Query>(dlse)) at(dlse, h, i) = at(given, h, i);
      const auto d =
          layer_backward(layer.shape(), layer.parameters(), batch_element(q_view(), batch),
                         batch_element(k_view(), batch), batch_element(v_view(), batch),
                         batch_element(grad_view(), batch), dlse, one);
      for (const auto& [name, parameter] : kParameters) {
        const std::vector<double>& part = d.parameters.*parameter;
        std::vector<double>& sum = all.parameters[name];
        sum.resize(part.size());
        for (std::size_t n = 0; n < part.size(); ++n) sum[n] += part[n];
      }
      const auto append = [&](std::vector<double>& to, const auto& array, std::int64_t seq) {
        to.insert(to.end(), array.data(), array.data() + seq * layer.shape().embedding);
      };
      append(all.q, d.q_tokens, kSeqQ);
      append(all.k, d.k_tokens, kSeqKv);
      append(all.v, d.v_tokens, kSeqKv);
      if (!options.bias) return;
      all.bias.resize(static_cast<std::size_t>(layer.shape().heads * kSeqQ * kSeqKv));
      for (std::size_t n = 0; n < all.bias.size(); ++n) all.bias[n] += d.attention.bias.data()[n];
    });
    return all;
  }

  void check(const Expected& expected) const {
    // A dozen f32 products in a row, each with the error of its sums, relative to the largest; or
    // to the terms, of size 10, where they cancel: b_k moves all scores of a row, and has gradient
    // 0.
    const auto near = [](const std::string& name, const auto& got,
                         const std::vector<double>& want) {
      ASSERT_EQ(got.size(), want.size()) << name;
      double most = 0;
      for (double x : want) most = std::max(most, std::abs(x));
      for (std::size_t n = 0; n < want.size(); ++n)
        ASSERT_NEAR(got[n], want[n], 1e-5 * std::max(most, 10.0)) << name << " " << n;
    };
    for (const auto& [name, parameter] : kParameters)
      near(name, gradients.parameters.*parameter, expected.parameters.at(name));
    near("q_tokens", dq.values(), expected.q);
    near("k_tokens", dk.values(), expected.k);
    near("v_tokens", dv.values(), expected.v);
  }

  const MultiHeadAttention layer;
  Tensor<float> q, k, v, grad_result, result, dq, dk, dv;
  AttentionOptions options;
  BackwardOptions attention;
  LayerActivations kept;
  rapt::LayerGradients gradients;
};

TEST(LayerBackward, AgreesWithTheReference) {
  std::uint64_t seed = 1;
  for (const LayerShape& shape : {kPrimes, kWithoutProjection}) {
    for (bool biases : {false, true}) {
      for (const std::vector<std::int64_t>& batch :
           {std::vector<std::int64_t>{}, {2}, {2, 3}, {1, 2, 1, 3}}) {
        if (batch.size() == 1 && few_cases()) continue;
        for (bool causal : {false, true}) {
          if (batch.size() > 1 && causal != biases && few_cases()) continue;
          SCOPED_TRACE(testing::Message() << "d_model " << shape.d_model << ", biases " << biases
                                          << ", batch axes " << batch.size());
          Data data(layer_of(shape, biases), batch, seed++);
          data.options.causal = causal;
          const auto expected = data.expect();
          for_each_way({few_keys_lanes(4), small_packed(4)}, [&] {
            data.run();
            data.check(expected);
          });
        }
      }
    }
  }
}

TEST(LayerBackward, TakesTheOptionsOfAttention) {
  Data data(layer_of(kPrimes, true), {2}, 5);
  Tensor<bool> mask({kSeqQ, kSeqKv});
  Random random(5);
  mask.fill([&](std::int64_t) { return random.percent(60); });
  Tensor<float> bias({3, kSeqQ, kSeqKv}), grad_bias({3, kSeqQ, kSeqKv}), lse({2, 3, kSeqQ}),
      grad_lse({2, 3, kSeqQ}, {{2, 0, 1}, 2});
  const auto normal = [&](std::int64_t) { return static_cast<float>(random.normal()); };
  bias.fill(normal);
  grad_lse.fill(normal);
  data.options.mask = {mask.data(), {1, kSeqQ, kSeqKv}};
  data.options.bias = bias.view<Head, Query, Key>();
  data.options.lse = lse.view<Head, Query>();
  data.attention.grad_lse = grad_lse.view<Head, Query>();
  data.attention.grad_bias = grad_bias.view<Head, Query, Key>();
  data.run();
  const auto expected = data.expect();
  data.check(expected);
  EXPECT_TRUE(same_bits(lse.values(), data.kept.lse));
  // The bias is added to the scores of both batch elements.
  for (std::size_t n = 0; n < expected.bias.size(); ++n)
    EXPECT_NEAR(grad_bias.values()[n], expected.bias[n], 1e-5) << n;
}

TEST(LayerBackward, KeepsTheBitsOfTheForwardPass) {
  Data data(layer_of(kPrimes, true), {2, 3}, 9);
  for_each_target([&] {
    data.run();
    const std::vector<float> kept = data.result.values();
    data.result.reset();
    data.layer(data.q_view(), data.k_view(), data.v_view(), data.result.view<Query, Embedding>());
    EXPECT_TRUE(same_bits(kept, data.result.values()));
  });
}

TEST(LayerBackward, SameBitsOnAnyNumberOfThreads) {  // B26
  for (const LayerShape& shape : {kPrimes, kWithoutProjection}) {
    Data data(layer_of(shape, true), {few_cases() ? 3 : 7}, 11);
    for_each_way({few_keys_lanes(4), small_packed(4)}, [&] {
      data.run(&serial_executor());
      const std::vector<float> serial = data.values();
      for (int threads : {2, 3, 8}) {
        const ThreadExecutor executor(threads);
        data.run(&executor);
        EXPECT_TRUE(same_bits(serial, data.values())) << threads;
      }
      data.run();
      EXPECT_TRUE(same_bits(serial, data.values()));
    });
  }
}

// Only what is wanted: no gradients of tokens.
TEST(LayerBackward, OfTheParametersAlone) {
  Data all(layer_of(kPrimes, true), {2}, 13), some(layer_of(kPrimes, true), {2}, 13);
  some.gradients = {};
  all.run();
  some.run();
  EXPECT_EQ(all.gradients.parameters.w_k, some.gradients.parameters.w_k);
  EXPECT_EQ(all.gradients.parameters.qkv, some.gradients.parameters.qkv);
  EXPECT_TRUE(some.dq.unchanged());
}

TEST(LayerBackward, WithNothingToDo) {  // B22
  const MultiHeadAttention layer = layer_of(kPrimes, true);
  for (auto [batch, seq_q, seq_kv] : {std::tuple{0, 5, 7}, {2, 0, 7}, {2, 5, 0}}) {
    const Tensor<float> q({batch, seq_q, 11}), k({batch, seq_kv, 11});
    Tensor<float> result({batch, seq_q, 11}), dq({batch, seq_q, 11}), dk({batch, seq_kv, 11});
    const auto ones = [](const Tensor<float>& of) {
      for (std::int64_t i = 0; i < of.size(); ++i) of[i] = 1;
    };
    ones(q);
    ones(k);
    LayerActivations kept;
    rapt::LayerGradients gradients;
    gradients.q_tokens = dq.view<Query, Embedding>();
    gradients.k_tokens = dk.view<Key, Embedding>();
    layer.forward(q.view<Query, Embedding>(), k.view<Key, Embedding>(), k.view<Key, Embedding>(),
                  result.view<Query, Embedding>(), kept);
    layer.backward(q.view<Query, Embedding>(), k.view<Key, Embedding>(), k.view<Key, Embedding>(),
                   kept, q.view<Query, Embedding>(), gradients);
    for (const auto* grad : {&dq, &dk})
      for (float x : grad->values()) EXPECT_EQ(x, 0);
    for (const auto& [name, parameter] : kParameters) {
      EXPECT_EQ((gradients.parameters.*parameter).size(), (layer.parameters().*parameter).size());
      for (double x : gradients.parameters.*parameter)
        EXPECT_EQ(x, name == "b_output" ? static_cast<double>(batch * seq_q) : 0) << name;
    }
  }
}

TEST(LayerBackwardErrors, NameTheAxisAndBothValuesAndWriteNothing) {
  Data data(layer_of(kPrimes, true), {2}, 17);
  data.run();
  const std::vector<float> before = data.values();
  const auto expect = [&](ErrorCode code, const std::string& sentence, const auto& change) {
    LayerActivations kept = data.kept;
    AttentionOptions options;
    TokensView q = data.q_view(), grad_result = data.grad_view();
    rapt::LayerGradients& gradients = data.gradients;
    const auto views = std::tuple(gradients.q_tokens, gradients.k_tokens, gradients.v_tokens);
    change(q, grad_result, kept, gradients, options);
    try {
      data.layer.backward(q, data.k_view(), data.v_view(), kept, grad_result, gradients, options);
      ADD_FAILURE() << "no error, but expected: " << sentence;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_EQ(error.what(), sentence);
    }
    std::tie(gradients.q_tokens, gradients.k_tokens, gradients.v_tokens) = views;
    EXPECT_TRUE(same_bits(before, data.values()));
  };
  constexpr auto kMismatch = ErrorCode::extent_mismatch;
  const Tensor<float> other({2, 16, 10});
  Tensor<float> written({2, 16, 11});
  expect(kMismatch, "axis embedding: q_tokens has 10, but the layer has 11",
         [&](auto& q, auto&...) { q = other.view<Query, Embedding>(); });
  expect(kMismatch, "axis seq_q: q_tokens has 17, but grad_result has 16",
         [&](auto&, auto& grad_result, auto&...) { grad_result = {other.data(), {2, 16, 11}}; });
  expect(kMismatch, "axis seq_q: q_tokens has 17, but the gradient of q_tokens has 16",
         [&](auto&, auto&, auto&, auto& gradients, auto&) {
           gradients.q_tokens = written.view<Query, Embedding>();
         });
  expect(kMismatch, "axis seq_kv: v_tokens has 19, but the gradient of v_tokens has 16",
         [&](auto&, auto&, auto&, auto& gradients, auto&) {
           gradients.v_tokens = written.view<Key, Embedding>();
         });
  expect(kMismatch, "axis elements: kept.lse has 101, but that of these tokens has 102",
         [&](auto&, auto&, auto& kept, auto&...) { kept.lse.pop_back(); });
  expect(kMismatch, "axis elements: kept.model_v has 0, but that of these tokens has 494",
         [&](auto&, auto&, auto& kept, auto&...) { kept.model_v.clear(); });
  // Of attention: found before anything of the caller's is written.
  Tensor<bool> mask({3, kSeqQ, kSeqKv - 1});
  expect(kMismatch, "axis seq_kv: mask has 18, but k has 19",
         [&](auto&, auto&, auto&, auto&, auto& options) {
           options.mask = mask.view<Head, Query, Key>();
         });
}

}  // namespace
}  // namespace rapt::tests
