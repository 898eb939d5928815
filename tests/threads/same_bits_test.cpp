// A row's result depends on that row's inputs alone: not on the number of threads, the executor,
// the rest of the batch, what its neighbours attend, or how often the call was made before.
#include <gtest/gtest.h>

#include "support/attention_case.hpp"
#include "support/executors.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"
#include "tiles/array.hpp"

#ifndef RAPT_WITHOUT_TBB
#include <oneapi/tbb/task_arena.h>
#endif

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

// Of attention, and of the matrix product.
const std::vector<Blocks> kFewKeys = {few_keys_lanes(16), few_keys_rows(16)};
const std::vector<Blocks> kSmall = {small_packed(16), small_packed_b(16)};

// Calls run(executor) on one thread and on several, by every executor there is.
void on_all_executors(const std::function<void(const Executor*)>& run) {
  run(&serial_executor());
  for (int threads : {1, 2, 3, 8}) {
    const ThreadExecutor executor(threads);
    run(&executor);
#ifndef RAPT_WITHOUT_TBB
    tbb::task_arena(threads).execute([&] { run(nullptr); });
#endif
  }
  const BackwardExecutor backward;
  run(&backward);
  run(nullptr);
}

TEST(SameBits, OfAttentionOnAnyNumberOfThreads) {  // B26
  Seeds(31, cases(30)).for_each([](std::uint64_t seed) {
    AttentionCase c = AttentionCase::random(seed);
    c.seq_q *= 3;  // several blocks of queries
    AttentionData data(c);
    for_each_way(kFewKeys, [&] {
      data.run(&serial_executor());
      const std::vector<float> out = data.out.values(), lse = data.lse.values();
      on_all_executors([&](const Executor* executor) {
        data.run(executor);
        ASSERT_TRUE(same_bits(out, data.out.values())) << c.describe();
        ASSERT_TRUE(same_bits(lse, data.lse.values())) << c.describe();
      });
    });
  });
}

TEST(SameBits, OfTheMatrixProductOnAnyNumberOfThreads) {  // B26
  Seeds(32, cases(30)).for_each([](std::uint64_t seed) {
    GemmData data(GemmCase::random(seed, 200));
    for_each_way(kSmall, [&] {
      data.run(&serial_executor());
      const std::vector<float> c = data.c.values();
      on_all_executors([&](const Executor* executor) {
        data.run(executor);
        ASSERT_TRUE(same_bits(c, data.c.values())) << data.of.describe();
      });
    });
  });
}

// A row of c is one block, but its sum is many slices of b.
TEST(SameBits, OfARowAgainstALargeMatrixThatIsSharedOut) {
  constexpr std::int64_t kSize = 2048;  // 16 MiB
  const std::vector<float> a(kSize, 1.5f), b(kSize * kSize, 0.25f);
  std::vector<float> c(kSize);
  const ThreadExecutor threads(3);
  GemmOptions options;
  options.executor = &threads;
  gemm(View<const float, Row, Inner>(a.data(), {1, kSize}),
       View<const float, Inner, Column>(b.data(), {kSize, kSize}),
       View<float, Row, Column>(c.data(), {1, kSize}), options);
  EXPECT_GT(threads.most_tasks, 1);
  for (float x : c) ASSERT_EQ(x, 0.375f * kSize);
}

TEST(SameBits, OfRepeatedCalls) {
  AttentionCase c;
  c.heads = 4;
  c.kv_heads = 2;
  c.seq_q = 67;
  c.seq_kv = 131;
  c.d_k = c.d_v = 33;
  c.causal = true;
  AttentionData data(c);
  for_each_way(kFewKeys, [&] {
    data.run();
    const std::vector<float> out = data.out.values();
    for (int i = 0; i < 20; ++i) {
      data.run();
      ASSERT_TRUE(same_bits(out, data.out.values()));
    }
  });
}

