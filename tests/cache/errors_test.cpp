// Every wrong input of append_kv(), rope(), quantize(), dequantize(), convert() and merge() is an
// Error whose sentence names the axis or option and both values, thrown before anything is written.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cache/storage.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
using Words = std::initializer_list<const char*>;

// A Problem made wrong by `change` throws this code with all these words, and writes nothing.
template <class Problem, class Change>
void wrong(const Change& change, ErrorCode code, Words words) {
  Problem problem;
  change(problem);
  try {
    problem.run();
    ADD_FAILURE() << "no error that says " << *words.begin();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const char* word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << "\"" << error.what() << "\" lacks " << word;
  }
  EXPECT_TRUE(problem.unchanged());
}

// Right, to be made wrong in one place. Primes, so that a sentence shows which extent it means.
struct Append {
  Tensor<float> k_new{{2, 3, 5, 14}}, v_new{{2, 3, 5, 13}}, k{{2, 3, 17, 14}}, v{{2, 3, 17, 13}},
      factors{{6}};
  Tensor<std::int8_t> k8{{2, 3, 17, 14}};
  Tensor<float> k_scales{{2, 3, 17}};
  std::int32_t lengths[2] = {11, 12}, positions[10] = {}, boundaries[3] = {0, 2, 5},
               table[2][4] = {{3, 4, 0, 0}, {1, 2, 0, 0}};
  AnyK k_new_view = k_new.view<KvHead, Key, DepthK>();
  AnyV v_new_view = v_new.view<KvHead, Key, DepthV>();
  AnyKCache k_view = k.view<KvHead, Key, DepthK>();
  AnyVCache v_view = v.view<KvHead, Key, DepthV>();
  AppendOptions options;

  Append() {
    for (auto* tensor : {&k_new, &v_new, &factors}) tensor->fill([](std::int64_t) { return 1.0f; });
    for (auto* tensor : {&k, &v, &k_scales}) tensor->seal();
    k8.seal();
    options.kv_lengths = {lengths, {2}};
    options.rope.dims = 12;
    options.rope.frequency_factors = factors.view<Pair>();
  }
  void run() const { append_kv(k_new_view, v_new_view, k_view, v_view, options); }
  testing::AssertionResult unchanged() const {
    for (const auto* tensor : {&k, &v, &k_scales})
      if (!tensor->unchanged()) return tensor->unchanged();
    return k8.unchanged();
  }
};
// The same arrays as a pool of 6 pages of 17 keys.
struct AppendPaged : Append {
  AppendPaged() {
    k_view = AnyKCache(k.data(), {6, 1, 17, 14});
    v_view = AnyVCache(v.data(), {6, 1, 17, 13});
    k_new_view = AnyK(k_new.data(), {2, 1, 9, 14});
    v_new_view = AnyV(v_new.data(), {2, 1, 9, 13});
    options.block_table = {&table[0][0], {2, 4}};
  }
};
// And as packed sequences.
struct AppendPacked : Append {
  AppendPacked() {
    k_new_view = AnyK(k_new.data(), {3, 5, 14});
    v_new_view = AnyV(v_new.data(), {3, 5, 13});
    options.cu_seqlens_new = {boundaries, {3}};
  }
};

TEST(AppendErrors, TheProblemsOfTheseTestsAreRight) {
  const Append a;
  EXPECT_NO_THROW(a.run());
  EXPECT_FALSE(a.unchanged());
  EXPECT_NO_THROW(AppendPaged().run());
  EXPECT_NO_THROW(AppendPacked().run());
}

