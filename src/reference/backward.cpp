// The backward pass of attention, the derivative of each step, last step first. The steps are those
// of reference.hpp.
#include <cmath>

#include "reference/reference.hpp"

namespace rapt::reference {
namespace {

// The extents of the bias, or none.
Array<Head, Query, Key> zeros_like(const BiasView& bias) {
  if (!bias) return {{0}, {0}, {0}};
  return {along<Head>(bias), along<Query>(bias), along<Key>(bias)};
}

}  // namespace

template <class Real>
Gradients backward(const Problem<Real>& problem, const Salience& salience,
                   View<const Real, Head, Query, DepthV> dout, View<const Real, Head, Query> dlse) {
  const auto& [q, k, v, options, element] = problem;
  Gradients d{{along<Head>(q), along<Query>(q), along<DepthK>(q)},
              {along<KvHead>(k), along<Key>(k), along<DepthK>(k)},
              {along<KvHead>(v), along<Key>(v), along<DepthV>(v)},
              zeros_like(options.bias),
              along<Head>(q),
              along<Head>(q)};
  std::vector<At<Key>> keys;  // that this row attends
  std::vector<double> dp;     // [keys]
  for (At<Head> h : problem.heads()) {
    const At<KvHead> g = problem.kv_head(h);
    for (At<Query> i : problem.queries()) {
      keys.clear();
      dp.clear();
      double delta = 0;  // sum over seq_kv of p dp
      for (At<Key> j : problem.keys()) {
        if (!attended(problem, h, i, j)) continue;
        const double p = at(salience.weights, h, i, j), factor = kept(problem, h, i, j);
        double sum = 0;  // over d_v
        for (At<DepthV> x : along<DepthV>(v)) {
          at(d.v, g, j, x) += p * factor * at(dout, h, i, x);  // 6
          sum += double{at(dout, h, i, x)} * at(v, g, j, x);
        }
        keys.push_back(j);
        dp.push_back(factor == 0 ? 0 : factor * sum);  // 6
        delta += p * dp.back();
      }

      const double dlse_i = dlse ? double{at(dlse, h, i)} : 0.0;
      for (std::size_t n = 0; n < keys.size(); ++n) {
        const At<Key> j = keys[n];
        double ds = at(salience.weights, h, i, j) * (dp[n] - delta + dlse_i);              // 5
        if (options.bias) at(d.bias, h, i, j) += ds;                                       // 3
        at(d.alibi_slopes, h) += ds * static_cast<double>(j.value - problem.position(i));  // 3
        if (options.softcap > 0) {                                                         // 2
          const double tanh = std::tanh(product(problem, h, i, j) / options.softcap);
          ds *= 1 - tanh * tanh;
        }
        for (At<DepthK> x : along<DepthK>(q)) {  // 1
          at(d.q, h, i, x) += problem.scale() * ds * at(k, g, j, x);
          at(d.k, g, j, x) += problem.scale() * ds * at(q, h, i, x);
        }
      }
      if (options.sinks && !std::isinf(at(options.sinks, h)))  // 5; where it is -inf there is none
        at(d.sinks, h) +=
            std::exp(at(options.sinks, h) - at(salience.lse, h, i)) * (dlse_i - delta);
    }
  }
  return d;
}

template Gradients backward(const Problem<float>&, const Salience&,
                            View<const float, Head, Query, DepthV>, View<const float, Head, Query>);
template Gradients backward(const Problem<double>&, const Salience&,
                            View<const double, Head, Query, DepthV>,
                            View<const double, Head, Query>);

}  // namespace rapt::reference
