// What C asks for is what C++ asks for: the same bits, with every option carried over. And nothing
// is thrown out of a C function, nor is one thread told what went wrong on another.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <new>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "rapt/rapt.h"
#include "rapt/rapt.hpp"
#include "support/attention_case.hpp"
#include "support/backward_case.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

template <class T>
constexpr std::int32_t code_of() {
  if constexpr (std::is_same_v<T, bool>) return RAPT_BOOL;
  if constexpr (std::is_same_v<T, std::int32_t>) return RAPT_INT32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return RAPT_UINT64;
  return static_cast<std::int32_t>(type_of<T>());
}

// Views as arrays of C, which live as long as this does.
class Arrays {
 public:
  template <class T, class... Axes>
  const rapt_array* operator()(const View<T, Axes...>& view) {
    return keep(view, code_of<std::remove_const_t<T>>());
  }
  template <class Byte, class... Axes>
  const rapt_array* operator()(const AnyView<Byte, Axes...>& view) {
    return keep(view, static_cast<std::int32_t>(view.type()));
  }

 private:
  template <class T, class... Axes>
  const rapt_array* keep(const View<T, Axes...>& view, std::int32_t type) {
    rapt_array array{};
    array.data = const_cast<void*>(static_cast<const void*>(view.data()));
    array.type = type;
    const auto axis = [&](std::int64_t extent, std::int64_t stride) {
      array.extents[array.rank] = extent;
      array.strides[array.rank++] = stride;
    };
    for (int i = 0; i < view.batch_axes(); ++i) axis(view.batch_extent(i), view.batch_stride(i));
    (axis(view.template extent<Axes>(), view.template stride<Axes>()), ...);
    return &arrays_.emplace_back(array);
  }
  std::deque<rapt_array> arrays_;
};

// Points to `options`.
rapt_attention_options options_of(const AttentionOptions& options, Arrays& arrays) {
  rapt_attention_options c{};
  c.size = sizeof(c);
  c.scale = options.scale ? &*options.scale : nullptr;
  c.alibi_slopes = arrays(options.alibi_slopes);
  c.sinks = arrays(options.sinks);
  c.softcap = options.softcap;
  c.causal = options.causal;
  c.q_offset = options.q_offset ? &*options.q_offset : nullptr;
  c.q_offsets = arrays(options.q_offsets);
  c.window_left = &options.window_left;
  c.window_right = &options.window_right;
  c.chunk = options.chunk;
  c.prefix = options.prefix;
  c.q_segments = arrays(options.q_segments);
  c.kv_segments = arrays(options.kv_segments);
  c.tree = arrays(options.tree);
  c.tree_keys = options.tree_keys;
  c.mask = arrays(options.mask);
  c.bias = arrays(options.bias);
  c.kv_lengths = arrays(options.kv_lengths);
  c.block_table = arrays(options.block_table);
  c.cu_seqlens_q = arrays(options.cu_seqlens_q);
  c.cu_seqlens_kv = arrays(options.cu_seqlens_kv);
  c.k_scales = arrays(options.k_scales);
  c.v_scales = arrays(options.v_scales);
  c.lse = arrays(options.lse);
  c.dropout_probability = options.dropout.probability;
  c.dropout_seed = options.dropout.seed;
  c.dropout_offset = options.dropout.offset;
  c.round_weights = static_cast<int64_t>(options.round_weights);
  return c;
}

