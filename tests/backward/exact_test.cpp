// What must hold bit for bit: gradients do not depend on threads, batch or what is masked; and what
// is exact in f32. And the error beside plain f32 code.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "support/backward_case.hpp"
#include "support/executors.hpp"
#include "support/plain.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

const std::vector<Blocks> kSmall = {few_keys_lanes(16), few_keys_lanes(5, 1)};

TEST(BackwardSameBits, OnAnyNumberOfThreads) {  // B26
  Seeds(84, cases(20)).for_each([](std::uint64_t seed) {
    AttentionCase c = AttentionCase::random(seed, few_cases() ? 20 : 70);
    c.seq_q *= 3;  // several blocks of rows, and so several parts
    BackwardData data(c);
    for_each_way(kSmall, [&] {
      data.run(&serial_executor());
      const std::vector<float> serial = data.values();
      for (int threads : {2, 3, 8}) {
        const ThreadExecutor executor(threads);
        data.run_backward(&executor);
        ASSERT_TRUE(same_bits(serial, data.values())) << data.attention.of.describe();
      }
      const BackwardExecutor backward;
      data.run_backward(&backward);
      ASSERT_TRUE(same_bits(serial, data.values())) << data.attention.of.describe();
      data.run_backward();
      ASSERT_TRUE(same_bits(serial, data.values())) << data.attention.of.describe();
    });
  });
}

// One KV head, long enough that its rows are cut into parts whose sums are added.
AttentionCase in_parts() {
  AttentionCase c;
  c.heads = 3;
  c.kv_heads = 1;
  c.seq_q = few_cases() ? 71 : 211;
  c.seq_kv = few_cases() ? 103 : 307;
  c.d_k = 24;
  c.d_v = 40;
  c.causal = true;
  c.dense = true;
  return c;
}

TEST(BackwardSameBits, OfABatchElementAloneAndInItsBatch) {  // B26
  AttentionCase many = in_parts();
  many.batch = {3};
  BackwardData data(many);
  for_each_way(kSmall, [&] {
    data.run();
    const std::vector<float> together = data.values();
    data.dq.reset();
    data.dk.reset();
    data.dv.reset();
    const auto& a = data.attention;
    for (std::int64_t b = 0; b < 3; ++b) {
      const Batch batch{1, {b}};
      const auto of = [&](const auto& view) { return batch_element(view, batch); };
      const AttentionOptions options = a.problem(batch).options;
      attention_backward(
          of(a.q_view()), of(a.k_view()), of(a.v_view()), of(a.out_view()), of(a.lse_view()),
          of(data.dout.view<Head, Query, DepthV>()), of(data.dq.view<Head, Query, DepthK>()),
          of(data.dk.view<KvHead, Key, DepthK>()), of(data.dv.view<KvHead, Key, DepthV>()), options,
          {.grad_lse = data.with_dlse ? LseIn(of(data.dlse.view<Head, Query>())) : LseIn()});
    }
    EXPECT_TRUE(same_bits(together, data.values()));
  });
}

