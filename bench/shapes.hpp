// Reads shapes.txt, and knows of each shape the arithmetic and the memory it cannot do without.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "rapt/gemm.hpp"
#include "stored.hpp"

namespace rapt::bench {

enum class Operation { gemm, prefill, causal, decode, attention, layer };

struct OperationName {
  Operation operation;
  std::string_view name;
  std::size_t sizes;  // how many a line of shapes.txt gives
};
inline constexpr std::array<OperationName, 6> kOperations = {{
    {Operation::gemm, "gemm", 3},            // m, n, k
    {Operation::prefill, "prefill", 4},      // batch, heads, seq, depth
    {Operation::causal, "causal", 4},        // batch, heads, seq, depth
    {Operation::decode, "decode", 5},        // batch, heads, kv_heads, seq, depth
    {Operation::attention, "attention", 7},  // batch, heads, kv_heads, seq_q, seq_kv, d_k, d_v
    {Operation::layer, "layer", 5},          // batch, seq, embedding, heads, depth
}};

// What has a number for each pair of a query and a key: none, one for all heads, or one for each.
enum class Pairs { none, one, each };

// What is computed of an attention: it, its gradients, or both.
enum class Pass { forward, backward, training };

// What follows the sizes, after '/'. shapes.txt says what each is.
struct Modifiers {
  Type type = Type::f32;          // of k and v, or b
  std::optional<Type> v, q, out;  // of v, q or a, out, where they are not what follows from it

  // Attention.
  bool causal = false;
  std::int64_t left = -1, right = -1, chunk = 0, prefix = 0, tree = 0;
  std::vector<std::int64_t> offsets;  // one for all, or one for each batch element
  bool segments = false, alibi = false, sinks = false, softcap = false, lse = false;
  bool dropout = false;
  Pass pass = Pass::forward;
  std::optional<Type> dout, dq, dk, dv;  // where they are not those of what they are of
  bool dlse = false, dbias = false, dalibi = false, dsinks = false;
  Pairs mask = Pairs::none, bias = Pairs::none;
  std::vector<std::int64_t> lengths, queries;  // of each batch element, where they are unequal
  std::int64_t page = 0;                       // keys of a page; 0: no pages
  std::int64_t common = 0;                     // first keys that are the same pages for all
  bool packed_q = false, packed_kv = false;
  bool ragged = false, padded = false, shared = false;  // names for some of the above
  bool bshd = false;                                    // heads lie inside of positions