TEST(C, ComputesTheBitsOfAttention) {
  Seeds(71, cases(600)).for_each([](std::uint64_t seed) {
    const AttentionCase c = with_dropout(AttentionCase::random(seed));
    AttentionData data(c);
    data.run();
    const std::vector<float> out = data.out.values(), lse = data.lse.values();
    const auto same = [&](const char* way, const auto& run) {
      data.prepare();
      ASSERT_EQ(run(), RAPT_OK) << way << ", " << c.describe() << ": " << rapt_last_error();
      data.finish();
      EXPECT_TRUE(same_bits(out, data.out.values())) << way << ", " << c.describe();
      EXPECT_TRUE(same_bits(lse, data.lse.values())) << way << ", " << c.describe();
    };
    Arrays arrays;
    const AttentionOptions given = data.options();
    const rapt_attention_options options = options_of(given, arrays);
    const rapt_array *q = arrays(data.stored_q()), *k = arrays(data.stored_k()),
                     *v = arrays(data.stored_v()), *to = arrays(data.stored_out());
    same("call", [&] { return rapt_attention(q, k, v, to, &options); });
    // Planned on other memory, which holds something else.
    AttentionData planned(c);
    for (auto* tensor : {&planned.q, &planned.k, &planned.v, &planned.bias}) {
      tensor->fill([](std::int64_t n) { return static_cast<float>(n % 3); });
    }
    planned.mask.fill([](std::int64_t n) { return n % 3 == 0; });
    const AttentionOptions at_first = planned.options();
    for (const ScalesView& scales : {at_first.k_scales, at_first.v_scales}) {
      if (scales) *const_cast<float*>(scales.data()) = -1;
    }
    const rapt_attention_options first_options = options_of(at_first, arrays);
    rapt_attention_pointers pointers{};
    pointers.size = sizeof(pointers);
    pointers.q = q->data;
    pointers.k = k->data;
    pointers.v = v->data;
    pointers.out = to->data;
    pointers.lse = given.lse.data();
    pointers.k_scales = given.k_scales.data();
    pointers.v_scales = given.v_scales.data();
    pointers.mask = given.mask.data();
    pointers.bias = given.bias.data();
    if (given.dropout.probability > 0) pointers.dropout_offset = &given.dropout.offset;
    same("plan", [&] {
      rapt_plan* plan = nullptr;
      const rapt_status made = rapt_plan_create(
          &plan, arrays(planned.stored_q()), arrays(planned.stored_k()), arrays(planned.stored_v()),
          arrays(planned.stored_out()), &first_options);
      const rapt_status ran = made == RAPT_OK ? rapt_plan_run(plan, &pointers, nullptr, 0) : made;
      rapt_plan_destroy(plan);
      return ran;
    });
    std::string text(1 << 16, ' ');
    std::size_t length = 0;
    ASSERT_EQ(rapt_explain(q, k, v, to, &options, text.data(), text.size(), &length), RAPT_OK);
    text.resize(length);
    EXPECT_EQ(text,
              explain(data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(), given)
                  .text());
  });
}

// The gradients' options. Points to nothing of `options`.
rapt_backward_options options_of(const BackwardOptions& options, Arrays& arrays) {
  rapt_backward_options c{};
  c.size = sizeof(c);
  c.grad_lse = arrays(options.grad_lse);
  c.grad_bias = arrays(options.grad_bias);
  c.grad_alibi_slopes = arrays(options.grad_alibi_slopes);
  c.grad_sinks = arrays(options.grad_sinks);
  return c;
}

