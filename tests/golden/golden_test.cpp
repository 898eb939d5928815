// What PyTorch computes in f64 (make.py): against it stand the reference, to f64's own rounding,
// and every target.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "rapt/rapt.hpp"
#include "support/bounds.hpp"
#include "support/npy.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

const std::vector<Blocks> kSmall = {few_keys_lanes(4), few_keys_rows(4), small_packed(4),
                                    small_direct(4)};

template <class T, class... Axes>
View<T, Axes...> dense(T* data, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0; stride *= shape[i]) strides[i] = stride;
  return {data, shape.data(), shape.size(), strides.data(), strides.size()};
}

// f64 against f64: a few hundred roundings.
void expect_close(double got, double want, double magnitude, const std::string& what) {
  if (std::isinf(want)) {
    EXPECT_EQ(got, want) << what;
  } else {
    EXPECT_NEAR(got, want, 1e-12 * (magnitude + std::abs(want))) << what;
  }
}

TEST(Golden, Attention) {
  const auto names = golden_cases("attention");
  ASSERT_GE(names.size(), 18u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    const Npy q = golden.array("q"), k = golden.array("k"), v = golden.array("v");
    const Npy want_out = golden.array("out"), want_lse = golden.array("lse");
    Npy mask, bias;
    AttentionOptions options;
    options.causal = golden.option("causal").has_value();
    if (const auto offset = golden.option("q_offset"))
      options.q_offset = static_cast<std::int64_t>(*offset);
    if (const auto scale = golden.option("scale")) options.scale = static_cast<float>(*scale);
    if (golden.has("mask")) {
      mask = golden.array("mask");
      options.mask = dense<const bool, Head, Query, Key>(
          reinterpret_cast<const bool*>(mask.booleans.data()), mask.shape);
    }
    if (golden.has("bias")) {
      bias = golden.array("bias");
      options.bias = dense<const float, Head, Query, Key>(bias.f32.data(), bias.shape);
    }
    std::vector<float> out(want_out.f64.size()), lse(want_lse.f64.size());
    const auto q_view = dense<const float, Head, Query, DepthK>(q.f32.data(), q.shape);
    const auto k_view = dense<const float, KvHead, Key, DepthK>(k.f32.data(), k.shape);
    const auto v_view = dense<const float, KvHead, Key, DepthV>(v.f32.data(), v.shape);
    const auto out_view = dense<float, Head, Query, DepthV>(out.data(), want_out.shape);
    options.lse = dense<float, Head, Query>(lse.data(), want_lse.shape);

    // The reference.
    std::vector<ExpectedAttention> expected;
    std::size_t n = 0, rows = 0;
    for_each_batch(q_view, [&](const Batch& batch) {
      expected.push_back(expect_attention(problem_at(q_view, k_view, v_view, options, batch)));
      const ExpectedAttention& one = expected.back();
      for (At<Head> h : along<Head>(one.out)) {
        for (At<Query> i : along<Query>(one.out)) {
          expect_close(at(one.lse, h, i), want_lse.f64[rows++], 1, "lse of the reference");
          for (At<DepthV> d : along<DepthV>(one.out))
            expect_close(at(one.out, h, i, d), want_out.f64[n++], 1, "reference");
        }
      }
    });
    ASSERT_EQ(n, want_out.f64.size());

    // Every target, within the bounds but around PyTorch's values.
    for_each_way(kSmall, [&] {
      std::fill(out.begin(), out.end(), std::numeric_limits<float>::quiet_NaN());
      attention(q_view, k_view, v_view, out_view, options);
      Comparison comparison;
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto each = want_out.f64.size() / expected.size();
        const double* bound = expected[i / each].bound.data() + i % each;
        const double* floor = expected[i / each].floor.data() + i % each;
        comparison.add(out[i], want_out.f64[i], *bound, *floor + 1e-12,
                       static_cast<std::int64_t>(i));
      }
      EXPECT_TRUE(comparison.within());
      for (std::size_t i = 0; i < lse.size(); ++i) {
        const auto each = want_lse.f64.size() / expected.size();
        Comparison one;
        one.add(lse[i], want_lse.f64[i], expected[i / each].lse_bound.data()[i % each], 1e-6, 0);
        EXPECT_TRUE(one.within()) << "lse " << i;
      }
    });
  }
}