// Of a batch without elements, of no heads, queries or keys: nothing is left unwritten.
TEST(BackwardEmpty, SumsOverNothingAreZero) {
  constexpr std::int64_t kDepth = 4;
  for (int empty = 0; empty < 5; ++empty) {
    const std::int64_t batch = empty == 0 ? 0 : 2, heads = empty == 1 ? 0 : 2,
                       seq_q = empty == 2 ? 0 : 3, seq_kv = empty == 3 ? 0 : 5;
    const bool packed = empty == 4;  // all of its sequences are empty
    const std::vector<float> in(500, 1.0f), out(500, 0.0f);
    std::vector<float> dq(500, 7.0f), dk = dq, dv = dq;
    const std::vector<std::int32_t> starts = {0, 0, 0};
    for (std::int64_t bias_heads : {std::int64_t{1}, heads}) {
      for (std::int64_t bias_queries : {std::int64_t{1}, packed ? 0 : seq_q}) {
        for (std::int64_t bias_keys : {std::int64_t{1}, packed ? 0 : seq_kv}) {
          std::vector<float> dbias(100, 7.0f), dslopes = dbias, dsinks = dbias;
          AttentionOptions options;
          options.bias = {in.data(), {bias_heads, bias_queries, bias_keys}};
          options.alibi_slopes = options.sinks = {in.data(), {1, heads}};
          const auto of = [&](std::int64_t number, std::int64_t seq) {
            return packed ? std::vector<std::int64_t>{number, 0, kDepth}
                          : std::vector<std::int64_t>{batch, number, seq, kDepth};
          };
          if (packed) {
            options.cu_seqlens_q = options.cu_seqlens_kv = {starts.data(), {3}};
            options.alibi_slopes = options.sinks = {in.data(), {heads}};
          }
          const auto view = [](auto* data, const std::vector<std::int64_t>& extents, auto like) {
            std::vector<std::int64_t> strides(extents.size());
            detail::dense_strides(extents.data(), static_cast<int>(extents.size()), strides.data());
            return decltype(like)(data, extents.data(), extents.size(), strides.data(),
                                  strides.size());
          };
          using Out = View<const float, Head, Query, DepthV>;
          std::vector<std::int64_t> lse_extents = of(heads, seq_q);
          lse_extents.pop_back();
          BackwardOptions backward;
          const SlopesView& slopes = options.alibi_slopes;
          backward.grad_bias = options.bias.over(dbias.data());
          backward.grad_alibi_slopes = slopes.over(dslopes.data());
          backward.grad_sinks = slopes.over(dsinks.data());
          attention_backward(view(in.data(), of(heads, seq_q), QView()),
                             view(in.data(), of(heads, seq_kv), KView()),
                             view(in.data(), of(heads, seq_kv), VView()),
                             view(out.data(), of(heads, seq_q), Out()),
                             view(in.data(), lse_extents, LseIn()),
                             view(in.data(), of(heads, seq_q), Out()),
                             view(dq.data(), of(heads, seq_q), View<float, Head, Query, DepthK>()),
                             view(dk.data(), of(heads, seq_kv), View<float, KvHead, Key, DepthK>()),
                             view(dv.data(), of(heads, seq_kv), View<float, KvHead, Key, DepthV>()),
                             options, backward);
          const auto zeros = [&](const std::vector<float>& sums, std::int64_t n) {
            for (std::int64_t i = 0; i < std::ssize(sums); ++i)
              ASSERT_EQ(sums[static_cast<std::size_t>(i)], i < n ? 0 : 7) << empty << ": " << i;
          };
          zeros(dbias, bias_heads * bias_queries * bias_keys);
          zeros(dslopes, heads);
          // Where there are queries and no keys, a sink has all of the weight, and no value.
          zeros(dsinks, heads);
        }
      }
    }
    const std::int64_t elements = packed ? 0 : batch;
    for (const auto& [sums, seq] : {std::pair(dq, seq_q), {dk, seq_kv}, {dv, seq_kv}}) {
      for (std::int64_t i = 0; i < std::ssize(sums); ++i)
        ASSERT_EQ(sums[static_cast<std::size_t>(i)], i < elements * heads * seq * kDepth ? 0 : 7)
            << empty << ": " << i;
    }
  }
}

// Of one type: f32, or bf16 in pairs.
void set_type(AttentionCase& c) {
  const bool pairs = c.seed % 2 == 0;
  c.q_type = c.k_type = c.v_type = c.out_type = pairs ? Type::bf16 : Type::f32;
  c.round_weights = pairs ? RoundWeights::always : RoundWeights::never;
}

// NaN in keys and values that nobody attends, and in all that belongs to queries which attend
// nothing, changes no bit.
TEST(BackwardSelect, WhatIsMaskedMayBeAnything) {  // B2, B35
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (float poison : {nan, std::numeric_limits<float>::infinity()}) {
    Seeds(85, cases(60)).for_each([&](std::uint64_t seed) {
      AttentionCase c = AttentionCase::random(seed);
      set_type(c);
      if (c.mask == Pairs::none) c.mask = Pairs::middle_keys_out;
      BackwardData clean(c), poisoned(c);
      std::int64_t element = 0;
      const AttentionCase& of = clean.attention.of;
      clean.attention.for_each_element([&](const Batch& batch) {
        const Problem<float> problem = clean.attention.problem(batch);
        for (std::int64_t g = 0; g < of.kv_heads; ++g) {
          for (At<Key> j : problem.keys()) {
            if (clean.attention.any_attends(problem, g, j.value)) continue;
            const std::int64_t row = clean.attention.key_row(element, g, j.value);
            for (std::int64_t x = 0; x < of.d_k; ++x)
              poisoned.attention.k[row * of.d_k + x] = poison;
            for (std::int64_t x = 0; x < of.d_v; ++x)
              poisoned.attention.v[row * of.d_v + x] = poison;
          }
        }
        if (!of.packed_q) {
          for (At<Head> h : problem.heads()) {
            for (At<Query> i : problem.queries()) {
              bool any = false;
              for (At<Key> j : problem.keys()) any |= attended(problem, h, i, j);
              if (any || of.sinks) continue;
              const std::int64_t row = (element * of.heads + h.value) * of.seq_q + i.value;
              for (std::int64_t x = 0; x < of.d_k; ++x)
                poisoned.attention.q[row * of.d_k + x] = poison;
              for (std::int64_t x = 0; x < of.d_v; ++x) poisoned.dout[row * of.d_v + x] = poison;
              poisoned.dlse[row] = poison;
            }
          }
        }
        ++element;
      });
      for (auto* tensor : {&poisoned.attention.q, &poisoned.attention.k, &poisoned.attention.v,
                           &poisoned.dout, &poisoned.dlse})
        tensor->seal();
      for_each_way({few_keys_lanes(3)}, [&] {
        clean.run();
        poisoned.run();
        ASSERT_TRUE(same_bits(clean.values(), poisoned.values())) << of.describe();
      });
    });
  }
}