TEST(C, ComputesTheBitsOfTheBackwardPass) {
  Seeds(74, cases(200)).for_each([](std::uint64_t seed) {
    const AttentionCase c = with_dropout(AttentionCase::random(seed));
    BackwardData data(c);
    data.run();
    const std::vector<float> gradients = data.values();
    // Planned on other memory, whose slopes and sinks are the same.
    BackwardData planned(c);
    for (auto* tensor : {&planned.attention.q, &planned.attention.k, &planned.attention.v,
                         &planned.attention.bias, &planned.dout, &planned.dlse}) {
      tensor->fill([](std::int64_t n) { return static_cast<float>(n % 3); });
    }
    planned.attention.mask.fill([](std::int64_t n) { return n % 3 == 0; });
    using Nine = std::array<const rapt_array*, 9>;
    // Calls call(arrays, options, backward) of C.
    const auto in_c = [](const BackwardData& of, const auto& call) {
      return of.with_arguments(
          nullptr, [&](const auto& q, const auto& k, const auto& v, const auto& out,
                       const auto& lse, const auto& dout, const auto& dq, const auto& dk,
                       const auto& dv, const auto& given, const auto& backward) {
            Arrays arrays;
            const rapt_attention_options options = options_of(given, arrays);
            const rapt_backward_options more = options_of(backward, arrays);
            return call(Nine{arrays(q), arrays(k), arrays(v), arrays(out), arrays(lse),
                             arrays(dout), arrays(dq), arrays(dk), arrays(dv)},
                        options, more);
          });
    };
    const auto same = [&](const char* way, const auto& run) {
      data.prepare();
      ASSERT_EQ(run(), RAPT_OK) << way << ", " << c.describe() << ": " << rapt_last_error();
      data.finish();
      EXPECT_TRUE(same_bits(gradients, data.values())) << way << ", " << c.describe();
    };
    same("call", [&] {
      return in_c(data, [](const Nine& a, const auto& options, const auto& more) {
        return rapt_attention_backward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
                                       &options, &more);
      });
    });
    rapt_plan* plan = nullptr;
    ASSERT_EQ(in_c(planned,
                   [&](const Nine& a, const auto& options, const auto& more) {
                     return rapt_plan_create_backward(&plan, a[0], a[1], a[2], a[3], a[4], a[5],
                                                      a[6], a[7], a[8], &options, &more);
                   }),
              RAPT_OK)
        << rapt_last_error();
    same("plan", [&] {
      return in_c(data, [&](const Nine& a, const auto& options, const auto& more) {
        const std::uint32_t offset = options.dropout_offset;
        const auto at = [](const rapt_array* array) { return static_cast<float*>(array->data); };
        rapt_backward_pointers p{};
        p.size = sizeof(p);
        p.q = a[0]->data;
        p.k = a[1]->data;
        p.v = a[2]->data;
        p.out = a[3]->data;
        p.lse = at(a[4]);
        p.grad_out = a[5]->data;
        p.grad_q = a[6]->data;
        p.grad_k = a[7]->data;
        p.grad_v = a[8]->data;
        p.mask = options.mask->data;
        p.bias = at(options.bias);
        if (options.dropout_probability > 0) p.dropout_offset = &offset;
        p.grad_lse = at(more.grad_lse);
        p.grad_bias = at(more.grad_bias);
        p.grad_alibi_slopes = at(more.grad_alibi_slopes);
        p.grad_sinks = at(more.grad_sinks);
        return rapt_plan_run_backward(plan, &p, nullptr, 0);
      });
    });
    // And says the same of it, in words and in fields.
    const Explanation e = data.with_arguments(
        nullptr, [](const auto&... arguments) { return explain_backward(arguments...); });
    std::string text(1 << 16, ' ');
    std::size_t length = 0;
    ASSERT_EQ(in_c(data,
                   [&](const Nine& a, const auto& options, const auto& more) {
                     return rapt_explain_backward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
                                                  a[8], &options, &more, text.data(), text.size(),
                                                  &length);
                   }),
              RAPT_OK);
    text.resize(length);
    EXPECT_EQ(text, e.text());
    rapt_explanation fields{};
    fields.size = sizeof(fields);
    ASSERT_EQ(rapt_plan_explanation(plan, &fields), RAPT_OK);
    EXPECT_EQ(fields.sum_tasks, e.sum_tasks);
    EXPECT_EQ(fields.tasks, e.tasks);
    EXPECT_EQ(fields.bytes, e.bytes);
    EXPECT_EQ(fields.bench_case, e.bench_case);
    rapt_cut cut{};
    cut.size = sizeof(cut);
    if (!e.cuts.empty()) {
      ASSERT_EQ(rapt_plan_cut(plan, 0, &cut), RAPT_OK);
      EXPECT_EQ(cut.part_rows, e.cuts[0].part_rows);
      EXPECT_EQ(cut.algorithm, e.cuts[0].algorithm);
    }
    rapt_plan_destroy(plan);
  });
}