  // Products.
  std::int64_t batch = 1;
  bool transposed_a = false, transposed_b = false, transposed_c = false, one_b = false;
  bool beta = false;
  Activation activation = Activation::none;
};

// One modifier of each kind at most.
using Numbers = std::vector<std::int64_t>;
struct ModifierName {
  std::string_view name, kind;
  bool of_gemm, of_attention;
  std::int64_t least;  // of the numbers that follow at once: "page16"; kNone: none do
  void (*set)(Modifiers&, const Numbers&);
  bool many = false;  // "lengths7+512"
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::min();
  static constexpr std::int64_t kAny = kNone + 1;
};
// clang-format off
inline constexpr auto kModifiers = [] {
  using M = Modifiers;
  using N = const Numbers;
  constexpr std::int64_t kNone = ModifierName::kNone, kAny = ModifierName::kAny;
  return std::to_array<ModifierName>({
    {"f32", "storage", true, true, kNone, [](M& m, N&) { m.type = Type::f32; }},
    {"bf16", "storage", true, true, kNone, [](M& m, N&) { m.type = Type::bf16; }},
    {"f16", "storage", true, true, kNone, [](M& m, N&) { m.type = Type::f16; }},
    {"int8", "storage", true, true, kNone, [](M& m, N&) { m.type = Type::int8; }},
    {"af32", "storage of a", true, false, kNone, [](M& m, N&) { m.q = Type::f32; }},
    {"abf16", "storage of a", true, false, kNone, [](M& m, N&) { m.q = Type::bf16; }},
    {"af16", "storage of a", true, false, kNone, [](M& m, N&) { m.q = Type::f16; }},
    {"int4", "storage", false, true, kNone, [](M& m, N&) { m.type = Type::int4; }},
    {"vf32", "storage of v", false, true, kNone, [](M& m, N&) { m.v = Type::f32; }},
    {"vbf16", "storage of v", false, true, kNone, [](M& m, N&) { m.v = Type::bf16; }},
    {"vf16", "storage of v", false, true, kNone, [](M& m, N&) { m.v = Type::f16; }},
    {"vint8", "storage of v", false, true, kNone, [](M& m, N&) { m.v = Type::int8; }},
    {"vint4", "storage of v", false, true, kNone, [](M& m, N&) { m.v = Type::int4; }},
    {"qf32", "storage of q", false, true, kNone, [](M& m, N&) { m.q = Type::f32; }},
    {"qbf16", "storage of q", false, true, kNone, [](M& m, N&) { m.q = Type::bf16; }},
    {"qf16", "storage of q", false, true, kNone, [](M& m, N&) { m.q = Type::f16; }},
    {"outf32", "storage of out", false, true, kNone, [](M& m, N&) { m.out = Type::f32; }},
    {"outbf16", "storage of out", false, true, kNone, [](M& m, N&) { m.out = Type::bf16; }},
    {"outf16", "storage of out", false, true, kNone, [](M& m, N&) { m.out = Type::f16; }},

    {"causal", "causal", false, true, kNone, [](M& m, N&) { m.causal = true; }},
    {"window", "window", false, true, 1, [](M& m, N& keys) { m.left = keys[0] - 1; }},
    {"left", "window", false, true, 0, [](M& m, N& keys) { m.left = keys[0]; }},
    {"right", "right", false, true, 0, [](M& m, N& keys) { m.right = keys[0]; }},
    {"chunk", "chunk", false, true, 1, [](M& m, N& keys) { m.chunk = keys[0]; }},
    {"prefix", "prefix", false, true, 1, [](M& m, N& keys) { m.prefix = keys[0]; }},
    {"offset", "offset", false, true, kAny, [](M& m, N& each) { m.offsets = each; }, true},
    {"segments", "segments", false, true, kNone, [](M& m, N&) { m.segments = true; }},
    {"tree", "tree", false, true, 1, [](M& m, N& keys) { m.tree = keys[0]; }},
    {"mask", "mask", false, true, kNone, [](M& m, N&) { m.mask = Pairs::one; }},
    {"headmask", "mask", false, true, kNone, [](M& m, N&) { m.mask = Pairs::each; }},
    {"bias", "bias", true, true, kNone, [](M& m, N&) { m.bias = Pairs::one; }},
    {"headbias", "bias", false, true, kNone, [](M& m, N&) { m.bias = Pairs::each; }},
    {"alibi", "alibi", false, true, kNone, [](M& m, N&) { m.alibi = true; }},
    {"sinks", "sinks", false, true, kNone, [](M& m, N&) { m.sinks = true; }},
    {"softcap", "softcap", false, true, kNone, [](M& m, N&) { m.softcap = true; }},
    {"lse", "lse", false, true, kNone, [](M& m, N&) { m.lse = true; }},
    {"dropout", "dropout", false, true, kNone, [](M& m, N&) { m.dropout = true; }},

    {"backward", "pass", false, true, kNone, [](M& m, N&) { m.pass = Pass::backward; }},
    {"training", "pass", false, true, kNone, [](M& m, N&) { m.pass = Pass::training; }},
    {"doutf32", "storage of dout", false, true, kNone, [](M& m, N&) { m.dout = Type::f32; }},
    {"doutbf16", "storage of dout", false, true, kNone, [](M& m, N&) { m.dout = Type::bf16; }},
    {"doutf16", "storage of dout", false, true, kNone, [](M& m, N&) { m.dout = Type::f16; }},
    {"dqf32", "storage of dq", false, true, kNone, [](M& m, N&) { m.dq = Type::f32; }},
    {"dqbf16", "storage of dq", false, true, kNone, [](M& m, N&) { m.dq = Type::bf16; }},
    {"dqf16", "storage of dq", false, true, kNone, [](M& m, N&) { m.dq = Type::f16; }},
    {"dkf32", "storage of dk", false, true, kNone, [](M& m, N&) { m.dk = Type::f32; }},
    {"dkbf16", "storage of dk", false, true, kNone, [](M& m, N&) { m.dk = Type::bf16; }},
    {"dkf16", "storage of dk", false, true, kNone, [](M& m, N&) { m.dk = Type::f16; }},
    {"dvf32", "storage of dv", false, true, kNone, [](M& m, N&) { m.dv = Type::f32; }},
    {"dvbf16", "storage of dv", false, true, kNone, [](M& m, N&) { m.dv = Type::bf16; }},
    {"dvf16", "storage of dv", false, true, kNone, [](M& m, N&) { m.dv = Type::f16; }},
    {"dlse", "dlse", false, true, kNone, [](M& m, N&) { m.dlse = true; }},
    {"dbias", "dbias", false, true, kNone, [](M& m, N&) { m.dbias = true; }},
    {"dalibi", "dalibi", false, true, kNone, [](M& m, N&) { m.dalibi = true; }},
    {"dsinks", "dsinks", false, true, kNone, [](M& m, N&) { m.dsinks = true; }},

    {"lengths", "lengths", false, true, 0, [](M& m, N& each) { m.lengths = each; }, true},
    {"queries", "queries", false, true, 0, [](M& m, N& each) { m.queries = each; }, true},
    {"page", "place", false, true, 1, [](M& m, N& keys) { m.page = keys[0]; }},
    {"ragged", "place", false, true, kNone, [](M& m, N&) { m.ragged = true; }},
    {"padded", "place", false, true, kNone, [](M& m, N&) { m.padded = true; }},
    {"packedq", "packing of q", false, true, kNone, [](M& m, N&) { m.packed_q = true; }},
    {"packedkv", "place", false, true, kNone, [](M& m, N&) { m.packed_kv = true; }},
    {"shared", "sharing", false, true, kNone, [](M& m, N&) { m.shared = true; }},
    {"common", "sharing", false, true, 1, [](M& m, N& keys) { m.common = keys[0]; }},
    {"bshd", "order", false, true, kNone, [](M& m, N&) { m.bshd = true; }},

    {"batch", "batch", true, false, 1, [](M& m, N& n) { m.batch = n[0]; }},
    {"ta", "order of a", true, false, kNone, [](M& m, N&) { m.transposed_a = true; }},
    {"tb", "order of b", true, false, kNone, [](M& m, N&) { m.transposed_b = true; }},
    {"tc", "order of c", true, false, kNone, [](M& m, N&) { m.transposed_c = true; }},
    {"oneb", "batch of b", true, false, kNone, [](M& m, N&) { m.one_b = true; }},
    {"beta", "beta", true, false, kNone, [](M& m, N&) { m.beta = true; }},
    {"relu", "activation", true, false, kNone, [](M& m, N&) { m.activation = Activation::relu; }},
    {"gelu", "activation", true, false, kNone, [](M& m, N&) { m.activation = Activation::gelu; }},
  });
}();
// clang-format on

struct GemmSizes {
  std::int64_t m, n, k;
};

// q [batch, heads, seq_q, d_k], out [..., d_v]; k [batch, kv_heads, seq_kv, d_k], v [..., d_v]
struct AttentionSizes {
  std::int64_t batch, heads, kv_heads, seq_q, seq_kv, d_k, d_v;
};

// tokens, result [batch, seq, embedding]; heads of d_k = d_v = depth
struct LayerSizes {
  std::int64_t batch, seq, embedding, heads, depth;
};

// Keys [begin, end), and those of a prefix, [first, last).
struct KeyRange {
  std::int64_t begin, end, first, last;
  bool has(std::int64_t key) const {
    return (key >= begin && key < end) || (key >= first && key < last);
  }
  std::int64_t count() const {
    const auto size = [](std::int64_t from, std::int64_t to) {
      return std::max<std::int64_t>(0, to - from);
    };
    return size(begin, end) + size(first, last) - size(std::max(begin, first), std::min(end, last));
  }
};

struct Shape {
  Operation operation{};
  std::string name;  // "decode/1,32,8,4096,128/bf16", the same everywhere
  std::vector<std::int64_t> sizes;
  Modifiers modifiers{};
  std::vector<std::string> tags{};
  std::string against{};   // the name of the shape that it is compared with; empty: none
  std::int64_t calls = 0;  // how often a program asked for it (RAPT_TRACE); 0: it is not said

