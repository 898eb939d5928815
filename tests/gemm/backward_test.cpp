// The gradients of a matrix product: random ones against sums in f64, on every target, in any
// layout and with any broadcast; where they are not wanted; and every wrong input.
#include <gtest/gtest.h>

#include <cmath>

#include "rapt/rapt.hpp"
#include "support/executors.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

// What gemm_backward() gives, in guarded memory, and what it must give.
struct ProductGradients {
  explicit ProductGradients(const GemmCase& c)
      : data(c), a(data.a.extents()), b(data.b.extents()), bias({c.n}) {
    Random random(c.seed + 1);
    const auto layout = [&](const Tensor<float>& like) {
      return random_layout(random, static_cast<int>(like.extents().size()), false);
    };
    a = Tensor<float>(data.a.extents(), layout(data.a));
    b = Tensor<float>(data.b.extents(), layout(data.b));
    data.c.fill([&](std::int64_t) {
      return c.integers ? static_cast<float>(random.between(-16, 16))
                        : static_cast<float>(random.normal());
    });
    data.c.seal();
  }

  void run(const Executor* executor = nullptr) {
    for (auto* grad : {&a, &b, &bias}) grad->reset();
    gemm_backward(data.a_view(), data.b_view(), data.c_view(), a.view<Row, Inner>(),
                  b.view<Inner, Column>(),
                  {.alpha = data.of.alpha, .grad_bias = bias.view<Column>(), .executor = executor});
    for (const auto* grad : {&a, &b, &bias}) EXPECT_TRUE(grad->gaps_unchanged());
    for (const auto* input : {&data.a, &data.b, &data.c}) EXPECT_TRUE(input->unchanged());
  }

  // Every gradient element is a sum of products over the batch: sum and sum of magnitudes.
  struct Sums {
    std::vector<double> value, magnitude;
    std::int64_t terms = 0;
    explicit Sums(const Tensor<float>& of)
        : value(static_cast<std::size_t>(of.size())), magnitude(value.size()) {}
    void add(std::int64_t at, double x) {
      value[static_cast<std::size_t>(at)] += x;
      magnitude[static_cast<std::size_t>(at)] += std::abs(x);
      ++terms;
    }
  };

  void expect_right() const {
    const GemmCase& c = data.of;
    Sums da(a), db(b), dbias(bias);
    std::int64_t element = 0;
    for_each_batch(data.c_view(), [&](const Batch& batch) {
      // The number of this batch element in an array that may be broadcast.
      const auto number = [&](const Tensor<float>& of) {
        const auto axes = of.extents().size() - 2;
        std::int64_t n = 0;
        for (std::size_t i = 0; i < axes; ++i) {
          const std::int64_t extent = of.extents()[i];
          n = n * extent +
              (extent == 1 ? 0 : batch.position[static_cast<std::size_t>(batch.axes) - axes + i]);
        }
        return n;
      };
      const std::int64_t of_a = number(data.a) * c.m * c.k, of_b = number(data.b) * c.k * c.n;
      for (std::int64_t i = 0; i < c.m; ++i) {
        for (std::int64_t j = 0; j < c.n; ++j) {
          const double g = data.c[(element * c.m + i) * c.n + j];
          dbias.add(j, g);
          for (std::int64_t x = 0; x < c.k; ++x) {
            da.add(of_a + i * c.k + x, c.alpha * g * data.b[of_b + x * c.n + j]);
            db.add(of_b + x * c.n + j, c.alpha * g * data.a[of_a + i * c.k + x]);
          }
        }
      }
      ++element;
    });
    const auto compare = [&](const char* name, const Tensor<float>& got, const Sums& want) {
      for (std::int64_t n = 0; n < got.size(); ++n) {
        const auto at = static_cast<std::size_t>(n);
        const double terms = static_cast<double>(want.terms) / static_cast<double>(got.size());
        const double error = sum_error(terms + 4);
        ASSERT_LE(std::abs(got[n] - want.value[at]), error * want.magnitude[at])
            << name << " " << n << ": " << c.describe();
        if (c.integers && c.alpha == 1) {
          ASSERT_EQ(got[n], want.value[at]) << name << " " << n;
        }
      }
    };
    compare("grad_a", a, da);
    compare("grad_b", b, db);
    compare("grad_bias", bias, dbias);
  }

  GemmData data;
  Tensor<float> a, b, bias;
};

GemmCase with_f32_weights(GemmCase c) {
  c.a_type = c.b_type = Type::f32;
  return c;
}

TEST(GemmBackward, AgreesWithItsSums) {
  Seeds(91, cases(300)).for_each([](std::uint64_t seed) {
    ProductGradients gradients(with_f32_weights(GemmCase::random(seed, 30)));
    for_each_way({small_packed(1), small_packed(16, 1), small_direct(8, 2)}, [&] {
      gradients.run();
      gradients.expect_right();
    });
  });
}