TEST(C, ExplainsInTheSameFields) {
  Seeds(73, cases(100)).for_each([](std::uint64_t seed) {
    AttentionData data(AttentionCase::random(seed));
    const AttentionOptions given = data.options();
    const Explanation e =
        explain(data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(), given);
    Arrays arrays;
    const rapt_attention_options options = options_of(given, arrays);  // points into `given`
    rapt_plan* plan = nullptr;
    ASSERT_EQ(rapt_plan_create(&plan, arrays(data.stored_q()), arrays(data.stored_k()),
                               arrays(data.stored_v()), arrays(data.stored_out()), &options),
              RAPT_OK)
        << rapt_last_error();
    rapt_explanation c{};
    c.size = sizeof(c);
    ASSERT_EQ(rapt_plan_explanation(plan, &c), RAPT_OK);
    EXPECT_EQ(c.target, e.target);
    EXPECT_EQ(c.config_row, e.config_row);
    const std::int64_t fields[] = {c.tuned,        c.tile_rows, c.tile_columns,  c.cuts,
                                   c.tasks,        c.waves,     c.shared_tasks,  c.workspace_bytes,
                                   c.worker_bytes, c.tiles,     c.skipped_tiles, c.masked_tiles};
    const std::int64_t wanted[] = {
        e.tuned,        e.tile_rows, e.tile_columns,  static_cast<std::int64_t>(e.cuts.size()),
        e.tasks,        e.waves,     e.shared_tasks,  e.workspace_bytes,
        e.worker_bytes, e.tiles,     e.skipped_tiles, e.masked_tiles};
    EXPECT_TRUE(std::ranges::equal(fields, wanted)) << data.of.describe();
    EXPECT_EQ(c.flops, e.flops);
    EXPECT_EQ(c.bytes, e.bytes);
    EXPECT_EQ(c.bench_case, e.bench_case);
    EXPECT_EQ(c.config_source, e.config_source);
    EXPECT_EQ(c.n_config_refused, 0);  // ExplainSaysWhichFilesWereRefused has others
    for (std::size_t i = 0; i < e.cuts.size(); ++i) {
      const Explanation::Cut& of = e.cuts[i];
      rapt_cut cut{};
      cut.size = sizeof(cut);
      ASSERT_EQ(rapt_plan_cut(plan, static_cast<std::int64_t>(i), &cut), RAPT_OK);
      EXPECT_EQ(cut.algorithm, of.algorithm);
      const std::int64_t numbers[] = {cut.elements, cut.seq_q, cut.seq_kv, cut.block_q,
                                      cut.block_kv, cut.units, cut.parts,  cut.part_kv};
      const std::int64_t right[] = {of.elements, of.seq_q, of.seq_kv, of.block_q,
                                    of.block_kv, of.units, of.parts,  of.part_kv};
      EXPECT_TRUE(std::ranges::equal(numbers, right)) << data.of.describe();
      ASSERT_EQ(cut.n_refused, static_cast<std::int64_t>(of.refused.size()));
      for (std::size_t n = 0; n < of.refused.size(); ++n) {
        EXPECT_EQ(cut.refused[n].algorithm, of.refused[n].algorithm);
        EXPECT_EQ(cut.refused[n].reason, of.refused[n].reason);
      }
    }
    rapt_plan_destroy(plan);
  });
}

