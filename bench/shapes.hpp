// Reads shapes.txt, and knows of each shape the arithmetic and the memory it cannot do without.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "stored.hpp"

namespace rapt::bench {

enum class Operation { gemm, prefill, causal, decode, layer };

struct OperationName {
  Operation operation;
  std::string_view name;
  std::size_t sizes;  // how many a line of shapes.txt gives
};
inline constexpr std::array<OperationName, 5> kOperations = {{
    {Operation::gemm, "gemm", 3},        // m, n, k
    {Operation::prefill, "prefill", 4},  // batch, heads, seq, depth
    {Operation::causal, "causal", 4},    // batch, heads, seq, depth
    {Operation::decode, "decode", 5},    // batch, heads, kv_heads, seq, depth
    {Operation::layer, "layer", 5},      // batch, seq, embedding, heads, depth
}};

// What follows the sizes of an attention, after '/'.
struct Modifiers {
  Type type = Type::f32;    // of k and v
  std::int64_t window = 0;  // keys that a query attends at most; 0: no window
  std::int64_t page = 0;    // keys of a page; 0: no pages
  bool ragged = false;      // of unequal lengths, packed
  bool padded = false;      // of the same lengths, each with room for the longest
  bool shared = false;      // the first half of every sequence is the same pages
  bool has_unequal() const { return ragged || padded; }
};

// One modifier of each kind at most.
struct ModifierName {
  std::string_view name;
  std::string_view kind;
  bool numbered;  // a number follows at once: "page16"
  void (*set)(Modifiers&, std::int64_t number);
};
inline constexpr std::array<ModifierName, 10> kModifiers = {{
    {"f32", "storage", false, [](Modifiers& m, std::int64_t) { m.type = Type::f32; }},
    {"bf16", "storage", false, [](Modifiers& m, std::int64_t) { m.type = Type::bf16; }},
    {"f16", "storage", false, [](Modifiers& m, std::int64_t) { m.type = Type::f16; }},
    {"int8", "storage", false, [](Modifiers& m, std::int64_t) { m.type = Type::int8; }},
    {"int4", "storage", false, [](Modifiers& m, std::int64_t) { m.type = Type::int4; }},
    {"window", "window", true, [](Modifiers& m, std::int64_t keys) { m.window = keys; }},
    {"page", "place", true, [](Modifiers& m, std::int64_t keys) { m.page = keys; }},
    {"ragged", "place", false, [](Modifiers& m, std::int64_t) { m.ragged = true; }},
    {"padded", "place", false, [](Modifiers& m, std::int64_t) { m.padded = true; }},
    {"shared", "sharing", false, [](Modifiers& m, std::int64_t) { m.shared = true; }},
}};

struct GemmSizes {
  std::int64_t m, n, k;
};

// q, out [batch, heads, seq_q, depth]; k, v [batch, kv_heads, seq_kv, depth]
struct AttentionSizes {
  std::int64_t batch, heads, kv_heads, seq_q, seq_kv, depth;
};

// tokens, result [batch, seq, embedding]; heads of d_k = d_v = depth
struct LayerSizes {
  std::int64_t batch, seq, embedding, heads, depth;
};

struct Shape {
  Operation operation{};
  std::string name;  // "decode/1,32,8,4096,128/bf16", the same everywhere
  std::vector<std::int64_t> sizes;
  Modifiers modifiers{};
  std::vector<std::string> tags{};
  std::string against{};  // the name of the shape that it is compared with; empty: none

  bool has(std::string_view tag) const {
    return std::find(tags.begin(), tags.end(), tag) != tags.end();
  }

  bool is_attention() const {
    return operation == Operation::prefill || operation == Operation::causal ||
           operation == Operation::decode;
  }