TEST(AppendErrors, Shapes) {
  const auto expect = wrong<Append, void (*)(Append&)>;
  const ErrorCode mismatch = ErrorCode::extent_mismatch;
  expect([](Append& a) { a.k_view = {a.k.data(), {2, 3, 17, 13}}; }, mismatch,
         {"d_k", "k_new", "14", "k_cache", "13"});
  expect([](Append& a) { a.v_view = {a.v.data(), {2, 3, 17, 11}}; }, mismatch,
         {"d_v", "v_new", "13", "v_cache", "11"});
  expect([](Append& a) { a.v_new_view = {a.v_new.data(), {2, 3, 4, 13}}; }, mismatch,
         {"seq_kv", "k_new", "5", "v_new", "4"});
  expect([](Append& a) { a.v_view = {a.v.data(), {2, 3, 16, 13}}; }, mismatch,
         {"seq_kv", "k_cache", "17", "v_cache", "16"});
  expect([](Append& a) { a.v_new_view = {a.v_new.data(), {2, 2, 5, 13}}; }, mismatch,
         {"kv_heads", "k_new", "3", "v_new", "2"});
  expect([](Append& a) { a.k_view = {a.k.data(), {2, 2, 17, 14}}; }, mismatch,
         {"kv_heads", "k_new", "3", "k_cache", "2"});
  expect([](Append& a) { a.v_view = {a.v.data(), {2, 2, 17, 13}}; }, mismatch,
         {"kv_heads", "k_new", "3", "v_cache", "2"});
  expect([](Append& a) { a.v_new_view = {a.v_new.data(), {1, 3, 5, 13}}; }, mismatch,
         {"batch 0", "k_new", "2", "v_new", "1"});
  expect([](Append& a) { a.v_view = {a.v.data(), {1, 3, 17, 13}}; }, mismatch,
         {"batch 0", "k_cache", "2", "v_cache", "1"});
  expect(
      [](Append& a) {
        a.k_view = {a.k.data(), {1, 3, 17, 14}};
        a.v_view = {a.v.data(), {1, 3, 17, 13}};
      },
      mismatch, {"batch 0", "k_new", "2", "k_cache", "1"});
  expect(
      [](Append& a) {
        a.k_view = {a.k.data(), {3, 17, 14}};
        a.v_view = {a.v.data(), {3, 17, 13}};
      },
      ErrorCode::wrong_rank, {"k_new", "1", "k_cache", "0"});
  expect([](Append& a) { a.k_new_view = {a.k_new.data(), {2, 3, -5, 14}}; },
         ErrorCode::extent_range, {"seq_kv", "k_new", "-5"});
  expect(
      [](Append& a) {
        a.k_new_view = {a.k_new.data(), {2, 3, 5, 1026}};
        a.k_view = {a.k.data(), {2, 3, 17, 1026}};
      },
      ErrorCode::extent_range, {"d_k", "1026", "1024"});
  expect([](Append& a) { a.v_new_view = {a.v_new.data(), {2, 3, 5, 0}}; }, ErrorCode::extent_range,
         {"d_v", "v_new", "0"});
  expect([](Append& a) { a.k_view = {a.k.data(), {2, 3, kHuge, 14}}; }, ErrorCode::too_large,
         {"k_cache"});
  expect([](Append& a) { a.v_new_view = {a.v_new.data(), {2, kHuge, kHuge, 13}}; },
         ErrorCode::too_large, {"v_new"});
  expect([](Append& a) { a.k_new_view = {static_cast<float*>(nullptr), {2, 3, 5, 14}}; },
         ErrorCode::null_data, {"k_new", "420"});
  expect([](Append& a) { a.v_view = {static_cast<float*>(nullptr), {2, 3, 17, 13}}; },
         ErrorCode::null_data, {"v_cache", "1326"});
  expect([](Append& a) { a.k_view = {a.k.data(), {2, 3, 17, 14}, {0, 238, 14, 1}}; },
         ErrorCode::bad_value, {"k_cache", "batch 0", "0"});
}