// A layer drawn in C++, with all that may be left out, given to C.
TEST(C, ComputesTheBitsOfTheLayer) {
  const LayerShape shape = {11, 13, 3, 5, 7};
  LayerParameters p = MultiHeadAttention(shape, 7).parameters();
  const auto bias = [](std::size_t n) {
    std::vector<double> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = 0.25 * static_cast<double>(i) - 1;
    return values;
  };
  p.b_q = bias(15);
  p.b_k = bias(15);
  p.b_v = bias(21);
  p.b_output = bias(11);
  const MultiHeadAttention layer(shape, p);
  Tensor<float> q({2, 17, 11}), k({2, 19, 11}), v({2, 19, 11}), one({2, 17, 11}),
      other({2, 17, 11}), lse({2, 3, 17});
  for (auto* tokens : {&q, &k, &v})
    tokens->fill([](std::int64_t n) { return static_cast<float>(n * 7 % 23) / 8 - 1; });
  AttentionOptions options;
  options.causal = true;
  options.lse = lse.view<Head, Query>();
  layer(q.view<Query, Embedding>(), k.view<Key, Embedding>(), v.view<Key, Embedding>(),
        one.view<Query, Embedding>(), options);

  Arrays arrays;
  const rapt_layer_shape c_shape = {sizeof(c_shape), 11, 13, 3, 5, 7};
  const rapt_layer_parameters parameters = {
      sizeof(parameters), p.qkv.data(), p.w_q.data(), p.w_k.data(), p.w_v.data(),
      p.output.data(),    p.b_q.data(), p.b_k.data(), p.b_v.data(), p.b_output.data()};
  rapt_layer* c_layer = nullptr;
  ASSERT_EQ(rapt_layer_create(&c_layer, &c_shape, &parameters), RAPT_OK) << rapt_last_error();
  const rapt_attention_options c_options = options_of(options, arrays);
  ASSERT_EQ(rapt_layer_run(c_layer, arrays(q.view<Query, Embedding>()),
                           arrays(k.view<Key, Embedding>()), arrays(v.view<Key, Embedding>()),
                           arrays(other.view<Query, Embedding>()), &c_options),
            RAPT_OK)
      << rapt_last_error();
  EXPECT_TRUE(same_bits(one.values(), other.values()));

  LayerActivations kept;
  LayerGradients d;
  Tensor<float> dq({2, 17, 11}), dk({2, 19, 11}), c_dq({2, 17, 11}), c_dk({2, 19, 11});
  d.q_tokens = dq.view<Query, Embedding>();
  d.k_tokens = dk.view<Key, Embedding>();
  const TokensView of = one.view<Query, Embedding>();  // the gradient of sum(result^2) / 2
  layer.forward(q.view<Query, Embedding>(), k.view<Key, Embedding>(), v.view<Key, Embedding>(),
                one.view<Query, Embedding>(), kept, options);
  layer.backward(q.view<Query, Embedding>(), k.view<Key, Embedding>(), v.view<Key, Embedding>(),
                 kept, of, d, options, {.grad_lse = lse.view<Head, Query>()});
  rapt_layer_activations* c_kept = nullptr;
  ASSERT_EQ(rapt_layer_activations_create(&c_kept), RAPT_OK);
  ASSERT_EQ(rapt_layer_forward(c_layer, arrays(q.view<Query, Embedding>()),
                               arrays(k.view<Key, Embedding>()), arrays(v.view<Key, Embedding>()),
                               arrays(other.view<Query, Embedding>()), c_kept, &c_options),
            RAPT_OK)
      << rapt_last_error();
  EXPECT_TRUE(same_bits(one.values(), other.values()));
  LayerParameters c = p;  // in the sizes of the gradients
  const rapt_layer_gradients gradients = {sizeof(gradients),
                                          c.qkv.data(),
                                          c.w_q.data(),
                                          c.w_k.data(),
                                          c.w_v.data(),
                                          c.output.data(),
                                          c.b_q.data(),
                                          c.b_k.data(),
                                          c.b_v.data(),
                                          c.b_output.data(),
                                          arrays(c_dq.view<Query, Embedding>()),
                                          arrays(c_dk.view<Key, Embedding>()),
                                          nullptr};
  rapt_backward_options backward{};
  backward.size = sizeof(backward);
  backward.grad_lse = arrays(lse.view<Head, Query>());
  ASSERT_EQ(rapt_layer_backward(c_layer, arrays(q.view<Query, Embedding>()),
                                arrays(k.view<Key, Embedding>()), arrays(v.view<Key, Embedding>()),
                                c_kept, arrays(of), &gradients, &c_options, &backward),
            RAPT_OK)
      << rapt_last_error();
  for (auto parameter : {&LayerParameters::qkv, &LayerParameters::w_q, &LayerParameters::w_k,
                         &LayerParameters::w_v, &LayerParameters::output, &LayerParameters::b_q,
                         &LayerParameters::b_k, &LayerParameters::b_v, &LayerParameters::b_output})
    EXPECT_EQ(c.*parameter, d.parameters.*parameter);
  EXPECT_TRUE(same_bits(dq.values(), c_dq.values()));
  EXPECT_TRUE(same_bits(dk.values(), c_dk.values()));
  rapt_layer_activations_destroy(c_kept);
  rapt_layer_destroy(c_layer);

  ASSERT_EQ(rapt_layer_create_random(&c_layer, &c_shape, 7), RAPT_OK);
  rapt_layer_parameters drawn{};
  drawn.size = sizeof(drawn);
  ASSERT_EQ(rapt_layer_get_parameters(c_layer, &drawn), RAPT_OK);
  EXPECT_TRUE(std::equal(p.w_v.begin(), p.w_v.end(), drawn.w_v));
  EXPECT_EQ(drawn.b_v, nullptr);
  rapt_layer_destroy(c_layer);
}