TEST(SameBits, OfABatchElementAloneAndInItsBatch) {  // B26
  Seeds(33, cases(60)).for_each([](std::uint64_t seed) {
    AttentionCase c = AttentionCase::random(seed);
    c.batch = {Random(seed).between(2, 7)};
    c.q_type = c.k_type = c.v_type = c.out_type = Type::f32;
    AttentionData data(c);
    for_each_way(kFewKeys, [&] {
      data.run();
      const std::vector<float> out = data.out.values(), lse = data.lse.values();
      data.out.reset();
      data.lse.reset();
      // Alone it is not packed and not paged.
      data.for_each_element([&](const reference::Batch& batch) {
        const reference::Problem<float> one = data.problem(batch);
        AttentionOptions options = one.options;
        if (c.lse) options.lse = data.lse_of(batch);
        attention(one.q, one.k, one.v, data.out_of(batch), options);
      });
      EXPECT_TRUE(same_bits(out, data.out.values())) << c.describe();
      EXPECT_TRUE(same_bits(lse, data.lse.values())) << c.describe();
    });
  });
}

// Ten sequences whose first pages are the same, longer than one wave of partial results holds: read
// once for all, or by each alone. A row of k is depth_k / size elements.
template <class T>
void check_shared_pages(std::int64_t group, std::int64_t queries, std::int64_t depth_k,
                        std::int64_t size, const std::function<T(Random&)>& element) {
  constexpr std::int64_t kSequences = 10, kKvHeads = 2, kPage = 16, kShared = 1000, kOwn = 3,
                         kDepthV = 256;
  const std::int64_t pages = kShared + kSequences * kOwn;
  const auto fill = [](std::int64_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& x : values) x = random.normal();
    return values;
  };
  const std::vector<float> q = fill(kSequences * kKvHeads * group * queries * depth_k, 1),
                           v = fill(pages * kKvHeads * kPage * kDepthV, 3);
  Random random(2);
  std::vector<T> k(static_cast<std::size_t>(pages * kKvHeads * kPage * depth_k / size));
  for (T& x : k) x = element(random);
  const View<const T, KvHead, Key, DepthK> k_view(k.data(),
                                                  {pages, kKvHeads, kPage, depth_k / size});
  std::vector<std::int32_t> table, lengths;
  for (std::int64_t b = 0; b < kSequences; ++b) {
    for (std::int64_t n = 0; n < kShared; ++n)  // two neighbours differ early
      table.push_back(static_cast<std::int32_t>(b == 6 && n > 500 ? 0 : n));
    for (std::int64_t n = 0; n < kOwn; ++n)
      table.push_back(static_cast<std::int32_t>(kShared + b * kOwn + n));
    lengths.push_back(static_cast<std::int32_t>((kShared + kOwn) * kPage - 5 * b));
  }
  const std::int64_t row = kKvHeads * group * queries;
  const auto run = [&](std::int64_t first, std::int64_t count, std::vector<float>& out) {
    AttentionOptions options;
    options.causal = true;
    options.block_table = {table.data() + first * (kShared + kOwn), {count, kShared + kOwn}};
    options.kv_lengths = {lengths.data() + first, {count}};
    attention(
        QView(q.data() + first * row * depth_k, {count, kKvHeads * group, queries, depth_k}),
        AnyK(k_view), VView(v.data(), {pages, kKvHeads, kPage, kDepthV}),
        OutView(out.data() + first * row * kDepthV, {count, kKvHeads * group, queries, kDepthV}),
        options);
  };
  const Blocks blocks = few_keys_rows(16);
  const Forced forced(*all_targets().front(), &blocks);
  std::vector<float> together(static_cast<std::size_t>(kSequences * row * kDepthV)),
      alone = together;
  run(0, kSequences, together);
  for (std::int64_t b = 0; b < kSequences; ++b) run(b, 1, alone);
  EXPECT_TRUE(same_bits(together, alone));
}

TEST(SameBits, OfSequencesThatShareTheirFirstPages) {
  check_shared_pages<float>(4, 2, 16, 1, [](Random& random) { return random.normal(); });
}
// Rows that would be multiplied as digits, each by itself.
TEST(SameBits, OfSingleRowsThatShareTheirFirstPagesOfInt4) {
  check_shared_pages<Int4Group>(1, 1, 128, Int4Group::kSize, [](Random& random) {
    Int4Group group{to_f16(random.normal()), {}};
    for (std::uint8_t& two : group.nibbles) two = static_cast<std::uint8_t>(random.between(0, 255));
    return group;
  });
}

