// Every wrong input is an Error whose sentence names the axis or option and both values, thrown
// before one byte of an output was written.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "rapt/rapt.hpp"
#include "support/tensor.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// A problem that is right, to be made wrong in one place. Primes, so that a sentence shows which
// extent it means.
struct Attention {
  Tensor<float> q{{2, 6, 5, 7}}, k{{2, 3, 11, 7}}, v{{2, 3, 11, 13}}, out{{2, 6, 5, 13}},
      lse{{2, 6, 5}};
  Tensor<bool> mask{{6, 5, 11}};
  QView q_view = q.view<Head, Query, DepthK>();
  KView k_view = k.view<KvHead, Key, DepthK>();
  VView v_view = v.view<KvHead, Key, DepthV>();
  OutView out_view = out.view<Head, Query, DepthV>();
  AttentionOptions options;

  Attention() {
    for (auto* tensor : {&q, &k, &v})
      tensor->fill([](std::int64_t n) { return static_cast<float>(n % 5); });
    mask.fill([](std::int64_t) { return true; });
    options.lse = lse.view<Head, Query>();
    for (auto* tensor : {&out, &lse}) tensor->seal();
  }
  void run() const { attention(q_view, k_view, v_view, out_view, options); }
};

// run() throws this code, its sentence has all these words, and nothing was written.
template <class Problem>
void expect_error(const Problem& problem, ErrorCode code,
                  std::initializer_list<const char*> words) {
  try {
    problem.run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const char* word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << "\"" << error.what() << "\" lacks " << word;
    }
  }
  EXPECT_TRUE(problem.out.unchanged());
}

TEST(AttentionErrors, TheProblemOfTheseTestsIsRight) {
  const Attention a;
  EXPECT_NO_THROW(a.run());
  EXPECT_FALSE(a.out.unchanged());
}

TEST(AttentionErrors, ExtentsThatDisagree) {
  const auto extents = [](auto change, ErrorCode code, std::initializer_list<const char*> words) {
    Attention a;
    change(a);
    expect_error(a, code, words);
    EXPECT_TRUE(a.lse.unchanged());
  };
  const ErrorCode mismatch = ErrorCode::extent_mismatch;
  extents([](Attention& a) { a.k_view = {a.k.data(), {2, 3, 11, 5}}; }, mismatch,
          {"d_k", "q", "7", "k", "5"});
  extents([](Attention& a) { a.v_view = {a.v.data(), {2, 3, 10, 13}}; }, mismatch,
          {"seq_kv", "k", "11", "v", "10"});
  extents([](Attention& a) { a.v_view = {a.v.data(), {2, 1, 11, 13}}; }, mismatch,
          {"kv_heads", "k", "3", "v", "1"});
  extents([](Attention& a) { a.out_view = {a.out.data(), {2, 6, 5, 12}}; }, mismatch,
          {"d_v", "v", "13", "out", "12"});
  extents([](Attention& a) { a.out_view = {a.out.data(), {2, 6, 4, 13}}; }, mismatch,
          {"seq_q", "q", "5", "out", "4"});
  extents([](Attention& a) { a.out_view = {a.out.data(), {2, 5, 5, 13}}; }, mismatch,
          {"heads", "q", "6", "out", "5"});
  extents([](Attention& a) { a.v_view = {a.v.data(), {1, 3, 11, 13}}; }, mismatch,
          {"batch 0", "q", "2", "v", "1"});
  extents([](Attention& a) { a.out_view = {a.out.data(), {1, 6, 5, 13}}; }, mismatch,
          {"batch 0", "out", "1"});
  extents([](Attention& a) { a.options.lse = {a.lse.data(), {2, 6, 4}}; }, mismatch,
          {"seq_q", "lse", "4"});
  extents([](Attention& a) { a.options.lse = {a.lse.data(), {2, 3, 5}}; }, mismatch,
          {"heads", "lse", "3"});
  extents([](Attention& a) { a.k_view = {a.k.data(), {3, 11, 7}}; }, ErrorCode::wrong_rank,
          {"batch", "q", "1", "k", "0"});
  extents([](Attention& a) { a.options.lse = {a.lse.data(), {6, 5}}; }, ErrorCode::wrong_rank,
          {"lse", "0"});
}

