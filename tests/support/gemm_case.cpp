// Drawing a matrix product, filling it, running it, checking it.
#include "support/gemm_case.hpp"

#include <limits>
#include <sstream>

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using Sizes = std::vector<std::int64_t>;

Sizes matrix(Sizes batch, int broadcast, std::int64_t rows, std::int64_t columns) {
  if (broadcast == 2) batch.clear();
  if (broadcast == 1 && !batch.empty()) batch.back() = 1;
  batch.push_back(rows);
  batch.push_back(columns);
  return batch;
}

Layout layout(const GemmCase& of, Random& random, std::size_t rank, bool input, bool transposed) {
  if (!of.dense) return random_layout(random, static_cast<int>(rank), input);
  Layout layout;
  layout.edge = random.percent(50) ? Edge::end : Edge::start;
  if (!transposed) return layout;
  for (int i = 0; i < static_cast<int>(rank); ++i) layout.order.push_back(i);
  std::swap(layout.order[rank - 1], layout.order[rank - 2]);
  return layout;
}

Tensor<float> make(const GemmCase& of, Random& random, const Sizes& sizes, bool input,
                   bool transposed) {
  return Tensor<float>(sizes, layout(of, random, sizes.size(), input, transposed));
}

std::int64_t size(Random& random, std::int64_t largest) {
  const std::int64_t edge = random.pick<std::int64_t>({6, 8, 12, 14, 16, 28, 32, 48, 64, 96});
  const std::int64_t n = random.percent(30) ? random.between(1, std::min<std::int64_t>(largest, 5))
                         : random.percent(50) ? edge + random.between(-1, 1)
                                              : random.between(1, largest);
  return std::clamp<std::int64_t>(n, 1, largest);
}

}  // namespace

GemmCase GemmCase::random(std::uint64_t seed, std::int64_t largest) {
  Random random(seed);
  GemmCase g;
  g.seed = random.bits();
  for (std::int64_t i = random.percent(50) ? 0 : random.between(1, 3); i > 0; --i)
    g.batch.push_back(random.between(1, 3));
  if (random.percent(40)) g.a_broadcast = static_cast<int>(random.between(0, 2));
  if (random.percent(60)) g.b_broadcast = static_cast<int>(random.between(0, 2));
  g.m = size(random, largest);
  g.n = size(random, 2 * largest);
  g.k = random.percent(3) ? 0 : size(random, largest);
  if (random.percent(40))
    g.alpha = random.pick({2.0f, -1.0f, 0.5f, 0.0f, static_cast<float>(random.normal())});
  if (random.percent(40))
    g.beta = random.pick({1.0f, -1.0f, 0.5f, static_cast<float>(random.normal())});
  g.bias = random.percent(40);
  if (random.percent(40)) g.activation = random.percent(50) ? Activation::relu : Activation::gelu;
  g.integers = random.percent(40) && g.activation != Activation::gelu;
  g.dense = random.percent(50);
  g.a_transposed = random.percent(40);
  g.b_transposed = random.percent(40);
  g.c_transposed = random.percent(30);
  if (random.percent(40)) g.b_type = random.pick({Type::bf16, Type::f16, Type::int8});
  if (random.percent(40)) g.a_type = random.pick({Type::bf16, Type::f16});
  if (random.percent(25)) g.a_type = g.b_type = Type::bf16;
  return g;
}

std::string GemmCase::describe() const {
  std::ostringstream text;
  text << "batch [";
  for (std::int64_t x : batch) text << " " << x;
  text << " ] m " << m << " n " << n << " k " << k << " alpha " << alpha << " beta " << beta
       << (bias ? " bias" : "") << " activation " << static_cast<int>(activation)
       << (integers ? " integers" : "");
  if (a_broadcast != 0) text << " a broadcast " << a_broadcast;
  if (b_broadcast != 0) text << " b broadcast " << b_broadcast;
  constexpr const char* kTypes[] = {"f32", "bf16", "f16", "int8"};
  text << " a " << kTypes[static_cast<int>(a_type)] << " b " << kTypes[static_cast<int>(b_type)];
  if (dense) {
    text << " dense" << (a_transposed ? " a^T" : "") << (b_transposed ? " b^T" : "")
         << (c_transposed ? " c^T" : "");
  }
  return text.str();
}

GemmData::GemmData(const GemmCase& from) : GemmData(from, Random(from.seed)) {}

