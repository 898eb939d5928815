// What PyTorch computes in f64 (make.py), and JAX (make_layer_gradients.py): against it stand the
// reference, to f64's own rounding, and every target.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "rapt/rapt.hpp"
#include "support/attention_case.hpp"
#include "support/bounds.hpp"
#include "support/npy.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

const std::vector<Blocks> kSmall = {few_keys_lanes(4), few_keys_rows(4), small_packed(4),
                                    small_packed_b(4), small_direct(4)};

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

// One case of attention: its arrays, and what they are to rapt.
struct GoldenAttention {
  explicit GoldenAttention(const std::string& name) : golden(name) {
    for (const char* each :
         {"q",          "k",         "v",           "out",          "lse",           "mask",
          "bias",       "slopes",    "sinks",       "tree",         "q_segments",    "kv_segments",
          "kv_lengths", "q_offsets", "block_table", "cu_seqlens_q", "cu_seqlens_kv", "dout",
          "dlse",       "dq",        "dk",          "dv",           "dbias",         "dslopes",
          "dsinks"}) {
      if (golden.has(each)) arrays[each] = golden.array(each);
    }
    const auto number = [&](const char* option, auto& to) {
      if (const auto value = golden.option(option))
        to = static_cast<std::remove_cvref_t<decltype(to)>>(*value);
    };
    number("causal", options.causal);
    number("window_left", options.window_left);
    number("window_right", options.window_right);
    number("chunk", options.chunk);
    number("prefix", options.prefix);
    number("tree_keys", options.tree_keys);
    number("softcap", options.softcap);
    if (const auto offset = golden.option("q_offset"))
      options.q_offset = static_cast<std::int64_t>(*offset);
    if (const auto scale = golden.option("scale")) options.scale = static_cast<float>(*scale);
    const auto array = [&]<class T, class... Axes>(const char* each, const auto& values,
                                                   View<const T, Axes...>& to) {
      if (golden.has(each)) {
        const Npy& npy = arrays[each];
        to = dense<const T, Axes...>(reinterpret_cast<const T*>((npy.*values).data()), npy.shape);
      }
    };
    array("mask", &Npy::booleans, options.mask);
    array("bias", &Npy::f32, options.bias);
    array("slopes", &Npy::f32, options.alibi_slopes);
    array("sinks", &Npy::f32, options.sinks);
    array("tree", &Npy::u64, options.tree);
    array("q_segments", &Npy::i32, options.q_segments);
    array("kv_segments", &Npy::i32, options.kv_segments);
    array("kv_lengths", &Npy::i32, options.kv_lengths);
    array("q_offsets", &Npy::i32, options.q_offsets);
    array("block_table", &Npy::i32, options.block_table);
    array("cu_seqlens_q", &Npy::i32, options.cu_seqlens_q);
    array("cu_seqlens_kv", &Npy::i32, options.cu_seqlens_kv);

    // As it is stored, and as floats.
    const auto input = [&](const char* each, auto& any, auto& floats) {
      const Npy& npy = arrays[each];
      if (npy.shape.empty()) return;
      [&]<class... Axes>(const View<const float, Axes...>&) {
        floats = dense<const float, Axes...>(npy.f32.data(), npy.shape);
        any = floats;
        if (!npy.f16.empty()) any = dense<const Float16, Axes...>(npy.f16.data(), npy.shape);
        if (!npy.bf16.empty()) any = dense<const BFloat16, Axes...>(npy.bf16.data(), npy.shape);
      }(floats);
    };
    input("q", any_q, q);
    input("k", any_k, k);
    input("v", any_v, v);
    if (const auto d_v = golden.option("v_in_k")) {
      // The latent shape: a value is the start of its key, the same memory.
      const Npy& npy = arrays["k"];
      const std::int64_t seq_kv = npy.shape[1], d_k = npy.shape[2];
      const std::initializer_list<std::int64_t> extents = {1, seq_kv,
                                                           static_cast<std::int64_t>(*d_v)};
      const std::initializer_list<std::int64_t> strides = {seq_kv * d_k, d_k, 1};
      v = {npy.f32.data(), extents, strides};
      any_v = v;
      if (!npy.bf16.empty()) any_v = {npy.bf16.data(), extents, strides};
    }
    out.resize(arrays["out"].f64.size());
    lse.resize(arrays["lse"].f64.size());
    options.lse = dense<float, Head, Query>(lse.data(), arrays["lse"].shape);
  }