  GemmSizes gemm() const { return {sizes[0], sizes[1], sizes[2]}; }
  LayerSizes layer() const { return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]}; }
  AttentionSizes attention() const {
    if (operation == Operation::decode) {
      return {sizes[0], sizes[1], sizes[2], 1, sizes[3], sizes[4]};
    }
    return {sizes[0], sizes[1], sizes[1], sizes[2], sizes[2], sizes[3]};
  }

  // Keys of batch element b. Unequal ones are 8, 3, 5, 1, 7, 2, 6, 4 eighths of seq, and so on
  // again: a little more than half of what is padded.
  std::int64_t keys(std::int64_t b) const {
    constexpr std::array<std::int64_t, 8> kEighths = {8, 3, 5, 1, 7, 2, 6, 4};
    const std::int64_t seq = attention().seq_kv;
    if (!modifiers.has_unequal()) return seq;
    return std::max<std::int64_t>(1, seq * kEighths[static_cast<std::size_t>(b % 8)] / 8);
  }
  std::int64_t queries(std::int64_t b) const {
    return operation == Operation::decode ? 1 : keys(b);
  }

  // Keys at the start of every sequence that lie in the same pages.
  std::int64_t shared_keys() const {
    const std::int64_t page = modifiers.page;
    return modifiers.shared ? (attention().seq_kv + page - 1) / page / 2 * page : 0;
  }

  // Floating-point operations of the products that are needed; those of exp and scale are not
  // counted. Causal counts seq^2 / 2 pairs of the seq (seq + 1) / 2, as is usual.
  double flops() const {
    if (operation == Operation::gemm) {
      const GemmSizes s = gemm();
      return 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
    }
    if (operation == Operation::layer) {
      const LayerSizes s = layer();
      const double tokens = static_cast<double>(s.batch * s.seq);
      const double model = static_cast<double>(s.heads * s.depth);
      return 8.0 * tokens * static_cast<double>(s.embedding) * model +
             4.0 * tokens * static_cast<double>(s.seq) * model;
    }
    const AttentionSizes s = attention();
    double pairs = 0;  // of one head
    for (std::int64_t b = 0; b < s.batch; ++b) {
      const auto attended = static_cast<double>(reach(b));
      pairs += static_cast<double>(queries(b)) * attended;
      if (operation == Operation::causal) pairs -= attended * attended / 2;
    }
    return 4.0 * pairs * static_cast<double>(s.heads * s.depth);
  }

  // Bytes of the operands and the result, each moved once: no algorithm touches less memory.
  double bytes() const {
    if (operation == Operation::gemm) {
      const GemmSizes s = gemm();
      return 4.0 * static_cast<double>(s.m * s.k + s.k * s.n + s.m * s.n);
    }
    if (operation == Operation::layer) {
      const LayerSizes s = layer();
      return 4.0 * static_cast<double>(2 * s.batch * s.seq * s.embedding +
                                       4 * s.embedding * s.heads * s.depth);
    }
    const AttentionSizes s = attention();
    std::int64_t rows = 0;
    for (std::int64_t b = 0; b < s.batch; ++b) rows += s.heads * queries(b);
    return streamed_bytes() +
           2.0 * static_cast<double>(rows * row_bytes(plain_type(modifiers.type), s.depth));
  }

  // Bytes of what is large and read by everyone: K and V with their scales, or b. 0 for the layer.
  double streamed_bytes() const {
    if (operation == Operation::layer) return 0;
    if (operation == Operation::gemm) return 4.0 * static_cast<double>(gemm().k * gemm().n);
    const AttentionSizes s = attention();
    std::int64_t rows = -(s.batch - 1) * shared_keys();
    for (std::int64_t b = 0; b < s.batch; ++b)
      rows += operation == Operation::decode ? reach(b) : keys(b);
    const std::int64_t scale = modifiers.type == Type::int8 ? sizeof(float) : 0;
    return 2.0 *
           static_cast<double>(s.kv_heads * rows * (row_bytes(modifiers.type, s.depth) + scale));
  }

  // Whether there is so little arithmetic for each of these bytes that reading may be the limit.
  bool is_streaming() const {
    return operation == Operation::decode || flops() < 8 * streamed_bytes();
  }

 private:
  // The most keys that a query of batch element b attends.
  std::int64_t reach(std::int64_t b) const {
    return modifiers.window > 0 ? std::min(modifiers.window, keys(b)) : keys(b);
  }
};