  bool has(std::string_view tag) const {
    return std::find(tags.begin(), tags.end(), tag) != tags.end();
  }

  bool is_attention() const {
    return operation != Operation::gemm && operation != Operation::layer;
  }

  GemmSizes gemm() const { return {sizes[0], sizes[1], sizes[2]}; }
  LayerSizes layer() const { return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]}; }
  AttentionSizes attention() const {
    const auto& s = sizes;
    if (operation == Operation::attention) return {s[0], s[1], s[2], s[3], s[4], s[5], s[6]};
    if (operation == Operation::decode) return {s[0], s[1], s[2], 1, s[3], s[4], s[4]};
    return {s[0], s[1], s[1], s[2], s[2], s[3], s[3]};
  }

  Type v_type() const { return modifiers.v.value_or(modifiers.type); }
  Type a_type() const { return q_type(); }
  Type q_type() const { return modifiers.q.value_or(plain_type(modifiers.type)); }
  Type out_type() const { return modifiers.out.value_or(q_type()); }
  Type dout_type() const { return modifiers.dout.value_or(out_type()); }
  Type dq_type() const { return modifiers.dq.value_or(q_type()); }
  Type dk_type() const { return modifiers.dk.value_or(modifiers.type); }
  Type dv_type() const { return modifiers.dv.value_or(v_type()); }

  // Of batch element b.
  std::int64_t keys(std::int64_t b) const {
    return modifiers.lengths.empty() ? attention().seq_kv : at(modifiers.lengths, b);
  }
  std::int64_t queries(std::int64_t b) const {
    return modifiers.queries.empty() ? attention().seq_q : at(modifiers.queries, b);
  }
  // The position of query 0.
  std::int64_t offset(std::int64_t b) const {
    const Numbers& offsets = modifiers.offsets;
    return offsets.empty() ? keys(b) - queries(b) : at(offsets, offsets.size() == 1 ? 0 : b);
  }
  // Documents are quarters of the keys.
  std::int64_t document(std::int64_t b, std::int64_t position) const {
    const std::int64_t each = std::max<std::int64_t>(1, (keys(b) + 3) / 4);
    return std::clamp<std::int64_t>(position / each, 0, 3);
  }

  // The keys that query i of batch element b attends by their positions; mask and tree choose from
  // them.
  KeyRange keys_of(std::int64_t b, std::int64_t i) const {
    const Modifiers& m = modifiers;
    const std::int64_t n = keys(b), x = i + offset(b);
    KeyRange range{0, n, 0, std::min(m.prefix, n)};
    const auto within = [&](std::int64_t begin, std::int64_t end) {
      range.begin = std::max(range.begin, begin);
      range.end = std::min(range.end, end);
    };
    if (m.causal) within(0, x + 1);
    if (m.left >= 0) within(x - m.left, n);
    if (m.right >= 0) within(0, x + m.right + 1);
    if (m.chunk > 0) {
      const std::int64_t chunk = x >= 0 ? x / m.chunk : (x - m.chunk + 1) / m.chunk;
      within(chunk * m.chunk, (chunk + 1) * m.chunk);
    }
    if (m.segments) {
      const std::int64_t each = std::max<std::int64_t>(1, (n + 3) / 4), own = document(b, x);
      const std::int64_t begin = own * each, end = own == 3 ? n : begin + each;
      within(begin, end);
      range.first = std::max(range.first, begin);
      range.last = std::min(range.last, end);
    }
    return range;
  }

  // Keys at the start of every sequence that lie in the same pages.
  std::int64_t shared_keys() const {
    const std::int64_t page = modifiers.page;
    if (page == 0) return 0;
    const std::int64_t half = (attention().seq_kv + page - 1) / page / 2 * page;
    return modifiers.shared ? half : (modifiers.common + page - 1) / page * page;
  }

  // Floating-point operations of the products that are needed; those of exp and scale are not
  // counted. Causal counts a query's own key as half: seq^2 / 2 pairs of seq (seq + 1) / 2, as is
  // usual.
  double flops() const {
    if (operation == Operation::gemm) {
      const GemmSizes s = gemm();
      return 2.0 * static_cast<double>(modifiers.batch) * static_cast<double>(s.m) *
             static_cast<double>(s.n) * static_cast<double>(s.k);
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
      for (std::int64_t i = 0; i < queries(b); ++i) {
        const std::int64_t count = keys_of(b, i).count();
        pairs += static_cast<double>(count) - (modifiers.causal && count > 1 ? 0.5 : 0.0);
      }
    }
    // Products of d_k and of d_v for each pair: one and one, of the backward pass three and two.
    const std::int64_t forward = s.d_k + s.d_v, backward = 3 * s.d_k + 2 * s.d_v;
    const std::int64_t depths = modifiers.pass == Pass::forward    ? forward
                                : modifiers.pass == Pass::backward ? backward
                                                                   : forward + backward;
    return 2.0 * pairs * static_cast<double>(s.heads * depths);
  }

  // Bytes of the operands and the result, each moved once: no algorithm touches less memory.
  double bytes() const {
    if (operation == Operation::gemm) {
      const GemmSizes s = gemm();
      return streamed_bytes() + static_cast<double>(modifiers.batch) *
                                    static_cast<double>(s.m * row_bytes(a_type(), s.k) +
                                                        s.m * row_bytes(Type::f32, s.n));
    }
    if (operation == Operation::layer) {
      const LayerSizes s = layer();
      return 4.0 * static_cast<double>(2 * s.batch * s.seq * s.embedding +
                                       4 * s.embedding * s.heads * s.depth);
    }
    const AttentionSizes s = attention();
    std::int64_t rows = 0;
    for (std::int64_t b = 0; b < s.batch; ++b) rows += s.heads * queries(b);
    double bytes =
        streamed_bytes() +
        static_cast<double>(rows * (row_bytes(q_type(), s.d_k) + row_bytes(out_type(), s.d_v)));
    if (modifiers.pass == Pass::forward) return bytes;
    std::int64_t kv_rows = 0;
    for (std::int64_t b = 0; b < s.batch; ++b) kv_rows += s.kv_heads * keys(b);
    return bytes + static_cast<double>(
                       rows * (row_bytes(dq_type(), s.d_k) + row_bytes(dout_type(), s.d_v)) +
                       kv_rows * (row_bytes(dk_type(), s.d_k) + row_bytes(dv_type(), s.d_v)));
  }

  // Bytes of what is large and read by everyone: K and V with their scales, or b. 0 for the layer.
  double streamed_bytes() const {
    if (operation == Operation::layer) return 0;
    if (operation == Operation::gemm) {
      const std::int64_t n = modifiers.one_b ? 1 : modifiers.batch;
      return static_cast<double>(n) * static_cast<double>(gemm().k) *
             static_cast<double>(row_bytes(modifiers.type, gemm().n));
    }
    const AttentionSizes s = attention();
    std::int64_t rows = -(s.batch - 1) * shared_keys();
    for (std::int64_t b = 0; b < s.batch; ++b) {
      if (queries(b) == 0) continue;
      const KeyRange first = keys_of(b, 0), last = keys_of(b, queries(b) - 1);
      rows += KeyRange{first.begin, std::max(first.end, last.end), first.first, first.last}.count();
    }
    const auto scale = [](Type type) { return type == Type::int8 ? sizeof(float) : 0; };
    const std::int64_t row = row_bytes(modifiers.type, s.d_k) + row_bytes(v_type(), s.d_v) +
                             static_cast<std::int64_t>(scale(modifiers.type) + scale(v_type()));
    return static_cast<double>(s.kv_heads) * static_cast<double>(rows * row);
  }

  // Whether there is so little arithmetic for each of these bytes that reading may be the limit.
  bool is_streaming() const {
    if (modifiers.pass != Pass::forward) return false;
    return (is_attention() && attention().seq_q == 1) || flops() < 8 * streamed_bytes();
  }

 private:
  static std::int64_t at(const Numbers& numbers, std::int64_t i) {
    return numbers[static_cast<std::size_t>(i)];
  }
};