TEST(AttentionErrors, HeadsThatAreNotAMultiple) {
  Attention a;
  a.k_view = {a.k.data(), {2, 4, 5, 7}};
  a.v_view = {a.v.data(), {2, 4, 5, 13}};
  expect_error(a, ErrorCode::heads_not_multiple, {"heads", "6", "4"});
  a.k_view = {a.k.data(), {2, 0, 5, 7}};
  a.v_view = {a.v.data(), {2, 0, 5, 13}};
  expect_error(a, ErrorCode::heads_not_multiple, {"heads", "6", "0"});
}

TEST(AttentionErrors, DepthsOutOfRange) {
  for (std::int64_t d : {std::int64_t{0}, std::int64_t{1025}, std::int64_t{-1}}) {
    Attention a;
    a.q_view = {a.q.data(), {2, 6, 5, d}};
    a.k_view = {a.k.data(), {2, 3, 11, d}};
    expect_error(a, ErrorCode::extent_range, {"d_k", std::to_string(d).c_str()});
    Attention b;
    b.v_view = {b.v.data(), {2, 3, 11, d}};
    b.out_view = {b.out.data(), {2, 6, 5, d}};
    expect_error(b, ErrorCode::extent_range, {"d_v", std::to_string(d).c_str()});
  }
}

TEST(AttentionErrors, NegativeExtents) {  // B45
  Attention a;
  a.q_view = {a.q.data(), {2, 6, -5, 7}};
  a.out_view = {a.out.data(), {2, 6, -5, 13}};
  expect_error(a, ErrorCode::extent_range, {"seq_q", "-5"});
  Attention b;
  b.k_view = {b.k.data(), {2, 3, std::numeric_limits<std::int64_t>::min(), 7}};
  expect_error(b, ErrorCode::extent_range, {"seq_kv"});
  Attention c;
  c.q_view = {c.q.data(), {-2, 6, 5, 7}};
  expect_error(c, ErrorCode::extent_range, {"batch 0", "-2"});
}

TEST(AttentionErrors, SizesThatDoNotFitTheAddressSpace) {  // B45, B46
  for (std::int64_t huge :
       {kHuge, kHuge / 2, kHuge / 4 + 1, std::int64_t{1} << 61, std::int64_t{1} << 40}) {
    Attention a;
    a.q_view = {a.q.data(), {2, 6, huge, 7}};
    a.out_view = {a.out.data(), {2, 6, huge, 13}};
    if (huge > std::int64_t{1} << 40)
      expect_error(a, ErrorCode::too_large, {"q is too large", "axis"});
    Attention b;
    b.q_view = {b.q.data(), {huge, huge, huge, 7}};
    expect_error(b, ErrorCode::too_large, {"q"});
    Attention c;
    c.k_view = {c.k.data(), {2, 3, 11, 7}, {huge, huge, huge, 1}};
    if (huge > std::int64_t{1} << 40) expect_error(c, ErrorCode::too_large, {"k"});
    Attention d;
    d.v_view = {d.v.data(), {2, 3, 11, 13}, {-huge, 13, 13, -huge}};
    if (huge > std::int64_t{1} << 40) expect_error(d, ErrorCode::too_large, {"v"});
  }
  // One of the other extents is 0: nothing is read, but the sizes still make no sense.
  Attention e;
  e.q_view = {e.q.data(), {0, kHuge, kHuge, 7}};
  expect_error(e, ErrorCode::too_large, {"q"});
}