namespace detail {

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream list(text);
  for (std::string part; std::getline(list, part, separator);) parts.push_back(part);
  return parts;
}

inline std::int64_t size_of(const std::string& word) {
  char* end = nullptr;
  const std::int64_t size = std::strtoll(word.c_str(), &end, 10);
  if (end == word.c_str() || *end != '\0' || size < 1)
    throw std::invalid_argument("'" + word + "' is no size");
  return size;
}

inline const ModifierName& modifier_of(const std::string& word) {
  for (const ModifierName& known : kModifiers) {
    if (known.numbered ? word.starts_with(known.name) : word == known.name) return known;
  }
  throw std::invalid_argument("no modifier is called " + word);
}

// Why these modifiers are not of this shape, or nothing.
inline std::string_view misfit(const Shape& shape) {
  const Modifiers& m = shape.modifiers;
  if (!shape.is_attention()) return "only attention takes modifiers";
  if (m.window > 0 && shape.operation == Operation::prefill)
    return "a window is of causal or of decode";
  if (m.shared && m.page == 0) return "only pages are shared";
  if (m.shared && m.window > 0) return "a window and shared pages are not counted together";
  if (m.type == Type::int4 && shape.attention().depth % Int4Group::kSize != 0)
    return "int4 takes a depth that is a multiple of 32";
  return {};
}

}  // namespace detail

// "operation/sizes" or "operation/sizes/modifier/modifier". Throws std::invalid_argument.
inline Shape parse_shape(const std::string& name) {
  const std::vector<std::string> words = detail::split(name, '/');
  Shape shape;
  shape.name = name;
  std::size_t wanted = 0;
  for (const OperationName& known : kOperations) {
    if (!words.empty() && known.name == words[0]) {
      shape.operation = known.operation;
      wanted = known.sizes;
    }
  }
  if (wanted == 0) throw std::invalid_argument("no operation is called so: " + name);
  if (words.size() > 1) {
    for (const std::string& size : detail::split(words[1], ','))
      shape.sizes.push_back(detail::size_of(size));
  }
  if (shape.sizes.size() != wanted) {
    throw std::invalid_argument(words[0] + " takes " + std::to_string(wanted) +
                                " sizes, and here are " + std::to_string(shape.sizes.size()));
  }
  std::vector<std::string_view> kinds;
  for (std::size_t i = 2; i < words.size(); ++i) {
    const ModifierName& modifier = detail::modifier_of(words[i]);
    if (std::find(kinds.begin(), kinds.end(), modifier.kind) != kinds.end())
      throw std::invalid_argument("'" + words[i] + "' is a second " + std::string(modifier.kind));
    kinds.push_back(modifier.kind);
    modifier.set(shape.modifiers,
                 modifier.numbered ? detail::size_of(words[i].substr(modifier.name.size())) : 0);
  }
  if (!kinds.empty() && !detail::misfit(shape).empty())
    throw std::invalid_argument(std::string(detail::misfit(shape)));
  return shape;
}

// Throws std::runtime_error that names the file and the line.
inline std::vector<Shape> read_shapes(const std::string& path) {
  constexpr std::string_view kVersus = "vs:";
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::vector<Shape> shapes;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string operation, sizes, tag;
    if (!(words >> operation)) continue;
    words >> sizes;
    try {
      Shape shape = parse_shape(operation + "/" + sizes);
      while (words >> tag) {
        shape.tags.push_back(tag);
        if (!tag.starts_with(kVersus)) continue;
        shape.against =
            operation + "/" + detail::split(sizes, '/')[0] + "/" + tag.substr(kVersus.size());
        parse_shape(shape.against);
      }
      shapes.push_back(std::move(shape));
    } catch (const std::invalid_argument& error) {
      throw std::runtime_error(path + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  return shapes;
}

}  // namespace rapt::bench
