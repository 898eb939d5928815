#include "problems.hpp"

#include <utility>

namespace rapt::tune {
namespace {

using bench::Operation;

Shape shape(Operation operation, std::vector<std::int64_t> sizes) {
  Shape shape;
  shape.operation = operation;
  for (const bench::OperationName& known : bench::kOperations) {
    if (known.operation == operation) shape.name = known.name;
  }
  char separator = '/';
  for (const std::int64_t size : sizes) {
    shape.name += separator + std::to_string(size);
    separator = ',';
  }
  shape.sizes = std::move(sizes);
  return shape;
}

}  // namespace

std::vector<Shape> attention_search(std::int64_t head_size) {
  return {
      shape(Operation::prefill,
            {1, 1, 1024, head_size}),  // long: blocks of k and v pass by many times
      shape(Operation::causal,
            {1, 2, 512, head_size}),  // where a long block does work that is masked
      shape(Operation::prefill, {1, 4, 128, head_size}),  // short: a block is the whole problem
      shape(Operation::decode,
            {1, 8, 2, 2048, head_size}),  // few rows: the other algorithm's blocks of keys
  };
}

std::vector<Shape> attention_held_out(std::int64_t head_size,
                                      const std::vector<Shape>& bench_shapes) {
  // Sizes between those of the search, and ones that fill no block.
  std::vector<Shape> shapes = {
      shape(Operation::prefill, {1, 6, 384, head_size}),
      shape(Operation::causal, {1, 6, 333, head_size}),
      shape(Operation::prefill, {2, 4, 197, head_size}),
      shape(Operation::causal, {1, 4, 1500, head_size}),
      // Few rows, below and above where the crossover may be.
      shape(Operation::decode, {1, 8, 2, 1000, head_size}),
      shape(Operation::decode, {1, 14, 2, 1000, head_size}),
      shape(Operation::decode, {2, 11, 1, 1000, head_size}),
      shape(Operation::decode, {2, 18, 1, 1000, head_size}),
  };
  for (const Shape& s : bench_shapes) {
    if (s.is_attention() && s.has("tune") && s.attention().depth == head_size) shapes.push_back(s);
  }
  return shapes;
}

std::vector<Shape> gemm_search() {
  return {
      shape(Operation::gemm, {768, 768, 768}),   // in L2 and L3: every block size takes part
      shape(Operation::gemm, {192, 1536, 512}),  // wide: a linear layer on a short prompt
      shape(Operation::gemm, {1024, 128, 512}),  // narrow
      shape(Operation::gemm, {256, 256, 256}),   // small: a block is the whole problem
  };
}

std::vector<Shape> gemm_held_out(const std::vector<Shape>& bench_shapes) {
  std::vector<Shape> shapes = {
      shape(Operation::gemm, {300, 500, 700}),  // fill no block
      shape(Operation::gemm, {127, 129, 131}),
      // Few rows, below and above where the crossover may be.
      shape(Operation::gemm, {5, 1000, 1000}),
      shape(Operation::gemm, {11, 1500, 700}),
      shape(Operation::gemm, {18, 1000, 1000}),
      shape(Operation::gemm, {28, 1000, 1500}),
  };
  for (const Shape& s : bench_shapes) {
    if (s.operation == Operation::gemm && s.has("tune")) shapes.push_back(s);
  }
  return shapes;
}

const std::vector<std::size_t>& few_rows() {
  static const std::vector<std::size_t> rows = {1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64};
  return rows;
}

// The query heads of one key head are rows of the same tile, so a group is rows.
std::vector<Shape> attention_with_rows(std::size_t rows, std::int64_t head_size) {
  return {shape(Operation::decode, {1, static_cast<std::int64_t>(rows), 1, 512, head_size})};
}

// b of 4 MiB comes from L2 or L3, of 16 MiB from L3 or memory: packing it costs more there.
std::vector<Shape> gemm_with_rows(std::size_t rows) {
  const auto m = static_cast<std::int64_t>(rows);
  return {shape(Operation::gemm, {m, 1024, 1024}), shape(Operation::gemm, {m, 2048, 2048})};
}

}  // namespace rapt::tune