namespace detail {

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream list(text);
  for (std::string part; std::getline(list, part, separator);) parts.push_back(part);
  return parts;
}

inline std::int64_t number_of(const std::string& word, std::int64_t least) {
  char* end = nullptr;
  errno = 0;
  const std::int64_t number = std::strtoll(word.c_str(), &end, 10);
  if (end == word.c_str() || *end != '\0' || errno != 0 || number < least)
    throw std::invalid_argument("'" + word + "' is no size");
  return number;
}

inline const ModifierName& modifier_of(const std::string& word) {
  for (const ModifierName& known : kModifiers) {
    const std::size_t n = known.name.size();
    if (known.least == ModifierName::kNone
            ? word == known.name
            : word.starts_with(known.name) && word.find_first_of("-0123456789") == n)
      return known;
  }
  throw std::invalid_argument("no modifier is called " + word);
}

// What "ragged", "padded" and the operation stand for.
inline void resolve(Shape& shape) {
  Modifiers& m = shape.modifiers;
  if (!shape.is_attention()) return;
  if (shape.operation == Operation::causal) m.causal = true;
  if (!m.ragged && !m.padded) return;
  // Unequal lengths are 8, 3, 5, 1, 7, 2, 6, 4 eighths of seq, and so on again: a little more than
  // half of what is padded.
  constexpr std::array<std::int64_t, 8> kEighths = {8, 3, 5, 1, 7, 2, 6, 4};
  const AttentionSizes s = shape.attention();
  for (std::int64_t b = 0; b < s.batch; ++b) {
    const std::int64_t eighths = kEighths[static_cast<std::size_t>(b % 8)];
    m.lengths.push_back(std::max<std::int64_t>(1, s.seq_kv * eighths / 8));
  }
  m.packed_kv = m.ragged;
  if (shape.operation == Operation::decode) return;
  m.packed_q = m.ragged;
  m.queries = m.lengths;
  // Padding follows what it pads, so that query i is at position i.
  if (m.padded) m.offsets = {0};
}

