#include "problems.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string>

#include "config/config.hpp"

namespace rapt::tune {
namespace {

Shape shape(std::string name, const std::vector<std::int64_t>& sizes) {
  char separator = '/';
  for (const std::int64_t size : sizes) {
    name += separator + std::to_string(size);
    separator = ',';
  }
  return bench::parse_shape(name);
}

}  // namespace

std::vector<Shape> attention_search(std::int64_t head_size) {
  return {
      shape("prefill", {1, 1, 1024, head_size}),  // long: blocks of k and v pass by many times
      shape("causal", {1, 2, 512, head_size}),    // where a long block does work that is masked
      shape("prefill", {1, 4, 128, head_size}),   // short: a block is the whole problem
      shape("decode",
            {1, 8, 2, 2048, head_size}),  // few rows: the other algorithm's blocks of keys
  };
}

std::vector<Shape> attention_held_out(std::int64_t head_size,
                                      const std::vector<Shape>& bench_shapes) {
  // Sizes between those of the search, and ones that fill no block.
  std::vector<Shape> shapes = {
      shape("prefill", {1, 6, 384, head_size}),
      shape("causal", {1, 6, 333, head_size}),
      shape("prefill", {2, 4, 197, head_size}),
      shape("causal", {1, 4, 1500, head_size}),
      // Few rows, below and above where the crossover may be.
      shape("decode", {1, 8, 2, 1000, head_size}),
      shape("decode", {1, 14, 2, 1000, head_size}),
      shape("decode", {2, 11, 1, 1000, head_size}),
      shape("decode", {2, 18, 1, 1000, head_size}),
  };
  for (const Shape& s : bench_shapes) {
    if (s.is_attention() && s.has("tune") && s.attention().d_k == head_size) shapes.push_back(s);
  }
  return shapes;
}

std::vector<Shape> gemm_search() {
  return {
      shape("gemm", {768, 768, 768}),   // in L2 and L3: every block size takes part
      shape("gemm", {192, 1536, 512}),  // wide: a linear layer on a short prompt
      shape("gemm", {1024, 128, 512}),  // narrow
      shape("gemm", {256, 256, 256}),   // small: a block is the whole problem
  };
}

std::vector<Shape> gemm_held_out(const std::vector<Shape>& bench_shapes) {
  std::vector<Shape> shapes = {
      shape("gemm", {300, 500, 700}),  // fill no block
      shape("gemm", {127, 129, 131}),
      // Few rows, below and above where the crossover may be.
      shape("gemm", {5, 1000, 1000}),
      shape("gemm", {11, 1500, 700}),
      shape("gemm", {18, 1000, 1000}),
      shape("gemm", {28, 1000, 1500}),
  };
  for (const Shape& s : bench_shapes) {
    if (s.operation == bench::Operation::gemm && s.has("tune")) shapes.push_back(s);
  }
  return shapes;
}

std::vector<Shape> of_program(const std::vector<Shape>& traced, std::int64_t head_size) {
  constexpr std::size_t kMost = 12;  // of them the search takes a few, the judgement all
  // Roughly seconds, before any is measured: what matters is which are many times the others.
  const auto cost = [](const Shape& s) { return s.flops() * 2e-11 + s.bytes() * 1e-10 + 1e-6; };
  const auto class_of = [](const Shape& s) {
    const std::int64_t depth = std::max(s.attention().d_k, s.attention().d_v);
    const auto at = std::lower_bound(config::kHeadSizes.begin(), config::kHeadSizes.end(), depth);
    return at == config::kHeadSizes.end() ? -1 : *at;
  };
  const auto octave = [](std::int64_t n) {
    return std::to_string(
        std::bit_width(static_cast<std::uint64_t>(n - 1)));  // ..., 513 to 1024, ...
  };
  struct Group {
    Shape largest;
    double cost = 0;
  };
  std::map<std::string, Group> groups;
  for (const Shape& s : traced) {
    if (s.operation == bench::Operation::layer) continue;
    if ((s.is_attention() ? class_of(s) : 0) != head_size) continue;
    std::string key = s.name;
    if (s.is_attention()) {
      const bench::AttentionSizes a = s.attention();
      key = std::to_string(static_cast<int>(s.operation));
      for (const std::int64_t n : {a.batch, a.heads, a.kv_heads, a.d_k, a.d_v})
        key += "," + std::to_string(n);
      key += "," + octave(a.seq_q) + "," + octave(a.seq_kv);
      // Of what follows, numbers are lengths.
      for (std::size_t i = std::min(s.name.find('/', s.name.find('/') + 1), s.name.size());
           i < s.name.size(); ++i) {
        const char c = s.name[i];
        if (c == '/' || (c >= 'a' && c <= 'z')) key += c;
      }
    }
    Group& group = groups[key];
    const double own = cost(s) * static_cast<double>(std::max<std::int64_t>(s.calls, 1));
    if (group.cost == 0 || cost(s) > cost(group.largest)) group.largest = s;
    group.cost += own;
  }
  std::vector<Group> sorted;
  for (const auto& [key, group] : groups) sorted.push_back(group);
  std::sort(sorted.begin(), sorted.end(),
            [](const Group& a, const Group& b) { return a.cost > b.cost; });
  sorted.resize(std::min(sorted.size(), kMost));
  std::vector<Shape> shapes;
  for (const Group& group : sorted) {
    shapes.push_back(group.largest);
    shapes.back().calls = std::max<std::int64_t>(1, std::llround(group.cost / cost(group.largest)));
  }
  return shapes;
}

double time_weight(const Shape& shape, double seconds) {
  return shape.calls > 0 ? static_cast<double>(shape.calls) * seconds : 1.0;
}

const std::vector<std::size_t>& few_rows() {
  static const std::vector<std::size_t> rows = {1,  2,  3,  4,  6,  8,  10,  12, 16,
                                                20, 24, 32, 48, 64, 96, 128, 192};
  return rows;
}

// The query heads of one key head are rows of the same tile, so a group is rows.
std::vector<Shape> attention_with_rows(std::size_t rows, std::int64_t head_size) {
  return {shape("decode", {1, static_cast<std::int64_t>(rows), 1, 512, head_size})};
}

// b of 4 MiB comes from L2 or L3, of 16 MiB from L3 or memory: packing it costs more there.
std::vector<Shape> gemm_with_rows(std::size_t rows) {
  const auto m = static_cast<std::int64_t>(rows);
  return {shape("gemm", {m, 1024, 1024}), shape("gemm", {m, 2048, 2048})};
}

}  // namespace rapt::tune
