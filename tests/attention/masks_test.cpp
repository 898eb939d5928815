// Who attends whom, drawn by hand. All scores are 0 and the value of a key is 1 in a column of its
// own, so that a row of out is the picture of what its query attends: 1 / n at each of n keys.
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/tensor.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

const std::vector<Blocks> kSmall = {few_keys_lanes(1), few_keys_lanes(3, 1), few_keys_rows(1),
                                    few_keys_rows(3, 2)};

// A row for each query, of all batch elements one after the other; a character for each key in
// memory, of all batch elements or pages: '.' not attended, 'x' attended, '2' attended twice. Bars
// are for the eye.
using Picture = std::vector<std::string>;
using Sizes = std::vector<std::int64_t>;

// The batch axes of q and of the keys. Two query heads share their keys and must look the same.
struct Shape {
  Sizes q, kv;
};

std::int64_t product(const Sizes& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}

template <class... Axes, class T>
View<T, Axes...> view_of(T* data, Sizes batch, std::initializer_list<std::int64_t> named) {
  batch.insert(batch.end(), named);
  Sizes strides(batch.size(), 1);
  for (std::size_t i = batch.size(); i-- > 1;)
    strides[i - 1] = strides[i] * std::max<std::int64_t>(batch[i], 1);
  return {data, batch.data(), batch.size(), strides.data(), strides.size()};
}

void expect_picture(AttentionOptions options, Picture picture, std::int64_t all_keys,
                    const Shape& shape = {}) {
  for (std::string& row : picture) std::erase(row, '|');
  const std::int64_t heads = 2, seq_kv = all_keys / product(shape.kv), d_k = 3;
  const auto rows = static_cast<std::int64_t>(picture.size()), seq_q = rows / product(shape.q);
  std::vector<float> q(static_cast<std::size_t>(rows * heads * d_k + 1));
  std::vector<float> k(static_cast<std::size_t>(all_keys * d_k + 1), 7.0f);
  std::vector<float> v(static_cast<std::size_t>(all_keys * all_keys + 1));
  for (std::int64_t j = 0; j < all_keys; ++j) {
    v[static_cast<std::size_t>(j * all_keys + j)] = 1;
    bool any = false;
    for (const std::string& row : picture) any |= row[static_cast<std::size_t>(j)] != '.';
    if (any) continue;
    // What nobody attends is never looked at.
    std::fill_n(k.begin() + j * d_k, d_k, std::nanf(""));
    std::fill_n(v.begin() + j * all_keys, all_keys, std::nanf(""));
  }
  const std::int64_t d_v = std::max<std::int64_t>(all_keys, 1);
  std::vector<float> out(static_cast<std::size_t>(rows * heads * d_v + 1)),
      lse(static_cast<std::size_t>(rows * heads + 1));
  options.lse = view_of<Head, Query>(lse.data(), shape.q, {heads, seq_q});
  for_each_way(kSmall, [&] {
    std::fill(out.begin(), out.end(), std::nanf(""));
    std::fill(lse.begin(), lse.end(), std::nanf(""));
    attention(view_of<Head, Query, DepthK>(std::as_const(q).data(), shape.q, {heads, seq_q, d_k}),
              view_of<KvHead, Key, DepthK>(std::as_const(k).data(), shape.kv, {1, seq_kv, d_k}),
              view_of<KvHead, Key, DepthV>(std::as_const(v).data(), shape.kv, {1, seq_kv, d_v}),
              view_of<Head, Query, DepthV>(out.data(), shape.q, {heads, seq_q, d_v}), options);
    for (std::int64_t n = 0; n < rows * heads; ++n) {
      const std::int64_t h = n / seq_q % heads, i = n / (heads * seq_q) * seq_q + n % seq_q;
      std::string row = picture[static_cast<std::size_t>(i)];
      row.resize(static_cast<std::size_t>(d_v), '.');
      const auto weight = [](char c) { return c == '.' ? 0 : c == 'x' ? 1 : c - '0'; };
      double keys = 0;
      for (char c : row) keys += weight(c);
      const float sink = options.sinks ? options.sinks.data()[h] : -kInf;
      const double sum = keys + std::exp(double{sink});
      const float* got = out.data() + n * d_v;
      std::string drawn(row.size(), '.');
      bool right = true;
      for (std::size_t j = 0; j < row.size(); ++j) {
        const double want = weight(row[j]) == 0 ? 0 : weight(row[j]) / sum;
        // A zero, of positive sign, or the weight to a few roundings.
        right &= want == 0 ? got[j] == 0 && !std::signbit(got[j])
                           : std::abs(got[j] - want) <= 1e-6 * want;
        if (!(got[j] == 0)) drawn[j] = std::isnan(got[j]) ? 'n' : row[j] == '.' ? 'x' : row[j];
      }
      EXPECT_TRUE(right) << "row " << i << ", head " << h << "\n is " << drawn << "\n not " << row;
      const float got_lse = lse[static_cast<std::size_t>(n)];
      if (keys == 0) {
        EXPECT_EQ(got_lse, sink) << "lse of row " << i;
      } else {
        EXPECT_NEAR(got_lse, std::log(sum), 1e-6 * (1 + std::log(sum))) << "lse of row " << i;
      }
    }
  });
}