// Why these sizes and modifiers are of no problem, or nothing.
inline std::string_view misfit(const Shape& shape) {
  const Modifiers& m = shape.modifiers;
  if (!shape.is_attention()) return {};
  const AttentionSizes s = shape.attention();
  const bool general = shape.operation == Operation::attention;
  if (s.heads % s.kv_heads != 0) return "heads must be a multiple of kv_heads";
  if (m.left >= 0 && shape.operation == Operation::prefill)
    return "a window is of causal or of decode";
  const bool unequal = m.packed_q || m.packed_kv || !m.lengths.empty() || !m.queries.empty();
  if (m.ragged || m.padded ? general : unequal && !general)
    return "ragged and padded are of prefill, causal and decode, lengths of attention";
  if ((m.shared || m.common > 0) && m.page == 0) return "only pages are shared";
  if (m.shared && m.left >= 0) return "a window and shared pages are not counted together";
  if (m.type == Type::int4 && s.d_k % Int4Group::kSize != 0)
    return "int4 takes a depth that is a multiple of 32";
  if (shape.v_type() == Type::int4 && s.d_v % Int4Group::kSize != 0)
    return "int4 takes a depth that is a multiple of 32";
  const auto fits = [&](const Numbers& each, std::int64_t most) {
    return each.empty() ||
           (std::ssize(each) == s.batch && *std::max_element(each.begin(), each.end()) == most);
  };
  if (!fits(m.lengths, s.seq_kv)) return "lengths are one for each batch element, the most seq_kv";
  if (!fits(m.queries, s.seq_q)) return "queries are one for each batch element, the most seq_q";
  if (m.offsets.size() > 1 && std::ssize(m.offsets) != s.batch)
    return "offsets must be one, or one for each batch element";
  if (general && !m.queries.empty() && !m.packed_q) return "queries are of packedq";
  if (m.tree > s.seq_kv) return "a tree has at most seq_kv keys";
  if (m.pass == Pass::forward) {
    return m.dout || m.dq || m.dk || m.dv || m.dlse || m.dbias || m.dalibi || m.dsinks
               ? "gradients are of backward and of training"
               : "";
  }
  if (m.type != plain_type(m.type) || shape.v_type() != plain_type(shape.v_type()) || m.page > 0)
    return "int8, int4 and pages have no gradients";
  if ((m.dbias && m.bias == Pairs::none) || (m.dalibi && !m.alibi) || (m.dsinks && !m.sinks))
    return "dbias is of a bias, dalibi of alibi, dsinks of sinks";
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
      shape.sizes.push_back(detail::number_of(size, 1));
  }
  if (shape.sizes.size() != wanted) {
    throw std::invalid_argument(words[0] + " takes " + std::to_string(wanted) +
                                " sizes, and here are " + std::to_string(shape.sizes.size()));
  }
  std::vector<std::string_view> kinds;
  for (std::size_t i = 2; i < words.size(); ++i) {
    const ModifierName& modifier = detail::modifier_of(words[i]);
    if (!(shape.operation == Operation::gemm ? modifier.of_gemm
                                             : modifier.of_attention && shape.is_attention()))
      throw std::invalid_argument(words[0] + " takes no modifier " + words[i]);
    if (std::find(kinds.begin(), kinds.end(), modifier.kind) != kinds.end())
      throw std::invalid_argument("'" + words[i] + "' is a second " + std::string(modifier.kind));
    kinds.push_back(modifier.kind);
    Numbers numbers;
    if (modifier.least != ModifierName::kNone) {
      for (const std::string& number : detail::split(words[i].substr(modifier.name.size()), '+'))
        numbers.push_back(detail::number_of(number, modifier.least));
      if (numbers.size() != 1 && !modifier.many)
        throw std::invalid_argument("'" + words[i] + "' takes one number");
    }
    modifier.set(shape.modifiers, numbers);
  }
  detail::resolve(shape);
  if (!detail::misfit(shape).empty())
    throw std::invalid_argument(std::string(detail::misfit(shape)));
  return shape;
}