// Weights under a batch of rows, as layers have them: the sum over all rows is one product where
// they follow each other in memory, else one for each batch element.
TEST(GemmBackward, OfWeightsIsASumOverTheBatch) {
  for (bool dense : {true, false}) {
    GemmCase c;
    c.batch = {2, 3};
    c.b_broadcast = 2;
    c.m = 37;
    c.n = 19;
    c.k = 23;
    c.dense = dense;
    ProductGradients gradients(c);
    for_each_target([&] {
      gradients.run(&serial_executor());
      gradients.expect_right();
      const auto a = gradients.a.values(), b = gradients.b.values();
      const ThreadExecutor threads(3);
      gradients.run(&threads);
      EXPECT_TRUE(same_bits(a, gradients.a.values()));
      EXPECT_TRUE(same_bits(b, gradients.b.values()));
    });
  }
}

TEST(GemmBackward, OfNothingIsZero) {
  const std::vector<float> some(64, 1.0f);
  std::vector<float> grad(64, 7.0f);
  const auto expect_zeros = [&](std::size_t n) {
    for (std::size_t i = 0; i < grad.size(); ++i) EXPECT_EQ(grad[i], i < n ? 0.0f : 7.0f) << i;
    grad.assign(64, 7.0f);
  };
  // No batch elements, no rows: the weights [3, 4] have no effect.
  gemm_backward({some.data(), {0, 5, 3}}, {some.data(), {3, 4}}, {some.data(), {0, 5, 4}}, {},
                {grad.data(), {3, 4}});
  expect_zeros(12);
  gemm_backward({some.data(), {2, 0, 3}}, {some.data(), {3, 4}}, {some.data(), {2, 0, 4}}, {}, {},
                {.grad_bias = {grad.data(), {4}}});
  expect_zeros(4);
  // No columns: a has none.
  gemm_backward({some.data(), {5, 3}}, {some.data(), {3, 0}}, {some.data(), {5, 0}},
                {grad.data(), {5, 3}}, {});
  expect_zeros(15);
}

TEST(GemmBackwardErrors, NameTheAxisAndBothValues) {
  const std::vector<float> some(256, 1.0f);
  std::vector<float> grad(256, 7.0f);
  const auto expect = [&](ErrorCode code, const std::string& sentence,
                          View<const float, Row, Inner> a, View<const float, Inner, Column> b,
                          View<const float, Row, Column> grad_c, View<float, Row, Inner> grad_a,
                          View<float, Inner, Column> grad_b, View<float, Column> grad_bias = {}) {
    try {
      gemm_backward(a, b, grad_c, grad_a, grad_b, {.grad_bias = grad_bias});
      ADD_FAILURE() << "no error, but expected: " << sentence;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_EQ(error.what(), sentence);
    }
    EXPECT_EQ(grad, std::vector<float>(256, 7.0f));
  };
  const float* const x = some.data();
  float* const d = grad.data();
  constexpr auto kMismatch = ErrorCode::extent_mismatch;
  expect(kMismatch, "axis k: a has 3, but b has 4", {x, {5, 3}}, {x, {4, 7}}, {x, {5, 7}}, {}, {});
  expect(kMismatch, "axis m: a has 5, but grad_c has 6", {x, {5, 3}}, {x, {3, 7}}, {x, {6, 7}}, {},
         {});
  expect(kMismatch, "axis n: b has 7, but grad_c has 8", {x, {5, 3}}, {x, {3, 7}}, {x, {5, 8}}, {},
         {});
  expect(kMismatch, "axis m: a has 5, but grad_a has 6", {x, {5, 3}}, {x, {3, 7}}, {x, {5, 7}},
         {d, {6, 3}}, {d + 100, {3, 7}});
  expect(kMismatch, "axis k: b has 3, but grad_b has 2", {x, {5, 3}}, {x, {3, 7}}, {x, {5, 7}},
         {d, {5, 3}}, {d + 100, {2, 7}});
  expect(kMismatch, "axis n: grad_bias has 6, but grad_c has 7", {x, {5, 3}}, {x, {3, 7}},
         {x, {5, 7}}, {d, {5, 3}}, {}, {d, {6}});
  expect(ErrorCode::wrong_rank, "batch axes: b has 0, but grad_b has 1", {x, {2, 5, 3}},
         {x, {3, 7}}, {x, {2, 5, 7}}, {}, {d, {2, 3, 7}});
  expect(kMismatch, "axis batch 0: a has 3, but grad_c has 2", {x, {3, 5, 3}}, {x, {3, 7}},
         {x, {2, 5, 7}}, {}, {d, {3, 7}});
  expect(ErrorCode::bad_value,
         "the stride of axis k of grad_b is 0, but an output's elements must lie apart: extent 3",
         {x, {5, 3}}, {x, {3, 7}}, {x, {5, 7}}, {}, {d, {3, 7}, {0, 1}});
  expect(ErrorCode::null_data, "grad_c has 35 elements but its data is null", {x, {5, 3}},
         {x, {3, 7}}, {nullptr, {5, 7}}, {}, {d, {3, 7}});
}

}  // namespace
}  // namespace rapt::tests