// One sequence, whose keys are as many as the picture is wide.
void expect_picture(const AttentionOptions& options, const Picture& picture) {
  const auto bars = std::count(picture[0].begin(), picture[0].end(), '|');
  expect_picture(options, picture, static_cast<std::int64_t>(picture[0].size()) - bars);
}

TEST(Masks, Causal) {
  expect_picture({.causal = true}, {"xxx..",  // by default the last query sees the last key
                                    "xxxx.",  //
                                    "xxxxx"});
  expect_picture({.q_offset = 0, .causal = true}, {"x....",  //
                                                   "xx...",  //
                                                   "xxx.."});
  expect_picture({.q_offset = -2, .causal = true}, {"...",  //
                                                    "...",  //
                                                    "x..",  //
                                                    "xx.",  //
                                                    "xxx",  //
                                                    "xxx"});
}

TEST(Masks, WindowOfOneEnd) {
  expect_picture({.window_left = 1}, {".xxxxx",  //
                                      "..xxxx",  //
                                      "...xxx",  //
                                      "....xx"});
  expect_picture({.window_right = 0}, {"xxx...",  // causal, by another name
                                       "xxxx..",  //
                                       "xxxxx.",  //
                                       "xxxxxx"});
}

TEST(Masks, WindowOfBothEnds) {
  expect_picture({.q_offset = 0, .window_left = 1, .window_right = 1}, {"xx....",  //
                                                                        "xxx...",  //
                                                                        ".xxx..",  //
                                                                        "..xxx.",  //
                                                                        "...xxx",  //
                                                                        "....xx"});
  expect_picture({.q_offset = 1, .window_left = 0, .window_right = 0}, {".x..",  //
                                                                        "..x.",  //
                                                                        "...x",  //
                                                                        "...."});
  expect_picture({.q_offset = 1, .causal = true, .window_left = 1, .window_right = 9},
                 {"xx..",  // the earlier end of the two holds
                  ".xx.",  //
                  "..xx"});
}

TEST(Masks, WindowAtNegativePositions) {
  expect_picture({.q_offset = -4, .window_left = 1, .window_right = 2}, {"....",  //
                                                                         "....",  //
                                                                         "x...",  //
                                                                         "xx..",  //
                                                                         "xxx.",  //
                                                                         "xxxx",  //
                                                                         ".xxx"});
}

TEST(Masks, WindowsAndPositionsFarAway) {
  expect_picture({.q_offset = 100, .window_left = 97}, {"...x",  //
                                                        "...."});
  expect_picture({.q_offset = kMost, .causal = true, .window_left = kMost, .window_right = kMost},
                 {"xxxx"});
  expect_picture({.q_offset = -kMost, .window_left = 3}, {"xxxx"});
  expect_picture({.q_offset = -kMost, .window_right = 3}, {"...."});
}

