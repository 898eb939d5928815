// Attention, step by step, every sum over a named axis. The steps are those of reference.hpp.
#include "reference/reference.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace rapt::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::int64_t chunk_of(std::int64_t position, const AttentionOptions& options) {
  return static_cast<std::int64_t>(
      std::floor(static_cast<double>(position) / static_cast<double>(options.chunk)));
}

}  // namespace

// Step 1.
template <class Real>
double product(const Problem<Real>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const At<KvHead> g = problem.kv_head(h);
  double dot = 0;  // sum over d_k
  for (At<DepthK> d : along<DepthK>(problem.q))
    dot += double{at(problem.q, h, i, d)} * at(problem.k, g, j, d);
  return problem.scale() * dot;
}

// Steps 1 to 3.
template <class Real>
double score(const Problem<Real>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const AttentionOptions& options = problem.options;
  double s = product(problem, h, i, j);                                           // 1
  if (options.softcap > 0) s = options.softcap * std::tanh(s / options.softcap);  // 2
  if (options.alibi_slopes) {                                                     // 3
    s += double{at(options.alibi_slopes, h)} * static_cast<double>(j.value - problem.position(i));
  }
  if (options.bias) s += at(options.bias, h, i, j);  // 3
  return s;
}

// Step 4. A pair is attended when every kind of mask attends it; each kind is one line here.
template <class Real>
bool attended(const Problem<Real>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const AttentionOptions& options = problem.options;
  const std::int64_t x = problem.position(i);
  if (j.value >= options.prefix) {
    if (options.causal && j.value > x) return false;
    if (options.window_left >= 0 && j.value < x - options.window_left) return false;
    if (options.window_right >= 0 && j.value > x + options.window_right) return false;
    if (options.chunk > 0 && chunk_of(x, options) != chunk_of(j.value, options)) return false;
  }
  if (options.q_segments && at(options.q_segments, i) != at(options.kv_segments, j)) return false;
  const std::int64_t draft = j.value - (problem.keys().extent - options.tree_keys);
  if (options.tree && draft >= 0) {
    const std::uint64_t word = at(options.tree, i, At<Word>{draft / 64});
    if ((word >> (draft % 64) & 1) == 0) return false;
  }
  if (options.mask && !at(options.mask, h, i, j)) return false;
  if (options.bias && at(options.bias, h, i, j) == -kInfinity) return false;
  return true;
}

// Step 5: softmax over the keys of one row (h, i), with the row's maximum subtracted. What is not
// attended is never looked at.
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

      const double sink = problem.options.sinks ? at(problem.options.sinks, h) : -kInfinity;
      double max = sink, sum = 0;
      for (double s : scores) max = std::max(max, s);
      for (double s : scores) sum += std::exp(s - max);
      if (sink > -kInfinity) sum += std::exp(sink - max);
      at(result.lse, h, i) = keys.empty() ? sink : max + std::log(sum);

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

namespace {

// Philox 4x32-10 (Salmon et al. 2011): ten rounds, each of two products of 32 by 32 bits.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0],
                        b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

}  // namespace

template <class Real>
double kept(const Problem<Real>& problem, At<Head> h, At<Query> i, At<Key> j) {
  const Dropout& dropout = problem.options.dropout;
  if (dropout.probability == 0) return 1;
  const std::int64_t row = problem.element * problem.heads().extent + h.value;
  const auto words = philox(
      {static_cast<std::uint32_t>(j.value / 4), static_cast<std::uint32_t>(i.value),
       static_cast<std::uint32_t>(row), dropout.offset},
      {static_cast<std::uint32_t>(dropout.seed), static_cast<std::uint32_t>(dropout.seed >> 32)});
  const double probability = dropout.probability;
  const bool dropped =
      words[static_cast<std::size_t>(j.value % 4)] < std::floor(probability * 0x1p32);
  return dropped ? 0 : 1 / (1 - probability);
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
        const double p = at(salience.weights, h, i, j) * kept(problem, h, i, j);
        for (At<DepthV> d : along<DepthV>(problem.v))
          at(out, h, i, d) += p * at(problem.v, g, j, d);
      }
    }
  }
  return out;
}

Problem<float> problem_at(QView q, KView k, VView v, AttentionOptions options, const Batch& batch) {
  options.mask = batch_element(options.mask, batch);
  options.bias = batch_element(options.bias, batch);
  options.alibi_slopes = batch_element(options.alibi_slopes, batch);
  options.sinks = batch_element(options.sinks, batch);
  options.q_segments = batch_element(options.q_segments, batch);
  options.kv_segments = batch_element(options.kv_segments, batch);
  options.tree = batch_element(options.tree, batch);
  if (options.q_offsets) options.q_offset = at(batch_element(options.q_offsets, batch));
  options.q_offsets = {};
  // No key is further away than this, and sums of a few such positions do not overflow.
  constexpr std::int64_t kFar = std::int64_t{1} << 60;
  if (options.q_offset) options.q_offset = std::clamp(*options.q_offset, -kFar, kFar);
  options.window_left = std::min(options.window_left, kFar);
  options.window_right = std::min(options.window_right, kFar);
  k = batch_element(k, batch);
  v = batch_element(v, batch);
  if (options.kv_lengths) {
    const std::int64_t length = at(batch_element(options.kv_lengths, batch));
    const std::int64_t capacity = k.extent<Key>();
    options.mask = first_of<Key>(options.mask, length, capacity);
    options.bias = first_of<Key>(options.bias, length, capacity);
    options.kv_segments = first_of<Key>(options.kv_segments, length, capacity);
    options.kv_lengths = {};
    k = first_of<Key>(k, length, capacity);
    v = first_of<Key>(v, length, capacity);
  }
  return {batch_element(q, batch), k, v, options, number_of(q, batch)};
}

void salience_map(QView q, KView k, View<float, Head, Query, Key> result,
                  const AttentionOptions& options, const RowActivation& activation) {
  for_each_batch(q, [&](const Batch& batch) {
    const auto problem = problem_at(q, k, {}, options, batch);
    const Salience map = salience(problem, activation);
    const auto written = batch_element(result, batch);
    for (At<Head> h : problem.heads()) {
      for (At<Query> i : problem.queries()) {
        for (At<Key> j : along<Key>(k)) {  // those beyond a length do not exist: 0
          const bool exists = j.value < problem.keys().extent;
          at(written, h, i, j) = exists ? static_cast<float>(at(map.weights, h, i, j)) : 0;
        }
      }
    }
  });
}

template bool attended(const Problem<float>&, At<Head>, At<Query>, At<Key>);
template bool attended(const Problem<double>&, At<Head>, At<Query>, At<Key>);
template double product(const Problem<float>&, At<Head>, At<Query>, At<Key>);
template double product(const Problem<double>&, At<Head>, At<Query>, At<Key>);
template double kept(const Problem<float>&, At<Head>, At<Query>, At<Key>);
template double kept(const Problem<double>&, At<Head>, At<Query>, At<Key>);
template double score(const Problem<float>&, At<Head>, At<Query>, At<Key>);
template Salience salience(const Problem<float>&, const RowActivation&);
template Salience salience(const Problem<double>&, const RowActivation&);
template Array<Head, Query, DepthV> attention(const Problem<float>&, const Salience&);
template Array<Head, Query, DepthV> attention(const Problem<double>&, const Salience&);

}  // namespace rapt::reference