  // Calls visit(batch) for each batch element.
  template <class Visit>
  void for_each_element(const Visit& visit) const {
    const BoundariesView& boundaries =
        options.cu_seqlens_q ? options.cu_seqlens_q : options.cu_seqlens_kv;
    if (!boundaries) return for_each_batch(q, visit);
    for (std::int64_t b = 0; b + 1 < boundaries.extent<Boundary>(); ++b) visit(Batch{1, {b}});
  }
  Problem<float> problem(const Batch& batch) {
    const bool plain = !options.cu_seqlens_q && !options.cu_seqlens_kv && !options.block_table;
    return plain ? problem_at(q, k, v, options, batch)
                 : sequence_at(q, k, v, options, batch, gathered);
  }

  // What PyTorch says of one batch element.
  View<const double, Head, Query, DepthV> want_out(const Batch& batch) {
    const Npy& npy = arrays["out"];
    return queries_of(dense<const double, Head, Query, DepthV>(npy.f64.data(), npy.shape), options,
                      batch);
  }
  View<const double, Head, Query> want_lse(const Batch& batch) {
    const Npy& npy = arrays["lse"];
    return queries_of(dense<const double, Head, Query>(npy.f64.data(), npy.shape), options, batch);
  }
  OutView out_view() { return dense<float, Head, Query, DepthV>(out.data(), arrays["out"].shape); }

  GoldenCase golden;
  std::map<std::string, Npy> arrays;
  AttentionOptions options;
  AnyQ any_q;
  AnyK any_k;
  AnyV any_v;
  QView q;
  KView k;
  VView v;
  std::vector<float> out, lse;
  Gathered gathered;
};

TEST(Golden, Attention) {  // B4, B36, B37
  const auto names = golden_cases("attention");
  ASSERT_GE(names.size(), 62u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    GoldenAttention golden(name);

    // The reference; then its bounds, but around PyTorch's values.
    std::vector<ExpectedAttention> expected;
    golden.for_each_element([&](const Batch& batch) {
      ExpectedAttention one = expect_attention(golden.problem(batch));
      const auto want_out = golden.want_out(batch);
      const auto want_lse = golden.want_lse(batch);
      for (At<Head> h : along<Head>(one.out)) {
        for (At<Query> i : along<Query>(one.out)) {
          expect_close(at(one.lse, h, i), at(want_lse, h, i), 1, "lse of the reference");
          at(one.lse, h, i) = at(want_lse, h, i);
          for (At<DepthV> d : along<DepthV>(one.out)) {
            expect_close(at(one.out, h, i, d), at(want_out, h, i, d), 1, "reference");
            at(one.out, h, i, d) = at(want_out, h, i, d);
          }
        }
      }
      expected.push_back(std::move(one));
    });

    // Every target.
    for_each_way(kSmall, [&] {
      std::fill(golden.out.begin(), golden.out.end(), std::numeric_limits<float>::quiet_NaN());
      std::fill(golden.lse.begin(), golden.lse.end(), std::numeric_limits<float>::quiet_NaN());
      attention(golden.any_q, golden.any_k, golden.any_v, golden.out_view(), golden.options);
      Comparison out, lse;
      std::size_t element = 0;
      golden.for_each_element([&](const Batch& batch) {
        compare_out(expected[element], queries_of(golden.out_view(), golden.options, batch), out);
        compare_lse(expected[element++], queries_of(golden.options.lse, golden.options, batch),
                    lse);
      });
      EXPECT_EQ(out.count(), static_cast<std::int64_t>(golden.out.size()));
      EXPECT_EQ(lse.count(), static_cast<std::int64_t>(golden.lse.size()));
      EXPECT_TRUE(out.within());
      EXPECT_TRUE(lse.within()) << "lse";
    });
  }
}