TEST(C, ComputesTheBitsOfTheMatrixProduct) {
  Seeds(72, cases(300)).for_each([](std::uint64_t seed) {
    GemmCase g = GemmCase::random(seed);
    GemmData data(g);
    data.run();
    const std::vector<float> c = data.c.values();
    const GemmOptions given = data.stored_options();
    Arrays arrays;
    rapt_gemm_options options{};
    options.size = sizeof(options);
    options.alpha = &given.alpha;
    options.beta = given.beta;
    options.bias = arrays(given.bias);
    options.b_scales = arrays(given.b_scales);
    options.activation = static_cast<std::int32_t>(given.activation);
    data.prepare();
    ASSERT_EQ(rapt_gemm(arrays(data.stored_a()), arrays(data.stored_b()), arrays(data.c_view()),
                        &options),
              RAPT_OK)
        << rapt_last_error();
    EXPECT_TRUE(same_bits(c, data.c.values())) << g.describe();
  });
}

// Keys that are rotated, with every number of a rotation other than its default.
struct Turned {
  Turned() {
    x.fill([](std::int64_t n) { return static_cast<float>(n % 23) / 8 - 1; });
    factors.fill([](std::int64_t n) { return 1 + static_cast<float>(n) / 4; });
    positions.fill([](std::int64_t n) { return static_cast<std::int32_t>(n * 5 % 7); });
    rope.dims = 12;
    rope.base = 500;
    rope.pairing = Pairing::half;
    rope.position_scale = 0.5f;
    rope.magnitude = 1.25f;
    rope.frequency_factors = factors.view<Pair>();
    rotation.size = sizeof(rotation);
    rotation.dims = rope.dims;
    rotation.base = &rope.base;
    rotation.pairing = RAPT_HALF;
    rotation.position_scale = &rope.position_scale;
    rotation.magnitude = &rope.magnitude;
    rotation.frequency_factors = arrays(rope.frequency_factors);
  }
  Tensor<float> x{{2, 3, 4, 16}}, factors{{6}};
  Tensor<std::int32_t> positions{{2, 4}};
  Arrays arrays;
  Rope rope;
  rapt_rotation rotation{};
};