TEST(AppendErrors, TypesAndScales) {
  const auto expect = wrong<Append, void (*)(Append&)>;
  const auto int8 = [](Append& a) {
    a.k_view = a.k8.view<KvHead, Key, DepthK>();
    a.options.k_scales = a.k_scales.view<KvHead, Key>();
  };
  Append right;
  int8(right);
  EXPECT_NO_THROW(right.run());
  expect([](Append& a) { a.k_new_view = {a.k8.data(), {2, 3, 5, 14}}; }, ErrorCode::bad_value,
         {"k_new", "int8"});
  expect([](Append& a) { a.k_view = a.k8.view<KvHead, Key, DepthK>(); }, ErrorCode::bad_value,
         {"k_scales", "missing", "k_cache"});
  expect([](Append& a) { a.options.v_scales = a.k_scales.view<KvHead, Key>(); },
         ErrorCode::bad_value, {"v_scales", "given", "v_cache is not int8"});
  const auto scales = [&](std::initializer_list<std::int64_t> extents, ErrorCode code,
                          Words words) {
    wrong<Append>(
        [&](Append& a) {
          int8(a);
          a.options.k_scales = {a.k_scales.data(), extents};
        },
        code, words);
  };
  scales({2, 3, 1}, ErrorCode::extent_mismatch, {"seq_kv", "k_cache", "17", "k_scales", "1"});
  scales({2, 1, 17}, ErrorCode::extent_mismatch, {"kv_heads", "k_cache", "3", "k_scales", "1"});
  scales({3, 17}, ErrorCode::wrong_rank, {"k_cache", "1", "k_scales", "0"});
}

TEST(AppendErrors, Lengths) {
  const auto expect = wrong<Append, void (*)(Append&)>;
  expect([](Append& a) { a.options.kv_lengths = {}; }, ErrorCode::bad_value,
         {"kv_lengths", "missing"});
  expect([](Append& a) { a.options.kv_lengths = {a.lengths, {3}}; }, ErrorCode::extent_mismatch,
         {"kv_lengths", "3", "k_new", "2"});
  expect([](Append& a) { a.lengths[1] = 13; }, ErrorCode::bad_value,
         {"kv_lengths[1]", "13", "5 new keys", "17"});
  expect([](Append& a) { a.lengths[0] = -1; }, ErrorCode::bad_value, {"kv_lengths[0]", "-1"});
  expect([](Append& a) { a.lengths[0] = std::numeric_limits<std::int32_t>::max(); },
         ErrorCode::bad_value, {"kv_lengths[0]", "2147483647", "17"});
  Append none;  // nothing new: nothing can be wrong with where it goes
  none.lengths[1] = 99;
  none.k_new_view = {none.k_new.data(), {2, 3, 0, 14}};
  none.v_new_view = {none.v_new.data(), {2, 3, 0, 13}};
  EXPECT_NO_THROW(none.run());
  EXPECT_TRUE(none.unchanged());
}

