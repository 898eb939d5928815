// Reads shapes.txt, and knows of each shape the arithmetic and the memory it cannot do without.
#pragma once

#include <array>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

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
  std::string name;  // "prefill/1,8,2048,64", the same everywhere
  std::vector<std::int64_t> sizes;
  std::vector<std::string> tags;

  bool has(std::string_view tag) const {
    for (const std::string& t : tags) {
      if (t == tag) return true;
    }
    return false;
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
    const double pairs = static_cast<double>(s.batch * s.heads * s.seq_q) *
                         static_cast<double>(s.seq_kv) *
                         (operation == Operation::causal ? 0.5 : 1.0);
    return 4.0 * pairs * static_cast<double>(s.depth);
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
    return streamed_bytes() + 8.0 * static_cast<double>(s.batch * s.heads * s.seq_q * s.depth);
  }

  // Bytes of what is large and read by everyone: K and V, or b. 0 for the layer.
  double streamed_bytes() const {
    if (operation == Operation::layer) return 0;
    if (operation == Operation::gemm) return 4.0 * static_cast<double>(gemm().k * gemm().n);
    const AttentionSizes s = attention();
    return 8.0 * static_cast<double>(s.batch * s.kv_heads * s.seq_kv * s.depth);
  }

  // Whether there is so little arithmetic for each of these bytes that reading may be the limit.
  bool is_streaming() const { return flops() < 8 * streamed_bytes(); }
};

// Throws std::runtime_error that names the file and the line.
inline std::vector<Shape> read_shapes(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::vector<Shape> shapes;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string operation, sizes, tag;
    if (!(words >> operation)) continue;
    const auto bad = [&](const std::string& what) {
      return std::runtime_error(path + ":" + std::to_string(number) + ": " + what);
    };
    Shape shape;
    std::size_t wanted = 0;
    for (const OperationName& known : kOperations) {
      if (known.name == operation) {
        shape.operation = known.operation;
        wanted = known.sizes;
      }
    }
    if (wanted == 0) throw bad("no operation is called " + operation);
    words >> sizes;
    shape.name = operation + "/" + sizes;
    std::istringstream list(sizes);
    for (std::string size; std::getline(list, size, ',');) {
      char* end = nullptr;
      shape.sizes.push_back(std::strtoll(size.c_str(), &end, 10));
      if (end == size.c_str() || *end != '\0' || shape.sizes.back() < 1) {
        throw bad("'" + size + "' is no size");
      }
    }
    if (shape.sizes.size() != wanted) {
      throw bad(operation + " takes " + std::to_string(wanted) + " sizes, and here are " +
                std::to_string(shape.sizes.size()));
    }
    while (words >> tag) shape.tags.push_back(tag);
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace rapt::bench
