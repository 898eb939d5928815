// Attention, step by step, every sum over a named axis. The steps are those of reference.hpp.
#include "reference/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rapt::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

// Steps 1 to 3. A softcap will stand between 1 and 3, ALiBi beside the bias.
template <class Real>
double score(const Problem<Real>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const At<KvHead> g = problem.kv_head(h);
  double dot = 0;  // sum over d_k
  for (At<DepthK> d : along<DepthK>(problem.q))
    dot += double{at(problem.q, h, i, d)} * at(problem.k, g, j, d);
  double s = problem.scale() * dot;                                  // 1
  if (problem.options.bias) s += at(problem.options.bias, h, i, j);  // 3: + bias
  return s;
}

// Step 4. A pair is attended when every kind of mask attends it; each kind is one line here.
template <class Real>
bool attended(const Problem<Real>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const AttentionOptions& options = problem.options;
  if (options.causal && j.value > i.value + problem.q_offset()) return false;
  if (options.mask && !at(options.mask, h, i, j)) return false;
  if (options.bias && at(options.bias, h, i, j) == -kInfinity) return false;
  return true;
}

// Step 5: softmax over the keys of one row (h, i), with the row's maximum subtracted. What is not
// attended is never looked at. A sink will be one more score of the row.
template <class Real>
Salience salience(const Problem<Real>& problem, const RowActivation& activation) {
  Salience result{{problem.heads(), problem.queries(), problem.keys()},
                  {problem.heads(), problem.queries()}};
  std::vector<At<Key>> keys;   // that this row attends
  std::vector<double> scores;  // [keys]
  for (At<Head> h : problem.heads()) {
    for (At<Query> i : problem.queries()) {
      keys.clear();
      scores.clear();
      for (At<Key> j : problem.keys()) {
        if (!attended(problem, h, i, j)) continue;
        keys.push_back(j);
        scores.push_back(score(problem, h, i, j));
      }

      double max = -kInfinity, sum = 0;
      for (double s : scores) max = std::max(max, s);
      for (double s : scores) sum += std::exp(s - max);
      at(result.lse, h, i) = keys.empty() ? -kInfinity : max + std::log(sum);

      if (keys.empty()) continue;
      if (activation) {
        activation(scores.data(), static_cast<std::int64_t>(scores.size()));
      } else {
        for (double& s : scores) s = std::exp(s - max) / sum;
      }
      for (std::size_t n = 0; n < keys.size(); ++n) at(result.weights, h, i, keys[n]) = scores[n];
    }
  }
  return result;
}

// Step 6: the weighted mean of the values, over the keys. A select again: NaN in a value that the
// row does not attend stays there.
template <class Real>
Array<Head, Query, DepthV> attention(const Problem<Real>& problem, const Salience& salience) {
  Array<Head, Query, DepthV> out(problem.heads(), problem.queries(), along<DepthV>(problem.v));
  for (At<Head> h : problem.heads()) {
    const At<KvHead> g = problem.kv_head(h);
    for (At<Query> i : problem.queries()) {
      for (At<Key> j : problem.keys()) {
        if (!attended(problem, h, i, j)) continue;
        for (At<DepthV> d : along<DepthV>(problem.v)) {
          at(out, h, i, d) += at(salience.weights, h, i, j) * at(problem.v, g, j, d);
        }
      }
    }
  }
  return out;
}

Problem<float> problem_at(QView q, KView k, VView v, AttentionOptions options, const Batch& batch) {
  options.mask = batch_element(options.mask, batch);
  options.bias = batch_element(options.bias, batch);
  return {batch_element(q, batch), batch_element(k, batch), batch_element(v, batch), options};
}

void salience_map(QView q, KView k, View<float, Head, Query, Key> result,
                  const AttentionOptions& options, const RowActivation& activation) {
  for_each_batch(q, [&](const Batch& batch) {
    const auto problem = problem_at(q, k, {}, options, batch);
    const Salience map = salience(problem, activation);
    const auto written = batch_element(result, batch);
    for (At<Head> h : problem.heads())
      for (At<Query> i : problem.queries())
        for (At<Key> j : problem.keys())
          at(written, h, i, j) = static_cast<float>(at(map.weights, h, i, j));
  });
}

template bool attended(const Problem<float>&, At<Head>, At<Query>, At<Key>);
template double score(const Problem<float>&, At<Head>, At<Query>, At<Key>);
template Salience salience(const Problem<float>&, const RowActivation&);
template Salience salience(const Problem<double>&, const RowActivation&);
template Array<Head, Query, DepthV> attention(const Problem<float>&, const Salience&);
template Array<Head, Query, DepthV> attention(const Problem<double>&, const Salience&);

}  // namespace rapt::reference