TEST(Masks, Chunks) {
  expect_picture({.q_offset = 1, .chunk = 3}, {"xxx....",  //
                                               "xxx....",  //
                                               "...xxx.",  //
                                               "...xxx.",  //
                                               "...xxx.",  //
                                               "......x"});
  expect_picture({.q_offset = 1, .causal = true, .chunk = 3}, {"xx.....",  //
                                                               "xxx....",  //
                                                               "...x...",  //
                                                               "...xx.."});
  expect_picture({.chunk = kMost}, {"xxx"});
}

TEST(Masks, ChunksAtNegativePositions) {                  // -1 is not in the chunk of 0
  expect_picture({.q_offset = -4, .chunk = 3}, {".....",  //
                                                ".....",  //
                                                ".....",  //
                                                ".....",  //
                                                "xxx..",  //
                                                "xxx..",  //
                                                "xxx..",  //
                                                "...xx"});
}

TEST(Masks, Prefix) {
  expect_picture({.q_offset = 0, .causal = true, .prefix = 2}, {"xx...",  //
                                                                "xx...",  //
                                                                "xxx..",  //
                                                                "xxxx."});
  for (std::int64_t prefix : {std::int64_t{4}, std::int64_t{9}, kMost}) {  // all the keys, or more
    expect_picture({.q_offset = -9, .causal = true, .window_left = 0, .chunk = 2, .prefix = prefix},
                   {"xxxx",  //
                    "xxxx"});
  }
  expect_picture({.q_offset = -9, .causal = true, .prefix = 1}, {"x..",  //
                                                                 "x.."});
}

TEST(Masks, PrefixWithAWindowFarAway) {  // between them a hole that nobody attends
  expect_picture({.window_left = 1, .window_right = 0, .prefix = 2}, {"xx........xx..",  //
                                                                      "xx.........xx.",  //
                                                                      "xx..........xx"});
  // A row whose window is in the prefix, one that touches it, one beyond.
  expect_picture({.q_offset = 2, .window_left = 1, .window_right = 0, .prefix = 3},
                 {"xxx...",  //
                  "xxxx..",  //
                  "xxxxx.",  //
                  "xxx.xx"});
  expect_picture({.q_offset = 7, .chunk = 4, .prefix = 1}, {"x...xxxx..",  //
                                                            "x.......xx"});
}

TEST(Masks, Documents) {
  const std::int32_t of_queries[] = {1, 1, 2, 7, INT_MIN, INT_MAX};
  const std::int32_t of_keys[] = {1, 2, 1, INT_MAX, 2, 3};
  AttentionOptions options{.q_segments = {of_queries, {6}}, .kv_segments = {of_keys, {6}}};
  expect_picture(options, {"x.x...",  //
                           "x.x...",  //
                           ".x..x.",  //
                           "......",  //
                           "......",  //
                           "...x.."});
  options.causal = true;
  expect_picture(options, {"x.....",  //
                           "x.....",  //
                           ".x....",  //
                           "......",  //
                           "......",  //
                           "...x.."});
  options.prefix = 3;                 // a prefix is of one's own document
  expect_picture(options, {"x.x...",  //
                           "x.x...",  //
                           ".x....",  //
                           "......",  //
                           "......",  //
                           "...x.."});
}

TEST(Masks, Tree) {
  // Two drafts after the prompt, one after the first, one after that; and a row that sees none.
  const std::uint64_t words[] = {0b0001, 0b0010, 0b0101, 0b1101, 0};
  AttentionOptions options{.tree = {words, {5, 1}}, .tree_keys = 4};
  expect_picture(options, {"xxxx...",  //
                           "xxx.x..",  //
                           "xxxx.x.",  //
                           "xxxx.xx",  //
                           "xxx...."});
  options.window_left = 3;             // masks compose: positions are 2 to 6
  expect_picture(options, {"xxxx...",  //
                           "xxx.x..",  //
                           ".xxx.x.",  //
                           "..xx.xx",  //
                           "......."});
  // More drafts than keys: the last ones of the row are meant.
  expect_picture({.tree = {words, {5, 1}}, .tree_keys = 6},
                 {"...",  //
                  "...",  //
                  "...",  //
                  "x..",  //
                  "..."});
}