TEST(AppendErrors, Pages) {
  const auto expect = wrong<AppendPaged, void (*)(AppendPaged&)>;
  // Element 0 writes keys 11 to 19, its pages 0 and 1; element 1 keys 12 to 20.
  expect([](AppendPaged& a) { a.table[1][1] = 6; }, ErrorCode::bad_value,
         {"block_table[1, 1]", "6", "k_cache has 6 pages"});
  expect([](AppendPaged& a) { a.table[0][0] = -1; }, ErrorCode::bad_value,
         {"block_table[0, 0]", "-1"});
  expect([](AppendPaged& a) { a.table[1][1] = 4; }, ErrorCode::bad_value,
         {"block_table[1, 1]", "4", "block_table[0, 1]", "key 0"});
  expect([](AppendPaged& a) { a.lengths[0] = 60; }, ErrorCode::bad_value,
         {"kv_lengths[0]", "60", "9 new keys", "68"});
  expect([](AppendPaged& a) { a.options.block_table = {&a.table[0][0], {1, 4}}; },
         ErrorCode::extent_mismatch, {"block_table", "1", "k_new", "2"});
  expect([](AppendPaged& a) { a.options.block_table = {&a.table[0][0], {4}}; },
         ErrorCode::wrong_rank, {"block_table", "0", "k_new", "1"});
  expect(
      [](AppendPaged& a) {
        a.k_view = {a.k.data(), {1, 17, 14}};
        a.v_view = {a.v.data(), {1, 17, 13}};
      },
      ErrorCode::wrong_rank, {"k_cache", "0", "a pool of pages", "1"});
  expect(
      [](AppendPaged& a) {
        a.k_new_view = {a.k_new.data(), {1, 9, 14}};
        a.v_new_view = {a.v_new.data(), {1, 9, 13}};
      },
      ErrorCode::wrong_rank, {"k_new", "0", "the paged problem", "1"});
  expect(
      [](AppendPaged& a) {
        a.k_view = {a.k.data(), {6, 1, 0, 14}};
        a.v_view = {a.v.data(), {6, 1, 0, 13}};
      },
      ErrorCode::extent_range, {"page size", "k_cache", "0"});
  // A table that claims more pages than there are numbers does not overflow.
  AppendPaged huge;
  huge.k_new_view = AnyK(huge.k_new.data(), {1, 1, 9, 14});
  huge.v_new_view = AnyV(huge.v_new.data(), {1, 1, 9, 13});
  huge.options.kv_lengths = {huge.lengths, {1}};
  huge.options.block_table = {&huge.table[0][0], {1, std::int64_t{1} << 56}, {0, 0}};
  EXPECT_NO_THROW(huge.run());
  // Pages that nothing is written to may be shared, and may be anything.
  AppendPaged shared;
  shared.table[0][2] = shared.table[1][2] = 99;
  EXPECT_NO_THROW(shared.run());
}

TEST(AppendErrors, PackedSequences) {
  const auto expect = wrong<AppendPacked, void (*)(AppendPacked&)>;
  expect([](AppendPacked& a) { a.boundaries[0] = 1; }, ErrorCode::bad_value,
         {"cu_seqlens_new[0]", "1"});
  expect([](AppendPacked& a) { a.boundaries[2] = 1; }, ErrorCode::bad_value,
         {"cu_seqlens_new[2]", "1", "2"});
  expect([](AppendPacked& a) { a.boundaries[2] = 4; }, ErrorCode::bad_value,
         {"cu_seqlens_new[2]", "4", "k_new", "5"});
  expect([](AppendPacked& a) { a.options.cu_seqlens_new = {a.boundaries, {0}}; },
         ErrorCode::extent_range, {"cu_seqlens_new", "0"});
  expect([](AppendPacked& a) { a.options.cu_seqlens_new = {a.boundaries, {2}}; },
         ErrorCode::bad_value, {"cu_seqlens_new[1]", "2", "5"});
  expect([](AppendPacked& a) { a.lengths[1] = 15; }, ErrorCode::bad_value,
         {"kv_lengths[1]", "15", "3 new keys", "17"});
  expect([](AppendPacked& a) { a.options.positions = {a.positions, {4}}; },
         ErrorCode::extent_mismatch, {"positions", "4", "k_new", "5"});
  expect([](AppendPacked& a) { a.options.positions = {a.positions, {2, 5}}; },
         ErrorCode::wrong_rank, {"positions", "1", "k_new", "0"});
  expect(
      [](AppendPacked& a) {
        a.k_new_view = a.k_new.view<KvHead, Key, DepthK>();
        a.v_new_view = a.v_new.view<KvHead, Key, DepthV>();
      },
      ErrorCode::wrong_rank, {"k_new", "1", "packed", "0"});
}

struct Rotate {
  Tensor<float> x{{2, 3, 5, 14}}, out{{2, 3, 5, 14}}, factors{{6}};
  std::int32_t positions[10] = {};
  AnyRows x_view = x.view<Head, Query, DepthK>();
  AnyRowsOut out_view = out.view<Head, Query, DepthK>();
  Rope by;
  RopeOptions options;