TEST(SameBits, OfARowWhoseNeighboursAttendSomethingElse) {
  Seeds(34, cases(60)).for_each([](std::uint64_t seed) {
    AttentionCase c = AttentionCase::random(seed);
    c.mask = Pairs::random;
    c.mask_broadcast = 0;
    c.bias = Pairs::none;
    AttentionData one(c), other(c);
    Random random(seed + 1);
    const std::int64_t queries = one.mask.extents().end()[-2], keys = one.mask.extents().back();
    const std::int64_t row = random.between(0, queries - 1);
    for (std::int64_t n = 0; n < other.mask.size(); ++n) {
      if (n / keys % queries != row) other.mask[n] = random.percent(20);
    }
    other.mask.seal();
    for_each_way(kFewKeys, [&] {
      one.run();
      other.run();
      for (std::int64_t n = 0; n < one.out.size(); ++n) {
        if (n / c.d_v % queries != row) continue;
        ASSERT_EQ(one.out[n], other.out[n])
            << "row " << row << " element " << n << ": " << c.describe();
      }
    });
  });
}

// batch_element() of a view in a storage type.
template <class RowAxis, class ColumnAxis>
AnyView<const std::byte, RowAxis, ColumnAxis> stored_element(
    const AnyView<const std::byte, RowAxis, ColumnAxis>& view, const reference::Batch& batch) {
  const std::byte* data = view.data();
  for (int i = 0; i < view.batch_axes(); ++i) {
    const std::int64_t position = batch.position[batch.axes - view.batch_axes() + i];
    if (view.batch_extent(i) != 1)
      data += position * view.batch_stride(i) * tiles::bytes_of(view.type());
  }
  const std::int64_t extents[] = {view.template extent<RowAxis>(),
                                  view.template extent<ColumnAxis>()};
  const std::int64_t strides[] = {view.template stride<RowAxis>(),
                                  view.template stride<ColumnAxis>()};
  return {view.type(), data, extents, 2, strides, 2};
}

// Each batch element by a call of its own must give what the call for all of them gave.
void expect_same_alone(const GemmCase& g) {
  GemmData data(g);
  data.run();
  const std::vector<float> c = data.c.values();
  data.c.reset();
  reference::for_each_batch(data.c_view(), [&](const reference::Batch& batch) {
    gemm(stored_element(data.stored_a(), batch), stored_element(data.stored_b(), batch),
         batch_element(data.c_view(), batch), data.stored_options());
  });
  EXPECT_TRUE(same_bits(c, data.c.values())) << g.describe();
}

TEST(SameBits, OfAProductAloneAndInItsBatch) {  // B26
  Seeds(35, cases(150)).for_each([](std::uint64_t seed) {
    GemmCase g = GemmCase::random(seed);
    g.batch = {Random(seed).between(2, 7)};
    g.beta = 0;  // c is not consumed
    g.integers = false;
    for_each_way(kSmall, [&] { expect_same_alone(g); });
  });
}

// One b for the whole batch, everything dense: a product that could be computed as one with more
// rows.
TEST(SameBits, OfAProductWithSharedWeightsAloneAndInItsBatch) {  // B26
  for (bool b_transposed : {false, true}) {
    for (std::int64_t m : {1, 5, 16, 70}) {
      for (std::int64_t n : {3, 40, 130}) {
        for (std::int64_t k : {40, 700}) {
          if (n * k > 50000 && few_cases()) continue;
          for (Type type : {Type::f32, Type::bf16}) {
            GemmCase g;
            g.batch = {16};
            g.b_broadcast = 2;
            g.m = m;
            g.n = n;
            g.k = k;
            g.dense = true;
            g.a_type = g.b_type = type;
            g.b_transposed = b_transposed;
            for_each_target([&] { expect_same_alone(g); });
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace rapt::tests