TEST(Masks, TreeOfMoreThanOneWord) {
  const std::uint64_t words[] = {1, 1, std::uint64_t{1} << 63, 2};  // [2, 2]
  const std::string none(62, '.');
  expect_picture({.tree = {words, {2, 2}}, .tree_keys = 66},
                 {"xxx|x" + none + ".|x|.",  //
                  "xxx|." + none + "x|.|x"});
}

TEST(Masks, MaskAndBiasTogether) {
  const bool mask[] = {true, false, true, true,  //
                       true, true,  true, false};
  const float bias[] = {0, 0,     -kInf, 0,  //
                        0, -kInf, -kInf, -kInf};
  expect_picture({.mask = {mask, {1, 2, 4}}, .bias = {bias, {1, 2, 4}}}, {"x..x",  //
                                                                          "x..."});
  // Broadcast along the queries, then along the keys.
  expect_picture({.mask = {mask, {1, 1, 4}}}, {"x.xx",  //
                                               "x.xx"});
  expect_picture({.mask = {mask, {1, 2, 1}}}, {"xxxx",  //
                                               "...."});
}

TEST(Masks, EmptyRowsWithAndWithoutASink) {  // B3: out is 0; lse -inf, or the sink
  const std::int32_t one[] = {1, 1, 1}, two[] = {2, 2, 2};
  const std::uint64_t words[] = {0, 0, 0};
  const bool mask = false;
  const float bias = -kInf, sinks[] = {1.5f, -2.25f};
  const std::vector<AttentionOptions> kinds = {
      {.q_offset = -3, .causal = true},
      {.q_offset = 9, .window_left = 2},
      {.q_offset = -9, .window_right = 2},
      {.q_offset = -3, .chunk = 5},
      {.q_segments = {one, {3}}, .kv_segments = {two, {3}}},
      {.tree = {words, {3, 1}}, .tree_keys = 3},
      {.mask = {&mask, {1, 1, 1}}},
      {.bias = {&bias, {1, 1, 1}}},
  };
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    SCOPED_TRACE("kind " + std::to_string(kind));
    AttentionOptions options = kinds[kind];
    expect_picture(options, {"...", "...", "..."});
    options.sinks = {sinks, {2}};
    expect_picture(options, {"...", "...", "..."});
  }
  // A sink of -inf is none; beside keys it takes its share.
  const float none[] = {-kInf, 0};
  expect_picture({.sinks = {none, {2}}, .q_offset = -1, .causal = true}, {"...", "x..", "xx."});
}

TEST(Masks, Lengths) {  // B32: what is beyond a length is NaN here
  const std::int32_t lengths[] = {4, 0, 2};
  expect_picture({.kv_lengths = {lengths, {3}}},
                 {"xxxx|....|....",  //
                  "xxxx|....|....",  //
                  "....|....|....",  // no keys
                  "....|....|....",  //
                  "....|....|xx..",  //
                  "....|....|xx.."},
                 12, {{3}, {3}});
  // The last query sees the last key that there is.
  expect_picture({.causal = true, .kv_lengths = {lengths, {3}}},
                 {"xxx.|....|....",  //
                  "xxxx|....|....",  //
                  "....|....|....",  //
                  "....|....|....",  //
                  "....|....|x...",  //
                  "....|....|xx.."},
                 12, {{3}, {3}});
  const std::int32_t offsets[] = {-1, 5, 1};
  expect_picture({.q_offsets = {offsets, {3}}, .causal = true, .kv_lengths = {lengths, {3}}},
                 {"....|....|....",  //
                  "x...|....|....",  //
                  "....|....|....",  //
                  "....|....|....",  //
                  "....|....|xx..",  //
                  "....|....|xx.."},
                 12, {{3}, {3}});
  // The drafts of a tree are the last keys that there are.
  const std::uint64_t words[] = {1, 2};
  expect_picture({.tree = {words, {2, 1}}, .tree_keys = 2, .kv_lengths = {lengths, {3}}},
                 {"xxx.|....|....",  //
                  "xx.x|....|....",  //
                  "....|....|....",  //
                  "....|....|....",  //
                  "....|....|x...",  //
                  "....|....|.x.."},
                 12, {{3}, {3}});
}

