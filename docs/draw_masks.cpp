// Draws the pictures of concepts.md: for each kind of mask the weights that rapt::salience_map
// gives where all scores are alike, so that what is seen is the mask alone. Rows are queries,
// columns are keys.
//
//     draw_masks DIRECTORY        writes DIRECTORY/causal.svg and so on; `ninja -C build masks`
//     does it for docs/masks
#include <rapt/rapt.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace {

using namespace rapt::axis;
using std::int32_t;
using std::int64_t;

constexpr int64_t kKeys = 8, kDepth = 1;

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g", x);
  return text;
}

// weights [seq_q, kKeys]: the darker, the heavier. A light square is a key that is not attended.
std::string picture(const std::vector<float>& weights, int64_t seq_q) {
  constexpr int kCell = 16, kGap = 2, kEdge = 6;
  const auto size = [](int64_t n) { return std::to_string(n * (kCell + kGap) - kGap + 2 * kEdge); };
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + size(kKeys) +
                    "\" height=\"" + size(seq_q) +
                    "\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fff\"/>\n";
  for (int64_t i = 0; i < seq_q; ++i) {
    for (int64_t j = 0; j < kKeys; ++j) {
      const float weight = weights[static_cast<std::size_t>(i * kKeys + j)];
      const auto at = [](int64_t n) { return std::to_string(kEdge + n * (kCell + kGap)); };
      svg += "<rect x=\"" + at(j) + "\" y=\"" + at(i) + "\" width=\"16\" height=\"16\" rx=\"2\" ";
      // The square root, or a row of many keys would look empty beside a row of one.
      svg += weight > 0 ? "fill=\"#1f5fa8\" fill-opacity=\"" + number(std::sqrt(weight)) + "\"/>\n"
                        : "fill=\"#eef0f3\"/>\n";
    }
  }
  return svg + "</svg>\n";
}

void draw(const std::string& path, const rapt::AttentionOptions& options, int64_t seq_q = kKeys) {
  const std::vector<float> q(static_cast<std::size_t>(seq_q * kDepth)), k(kKeys * kDepth);
  std::vector<float> weights(static_cast<std::size_t>(seq_q * kKeys));
  rapt::salience_map(
      rapt::QView(q.data(), {1, seq_q, kDepth}), rapt::KView(k.data(), {1, kKeys, kDepth}),
      rapt::View<float, Head, Query, Key>(weights.data(), {1, seq_q, kKeys}), options);
  std::ofstream(path) << picture(weights, seq_q);
}

void draw_all(const std::string& directory) {
  const auto path = [&](const char* name) { return directory + "/" + name + ".svg"; };

  draw(path("all"), {});
  draw(path("causal"), {.causal = true});
  draw(path("causal_more_keys"), {.causal = true}, 4);
  draw(path("causal_empty_rows"), {.q_offset = -2, .causal = true});
  draw(path("window"), {.window_left = 2, .window_right = 1});
  draw(path("window_causal"), {.causal = true, .window_left = 2});
  draw(path("chunk"), {.causal = true, .chunk = 3});
  draw(path("prefix"), {.causal = true, .prefix = 3});

  const int32_t documents[] = {0, 0, 0, 1, 1, 1, 1, 2};
  draw(path("documents"),
       {.causal = true, .q_segments = {documents, {kKeys}}, .kv_segments = {documents, {kKeys}}});

  // Drafts 0 to 3 behind four keys: 1 and 2 follow 0, 3 follows 1. Each sees its ancestors and
  // itself.
  const std::uint64_t tree[] = {0b0001, 0b0011, 0b0101, 0b1011};
  draw(path("tree"), {.tree = {tree, {4, 1}}, .tree_keys = 4}, 4);

  bool mask[kKeys * kKeys];
  for (int64_t i = 0; i < kKeys * kKeys; ++i) mask[i] = i / kKeys % 2 == i % 2;
  draw(path("mask"), {.mask = {mask, {1, kKeys, kKeys}}});

  float bias[kKeys];
  for (int64_t j = 0; j < kKeys; ++j) bias[j] = j == 2 ? -INFINITY : j == 5 ? 1.5f : 0.0f;
  draw(path("bias"), {.bias = {bias, {1, 1, kKeys}}});

  const float slope = 0.5f;
  draw(path("alibi"), {.alibi_slopes = {&slope, {1}}, .causal = true});

  const float sink = 1.0f;
  draw(path("sink"), {.sinks = {&sink, {1}}, .causal = true});

  const int32_t length = 5;
  draw(path("kv_lengths"), {.kv_lengths = {&length, {}}}, 4);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fputs("usage: draw_masks DIRECTORY\n", stderr);
    return 2;
  }
  draw_all(argv[1]);
} catch (const rapt::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