// The gradients that PyTorch's autograd finds.
TEST(Golden, BackwardReference) {
  const auto names = golden_cases("backward");
  ASSERT_GE(names.size(), 19u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    GoldenAttention golden(name);
    // Of what the batch shares, each batch element adds its part.
    std::map<std::string, std::vector<double>> sums;
    const auto add = [&]<class... Axes>(const char* each, const Batch& batch,
                                        const Array<Axes...>& part) {
      if (!golden.golden.has(each)) return;
      const Npy& npy = golden.arrays[each];
      sums[each].resize(npy.f64.size());
      const auto sum = batch_element(dense<double, Axes...>(sums[each].data(), npy.shape), batch);
      ASSERT_EQ((part.template extent<Axes>() * ...), (sum.template extent<Axes>() * ...));
      const View<const double, Axes...> from = part;
      std::int64_t n = 0;  // both are dense
      for (; n < (part.template extent<Axes>() * ...); ++n) sum.data()[n] += from.data()[n];
    };
    golden.for_each_element([&](const Batch& batch) {
      const Problem<float> problem = golden.problem(batch);
      const auto given = [&]<class... Axes>(const char* each, View<const float, Axes...>) {
        const Npy& npy = golden.arrays[each];
        return golden.golden.has(each)
                   ? batch_element(dense<const float, Axes...>(npy.f32.data(), npy.shape), batch)
                   : View<const float, Axes...>();
      };
      const Gradients d = backward(problem, salience(problem),
                                   given("dout", View<const float, Head, Query, DepthV>()),
                                   given("dlse", View<const float, Head, Query>()));
      add("dq", batch, d.q);
      add("dk", batch, d.k);
      add("dv", batch, d.v);
      add("dbias", batch, d.bias);
      add("dslopes", batch, d.alibi_slopes);
      add("dsinks", batch, d.sinks);
    });
    EXPECT_GE(sums.size(), 3u);
    for (const auto& [each, sum] : sums) {
      const std::vector<double>& want = golden.arrays[each].f64;
      ASSERT_EQ(sum.size(), want.size()) << each;
      for (std::size_t n = 0; n < sum.size(); ++n) expect_close(sum[n], want[n], 10, each);
    }
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

// The layer of a case.
struct GoldenLayer {
  explicit GoldenLayer(const GoldenCase& golden) {
    const auto number = [&](const char* option) {
      return static_cast<std::int64_t>(golden.option(option).value());
    };
    shape = {number("embedding"), number("d_model"), number("heads"), number("d_k"), number("d_v")};
    for (const auto& [name, parameter] : kParameters)
      if (golden.has(name)) parameters.*parameter = golden.array(name).f64;
    options.causal = golden.option("causal").has_value();
  }

  static inline const std::map<std::string, std::vector<double> LayerParameters::*> kParameters = {
      {"qkv", &LayerParameters::qkv},          {"w_q", &LayerParameters::w_q},
      {"w_k", &LayerParameters::w_k},          {"w_v", &LayerParameters::w_v},
      {"b_q", &LayerParameters::b_q},          {"b_k", &LayerParameters::b_k},
      {"b_v", &LayerParameters::b_v},          {"output", &LayerParameters::output},
      {"b_output", &LayerParameters::b_output}};
  LayerShape shape;
  LayerParameters parameters;
  AttentionOptions options;
};

TEST(Golden, Layer) {
  const auto names = golden_cases("layer");
  ASSERT_GE(names.size(), 7u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    const auto [shape, parameters, options] = GoldenLayer(golden);
    const MultiHeadAttention layer(shape, parameters);
    const Npy q = golden.array("q_tokens"), k = golden.array("k_tokens"),
              v = golden.array("v_tokens");
    const Npy want = golden.array("result");
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

// Gradients by JAX (make_layer_gradients.py).
TEST(Golden, LayerBackward) {
  const auto names = golden_cases("gradients");
  ASSERT_GE(names.size(), 5u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    const GoldenLayer of(golden);
    const Npy q = golden.array("q_tokens"), k = golden.array("k_tokens"),
              v = golden.array("v_tokens"), dresult = golden.array("dresult"),
              dq = golden.array("dq_tokens"), dk = golden.array("dk_tokens"),
              dv = golden.array("dv_tokens");
    const auto q_view = dense<const float, Query, Embedding>(q.f32.data(), q.shape);
    const auto k_view = dense<const float, Key, Embedding>(k.f32.data(), k.shape);
    const auto v_view = dense<const float, Key, Embedding>(v.f32.data(), v.shape);
    const auto dresult_view =
        dense<const float, Query, Embedding>(dresult.f32.data(), dresult.shape);

    LayerParameters sums;
    for_each_batch(q_view, [&](const Batch& batch) {
      const reference::LayerGradients d = reference::layer_backward(
          of.shape, of.parameters, batch_element(q_view, batch), batch_element(k_view, batch),
          batch_element(v_view, batch), batch_element(dresult_view, batch), {}, of.options);
      for (const auto& [parameter, values] : GoldenLayer::kParameters) {
        (sums.*values).resize((of.parameters.*values).size());
        for (std::size_t n = 0; n < (sums.*values).size(); ++n)
          (sums.*values)[n] += (d.parameters.*values)[n];
      }
      const auto expect_part = [&](const auto& part, const Npy& want, std::int64_t seq) {
        const std::int64_t size = seq * of.shape.embedding;
        for (std::int64_t n = 0; n < size; ++n) {
          const auto at = static_cast<std::size_t>(number_of(q_view, batch) * size + n);
          expect_close(part.data()[n], want.f64[at], 100, "tokens");
        }
      };
      expect_part(d.q_tokens, dq, q.shape[1]);
      expect_part(d.k_tokens, dk, k.shape[1]);
      expect_part(d.v_tokens, dv, v.shape[1]);
    });
    for (const auto& [parameter, values] : GoldenLayer::kParameters) {
      ASSERT_EQ(golden.has("d" + parameter), !(sums.*values).empty());
      if (!golden.has("d" + parameter)) continue;
      const Npy want = golden.array("d" + parameter);
      ASSERT_EQ((sums.*values).size(), want.f64.size());
      for (std::size_t n = 0; n < want.f64.size(); ++n)
        expect_close((sums.*values)[n], want.f64[n], 100, parameter);
    }

    const MultiHeadAttention layer(of.shape, of.parameters);
    for_each_way(kSmall, [&] {
      std::vector<float> result(dresult.f32.size()), got_q(dq.f64.size()), got_k(dk.f64.size()),
          got_v(dv.f64.size());
      LayerActivations kept;
      rapt::LayerGradients d;
      d.q_tokens = dense<float, Query, Embedding>(got_q.data(), q.shape);
      d.k_tokens = dense<float, Key, Embedding>(got_k.data(), k.shape);
      d.v_tokens = dense<float, Key, Embedding>(got_v.data(), v.shape);
      layer.forward(q_view, k_view, v_view,
                    dense<float, Query, Embedding>(result.data(), dresult.shape), kept, of.options);
      layer.backward(q_view, k_view, v_view, kept, dresult_view, d, of.options);
      // Of a dozen products in a row, relative to the largest; or to the terms, where they cancel.
      const auto expect_near = [](const auto& got, const Npy& want, const std::string& what) {
        ASSERT_EQ(got.size(), want.f64.size()) << what;
        double most = 0;
        for (double x : want.f64) most = std::max(most, std::abs(x));
        for (std::size_t n = 0; n < got.size(); ++n)
          ASSERT_NEAR(got[n], want.f64[n], 1e-5 * std::max(most, 10.0)) << what << " " << n;
      };
      expect_near(got_q, dq, "dq_tokens");
      expect_near(got_k, dk, "dk_tokens");
      expect_near(got_v, dv, "dv_tokens");
      for (const auto& [parameter, values] : GoldenLayer::kParameters) {
        if (golden.has("d" + parameter))
          expect_near(d.parameters.*values, golden.array("d" + parameter), parameter);
      }
    });
  }
}

TEST(Golden, AFileThatIsNotWhatItSaysIsRefused) {
  EXPECT_THROW(read_npy(RAPT_GOLDEN_DATA "/nothing.npy"), std::runtime_error);
  EXPECT_THROW(read_npy(RAPT_GOLDEN_DATA "/gemm_plain/case.txt"), std::runtime_error);
}

}  // namespace
}  // namespace rapt::tests