TEST(AttentionErrors, NoMemory) {
  const auto null = [](auto change, std::initializer_list<const char*> words) {
    Attention a;
    change(a);
    expect_error(a, ErrorCode::null_data, words);
  };
  null([](Attention& a) { a.q_view = {nullptr, {2, 6, 5, 7}}; }, {"q", "420"});
  null([](Attention& a) { a.k_view = {nullptr, {2, 3, 11, 7}}; }, {"k", "462"});
  null([](Attention& a) { a.v_view = {nullptr, {2, 3, 11, 13}}; }, {"v", "858"});
  Attention a;
  a.out_view = {nullptr, {2, 6, 5, 13}};
  EXPECT_THROW(a.run(), Error);
  // Nothing needs no memory.
  Attention b;
  b.q_view = {nullptr, {2, 6, 0, 7}};
  b.out_view = {nullptr, {2, 6, 0, 13}};
  b.options.lse = {};
  EXPECT_NO_THROW(b.run());
}

TEST(AttentionErrors, ValuesWithoutMeaning) {
  for (float scale : {kNaN, kInf, -kInf}) {
    Attention a;
    a.options.scale = scale;
    expect_error(a, ErrorCode::bad_value, {"scale"});
  }
  Attention b;  // an output that overlaps itself
  b.out_view = {b.out.data(), {2, 6, 5, 13}, {390, 0, 13, 1}};
  expect_error(b, ErrorCode::bad_value, {"out", "heads", "0"});
}

TEST(AttentionErrors, MasksThatDoNotBroadcast) {
  const auto mask = [](std::initializer_list<std::int64_t> extents, ErrorCode code,
                       std::initializer_list<const char*> words) {
    Attention a;
    a.options.mask = {a.mask.data(), extents};
    expect_error(a, code, words);
    Attention b;
    b.options.bias = {b.q.data(), extents};
    expect_error(b, code, words);
  };
  mask({6, 5, 10}, ErrorCode::extent_mismatch, {"seq_kv", "10", "11"});
  mask({6, 4, 11}, ErrorCode::extent_mismatch, {"seq_q", "4", "5"});
  mask({3, 5, 11}, ErrorCode::extent_mismatch, {"heads", "3", "6"});
  mask({6, 5, 0}, ErrorCode::extent_mismatch, {"seq_kv", "0", "11"});
  mask({3, 6, 5, 11}, ErrorCode::extent_mismatch, {"batch", "3", "2"});
  mask({1, 1, 6, 5, 11}, ErrorCode::wrong_rank, {"batch", "2", "1"});
  for (bool as_bias : {false, true}) {
    Attention a;
    if (as_bias) {
      a.options.bias = {nullptr, {6, 5, 11}};
    } else {
      a.options.mask = {nullptr, {6, 5, 11}};
    }
    EXPECT_NO_THROW(a.run()) << "a view without memory is an option that is not given";
  }
}

struct Product {
  Tensor<float> a{{3, 5, 7}}, b{{3, 7, 11}}, out{{3, 5, 11}}, bias{{11}};
  AnyView<const std::byte, Row, Inner> a_view = a.view<Row, Inner>();
  View<const float, Inner, Column> b_view = b.view<Inner, Column>();
  View<float, Row, Column> c_view = out.view<Row, Column>();
  GemmOptions options;

  Product() {
    for (auto* tensor : {&a, &b, &bias})
      tensor->fill([](std::int64_t n) { return static_cast<float>(n % 5); });
    out.seal();
  }
  void run() const { gemm(a_view, b_view, c_view, options); }
};

