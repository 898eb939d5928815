// The backward pass of the reference against central differences of its forward pass, in f64, over
// all options: the gradient by x is the slope of L = sum(out dout) + sum(lse dlse) along x.
#include <gtest/gtest.h>

#include <cmath>

#include "support/shrink.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

template <class... Axes>
std::int64_t count(const Array<Axes...>& array) {
  return (array.template extent<Axes>() * ...);
}

// Dense copies.
template <class T, class... Axes>
std::vector<T> values(const View<const float, Axes...>& view) {
  const Array<Axes...> shape(along<Axes>(view)...);
  std::vector<T> result;
  for (std::int64_t n = 0; n < count(shape); ++n) {
    std::int64_t rest = n, offset = 0;
    ((offset += rest / shape.template stride<Axes>() * view.template stride<Axes>(),
      rest %= shape.template stride<Axes>()),
     ...);
    result.push_back(static_cast<T>(view.data()[offset]));
  }
  return result;
}
template <class T, class... Axes>
View<const T, Axes...> dense(const std::vector<T>& values, const View<const float, Axes...>& like) {
  return {values.data(), {like.template extent<Axes>()...}};
}

struct Loss {
  double value = 0, magnitude = 0;
  void add(double x) { value += x, magnitude += std::abs(x); }
};

void check_element(const Problem<float>& floats, Random& random) {
  std::vector<double> q = values<double>(floats.q), k = values<double>(floats.k),
                      v = values<double>(floats.v);
  Problem<double> problem{dense(q, floats.q), dense(k, floats.k), dense(v, floats.v),
                          floats.options, floats.element};
  AttentionOptions& options = problem.options;
  std::vector<float> bias, slopes, sinks;
  const auto own = [](auto& copy, auto& view) {
    if (!view) return;
    copy = values<float>(view);
    view = dense(copy, view);
  };
  own(bias, options.bias);
  own(slopes, options.alibi_slopes);
  own(sinks, options.sinks);

  Array<Head, Query, DepthV> dout(problem.heads(), problem.queries(), along<DepthV>(floats.v));
  Array<Head, Query> dlse(problem.heads(), problem.queries());
  for (std::int64_t n = 0; n < count(dout); ++n) dout.data()[n] = random.normal();
  for (std::int64_t n = 0; n < count(dlse); ++n) dlse.data()[n] = random.normal();
  const auto loss = [&] {
    const Salience map = salience(problem);
    const auto out = attention(problem, map);
    Loss sum;
    for (std::int64_t n = 0; n < count(out); ++n) sum.add(out.data()[n] * dout.data()[n]);
    for (std::int64_t n = 0; n < count(dlse); ++n) {
      if (std::isfinite(map.lse.data()[n])) sum.add(map.lse.data()[n] * dlse.data()[n]);
    }
    return sum;
  };
  const Gradients d = backward<double>(problem, salience(problem), dout, dlse);

  const auto expect = [&](const char* what, auto& x, double got, double step) {
    const auto before = x;
    double noise = 0;
    const auto slope = [&](double size) {
      x = static_cast<std::remove_cvref_t<decltype(x)>>(before + size);
      const double most = x;
      const Loss high = loss();
      x = static_cast<std::remove_cvref_t<decltype(x)>>(before - size);
      const double width = most - x;
      const Loss low = loss();
      x = before;
      noise = 1e-14 * (high.magnitude + low.magnitude) / width;
      return (high.value - low.value) / width;
    };
    // How far L is from straight here: the error is a third of what half the step changes.
    const double wide = slope(2 * step), want = slope(step);
    EXPECT_NEAR(got, want, std::abs(wide - want) + 1e-7 * std::abs(want) + noise) << what;
  };
  const auto some = [&](const char* what, auto& values, const double* gradient, double step) {
    const auto n = static_cast<std::int64_t>(values.size());
    for (int times = 0; times < 4 && n > 0; ++times) {
      const std::int64_t at = random.between(0, n - 1);
      auto& x = values[static_cast<std::size_t>(at)];
      if (std::isfinite(x)) expect(what, x, gradient[at], step);
    }
  };
  some("q", q, d.q.data(), 1e-5);
  some("k", k, d.k.data(), 1e-5);
  some("v", v, d.v.data(), 1e-5);
  // Floats, but such steps keep their bits.
  some("bias", bias, d.bias.data(), 0x1p-10);
  some("alibi_slopes", slopes, d.alibi_slopes.data(), 0x1p-13);
  some("sinks", sinks, d.sinks.data(), 0x1p-10);
}

TEST(ReferenceBackward, IsTheSlopeOfTheForwardPass) {
  for_each_case(
      Seeds(71, cases(600)),
      [](std::uint64_t seed) { return with_dropout(AttentionCase::random(seed, 9)); },
      [](const AttentionCase& c) {
        const AttentionData data(c);
        Random random(c.seed);
        data.for_each_element(
            [&](const Batch& batch) { check_element(data.problem(batch), random); });
      });
}

// The gradients of a softmax are those of a mean: they vanish where the row attends one key alone,
// and what a query gives to all its keys sums to 0.
TEST(ReferenceBackward, OfARowSumsToNothing) {
  AttentionCase c;
  c.heads = 6;
  c.kv_heads = 3;
  c.seq_q = 5;
  c.seq_kv = 11;
  c.d_k = 7;
  c.d_v = 13;
  c.bias = Pairs::random;
  const AttentionData data(c);
  const Problem<float> problem = data.problem({});
  const Gradients d =
      backward(problem, salience(problem),
               View<const float, Head, Query, DepthV>(data.q.data(), {6, 5, 13}, {1, 7, 2}),
               View<const float, Head, Query>());
  for (At<Head> h : problem.heads()) {
    for (At<Query> i : problem.queries()) {
      double sum = 0;
      for (At<Key> j : problem.keys()) sum += at(d.bias, h, i, j);
      EXPECT_NEAR(sum, 0, 1e-14);
    }
  }
}

}  // namespace
}  // namespace rapt::tests
