// Random matrix products: sizes, options, layouts and data from one seed, in guarded memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "rapt/gemm.hpp"
#include "support/bounds.hpp"
#include "support/stored.hpp"
#include "support/tensor.hpp"

namespace rapt::tests {

struct GemmCase {
  std::vector<std::int64_t> batch;  // of c
  // How the batch of a and b is broadcast: 0 not at all, 1 its last axis is 1, 2 no batch axes.
  int a_broadcast = 0, b_broadcast = 0;
  std::int64_t m = 1, n = 1, k = 1;
  float alpha = 1, beta = 0;
  bool bias = false;
  Activation activation = Activation::none;
  bool integers = false;
  bool dense = false;  // otherwise random strides, transposed and not
  Type a_type = Type::f32, b_type = Type::f32;
  bool a_transposed = false, b_transposed = false, c_transposed = false;  // of dense ones
  std::uint64_t seed = 1;

  static GemmCase random(std::uint64_t seed, std::int64_t largest = 70);
  std::string describe() const;
};

class GemmData {
 public:
  explicit GemmData(const GemmCase& from);

  View<const float, axis::Row, axis::Inner> a_view() const {
    return a.view<axis::Row, axis::Inner>();
  }
  View<const float, axis::Inner, axis::Column> b_view() const {
    return b.view<axis::Inner, axis::Column>();
  }
  View<float, axis::Row, axis::Column> c_view() const { return c.view<axis::Row, axis::Column>(); }
  GemmOptions options() const;
  AnyView<const std::byte, axis::Row, axis::Inner> stored_a() const;
  AnyView<const std::byte, axis::Inner, axis::Column> stored_b() const;

  GemmOptions stored_options() const;  // beside stored_b()

  // Puts c back to what it was (NaN where beta is 0).
  void prepare();
  // Prepares, calls rapt::gemm, checks that only c was written.
  void run(const Executor* executor = nullptr);

  std::vector<ExpectedGemm> expect();  // one for each batch element
  void check(const std::vector<ExpectedGemm>& expected) const;

  GemmCase of;
  Tensor<float> a, b, c, bias;

 private:
  GemmData(const GemmCase& from, Random random);
  std::vector<float> before_;  // c
  std::optional<StoredTensor> stored_a_, stored_b_;
  std::optional<Tensor<std::int8_t>> int8_b_;
  Tensor<float> b_scales_;  // [n]
};

}  // namespace rapt::tests