GemmData::GemmData(const GemmCase& g, Random random)
    : of(g),
      a(make(g, random, matrix(g.batch, g.a_broadcast, g.m, g.k), true, g.a_transposed)),
      b(make(g, random, matrix(g.batch, g.b_broadcast, g.k, g.n), true, g.b_transposed)),
      c(make(g, random, matrix(g.batch, 0, g.m, g.n), false, g.c_transposed)),
      bias({g.n}, random_layout(random, 1, true)),
      b_scales_({g.n}) {
  const auto value = [&](std::int64_t) {
    return g.integers ? static_cast<float>(random.between(-16, 16))
                      : static_cast<float>(random.normal());
  };
  a.fill(value);
  b.fill(value);
  bias.fill(value);
  c.fill(value);
  before_ = c.values();
  // Storage lies as its floats would.
  const auto storage = [&](const Tensor<float>& floats, bool transposed) {
    return layout(g, random, floats.extents().size(), true, transposed);
  };
  b_scales_.fill([&](std::int64_t) {
    return g.integers ? 0.5f : to_float(to_bf16(static_cast<float>(random.uniform())));
  });
  if (g.b_type == Type::int8) {
    int8_b_.emplace(b.extents(), storage(b, g.b_transposed));
    for (std::int64_t i = 0; i < b.size(); ++i) {
      (*int8_b_)[i] = static_cast<std::int8_t>(random.between(-128, 127));
      b[i] = static_cast<float>((*int8_b_)[i]) * b_scales_[i % g.n];
    }
  } else {
    stored_b_.emplace(g.b_type, b, storage(b, g.b_transposed));
    stored_b_->round();
  }
  stored_a_.emplace(g.a_type, a, storage(a, g.a_transposed));
  stored_a_->round();
  for (auto* tensor : {&a, &b, &bias}) tensor->seal();
}

AnyView<const std::byte, Row, Inner> GemmData::stored_a() const {
  return stored_a_->view<AnyView<const std::byte, Row, Inner>, Row, Inner>();
}

AnyView<const std::byte, Inner, Column> GemmData::stored_b() const {
  if (int8_b_) return int8_b_->view<Inner, Column>();
  return stored_b_->view<AnyView<const std::byte, Inner, Column>, Inner, Column>();
}

GemmOptions GemmData::options() const {
  GemmOptions options;
  options.alpha = of.alpha;
  options.beta = of.beta;
  options.activation = of.activation;
  if (of.bias) options.bias = bias.view<Column>();
  return options;
}

GemmOptions GemmData::stored_options() const {
  GemmOptions given = options();
  if (int8_b_) given.b_scales = b_scales_.view<Column>();
  return given;
}

void GemmData::prepare() {
  c.reset();  // poison: NaN, which beta = 0 must not read
  if (of.beta != 0) c.fill([&](std::int64_t i) { return before_[static_cast<std::size_t>(i)]; });
  c.seal();
}

void GemmData::run(const Executor* executor) {
  prepare();
  GemmOptions given = stored_options();
  given.executor = executor;
  gemm(stored_a(), stored_b(), c_view(), given);
  EXPECT_TRUE(c.gaps_unchanged()) << of.describe();
  for (const auto* tensor : {&a, &b, &bias}) EXPECT_TRUE(tensor->unchanged()) << of.describe();
}

std::vector<ExpectedGemm> GemmData::expect() {
  prepare();
  std::vector<ExpectedGemm> expected;
  reference::for_each_batch(c_view(), [&](const reference::Batch& batch) {
    expected.push_back(expect_gemm(batch_element(a_view(), batch), batch_element(b_view(), batch),
                                   View<const float, Row, Column>(batch_element(c_view(), batch)),
                                   options()));
  });
  return expected;
}

void GemmData::check(const std::vector<ExpectedGemm>& expected) const {
  Comparison comparison;
  std::size_t element = 0;
  const bool exact = of.integers &&
                     of.alpha * 2 == static_cast<float>(static_cast<int>(of.alpha * 2)) &&
                     of.beta * 2 == static_cast<float>(static_cast<int>(of.beta * 2));
  reference::for_each_batch(c_view(), [&](const reference::Batch& batch) {
    const ExpectedGemm& want = expected[element++];
    const auto got = batch_element(c_view(), batch);
    for (reference::At<Row> i : reference::along<Row>(got)) {
      for (reference::At<Column> j : reference::along<Column>(got)) {
        // A zero may have either sign.
        const double value = at(want.c, i, j) + 0.0;
        comparison.add(at(got, i, j) + 0.0f, value, exact ? 0 : at(want.bound, i, j), 0,
                       comparison.count());
      }
    }
  });
  EXPECT_TRUE(comparison.within()) << of.describe();
}

}  // namespace rapt::tests