TEST(Golden, MatrixProduct) {
  const auto names = golden_cases("gemm");
  ASSERT_GE(names.size(), 8u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    const Npy a = golden.array("a"), b = golden.array("b"), want = golden.array("result");
    const Npy before = golden.has("c") ? golden.array("c") : Npy();
    const Npy bias = golden.has("bias") ? golden.array("bias") : Npy();
    GemmOptions options;
    options.alpha = static_cast<float>(golden.option("alpha").value());
    options.beta = static_cast<float>(golden.option("beta").value());
    options.activation = static_cast<Activation>(golden.option("activation").value());
    if (!bias.f32.empty()) options.bias = dense<const float, Column>(bias.f32.data(), bias.shape);
    const auto a_view = dense<const float, Row, Inner>(a.f32.data(), a.shape);
    const auto b_view = dense<const float, Inner, Column>(b.f32.data(), b.shape);
    std::vector<float> c = before.f32;
    c.resize(want.f64.size());
    const auto c_view = dense<float, Row, Column>(c.data(), want.shape);

    std::vector<double> bounds;
    std::size_t n = 0;
    for_each_batch(c_view, [&](const Batch& batch) {
      const ExpectedGemm expected =
          expect_gemm(batch_element(a_view, batch), batch_element(b_view, batch),
                      View<const float, Row, Column>(batch_element(c_view, batch)), options);
      for (At<Row> i : along<Row>(expected.c)) {
        for (At<Column> j : along<Column>(expected.c)) {
          expect_close(at(expected.c, i, j), want.f64[n++], 10, "reference");
          bounds.push_back(at(expected.bound, i, j));
        }
      }
    });
    for_each_way(kSmall, [&] {
      std::fill(c.begin(), c.end(), std::numeric_limits<float>::quiet_NaN());
      std::copy(before.f32.begin(), before.f32.end(), c.begin());
      rapt::gemm(a_view, b_view, c_view, options);
      Comparison comparison;
      for (std::size_t i = 0; i < c.size(); ++i)
        comparison.add(c[i], want.f64[i], bounds[i], 1e-12, static_cast<std::int64_t>(i));
      EXPECT_TRUE(comparison.within());
    });
  }
}

TEST(Golden, Layer) {
  const auto names = golden_cases("layer");
  ASSERT_GE(names.size(), 7u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    const auto number = [&](const char* option) {
      return static_cast<std::int64_t>(golden.option(option).value());
    };
    const LayerShape shape{number("embedding"), number("d_model"), number("heads"), number("d_k"),
                           number("d_v")};
    LayerParameters parameters;
    const auto take = [&](const char* array, std::vector<double>& to) {
      if (golden.has(array)) to = golden.array(array).f64;
    };
    take("qkv", parameters.qkv);
    take("w_q", parameters.w_q);
    take("w_k", parameters.w_k);
    take("w_v", parameters.w_v);
    take("output", parameters.output);
    take("b_q", parameters.b_q);
    take("b_k", parameters.b_k);
    take("b_v", parameters.b_v);
    take("b_output", parameters.b_output);
    const MultiHeadAttention layer(shape, parameters);
    const Npy q = golden.array("q_tokens"), k = golden.array("k_tokens"),
              v = golden.array("v_tokens");
    const Npy want = golden.array("result");
    AttentionOptions options;
    options.causal = golden.option("causal").has_value();
    const auto q_view = dense<const float, Query, Embedding>(q.f32.data(), q.shape);
    const auto k_view = dense<const float, Key, Embedding>(k.f32.data(), k.shape);
    const auto v_view = dense<const float, Key, Embedding>(v.f32.data(), v.shape);

    std::size_t n = 0;
    for_each_batch(q_view, [&](const Batch& batch) {
      const auto result =
          reference::layer(shape, parameters, batch_element(q_view, batch),
                           batch_element(k_view, batch), batch_element(v_view, batch), options);
      for (At<Query> i : along<Query>(result)) {
        for (At<Embedding> e : along<Embedding>(result))
          expect_close(at(result, i, e), want.f64[n++], 10, "reference");
      }
    });
    ASSERT_EQ(n, want.f64.size());

    for_each_way(kSmall, [&] {
      std::vector<float> result(want.f64.size(), std::numeric_limits<float>::quiet_NaN());
      layer(q_view, k_view, v_view, dense<float, Query, Embedding>(result.data(), want.shape),
            options);
      // Four products in a row, of values of size 1 to 10: f32 has 6e-8 of each.
      for (std::size_t i = 0; i < result.size(); ++i)
        EXPECT_NEAR(result[i], want.f64[i], 5e-5) << i;
    });
  }
}

TEST(Golden, AFileThatIsNotWhatItSaysIsRefused) {
  EXPECT_THROW(read_npy(RAPT_GOLDEN_DATA "/nothing.npy"), std::runtime_error);
  EXPECT_THROW(read_npy(RAPT_GOLDEN_DATA "/gemm_plain/case.txt"), std::runtime_error);
}

}  // namespace
}  // namespace rapt::tests
