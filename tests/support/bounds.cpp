// The bounds, recomputed from the problem with magnitudes in place of values.
#include "support/bounds.hpp"

#include "support/stored.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace rapt::tests {

using namespace rapt::reference;

double sum_error(double n) { return std::min(n * kU / (1 - n * kU), 6 * std::sqrt(n) * kU); }

double exp_error(double x) { return std::exp2(-22.4) + std::abs(x) * std::exp2(-22.8); }

namespace {

// One attended pair.
struct Pair {
  At<Key> j;
  double s;     // score
  double p;     // weight
  double kept;  // its factor, of dropout
  double r;     // error of s, and of exp, as a relative error of p
};

double magnitude(const Problem<float>& problem, At<Head> h, At<Query> i, At<Key> j) {
  double sum = 0;
  for (At<DepthK> d : along<DepthK>(problem.q)) {
    sum += std::abs(double{at(problem.q, h, i, d)} * at(problem.k, problem.kv_head(h), j, d));
  }
  return std::abs(problem.scale()) * sum;
}

}  // namespace

double score_error(const Problem<float>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const AttentionOptions& options = problem.options;
  const auto depth_k = static_cast<double>(along<DepthK>(problem.q).extent);
  const double s = score(problem, h, i, j);
  // Roundings of the scale and its product, or of a softcap: 5 around tanh, and its own error of 4
  // units in the last place; and of what is added.
  double capped = product(problem, h, i, j);
  if (options.softcap > 0) capped = options.softcap * std::tanh(capped / options.softcap);
  const double distance = static_cast<double>(j.value - problem.position(i));
  const double alibi = options.alibi_slopes ? at(options.alibi_slopes, h) * distance : 0.0;
  const double bias = options.bias ? at(options.bias, h, i, j) : 0.0;
  return sum_error(depth_k + 2) * magnitude(problem, h, i, j) +
         std::abs(problem.scale()) * depth_k * kSmallest +
         (options.softcap > 0 ? 13 : 2) * kU * std::abs(capped) +
         (options.alibi_slopes ? 3 : 0) * kU * std::abs(alibi) +
         (options.alibi_slopes && options.bias ? kU * std::abs(bias) : 0) +
         (options.alibi_slopes || options.bias ? kU * std::abs(s) : 0);
}

ExpectedAttention expect_attention(const Problem<float>& problem, bool rounded) {
  const Salience map = salience(problem);
  const auto depth = along<DepthV>(problem.v);
  ExpectedAttention expected{attention(problem, map),
                             {problem.heads(), problem.queries(), depth},
                             {problem.heads(), problem.queries(), depth},
                             map.lse,
                             {problem.heads(), problem.queries()}};
  const AttentionOptions& options = problem.options;
  std::vector<Pair> pairs;
  for (At<Head> h : problem.heads()) {
    for (At<Query> i : problem.queries()) {
      pairs.clear();
      const double sink =
          options.sinks ? at(options.sinks, h) : -std::numeric_limits<double>::infinity();
      double max = sink;
      double rises =
          0;  // of the running maximum: counted key by key, so no block size can have more
      for (At<Key> j : problem.keys()) {
        if (!attended(problem, h, i, j)) continue;
        const double s = score(problem, h, i, j);
        pairs.push_back({j, s, at(map.weights, h, i, j), kept(problem, h, i, j), 0});
        if (s > max) max = s, ++rises;
      }
      const auto n = static_cast<double>(pairs.size());
      double mean_r = 0;
      for (Pair& pair : pairs) {
        pair.r = score_error(problem, h, i, pair.j) + kU * (max - pair.s) + exp_error(max - pair.s);
        if (pair.p == 0) pair.r = 0;  // a score of -infinity has no error
        mean_r += pair.p * pair.r;
      }
      if (sink > -std::numeric_limits<double>::infinity()) {
        mean_r += std::exp(sink - at(map.lse, h, i)) * (kU * (max - sink) + exp_error(max - sink));
      }
      // Every key may be a block and a part of its own: n additions inside blocks, n between them,
      // n between parts.
      const double sums = sum_error(3 * n + 1) + (rises + 1) * (exp_error(0) + 2 * kU);
      at(expected.lse_bound, h, i) =
          1.01 * (mean_r + sums) + 2 * kU * (std::abs(max) + std::abs(at(map.lse, h, i)));
      if (pairs.empty()) at(expected.lse_bound, h, i) = 0;
      for (At<DepthV> d : depth) {
        double m = 0, m_r = 0, largest = 0;  // sums over p |v|
        for (const Pair& pair : pairs) {
          const double v =
              pair.kept * std::abs(double{at(problem.v, problem.kv_head(h), pair.j, d)});
          m += pair.p * v;
          m_r += pair.p * pair.r * v;
          largest = std::max(largest, v);
        }
        const double ref = std::abs(at(expected.out, h, i, d));
        if (options.dropout.probability > 0) m_r += 3 * kU * m;  // of the factor and its product
        double bound = 1.01 * (m_r + ref * mean_r + sums * (m + ref) + 2 * kU * ref);
        double floor = kU * ref + (n + 2) * (kSmallest + kSmallestNormal * largest);
        if (rounded) floor += 0x1p-8 * m;
        // Where the result is NaN or infinite only its class is compared.
        if (!std::isfinite(ref)) bound = floor = 0;
        at(expected.bound, h, i, d) = pairs.empty() ? 0 : bound;
        at(expected.floor, h, i, d) = pairs.empty() ? 0 : floor;
      }
    }
  }
  return expected;
}