TEST(C, ComputesTheBitsOfARotation) {
  Turned t;
  Tensor<float> one({2, 3, 4, 16}), other({2, 3, 4, 16});
  rope(t.x.view<Head, Query, DepthK>(), one.view<Head, Query, DepthK>(), t.rope,
       {.positions = t.positions.view<Position>()});
  rapt_rope_options options{};
  options.size = sizeof(options);
  options.positions = t.arrays(t.positions.view<Position>());
  ASSERT_EQ(rapt_rope(t.arrays(t.x.view<Head, Query, DepthK>()),
                      t.arrays(other.view<Head, Query, DepthK>()), &t.rotation, &options),
            RAPT_OK)
      << rapt_last_error();
  EXPECT_TRUE(same_bits(one.values(), other.values()));
}

// Packed, rotated at given positions, into pages of int8.
TEST(C, AppendsTheBits) {
  Turned t;
  const std::int32_t lengths[] = {1, 3}, boundaries[] = {0, 3, 4}, table[] = {4, 1, 0, 2};
  const KView x(t.x.data(), {3, 4, 16});
  AppendOptions given;
  given.kv_lengths = {lengths, {2}};
  given.cu_seqlens_new = {boundaries, {3}};
  given.block_table = {table, {2, 2}};
  given.rope = t.rope;
  const PositionsView both = t.positions.view<Position>();
  given.positions = {both.data(), {4}};
  struct Cache {
    Tensor<std::int8_t> k{{5, 3, 2, 16}}, v{{5, 3, 2, 16}};
    Tensor<float> k_scales{{5, 3, 2}}, v_scales{{5, 3, 2}};
  } one, other;
  const auto into = [&](Cache& cache) {
    given.k_scales = cache.k_scales.view<KvHead, Key>();
    given.v_scales = cache.v_scales.view<KvHead, Key>();
  };
  into(one);
  append_kv(x, VView(x.data(), {3, 4, 16}), one.k.view<KvHead, Key, DepthK>(),
            one.v.view<KvHead, Key, DepthV>(), given);
  into(other);
  rapt_append_options options{};
  options.size = sizeof(options);
  options.kv_lengths = t.arrays(given.kv_lengths);
  options.cu_seqlens_new = t.arrays(given.cu_seqlens_new);
  options.block_table = t.arrays(given.block_table);
  options.k_scales = t.arrays(given.k_scales);
  options.v_scales = t.arrays(given.v_scales);
  options.rope = &t.rotation;
  options.positions = t.arrays(given.positions);
  ASSERT_EQ(rapt_append_kv(t.arrays(x), t.arrays(x), t.arrays(other.k.view<KvHead, Key, DepthK>()),
                           t.arrays(other.v.view<KvHead, Key, DepthV>()), &options),
            RAPT_OK)
      << rapt_last_error();
  EXPECT_EQ(one.k.values(), other.k.values());
  EXPECT_EQ(one.v.values(), other.v.values());
  EXPECT_TRUE(same_bits(one.k_scales.values(), other.k_scales.values()));
  EXPECT_TRUE(same_bits(one.v_scales.values(), other.v_scales.values()));
}

