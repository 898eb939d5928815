// Plans: made once, run many times, without memory of their own; and what explain() says of them.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "kernels/features.hpp"
#include "rapt/rapt.hpp"
#include "support/allocations.hpp"
#include "support/attention_case.hpp"
#include "support/backward_case.hpp"
#include "support/executors.hpp"
#include "support/memory.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

const std::vector<Blocks> kSmall = {few_keys_lanes(16), few_keys_rows(16)};

AttentionPlan plan_of(const AttentionData& data, const Executor* executor) {
  AttentionOptions options = data.options();
  options.executor = executor;
  return {data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(), options};
}

TEST(Plan, RunsAsAttentionDoesInExactlyItsWorkspaceWithoutAllocating) {  // R12
  Seeds(71, cases(300)).for_each([](std::uint64_t seed) {
    AttentionData data(AttentionCase::random(seed));
    for_each_way(kSmall, [&] {
      data.run(&serial_executor());
      const std::vector<float> out = data.out.values(), lse = data.lse.values();
      const AttentionPlan plan = plan_of(data, &serial_executor());
      const std::size_t bytes = (plan.workspace_bytes() + 63) / 64 * 64;
      // A byte beyond it is a crash.
      GuardedMemory workspace(bytes, Edge::end);
      for (int again = 0; again < 2; ++again) {
        std::memset(workspace.data(), 0xff, bytes);
        data.prepare();
        const std::int64_t before = allocations;
        plan.run({}, workspace.data(), bytes);
        EXPECT_EQ(allocations - before, 0) << data.of.describe();
        data.finish();
        EXPECT_TRUE(same_bits(out, data.out.values())) << data.of.describe();
        EXPECT_TRUE(same_bits(lse, data.lse.values())) << data.of.describe();
      }
    });
  });
}

AttentionBackwardPlan plan_of(const BackwardData& data, const Executor* executor) {
  return data.with_arguments(
      executor, [](const auto&... arguments) { return AttentionBackwardPlan(arguments...); });
}

TEST(BackwardPlan, RunsAsAttentionBackwardDoesInExactlyItsWorkspaceWithoutAllocating) {  // R12
  Seeds(73, cases(60)).for_each([](std::uint64_t seed) {
    AttentionCase c = with_dropout(AttentionCase::random(seed));
    c.seq_q *= 3;  // several parts
    BackwardData data(c);
    for_each_way({few_keys_lanes(16)}, [&] {
      data.run(&serial_executor());
      const std::vector<float> gradients = data.values();
      const AttentionBackwardPlan plan = plan_of(data, &serial_executor());
      const std::size_t bytes = (plan.workspace_bytes() + 63) / 64 * 64;
      GuardedMemory workspace(bytes, Edge::end);
      for (int again = 0; again < 2; ++again) {
        std::memset(workspace.data(), 0xff, bytes);
        data.prepare();
        const std::int64_t before = allocations;
        plan.run({}, workspace.data(), bytes);
        EXPECT_EQ(allocations - before, 0) << data.attention.of.describe();
        data.finish();
        EXPECT_TRUE(same_bits(gradients, data.values())) << data.attention.of.describe();
      }
    });
  });
}

// One plan, the memory of several calls.
struct Layers {
  static constexpr std::int64_t kHeads = 4, kKvHeads = 2, kQueries = 5, kKeys = 700, kDepth = 32;
  std::vector<float> q, k, v, out, lse, expected;

  explicit Layers(std::uint64_t seed)
      : q(fill(kHeads * kQueries * kDepth, seed)),
        k(fill(kKvHeads * kKeys * kDepth, seed + 1)),
        v(fill(kKvHeads * kKeys * kDepth, seed + 2)),
        out(q.size()),
        lse(kHeads * kQueries),
        expected(q.size()) {
    attention(q_view(), k_view(), v_view(), AnyOut(expected.data(), {kHeads, kQueries, kDepth}));
  }
  static std::vector<float> fill(std::int64_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& x : values) x = static_cast<float>(random.normal());
    return values;
  }
  AnyQ q_view() const { return {q.data(), {kHeads, kQueries, kDepth}}; }
  AnyK k_view() const { return {k.data(), {kKvHeads, kKeys, kDepth}}; }
  AnyV v_view() const { return {v.data(), {kKvHeads, kKeys, kDepth}}; }
  AnyOut out_view() { return {out.data(), {kHeads, kQueries, kDepth}}; }
};