// A line of shapes.txt: "operation sizes/modifiers tag tag". "operation/sizes/modifiers" is taken
// too. Throws std::invalid_argument.
inline Shape parse_line(const std::string& line) {
  constexpr std::string_view kVersus = "vs:", kCalls = "calls:";
  std::istringstream words(line);
  std::string operation, sizes, tag;
  words >> operation;
  if (operation.find('/') == std::string::npos) words >> sizes;
  Shape shape = parse_shape(sizes.empty() ? operation : operation + "/" + sizes);
  while (words >> tag) {
    if (tag.starts_with(kVersus)) {
      shape.against = shape.name.substr(0, shape.name.find('/', shape.name.find('/') + 1)) + "/" +
                      tag.substr(kVersus.size());
      parse_shape(shape.against);
    }
    if (tag.starts_with(kCalls)) shape.calls = detail::number_of(tag.substr(kCalls.size()), 1);
    shape.tags.push_back(tag);
  }
  return shape;
}

// Throws std::runtime_error that names the file and the line.
inline std::vector<Shape> read_shapes(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::vector<Shape> shapes;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line.resize(std::min(line.find('#'), line.size()));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      shapes.push_back(parse_line(line));
    } catch (const std::invalid_argument& error) {
      throw std::runtime_error(path + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  return shapes;
}

}  // namespace rapt::bench
