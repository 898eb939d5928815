// The layer's gradients in the reference against central differences of its forward pass, in f64:
// every element of every parameter and of the three token inputs, with and without the first
// projection.
#include <gtest/gtest.h>

#include <cmath>

#include "support/random.hpp"
#include "reference/reference.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

void check(const LayerShape& shape, bool biases, const AttentionOptions& options) {
  constexpr std::int64_t kSeqQ = 5, kSeqKv = 7;
  Random random(static_cast<std::uint64_t>(shape.d_model) + 1);
  LayerParameters p = MultiHeadAttention(shape, 3).parameters();
  const auto normal = [&](auto& values, std::int64_t n) {
    values.resize(static_cast<std::size_t>(n));
    for (auto& x : values) x = static_cast<std::remove_reference_t<decltype(x)>>(random.normal());
  };
  if (biases) {
    normal(p.b_q, shape.heads * shape.d_k);
    normal(p.b_k, shape.heads * shape.d_k);
    normal(p.b_v, shape.heads * shape.d_v);
    normal(p.b_output, shape.embedding);
  }
  std::vector<float> q, k, v, dresult_values;
  normal(q, kSeqQ * shape.embedding);
  normal(k, kSeqKv * shape.embedding);
  normal(v, kSeqKv * shape.embedding);
  normal(dresult_values, kSeqQ * shape.embedding);
  const TokensView q_tokens(q.data(), {kSeqQ, shape.embedding});
  const KvTokensView k_tokens(k.data(), {kSeqKv, shape.embedding});
  const KvTokensView v_tokens(v.data(), {kSeqKv, shape.embedding});
  const TokensView dresult(dresult_values.data(), {kSeqQ, shape.embedding});

  const auto loss = [&] {
    const auto result = layer(shape, p, q_tokens, k_tokens, v_tokens, options);
    double sum = 0;
    for (At<Query> i : along<Query>(result))
      for (At<Embedding> e : along<Embedding>(result)) sum += at(result, i, e) * at(dresult, i, e);
    return sum;
  };
  const auto d = layer_backward(shape, p, q_tokens, k_tokens, v_tokens, dresult, {}, options);

  // Steps that floats take without rounding.
  const auto expect = [&](const char* what, auto& values, const double* gradient, double step) {
    for (std::size_t n = 0; n < values.size(); ++n) {
      auto& x = values[n];
      const auto before = x;
      const auto slope = [&](double size) {
        x = static_cast<std::remove_cvref_t<decltype(x)>>(before + size);
        const double above = x, high = loss();
        x = static_cast<std::remove_cvref_t<decltype(x)>>(before - size);
        const double below = x, low = loss();
        x = before;
        return (high - low) / (above - below);
      };
      // How far the loss is from straight here: the error is a third of what half the step changes.
      const double wide = slope(2 * step), want = slope(step);
      EXPECT_NEAR(gradient[n], want, std::abs(wide - want) + 1e-7 * (1 + std::abs(want)))
          << what << " " << n;
    }
  };
  const auto parameter = [&](const char* what, std::vector<double> LayerParameters::* which) {
    ASSERT_EQ((d.parameters.*which).size(), (p.*which).size()) << what;
    expect(what, p.*which, (d.parameters.*which).data(), 0x1p-17);
  };
  parameter("qkv", &LayerParameters::qkv);
  parameter("w_q", &LayerParameters::w_q);
  parameter("w_k", &LayerParameters::w_k);
  parameter("w_v", &LayerParameters::w_v);
  parameter("output", &LayerParameters::output);
  parameter("b_q", &LayerParameters::b_q);
  parameter("b_k", &LayerParameters::b_k);
  parameter("b_v", &LayerParameters::b_v);
  parameter("b_output", &LayerParameters::b_output);
  expect("q_tokens", q, d.q_tokens.data(), 0x1p-12);
  expect("k_tokens", k, d.k_tokens.data(), 0x1p-12);
  expect("v_tokens", v, d.v_tokens.data(), 0x1p-12);
}

TEST(ReferenceLayerBackward, IsTheSlopeOfTheForwardPass) {
  AttentionOptions causal;
  causal.causal = true;
  for (std::int64_t d_model : {0, 5}) {
    for (bool biases : {false, true}) {
      SCOPED_TRACE(testing::Message() << "d_model " << d_model << ", biases " << biases);
      const LayerShape shape{7, d_model, 2, 3, 5};
      check(shape, biases, {});
      check(shape, biases, causal);
    }
  }
}

}  // namespace
}  // namespace rapt::tests