// NaN in what is attended reaches the rows and keys that the reference says, and no others.
// The neighbour of the last key that all rows reach shares a pair with it.
TEST(BackwardSelect, TheKeyBeyondReachMayBeNaN) {  // B2
  AttentionCase c;
  c.seq_q = 3;
  c.seq_kv = 9;
  c.chunk = 5;
  c.d_k = 6;
  c.d_v = 5;
  c.q_offset = 0;
  for (c.seed = 1; c.seed <= 2; ++c.seed) {
    set_type(c);
    BackwardData clean(c), poisoned(c);
    for (Tensor<float>* tensor : {&poisoned.attention.k, &poisoned.attention.v}) {
      const std::int64_t depth = tensor->extents().back();
      for (std::int64_t head = 0; head < c.kv_heads; ++head) {
        for (std::int64_t x = 0; x < depth; ++x)
          (*tensor)[(head * c.seq_kv + c.chunk) * depth + x] =
              std::numeric_limits<float>::quiet_NaN();
      }
      tensor->seal();
    }
    for_each_way({few_keys_lanes(9)}, [&] {
      clean.run();
      poisoned.run();
      ASSERT_TRUE(same_bits(clean.values(), poisoned.values())) << c.describe();
    });
  }
}

TEST(BackwardSelect, NaNReachesWhatAttendsIt) {  // B35
  Seeds(86, cases(150)).for_each([](std::uint64_t seed) {
    AttentionCase c = AttentionCase::random(seed, 20);
    set_type(c);
    c.data = Data::normal;
    c.causal = true;
    BackwardData data(c);
    Random random(seed);
    Tensor<float>* const inputs[] = {&data.attention.q, &data.attention.k, &data.attention.v,
                                     &data.dout};
    Tensor<float>& input = *inputs[random.between(0, 3)];
    input[random.between(0, input.size() - 1)] = std::numeric_limits<float>::quiet_NaN();
    input.seal();
    const auto expected = data.expect();
    for_each_way({few_keys_lanes(3)}, [&] {
      data.run();
      data.check(expected);
    });
  });
}

// Gate B: not worse than autograd of plain f32 code that stores the whole score matrix. Where
// scores are large, the rounding of lse to f32 weighs on a whole row, which plain code divides by
// its sum: there the limit is twice its error.
TEST(BackwardAccuracy, IsNotWorseThanPlainF32) {
  for (Data values : {Data::normal, Data::large_queries, Data::value_mean_1, Data::rising}) {
    if (values != Data::normal && few_cases()) continue;
    AttentionCase c;
    c.heads = c.kv_heads = few_cases() ? 1 : 2;
    c.seq_q = 97;
    c.seq_kv = 512;
    c.d_k = c.d_v = 64;
    c.data = values;
    c.dense = true;
    BackwardData data(c);
    data.with_dlse = false;
    const auto expected = data.expect();
    const PlainGradients plain = plain_backward(
        data.attention.problem({}),
        View<const float, Head, Query, DepthV>(data.dout.view<Head, Query, DepthV>()));
    for_each_target([&] {
      data.run();
      data.check(expected);
      const auto ratio = [&](const Tensor<float>& got, const std::vector<float>& other,
                             const double* want) {
        Errors ours, theirs;
        for (std::int64_t n = 0; n < got.size(); ++n) {
          ours.add(got[n] - want[n]);
          theirs.add(other[static_cast<std::size_t>(n)] - want[n]);
        }
        const double rms = ours.rms() / theirs.rms();
        const bool large = values == Data::large_queries || values == Data::rising;
        EXPECT_LE(rms, large ? 2 : 1.05) << c.describe();
      };
      ratio(data.dq, plain.q, expected[0].q.value.data());
      ratio(data.dk, plain.k, expected[0].k.value.data());
      ratio(data.dv, plain.v, expected[0].v.value.data());
    });
  }
}

}  // namespace
}  // namespace rapt::tests