TEST(Masks, PackedSequences) {  // the second without queries, the third without keys
  const std::int32_t of_q[] = {0, 2, 2, 3, 5}, of_kv[] = {0, 3, 4, 4, 6};
  AttentionOptions options{.cu_seqlens_q = {of_q, {5}}, .cu_seqlens_kv = {of_kv, {5}}};
  expect_picture(options, {"xxx...",  //
                           "xxx...",  //
                           "......",  //
                           "....xx",  //
                           "....xx"});
  options.causal = true;
  expect_picture(options, {"xx....",  //
                           "xxx...",  //
                           "......",  //
                           "....x.",  //
                           "....xx"});
  // Nothing at all, and no sequences.
  const std::int32_t zeros[] = {0, 0, 0};
  expect_picture({.cu_seqlens_q = {zeros, {3}}, .cu_seqlens_kv = {zeros, {3}}}, Picture{}, 0);
  expect_picture({.cu_seqlens_q = {zeros, {1}}, .cu_seqlens_kv = {zeros, {1}}}, Picture{}, 0);
  // Queries of sequences that have keys nowhere.
  const std::int32_t three[] = {0, 1, 3};
  expect_picture({.cu_seqlens_q = {three, {3}}, .cu_seqlens_kv = {zeros, {3}}}, {"", "", ""}, 0);
}

TEST(Masks, SharedPages) {  // pages of 2 keys; sequences 0 and 1 begin with the same one
  const std::int32_t table[] = {2, 0, 2, 1, 1, 1}, lengths[] = {4, 3, 4};
  AttentionOptions options{.kv_lengths = {lengths, {3}}, .block_table = {table, {3, 2}}};
  expect_picture(options,
                 {"xx|..|xx",  //
                  "..|x.|xx",  //
                  "..|22|.."},
                 6, {{3}, {3}});
  options.window_left = 1;
  expect_picture(options,
                 {"xx|..|..",  //
                  "..|x.|.x",  //
                  "..|xx|.."},
                 6, {{3}, {3}});
}

TEST(Masks, PagesOfAnySize) {  // B19, B32: three pages, used backwards; garbage beyond a length
  for (std::int64_t size : {1, 3, 16, 256}) {
    SCOPED_TRACE("pages of " + std::to_string(size));
    const auto page = [&](std::int64_t keys) {
      return std::string(static_cast<std::size_t>(keys), 'x') +
             std::string(static_cast<std::size_t>(size - keys), '.');
    };
    const std::int32_t table[] = {2, 1, 0, 2, -1, INT_MAX, -1, -1, -1};
    const std::int32_t lengths[] = {static_cast<std::int32_t>(2 * size + 1),
                                    static_cast<std::int32_t>(size), 0};
    AttentionOptions options{.kv_lengths = {lengths, {3}}, .block_table = {table, {3, 3}}};
    expect_picture(options,
                   {page(1) + page(size) + page(size),  //
                    page(0) + page(0) + page(size),     //
                    page(0) + page(0) + page(0)},
                   3 * size, {{3}, {3}});
    options.causal = true;  // two queries each
    expect_picture(options,
                   {page(0) + page(size) + page(size),  //
                    page(1) + page(size) + page(size),  //
                    page(0) + page(0) + page(size - 1),
                    page(0) + page(0) + page(size),  //
                    page(0) + page(0) + page(0),     //
                    page(0) + page(0) + page(0)},
                   3 * size, {{3}, {3}});
  }
}

}  // namespace
}  // namespace rapt::tests