// Every function takes its executor: work for several threads goes to the one that is given.
TEST(C, RunsOnTheExecutor) {
  constexpr std::int64_t kHeads = 4, kSeq = 512, kDepth = 64;
  std::vector<float> a(kHeads * kSeq * kDepth, 0.5f), b(a.size()), lse(kHeads * kSeq);
  std::vector<std::int8_t> small(a.size());
  const std::int64_t extents[] = {kHeads, kSeq, kDepth};
  const rapt_array from = rapt_dense(a.data(), RAPT_F32, 3, extents),
                   to = rapt_dense(b.data(), RAPT_F32, 3, extents),
                   int8 = rapt_dense(small.data(), RAPT_INT8, 3, extents),
                   row = rapt_dense(lse.data(), RAPT_F32, 2, extents);
  int calls = 0;
  rapt_executor executor{};
  executor.size = sizeof(executor);
  executor.context = &calls;
  executor.workers = [](void*) { return 2; };
  executor.parallel_for = [](void* context, std::int64_t tasks, rapt_task task,
                             const void* task_context) {
    ++*static_cast<int*>(context);
    for (std::int64_t i = 0; i < tasks; ++i) task(task_context, i, static_cast<int>(i % 2));
  };
  const auto runs = [&](const char* function, rapt_status status) {
    EXPECT_EQ(status, RAPT_OK) << function << ": " << rapt_last_error();
    EXPECT_GT(std::exchange(calls, 0), 0) << function;
  };
  rapt_attention_options attention{};
  attention.size = sizeof(attention);
  attention.executor = &executor;
  runs("attention", rapt_attention(&from, &from, &from, &to, &attention));
  rapt_gemm_options gemm{};
  gemm.size = sizeof(gemm);
  gemm.executor = &executor;
  const std::int64_t square[] = {256, 256};
  const rapt_array matrix = rapt_dense(a.data(), RAPT_F32, 2, square),
                   product = rapt_dense(b.data(), RAPT_F32, 2, square);
  runs("gemm", rapt_gemm(&matrix, &matrix, &product, &gemm));
  const rapt_attention_part parts[] = {{&from, &row}, {&from, &row}};
  runs("merge", rapt_merge(parts, 2, &to, nullptr, &executor));
  rapt_rotation rotation{};
  rotation.size = sizeof(rotation);
  rotation.dims = kDepth;
  rapt_rope_options rope{};
  rope.size = sizeof(rope);
  rope.executor = &executor;
  runs("rope", rapt_rope(&from, &to, &rotation, &rope));
  const std::int32_t none = 0;
  const rapt_array lengths = rapt_dense(&none, RAPT_INT32, 0, nullptr);
  std::vector<float> values(a.size());
  const rapt_array cache = rapt_dense(values.data(), RAPT_F32, 3, extents);
  rapt_append_options append{};
  append.size = sizeof(append);
  append.kv_lengths = &lengths;
  append.executor = &executor;
  runs("append_kv", rapt_append_kv(&from, &from, &to, &cache, &append));
  runs("quantize", rapt_quantize(&from, &int8, &row, &executor));
  runs("dequantize", rapt_dequantize(&int8, &row, &to, &executor));
  runs("convert", rapt_convert(&from, &to, &executor));
}

// A callback, written in C++, that throws.
template <class T>
rapt_status run_with() {
  const float x = 1;
  float y = 0;
  const std::int64_t extents[] = {1, 1, 1};
  const rapt_array in = rapt_dense(&x, RAPT_F32, 3, extents),
                   out = rapt_dense(&y, RAPT_F32, 3, extents);
  const auto thrower = [](void*, double*, std::int64_t) { throw T(); };
  return rapt_salience_map(&in, &in, &out, nullptr, thrower, nullptr);
}

TEST(C, LetsNothingThrownOut) {
  EXPECT_EQ(run_with<std::bad_alloc>(), RAPT_OUT_OF_MEMORY);
  EXPECT_STREQ(rapt_last_error(), "out of memory");
  EXPECT_EQ(run_with<int>(), RAPT_UNKNOWN_ERROR);
}

TEST(C, TellsEachThreadItsOwnError) {
  ASSERT_EQ(rapt_set_target("here"), RAPT_UNKNOWN_TARGET);
  std::thread([] {
    EXPECT_STREQ(rapt_last_error(), "");
    EXPECT_EQ(rapt_set_target("there"), RAPT_UNKNOWN_TARGET);
  }).join();
  EXPECT_NE(std::string(rapt_last_error()).find("here is"), std::string::npos);
}

// A sentence of any length is cut where there is no more room for it.
TEST(C, KeepsTheBeginningOfALongSentence) {
  ASSERT_EQ(rapt_set_target(std::string(5000, 'x').c_str()), RAPT_UNKNOWN_TARGET);
  EXPECT_EQ(std::string(rapt_last_error()).substr(0, 15), "ISA target xxxx");
}

}  // namespace
}  // namespace rapt::tests