  Rotate() {
    for (auto* tensor : {&x, &factors}) tensor->fill([](std::int64_t) { return 1.0f; });
    out.seal();
    by.dims = 12;
    by.frequency_factors = factors.view<Pair>();
  }
  void run() const { rope(x_view, out_view, by, options); }
  testing::AssertionResult unchanged() const { return out.unchanged(); }
};

TEST(RopeErrors, EachIsNamed) {
  const auto expect = wrong<Rotate, void (*)(Rotate&)>;
  const ErrorCode mismatch = ErrorCode::extent_mismatch, value = ErrorCode::bad_value;
  EXPECT_NO_THROW(Rotate().run());
  expect([](Rotate& r) { r.out_view = {r.out.data(), {2, 3, 5, 13}}; }, mismatch,
         {"depth", "x", "14", "out", "13"});
  expect([](Rotate& r) { r.out_view = {r.out.data(), {2, 3, 4, 14}}; }, mismatch,
         {"positions", "x", "5", "out", "4"});
  expect([](Rotate& r) { r.out_view = {r.out.data(), {2, 2, 5, 14}}; }, mismatch,
         {"heads", "x", "3", "out", "2"});
  expect([](Rotate& r) { r.out_view = {r.out.data(), {1, 3, 5, 14}}; }, mismatch,
         {"batch 0", "x", "2", "out", "1"});
  expect(
      [](Rotate& r) {
        r.x_view = {r.x.data(), {2, 3, 5, 0}}, r.out_view = {r.out.data(), {2, 3, 5, 0}};
      },
      ErrorCode::extent_range, {"depth", "x", "0"});
  expect([](Rotate& r) { r.x_view = {static_cast<float*>(nullptr), {2, 3, 5, 14}}; },
         ErrorCode::null_data, {"x", "420"});
  expect([](Rotate& r) { r.out_view = {r.out.data(), {2, 3, 5, 14}, {210, 0, 14, 1}}; }, value,
         {"out", "heads", "0"});
  expect([](Rotate& r) { r.x_view = {reinterpret_cast<std::int8_t*>(r.x.data()), {2, 3, 5, 14}}; },
         value, {"x", "int8"});
  expect([](Rotate& r) { r.by.dims = 16; }, value, {"rope.dims", "16", "14"});
  expect([](Rotate& r) { r.by.dims = 7; }, value, {"rope.dims", "7", "even"});
  expect([](Rotate& r) { r.by.dims = -2; }, value, {"rope.dims", "-2"});
  expect([](Rotate& r) { r.by.dims = 10; }, mismatch, {"dims / 2", "frequency_factors", "6", "5"});
  expect([](Rotate& r) { r.by.frequency_factors = {r.factors.data(), {1, 6}}; },
         ErrorCode::wrong_rank, {"frequency_factors", "1", "0"});
  for (float bad : {0.0f, -1.0f, kNaN, kInf}) {
    wrong<Rotate>([&](Rotate& r) { r.by.base = bad; }, value, {"rope.base"});
    wrong<Rotate>([&](Rotate& r) { r.factors[4] = bad; }, value, {"rope.frequency_factors[4]"});
  }
  for (float bad : {kNaN, -kInf}) {
    wrong<Rotate>([&](Rotate& r) { r.by.position_scale = bad; }, value, {"rope.position_scale"});
    wrong<Rotate>([&](Rotate& r) { r.by.magnitude = bad; }, value, {"rope.magnitude"});
  }
  expect([](Rotate& r) { r.by.pairing = static_cast<Pairing>(7); }, value, {"rope.pairing", "7"});
  expect([](Rotate& r) { r.options.positions = {r.positions, {2, 4}}; }, mismatch,
         {"positions", "4", "x", "5"});
  expect([](Rotate& r) { r.options.positions = {r.positions, {3, 5}}; }, mismatch,
         {"batch 0", "positions", "3", "x", "2"});
  expect([](Rotate& r) { r.options.first_positions = {r.positions, {3}}; }, mismatch,
         {"first_positions", "3", "x", "2"});
  expect(
      [](Rotate& r) {
        r.options.first_positions = {r.positions, {2}};
        r.options.positions = {r.positions, {2, 5}};
      },
      value, {"positions", "first_positions"});
}