TEST(Plan, RunsOnOtherMemoryAndFromManyThreads) {
  Layers planned(1);
  const AttentionPlan plan(planned.q_view(), planned.k_view(), planned.v_view(),
                           planned.out_view());
  std::vector<Layers> layers;
  for (std::uint64_t i = 0; i < 8; ++i) layers.emplace_back(10 * i);
  std::vector<std::thread> threads;
  for (Layers& layer : layers) {
    threads.emplace_back([&] {
      for (int again = 0; again < 10; ++again)
        plan.run({.q = layer.q.data(),
                  .k = layer.k.data(),
                  .v = layer.v.data(),
                  .out = layer.out.data()});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Layers& layer : layers) EXPECT_TRUE(same_bits(layer.expected, layer.out));
}

TEST(Plan, KeepsLengthsAndPagesAsTheyWere) {
  Layers data(3);
  const std::vector<float> before = data.out;
  // One sequence whose cache is pages of 100 keys, in order.
  std::vector<std::int32_t> table = {0, 1, 2, 3, 4, 5, 6}, length = {650};
  const auto pool = [](const std::vector<float>& keys) {
    // [pages, kv_heads, page, depth] over [kv_heads, keys, depth]
    return View<const float, KvHead, Key, DepthK>(
        keys.data(), {7, Layers::kKvHeads, 100, Layers::kDepth},
        {100 * Layers::kDepth, Layers::kKeys * Layers::kDepth, Layers::kDepth, 1});
  };
  const View<const float, KvHead, Key, DepthK> k = pool(data.k), v = pool(data.v);
  const View<const float, KvHead, Key, DepthV> v_pages(
      v.data(), {7, Layers::kKvHeads, 100, Layers::kDepth},
      {100 * Layers::kDepth, Layers::kKeys * Layers::kDepth, Layers::kDepth, 1});
  AttentionOptions options;
  options.block_table = {table.data(), {1, 7}};
  options.kv_lengths = {length.data(), {1}};
  const View<const float, Head, Query, DepthK> q(data.q.data(), {1, 4, 5, 32});
  const View<float, Head, Query, DepthV> out(data.out.data(), {1, 4, 5, 32});
  const AttentionPlan plan(q, k, v_pages, out, options);
  plan.run();
  const std::vector<float> first = data.out;
  table.assign(7, -1);
  length[0] = 1 << 30;
  plan.run();
  EXPECT_TRUE(same_bits(first, data.out));
}

// The same of the backward pass: each thread has its own of all that it reads and writes.
TEST(BackwardPlan, RunsOnOtherMemoryAndFromManyThreads) {
  AttentionCase c;
  c.heads = 4;
  c.kv_heads = 2;
  c.seq_q = 41;
  c.seq_kv = 67;
  c.d_k = c.d_v = 16;
  c.causal = c.sinks = c.alibi = c.dense = true;
  c.bias = Pairs::random;
  c.dropout = 0.25f;
  std::vector<std::unique_ptr<BackwardData>> layers;
  for (int i = 0; i < 5; ++i) {
    layers.push_back(std::make_unique<BackwardData>(c));
    layers.back()->with_dlse = true;
    // Slopes, sinks and dropout are those that were planned with; the rest is each one's own.
    Tensor<float>& q = layers.back()->attention.q;
    for (std::int64_t n = 0; n < q.size(); ++n) q[n] *= 1 + static_cast<float>(i) / 4;
    q.seal();
    layers.back()->run();
  }
  std::vector<std::vector<float>> expected;
  for (const auto& layer : layers) expected.push_back(layer->values());
  const AttentionBackwardPlan plan = plan_of(*layers[0], nullptr);
  ASSERT_FALSE(same_bits(expected[0], expected[1]));
  std::vector<std::thread> threads;
  for (const auto& layer : layers) {
    layer->prepare();
    threads.emplace_back([&] {
      BackwardPointers pointers;
      std::uint32_t offset = 0;
      layer->with_arguments(nullptr,
                            [&](const auto& q, const auto& k, const auto& v, const auto& out,
                                const auto& lse, const auto& dout, const auto& dq, const auto& dk,
                                const auto& dv, const auto& options, const auto& backward) {
                              offset = options.dropout.offset;
                              pointers = {.q = q.data(),
                                          .k = k.data(),
                                          .v = v.data(),
                                          .out = out.data(),
                                          .lse = lse.data(),
                                          .grad_out = dout.data(),
                                          .grad_q = dq.data(),
                                          .grad_k = dk.data(),
                                          .grad_v = dv.data(),
                                          .mask = options.mask.data(),
                                          .bias = options.bias.data(),
                                          .dropout_offset = &offset,
                                          .grad_lse = backward.grad_lse.data(),
                                          .grad_bias = backward.grad_bias.data(),
                                          .grad_alibi_slopes = backward.grad_alibi_slopes.data(),
                                          .grad_sinks = backward.grad_sinks.data()};
                            });
      for (int again = 0; again < 10; ++again) plan.run(pointers);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i]->finish();
    EXPECT_TRUE(same_bits(expected[i], layers[i]->values())) << i;
  }
}

template <class Call>
void expect_refusal(const Call& call, std::initializer_list<const char*> words) {
  try {
    call();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    for (const char* word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << error.what() << " lacks " << word;
  }
}

TEST(Plan, RefusesAWorkspaceThatIsTooSmallOrCrooked) {
  Layers data(5);
  const AttentionPlan plan(data.q_view(), data.k_view(), data.v_view(), data.out_view());
  const std::size_t bytes = plan.workspace_bytes();
  ASSERT_GT(bytes, 64u);
  std::vector<float> memory(bytes / sizeof(float) + 32);
  auto* aligned = reinterpret_cast<std::byte*>(
      (reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  const std::vector<float> before = data.out;
  expect_refusal([&] { plan.run({}, aligned, bytes - 1); },
                 {"workspace", std::to_string(bytes).c_str(), std::to_string(bytes - 1).c_str()});
  expect_refusal([&] { plan.run({}, aligned + 4, bytes); }, {"workspace", "4"});
  expect_refusal([&] { plan.run({.lse = data.lse.data()}); }, {"lse", "without it"});
  EXPECT_TRUE(same_bits(before, data.out));
}

TEST(BackwardPlan, RefusesWhatItWasMadeWithout) {
  AttentionCase c;
  c.seq_q = c.seq_kv = 9;
  BackwardData data(c);
  data.with_dlse = false;
  data.run();
  const AttentionBackwardPlan plan = plan_of(data, nullptr);
  const std::size_t bytes = plan.workspace_bytes();
  alignas(64) std::byte some[64] = {};
  float number = 0;
  const std::uint32_t offset = 1;
  data.prepare();
  expect_refusal([&] { plan.run({}, some, 64); },
                 {"workspace", "64", ("needs " + std::to_string(bytes)).c_str()});
  expect_refusal([&] { plan.run({}, some + 4, bytes); }, {"workspace", "4"});
  expect_refusal([&] { plan.run({.dropout_offset = &offset}); }, {"dropout_offset", "without it"});
  expect_refusal([&] { plan.run({.grad_lse = &number}); }, {"grad_lse", "without it"});
  expect_refusal([&] { plan.run({.grad_bias = &number}); }, {"grad_bias", "without it"});
  expect_refusal([&] { plan.run({.grad_alibi_slopes = &number}); },
                 {"grad_alibi_slopes", "without it"});
  expect_refusal([&] { plan.run({.grad_sinks = &number}); }, {"grad_sinks", "without it"});
}

// Dropout of this run, in both passes.
TEST(Plan, TakesTheOffsetOfDropoutFromTheRun) {
  AttentionCase c;
  c.heads = c.kv_heads = 2;
  c.seq_q = c.seq_kv = 50;
  c.d_k = c.d_v = 16;
  c.dropout = 0.5f;
  c.dense = true;
  BackwardData data(c);
  const auto passes = [&](std::uint32_t offset, auto forward, auto backward) {
    data.attention.prepare();
    forward(offset);
    data.attention.finish();
    data.prepare();
    backward(offset);
    data.finish();
    std::vector<float> all = data.values();
    const std::vector<float> out = data.attention.out.values();
    all.insert(all.end(), out.begin(), out.end());
    return all;
  };
  const AttentionPlan forward = plan_of(data.attention, nullptr);
  const AttentionBackwardPlan backward = plan_of(data, nullptr);
  std::vector<std::vector<float>> found;
  for (const std::uint32_t offset : {7u, 8u}) {
    found.push_back(passes(
        offset, [&](std::uint32_t n) { forward.run({.dropout_offset = &n}); },
        [&](std::uint32_t n) { backward.run({.dropout_offset = &n}); }));
    const auto direct = passes(
        offset,
        [&](std::uint32_t n) {
          AttentionOptions options = data.attention.options();
          options.dropout.offset = n;
          attention(data.attention.stored_q(), data.attention.stored_k(), data.attention.stored_v(),
                    data.attention.stored_out(), options);
        },
        [&](std::uint32_t n) {
          data.with_arguments(nullptr, [&](const auto&... all) {
            const auto with_offset = [&](const auto& x) {
              auto copy = x;
              if constexpr (std::is_same_v<decltype(copy), AttentionOptions>)
                copy.dropout.offset = n;
              return copy;
            };
            attention_backward(with_offset(all)...);
          });
        });
    EXPECT_TRUE(same_bits(found.back(), direct));
  }
  EXPECT_FALSE(same_bits(found[0], found[1]));
}

TEST(Explain, SaysWhatIsSkippedAndWhy) {
  constexpr std::int64_t kLength = 1024;
  const std::vector<float> data(kLength * 64);
  std::vector<float> out(data.size());
  const AnyQ q(data.data(), {1, kLength, 64});
  const AnyK k(data.data(), {1, kLength, 64});
  const AnyV v(data.data(), {1, kLength, 64});
  const AnyOut o(out.data(), {1, kLength, 64});
  const Explanation all = explain(q, k, v, o);
  EXPECT_EQ(all.target, target());
  ASSERT_EQ(all.cuts.size(), 1u);
  EXPECT_EQ(all.cuts[0].algorithm, "flash_lanes");
  ASSERT_EQ(all.cuts[0].refused.size(), 1u);
  EXPECT_EQ(all.cuts[0].refused[0].algorithm, "flash_pairs");
  EXPECT_EQ(all.skipped_tiles, 0);
  EXPECT_EQ(all.masked_tiles, 0);
  EXPECT_DOUBLE_EQ(all.flops, 4.0 * kLength * kLength * 64);
  EXPECT_DOUBLE_EQ(all.bytes, 4.0 * kLength * 64 * 4);

  AttentionOptions causal;
  causal.causal = true;
  const Explanation half = explain(q, k, v, o, causal);
  EXPECT_EQ(half.tiles, all.tiles);
  EXPECT_GT(half.skipped_tiles * 10, half.tiles * 2);
  EXPECT_GT(half.masked_tiles, 0);
  EXPECT_LT(half.flops, 0.7 * all.flops);

  // A window of 64 keys leaves few tiles.
  causal.window_left = 63;
  const Explanation window = explain(q, k, v, o, causal);
  EXPECT_GT(window.skipped_tiles, half.skipped_tiles);
  EXPECT_LT(window.flops, half.flops);

  // One query: few rows, so not the first algorithm, and the keys make the tasks.
  const std::int64_t cache = 5000;
  const Explanation decode =
      explain(AnyQ(data.data(), {1, 1, 64}), AnyK(data.data(), {1, cache, 64}),
              AnyV(data.data(), {1, cache, 64}), AnyOut(out.data(), {1, 1, 64}));
  EXPECT_EQ(decode.cuts[0].algorithm, "flash_rows");
  ASSERT_EQ(decode.cuts[0].refused.size(), 3u);
  EXPECT_EQ(decode.cuts[0].refused[1].algorithm, "flash_lanes");
  EXPECT_NE(decode.cuts[0].refused[1].reason.find("few rows"), std::string::npos);
  EXPECT_GT(decode.cuts[0].parts, 1);
  EXPECT_EQ(decode.tasks, decode.cuts[0].parts);
  for (const std::string& word : {std::string("flash_rows"), std::string("not flash_lanes"),
                                  target(), std::string("skipped"), std::string("workspace")})
    EXPECT_NE(decode.text().find(word), std::string::npos) << decode.text();
}

// As the system says, not the library.
bool cpu_is_of_intel() {
  std::ifstream cpus("/proc/cpuinfo");
  for (std::string line; std::getline(cpus, line);) {
    if (line.find("GenuineIntel") != std::string::npos) return true;
  }
  return false;
}

TEST(Explain, SaysWhetherWeightsAreRounded) {
  constexpr std::int64_t kLength = 64;
  const std::vector<BFloat16> data(kLength * 64);
  std::vector<BFloat16> out(data.size());
  std::vector<float> wide(data.size());
  const AnyQ q(data.data(), {1, kLength, 64});
  const AnyK k(data.data(), {1, kLength, 64});
  const AnyV v(data.data(), {1, kLength, 64});
  const auto algorithm = [&](RoundWeights round_weights, const AnyOut& o) {
    AttentionOptions options;
    options.round_weights = round_weights;
    return explain(q, k, v, o, options).cuts[0].algorithm;
  };
  const AnyOut o(out.data(), {1, kLength, 64});
  EXPECT_EQ(algorithm(RoundWeights::always, o), "flash_pairs");
  EXPECT_EQ(algorithm(RoundWeights::never, o), "flash_lanes");
  const bool pairs = target() == "AVX3_ZEN4" && (!cpu_is_of_intel() || kernels::has_matrix_tiles());
  EXPECT_EQ(algorithm(RoundWeights::where_native, o), pairs ? "flash_pairs" : "flash_lanes");
  EXPECT_EQ(algorithm(RoundWeights::always, AnyOut(wide.data(), {1, kLength, 64})), "flash_lanes");

  const auto decode = [&](RoundWeights round_weights, std::int64_t depth) {
    AttentionOptions options;
    options.round_weights = round_weights;
    return explain(AnyQ(data.data(), {1, 1, depth}), AnyK(data.data(), {1, kLength, depth}),
                   AnyV(data.data(), {1, kLength, depth}), AnyOut(out.data(), {1, 1, depth}),
                   options)
        .cuts[0]
        .algorithm;
  };
  EXPECT_EQ(decode(RoundWeights::always, 64), "flash_rows_pairs");
  EXPECT_EQ(decode(RoundWeights::always, 63), "flash_rows");
  EXPECT_EQ(decode(RoundWeights::never, 64), "flash_rows");
  EXPECT_EQ(decode(RoundWeights::where_native, 64), pairs ? "flash_rows_pairs" : "flash_rows");
}

// A KV head of 2 query heads, and what is beside it.
struct Training {
  std::int64_t batch, kv_heads, seq, depth;
  Type type = Type::f32;
  AttentionOptions options{};
  BackwardOptions backward{};

  template <class Call>
  auto with_arguments(const Call& call) const {
    alignas(4) static std::byte nothing[4];  // is read by nobody
    const std::int64_t heads = 2 * kv_heads;
    const auto array = [&](auto like, std::int64_t of) {
      const std::int64_t extents[] = {batch, of, seq, depth};
      const std::int64_t strides[] = {of * seq * depth, seq * depth, depth, 1};
      return decltype(like)(type, nothing, extents, 4, strides, 4);
    };
    return call(array(AnyQ(), heads), array(AnyK(), kv_heads), array(AnyV(), kv_heads),
                array(AnyOutIn(), heads),
                LseIn(reinterpret_cast<float*>(nothing), {batch, heads, seq}),
                array(AnyOutIn(), heads), array(AnyGradQ(), heads), array(AnyGradK(), kv_heads),
                array(AnyGradV(), kv_heads), options, backward);
  }
  Explanation explained() const {
    return with_arguments([](const auto&... arguments) { return explain_backward(arguments...); });
  }
};

TEST(Explain, OfTheBackwardPass) {
  Training training{2, 4, 1024, 64};
  const Explanation all = training.explained();
  EXPECT_EQ(all.target, target());
  ASSERT_EQ(all.cuts.size(), 1u);
  const Explanation::Cut& cut = all.cuts[0];
  EXPECT_EQ(cut.algorithm, "flash_backward");
  EXPECT_EQ(cut.elements, 2);
  EXPECT_EQ(cut.units, 2 * 4);
  EXPECT_GT(cut.parts, 1);
  EXPECT_EQ(cut.part_kv, 0);
  EXPECT_GE(cut.parts * cut.part_rows, 2 * 1024);
  EXPECT_EQ(all.tasks, cut.units * cut.parts);
  EXPECT_EQ(all.sum_tasks, 0);
  EXPECT_EQ(all.skipped_tiles, 0);
  EXPECT_EQ(all.masked_tiles, 0);
  constexpr double kPairs = 2.0 * 8 * 1024 * 1024;
  EXPECT_DOUBLE_EQ(all.flops, 5 * 2.0 * kPairs * 64);
  EXPECT_DOUBLE_EQ(all.bytes, 4.0 * 2 * 1024 * 64 * (4 * 8 + 4 * 4));
  EXPECT_EQ(all.bench_case, "attention/2,8,4,1024,1024,64,64/backward");

  training.options.causal = true;
  std::vector<float> slopes(8);
  training.options.alibi_slopes = {slopes.data(), {8}};
  training.backward.grad_alibi_slopes = {slopes.data(), {8}};
  const Explanation half = training.explained();
  EXPECT_EQ(half.tiles, all.tiles);
  EXPECT_GT(half.skipped_tiles * 10, half.tiles * 3);
  EXPECT_GT(half.masked_tiles, 0);
  EXPECT_LT(half.flops, 0.7 * all.flops);
  EXPECT_EQ(half.sum_tasks, 8);
  EXPECT_EQ(half.bench_case, "attention/2,8,4,1024,1024,64,64/causal/alibi/backward/dalibi");
  training.options.window_left = 63;
  EXPECT_GT(training.explained().skipped_tiles, half.skipped_tiles);
  EXPECT_LT(training.explained().flops, half.flops);
  for (const std::string& word :
       {std::string("flash_backward"), std::string("a KV head each"), std::string("added in order"),
        std::string("then 8 for"), target(), std::string("--case 'attention/2,8,4,1024")})
    EXPECT_NE(half.text().find(word), std::string::npos) << half.text();
}

// Of bf16, where the products of pairs are native or asked for.
TEST(Explain, OfGradientsOnPairs) {
  Training training{1, 2, 64, 64, Type::bf16};
  const auto cut = [&](RoundWeights round_weights) {
    training.options.round_weights = round_weights;
    return training.explained().cuts[0];
  };
  EXPECT_EQ(cut(RoundWeights::always).algorithm, "flash_backward_pairs");
  EXPECT_TRUE(cut(RoundWeights::always).refused.empty());
  EXPECT_EQ(cut(RoundWeights::where_native).algorithm,
            target() == "AVX3_ZEN4" ? "flash_backward_pairs" : "flash_backward");
  const Explanation::Cut never = cut(RoundWeights::never);
  EXPECT_EQ(never.algorithm, "flash_backward");
  ASSERT_EQ(never.refused.size(), 1u);
  EXPECT_EQ(never.refused[0].algorithm, "flash_backward_pairs");
  EXPECT_EQ(never.refused[0].reason, "round_weights: never");
  training.options.dropout.probability = 0.5f;
  EXPECT_EQ(cut(RoundWeights::always).refused.at(0).reason, "dropout is for floats");
}

// Of 16384 queries and keys within 64 MiB beside the arrays, on two threads.
TEST(BackwardPlan, NeedsLittleMemoryOfLongSequences) {
  const ThreadExecutor two(2);
  for (const std::int64_t kv_heads : {4, 8}) {
    for (const Type type : {Type::f32, Type::bf16}) {
      Training training{1, kv_heads, 16384, 64, type};
      training.options.executor = &two;
      const std::size_t bytes = training.with_arguments([](const auto&... arguments) {
        return AttentionBackwardPlan(arguments...).workspace_bytes();
      });
      EXPECT_LE(bytes, std::size_t{64} << 20) << kv_heads << " " << static_cast<int>(type);
      EXPECT_GT(bytes, 1u << 16);
    }
  }
}

TEST(Explain, CountsWhatIsSharedOnce) {
  // Three sequences, whose 4 KV heads are the same memory: all parts of the keys but the last.
  constexpr std::int64_t kKeys = 1500, kDepth = 8;
  const std::vector<float> data(4 * kKeys * kDepth);
  std::vector<float> out(3 * 4 * kDepth);
  const auto of = [&](std::int64_t batch_stride, std::int64_t sequences) {
    const View<const float, KvHead, Key, DepthK> k(data.data(), {sequences, 4, kKeys, kDepth},
                                                   {batch_stride, kKeys * kDepth, kDepth, 1});
    const View<const float, KvHead, Key, DepthV> v(data.data(), {sequences, 4, kKeys, kDepth},
                                                   {batch_stride, kKeys * kDepth, kDepth, 1});
    return explain(AnyQ(data.data(), {sequences, 4, 1, kDepth}), k, v,
                   AnyOut(out.data(), {sequences, 4, 1, kDepth}));
  };
  const Explanation one = of(0, 1), three = of(0, 3), apart = of(kDepth, 3);
  const std::int64_t whole = kKeys / one.cuts[0].part_kv;
  EXPECT_EQ(one.shared_tasks, 0);
  EXPECT_EQ(apart.shared_tasks, 0);
  EXPECT_EQ(three.shared_tasks, 2 * 4 * whole);
  EXPECT_EQ(apart.bytes - three.bytes,
            static_cast<double>(three.shared_tasks * one.cuts[0].part_kv * kDepth * 8));
}

TEST(Explain, NamesTheConfigRow) {
  const std::vector<float> data(64 * 64);
  std::vector<float> out(data.size());
  const auto of = [&] {
    return explain(AnyQ(data.data(), {1, 64, 64}), AnyK(data.data(), {1, 64, 64}),
                   AnyV(data.data(), {1, 64, 64}), AnyOut(out.data(), {1, 64, 64}));
  };
  load_config("");
  const Explanation formulas = of();
  EXPECT_FALSE(formulas.tuned);
  EXPECT_NE(formulas.config_row.find(target()), std::string::npos);
  std::string row = formulas.config_row;
  const auto at = row.find("block_kv=");
  row.replace(at, row.find(',', at) - at, "block_kv=48");
  load_config(row);
  EXPECT_TRUE(of().tuned);
  EXPECT_EQ(of().cuts[0].block_kv, 48);
  load_config("");
}

TEST(Explain, WorkspaceIsThatOfAPlan) {
  Seeds(72, cases(200)).for_each([](std::uint64_t seed) {
    const AttentionData data(AttentionCase::random(seed));
    const AttentionPlan plan = plan_of(data, &serial_executor());
    const Explanation e = plan.explain();
    EXPECT_EQ(e.workspace_bytes, static_cast<std::int64_t>(plan.workspace_bytes()));
    EXPECT_LE(e.skipped_tiles + e.masked_tiles, e.tiles);
    EXPECT_FALSE(e.text().empty());

    const BackwardData training(data.of);
    const AttentionBackwardPlan backward = plan_of(training, &serial_executor());
    const Explanation b = backward.explain();
    EXPECT_EQ(b.workspace_bytes, static_cast<std::int64_t>(backward.workspace_bytes()));
    EXPECT_LE(b.skipped_tiles + b.masked_tiles, b.tiles);
    EXPECT_EQ(b.text(), training
                            .with_arguments(&serial_executor(),
                                            [](const auto&... arguments) {
                                              return explain_backward(arguments...);
                                            })
                            .text());
  });
}

}  // namespace
}  // namespace rapt::tests