void compare_out(const ExpectedAttention& expected, const OutView& out, Comparison& comparison,
                 Type type) {
  comparison.add_size(out.extent<DepthV>(), expected.out.extent<DepthV>());
  for (At<Head> h : along<Head>(out)) {
    for (At<Query> i : along<Query>(out)) {
      for (At<DepthV> d : along<DepthV>(out)) {
        const double want = at(expected.out, h, i, d), bound = at(expected.bound, h, i, d);
        const double size = std::isfinite(want) ? std::abs(want) + bound : 0;
        // A small negative number may round to -0.
        const float got = at(out, h, i, d) + (type == Type::f32 ? -0.0f : 0.0f);
        comparison.add(got, want, bound,
                       at(expected.floor, h, i, d) + rounding_of(type) * size + floor_of(type),
                       comparison.count());
      }
    }
  }
}

void compare_lse(const ExpectedAttention& expected, const LseView& lse, Comparison& comparison) {
  for (At<Head> h : along<Head>(lse)) {
    for (At<Query> i : along<Query>(lse)) {
      const double want = at(expected.lse, h, i);
      const double bound = std::isfinite(want) ? at(expected.lse_bound, h, i) : 0;
      comparison.add(at(lse, h, i), want, bound, kU * std::abs(std::isfinite(want) ? want : 0),
                     comparison.count());
    }
  }
}

ExpectedGemm expect_gemm(View<const float, Row, Inner> a, View<const float, Inner, Column> b,
                         View<const float, Row, Column> c, const GemmOptions& options) {
  ExpectedGemm expected{gemm(a, b, c, options), {along<Row>(c), along<Column>(c)}};
  const auto k = static_cast<double>(along<Inner>(a).extent);
  for (At<Row> i : along<Row>(c)) {
    for (At<Column> j : along<Column>(c)) {
      double sum = 0;  // of magnitudes
      for (At<Inner> p : along<Inner>(a)) sum += std::abs(double{at(a, i, p)} * at(b, p, j));
      sum *= std::abs(double{options.alpha});
      const double old = options.beta == 0 ? 0 : std::abs(double{options.beta} * at(c, i, j));
      const double bias = options.bias ? std::abs(double{at(options.bias, j)}) : 0;
      // alpha, beta and the bias add a rounding each of what was gathered so far.
      double bound = sum_error(k + 2) * sum + 2 * kU * (sum + old + bias) + (k + 4) * kSmallest;
      if (options.activation == Activation::gelu) {
        // |gelu'| <= 1.13; the fit of the kernel: 1.2e-7 of the tail, and a few roundings of the
        // result.
        const double x = sum + old + bias;
        bound = 1.13 * bound + 4e-7 * std::min(x, 1.0) + 8 * kU * std::abs(at(expected.c, i, j)) +
                kSmallestNormal * (1 + x);
      }
      const bool finite = std::isfinite(at(expected.c, i, j));
      at(expected.bound, i, j) = finite ? bound + kU * std::abs(at(expected.c, i, j)) : 0;
    }
  }
  return expected;
}

}  // namespace rapt::tests