struct Quantize {
  Tensor<float> from{{2, 3, 5, 32}}, scales{{2, 3, 5}};
  Tensor<std::int8_t> to{{2, 3, 5, 32}};
  Tensor<Int4Group> groups{{2, 3, 5, 1}};
  AnyRows from_view = from.view<KvHead, Key, DepthK>();
  AnyRowsOut to_view = to.view<KvHead, Key, DepthK>();
  View<float, KvHead, Key> scales_view = scales.view<KvHead, Key>();

  Quantize() {
    from.fill([](std::int64_t) { return 1.0f; });
    to.seal(), scales.seal(), groups.seal();
  }
  void run() const { quantize(from_view, to_view, scales_view); }
  testing::AssertionResult unchanged() const {
    return !to.unchanged()       ? to.unchanged()
           : !scales.unchanged() ? scales.unchanged()
                                 : groups.unchanged();
  }
};

TEST(QuantizeErrors, EachIsNamed) {
  const auto expect = wrong<Quantize, void (*)(Quantize&)>;
  const ErrorCode mismatch = ErrorCode::extent_mismatch, value = ErrorCode::bad_value;
  EXPECT_NO_THROW(Quantize().run());
  expect([](Quantize& c) { c.to_view = {c.to.data(), {2, 3, 5, 31}}; }, mismatch,
         {"depth", "from", "32", "to", "31"});
  expect([](Quantize& c) { c.to_view = {c.to.data(), {2, 3, 4, 32}}; }, mismatch,
         {"positions", "from", "5", "to", "4"});
  expect([](Quantize& c) { c.to_view = {c.to.data(), {2, 2, 5, 32}}; }, mismatch,
         {"heads", "from", "3", "to", "2"});
  expect([](Quantize& c) { c.to_view = {c.to.data(), {3, 5, 32}}; }, ErrorCode::wrong_rank,
         {"from", "1", "to", "0"});
  expect([](Quantize& c) { c.scales_view = {c.scales.data(), {2, 3, 4}}; }, mismatch,
         {"positions", "to", "5", "scales", "4"});
  expect([](Quantize& c) { c.scales_view = {c.scales.data(), {2, 1, 5}}; }, mismatch,
         {"heads", "to", "3", "scales", "1"});
  expect([](Quantize& c) { c.scales_view = {c.scales.data(), {3, 5}}; }, ErrorCode::wrong_rank,
         {"to", "1", "scales", "0"});
  expect([](Quantize& c) { c.scales_view = {c.scales.data(), {2, 3, 5}, {15, 5, 0}}; }, value,
         {"scales", "seq_kv", "0"});
  expect([](Quantize& c) { c.scales_view = {}; }, value, {"scales", "missing", "to is int8"});
  expect([](Quantize& c) { c.to_view = {c.groups.data(), {2, 3, 5, 1}}; }, value,
         {"scales", "given", "to is not int8"});
  expect(
      [](Quantize& c) {
        c.scales_view = {};
        c.to_view = {c.groups.data(), {2, 3, 5, 2}};
      },
      mismatch, {"depth", "from", "32", "to", "64"});
  expect([](Quantize& c) { c.to_view = c.from.view<KvHead, Key, DepthK>(); }, value,
         {"the type of to", "f32"});
  expect([](Quantize& c) { c.from_view = c.to.view<KvHead, Key, DepthK>(); }, value,
         {"the type of from", "int8"});
  expect([](Quantize& c) { c.from_view = {static_cast<float*>(nullptr), {2, 3, 5, 32}}; },
         ErrorCode::null_data, {"from", "960"});
  expect([](Quantize& c) { c.from_view = {c.from.data(), {2, 3, -5, 32}}; },
         ErrorCode::extent_range, {"positions", "from", "-5"});
  expect(
      [](Quantize& c) {
        c.from_view = {c.from.data(), {2, 3, 5, 1056}};
        c.to_view = {c.to.data(), {2, 3, 5, 1056}};
      },
      ErrorCode::extent_range, {"depth", "1056", "1024"});
}