TEST(GemmErrors, EachIsNamed) {
  const auto wrong = [](auto change, ErrorCode code, std::initializer_list<const char*> words) {
    Product p;
    change(p);
    expect_error(p, code, words);
  };
  using floats = View<const float, Row, Inner>;
  const ErrorCode mismatch = ErrorCode::extent_mismatch;
  EXPECT_NO_THROW(Product().run());
  wrong([](Product& p) { p.b_view = {p.b.data(), {3, 6, 11}}; }, mismatch,
        {"k", "a", "7", "b", "6"});
  wrong([](Product& p) { p.c_view = {p.out.data(), {3, 4, 11}}; }, mismatch,
        {"m", "a", "5", "c", "4"});
  wrong([](Product& p) { p.c_view = {p.out.data(), {3, 5, 10}}; }, mismatch,
        {"n", "b", "11", "c", "10"});
  wrong([](Product& p) { p.a_view = floats(p.a.data(), {2, 5, 7}); }, mismatch,
        {"batch 0", "a", "2", "c", "3"});
  wrong([](Product& p) { p.c_view = {p.out.data(), {5, 11}}; }, ErrorCode::wrong_rank,
        {"a", "1", "c", "0"});
  wrong([](Product& p) { p.options.bias = {p.bias.data(), {10}}; }, mismatch,
        {"n", "bias", "10", "c", "11"});
  wrong([](Product& p) { p.options.bias = {p.bias.data(), {1, 11}}; }, ErrorCode::wrong_rank,
        {"bias", "1"});
  wrong([](Product& p) { p.a_view = floats(nullptr, {3, 5, 7}); }, ErrorCode::null_data,
        {"a", "105"});
  wrong([](Product& p) { p.b_view = {nullptr, {3, 7, 11}}; }, ErrorCode::null_data, {"b", "231"});
  wrong([](Product& p) { p.c_view = {nullptr, {3, 5, 11}}; }, ErrorCode::null_data, {"c", "165"});
  wrong([](Product& p) { p.a_view = floats(p.a.data(), {3, -5, 7}); }, ErrorCode::extent_range,
        {"m", "-5"});
  wrong([](Product& p) { p.a_view = floats(p.a.data(), {3, kHuge, kHuge}); }, ErrorCode::too_large,
        {"a"});
  wrong([](Product& p) { p.c_view = {p.out.data(), {3, 5, 11}, {55, 0, 1}}; }, ErrorCode::bad_value,
        {"c", "m", "0"});
  wrong([](Product& p) { p.options.activation = static_cast<Activation>(7); }, ErrorCode::bad_value,
        {"activation", "7"});
  const std::int8_t numbers[3 * 5 * 7] = {};
  wrong([&](Product& p) { p.a_view = View<const std::int8_t, Row, Inner>(numbers, {3, 5, 7}); },
        ErrorCode::bad_value, {"the type of a", "int8", "f32, bf16 or f16"});
}

TEST(GemmErrors,
     WorkThatNoMemoryHolds) {  // B46: k times n does not overflow, but their packed form might
  Product p;
  constexpr std::int64_t kMost = std::int64_t{1} << 57;
  p.a_view = View<const float, Row, Inner>(p.a.data(), {1, kMost}, {0, 0});
  p.b_view = {p.b.data(), {kMost, 4}, {0, 0}};
  p.c_view = {p.out.data(), {1, 4}};
  try {
    p.run();
    ADD_FAILURE() << "computed the impossible";
  } catch (const std::exception&) {  // too_large, or no memory
  }
}

TEST(SalienceErrors, EachIsNamed) {
  struct Map : Attention {
    Tensor<float> map{{2, 6, 5, 11}};
    View<float, Head, Query, Key> map_view = map.view<Head, Query, Key>();
    void run() const { salience_map(q_view, k_view, map_view, options); }
  };
  Map a;
  EXPECT_NO_THROW(a.run());
  a.map_view = {a.map.data(), {2, 6, 5, 10}};
  expect_error(a, ErrorCode::extent_mismatch, {"seq_kv", "11", "10"});
  a.map_view = {nullptr, {2, 6, 5, 11}};
  expect_error(a, ErrorCode::null_data, {"salience"});
}

TEST(TargetErrors, AnUnknownTargetIsNamedAndChangesNothing) {
  const std::string before = target();
  try {
    set_target("AVX9000");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unknown_target);
    EXPECT_NE(std::string(error.what()).find("AVX9000"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find(before), std::string::npos)
        << "the sentence lists what there is";
  }
  EXPECT_EQ(target(), before);
}

TEST(Targets, AreListedOnceBestFirst) {
  const std::vector<std::string> all = targets();
  ASSERT_FALSE(all.empty());
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(all[i], all[j]);
    set_target(all[i]);
    EXPECT_EQ(target(), all[i]);
  }
  set_target("");
  EXPECT_EQ(target(), all[0]);
  const char* expected = std::getenv("RAPT_EXPECT_TARGET");
  EXPECT_EQ(all[0], expected == nullptr ? all[0] : expected);
}

}  // namespace
}  // namespace rapt::tests