TEST(DequantizeErrors, EachIsNamed) {
  struct Dequantize : Quantize {
    Tensor<float> back{{2, 3, 5, 32}};
    ScalesView read = scales_view;
    AnyRowsOut back_view = back.view<KvHead, Key, DepthK>();
    Dequantize() {
      Quantize::run();
      back.seal();
    }
    void run() const { dequantize(AnyRows(to_view), read, back_view); }
    testing::AssertionResult unchanged() const { return back.unchanged(); }
  };
  const auto expect = wrong<Dequantize, void (*)(Dequantize&)>;
  EXPECT_NO_THROW(Dequantize().run());
  expect([](Dequantize& d) { d.read = {}; }, ErrorCode::bad_value, {"scales", "missing", "from"});
  expect([](Dequantize& d) { d.read = {d.scales.data(), {2, 2, 5}}; }, ErrorCode::extent_mismatch,
         {"heads", "scales", "2", "from", "3"});
  expect([](Dequantize& d) { d.read = {d.scales.data(), {2, 3, 4}}; }, ErrorCode::extent_mismatch,
         {"positions", "scales", "4", "from", "5"});
  expect([](Dequantize& d) { d.read = {d.scales.data(), {3, 3, 5}}; }, ErrorCode::extent_mismatch,
         {"batch 0", "scales", "3", "from", "2"});
  expect([](Dequantize& d) { d.back_view = {d.back.data(), {2, 3, 5, 31}}; },
         ErrorCode::extent_mismatch, {"depth", "from", "32", "to", "31"});
  expect([](Dequantize& d) { d.to_view = d.from.view<KvHead, Key, DepthK>(); },
         ErrorCode::bad_value, {"the type of from", "f32"});
  expect([](Dequantize& d) { d.back_view = d.to.view<KvHead, Key, DepthK>(); },
         ErrorCode::bad_value, {"the type of to", "int8"});
}

TEST(ConvertErrors, EachIsNamed) {
  struct Convert : Quantize {
    Tensor<BFloat16> half{{2, 3, 5, 32}};
    AnyRowsOut half_view = half.view<KvHead, Key, DepthK>();
    Convert() { half.seal(); }
    void run() const { convert(from_view, half_view); }
    testing::AssertionResult unchanged() const { return half.unchanged(); }
  };
  const auto expect = wrong<Convert, void (*)(Convert&)>;
  EXPECT_NO_THROW(Convert().run());
  expect([](Convert& c) { c.from_view = c.to.view<KvHead, Key, DepthK>(); }, ErrorCode::bad_value,
         {"the type of from", "int8"});
  expect([](Convert& c) { c.half_view = c.groups.view<KvHead, Key, DepthK>(); },
         ErrorCode::bad_value, {"the type of to", "int4"});
  expect([](Convert& c) { c.half_view = {c.half.data(), {2, 3, 5, 31}}; },
         ErrorCode::extent_mismatch, {"depth", "from", "32", "to", "31"});
}

struct Merging {
  Tensor<float> a{{2, 3, 5, 7}}, b{{2, 3, 5, 7}}, out{{2, 3, 5, 7}};
  Tensor<float> lse_a{{2, 3, 5}}, lse_b{{2, 3, 5}}, lse{{2, 3, 5}};
  AttentionPart parts[2] = {{a.view<Head, Query, DepthV>(), lse_a.view<Head, Query>()},
                            {b.view<Head, Query, DepthV>(), lse_b.view<Head, Query>()}};
  AnyOut out_view = out.view<Head, Query, DepthV>();
  LseView lse_view = lse.view<Head, Query>();

  Merging() {
    for (auto* tensor : {&a, &b, &lse_a, &lse_b}) tensor->fill([](std::int64_t) { return 1.0f; });
    out.seal(), lse.seal();
  }
  void run() const { merge(parts, out_view, lse_view); }
  testing::AssertionResult unchanged() const {
    return !out.unchanged() ? out.unchanged() : lse.unchanged();
  }
};

TEST(MergeErrors, EachIsNamed) {
  const auto expect = wrong<Merging, void (*)(Merging&)>;
  const ErrorCode mismatch = ErrorCode::extent_mismatch;
  EXPECT_NO_THROW(Merging().run());
  expect([](Merging& m) { m.parts[1].out = {m.b.data(), {2, 3, 5, 6}}; }, mismatch,
         {"d_v", "out", "7", "parts[1].out", "6"});
  expect([](Merging& m) { m.parts[0].out = {m.b.data(), {2, 3, 4, 7}}; }, mismatch,
         {"seq_q", "out", "5", "parts[0].out", "4"});
  expect([](Merging& m) { m.parts[0].out = {m.b.data(), {2, 1, 5, 7}}; }, mismatch,
         {"heads", "out", "3", "parts[0].out", "1"});
  expect([](Merging& m) { m.parts[1].out = {m.b.data(), {1, 3, 5, 7}}; }, mismatch,
         {"batch 0", "out", "2", "parts[1].out", "1"});
  expect([](Merging& m) { m.parts[1].lse = {m.lse_b.data(), {2, 3, 4}}; }, mismatch,
         {"seq_q", "out", "5", "parts[1].lse", "4"});
  expect([](Merging& m) { m.parts[1].lse = {m.lse_b.data(), {3, 5}}; }, ErrorCode::wrong_rank,
         {"out", "1", "parts[1].lse", "0"});
  expect([](Merging& m) { m.lse_view = {m.lse.data(), {2, 2, 5}}; }, mismatch,
         {"heads", "out", "3", "lse", "2"});
  expect([](Merging& m) { m.parts[1].lse = {nullptr, {2, 3, 5}}; }, ErrorCode::null_data,
         {"parts[1].lse", "30"});
  expect([](Merging& m) { m.parts[1].lse = {}; }, ErrorCode::wrong_rank,
         {"out", "1", "parts[1].lse", "0"});
  expect([](Merging& m) { m.parts[0].out = {static_cast<float*>(nullptr), {2, 3, 5, 7}}; },
         ErrorCode::null_data, {"parts[0].out", "210"});
  expect([](Merging& m) { m.out_view = {static_cast<float*>(nullptr), {2, 3, 5, 7}}; },
         ErrorCode::null_data, {"out", "210"});
  expect([](Merging& m) { m.out_view = {m.out.data(), {2, 3, 5, 7}, {105, 35, 0, 1}}; },
         ErrorCode::bad_value, {"out", "seq_q", "0"});
  expect([](Merging& m) { m.lse_view = {m.lse.data(), {2, 3, 5}, {15, 0, 1}}; },
         ErrorCode::bad_value, {"lse", "heads", "0"});
  expect([](Merging& m) { m.out_view = {m.out.data(), {2, 3, 5, 1025}}; }, ErrorCode::extent_range,
         {"d_v", "out", "1025", "1024"});
  expect([](Merging& m) { m.parts[1].out = {m.b.data(), {2, 3, 5, kHuge}}; }, ErrorCode::too_large,
         {"parts[1].out"});
  expect(
      [](Merging& m) {
        m.parts[0].out = {reinterpret_cast<const std::int8_t*>(m.a.data()), {2, 3, 5, 7}};
      },
      ErrorCode::bad_value, {"parts[0].out", "int8"});
}

}  // namespace
}  // namespace rapt::tests
