// The plain f32 loops.
#include "support/plain.hpp"

#include <limits>

namespace rapt::tests {

using namespace rapt::reference;

std::vector<float> plain_attention(const Problem<float>& problem) {
  std::vector<float> out, scores;
  std::vector<At<Key>> keys;
  const auto depth = along<DepthV>(problem.v);
  const auto scale = static_cast<float>(problem.scale());
  for (At<Head> h : problem.heads()) {
    const At<KvHead> g = problem.kv_head(h);
    for (At<Query> i : problem.queries()) {
      keys.clear();
      scores.clear();
      float max = -std::numeric_limits<float>::infinity(), sum = 0;
      for (At<Key> j : problem.keys()) {
        if (!attended(problem, h, i, j)) continue;
        float dot = 0;
        for (At<DepthK> d : along<DepthK>(problem.q))
          dot += at(problem.q, h, i, d) * at(problem.k, g, j, d);
        float s = scale * dot;
        if (problem.options.bias) s += at(problem.options.bias, h, i, j);
        keys.push_back(j);
        scores.push_back(s);
        max = std::max(max, s);
      }
      for (float& s : scores) sum += s = std::exp(s - max);
      for (At<DepthV> d : depth) {
        float x = 0;
        for (std::size_t n = 0; n < keys.size(); ++n) x += scores[n] * at(problem.v, g, keys[n], d);
        out.push_back(keys.empty() ? 0.0f : x / sum);
      }
    }
  }
  return out;
}

PlainGradients plain_backward(const Problem<float>& problem,
                              const View<const float, Head, Query, DepthV>& dout) {
  const auto d_k = along<DepthK>(problem.q);
  const auto d_v = along<DepthV>(problem.v);
  const auto scale = static_cast<float>(problem.scale());
  const auto floats = [](std::int64_t n) {
    return std::vector<float>(static_cast<std::size_t>(n));
  };
  const std::int64_t keys = problem.keys().extent, queries = problem.queries().extent;
  PlainGradients d{floats(problem.heads().extent * queries * d_k.extent),
                   floats(problem.k.extent<KvHead>() * keys * d_k.extent),
                   floats(problem.k.extent<KvHead>() * keys * d_v.extent)};
  std::vector<float> p = floats(keys), dp = floats(keys);
  for (At<Head> h : problem.heads()) {
    const At<KvHead> g = problem.kv_head(h);
    for (At<Query> i : problem.queries()) {
      float max = -std::numeric_limits<float>::infinity(), sum = 0, delta = 0;
      for (At<Key> j : problem.keys()) {
        float dot = 0;
        for (At<DepthK> x : d_k) dot += at(problem.q, h, i, x) * at(problem.k, g, j, x);
        const auto n = static_cast<std::size_t>(j.value);
        p[n] = scale * dot;
        max = std::max(max, p[n]);
        dp[n] = 0;
        for (At<DepthV> x : d_v) dp[n] += at(dout, h, i, x) * at(problem.v, g, j, x);
      }
      for (float& weight : p) sum += weight = std::exp(weight - max);
      for (float& weight : p) weight /= sum;
      for (std::size_t n = 0; n < p.size(); ++n) delta += p[n] * dp[n];
      for (At<Key> j : problem.keys()) {
        const auto n = static_cast<std::size_t>(j.value);
        const float ds = p[n] * (dp[n] - delta) * scale;
        for (At<DepthK> x : d_k) {
          d.q[static_cast<std::size_t>((h.value * queries + i.value) * d_k.extent + x.value)] +=
              ds * at(problem.k, g, j, x);
          d.k[static_cast<std::size_t>((g.value * keys + j.value) * d_k.extent + x.value)] +=
              ds * at(problem.q, h, i, x);
        }
        for (At<DepthV> x : d_v) {
          d.v[static_cast<std::size_t>((g.value * keys + j.value) * d_v.extent + x.value)] +=
              p[n] * at(dout, h, i, x);
        }
      }
    }
  }
  return d;
}

}  // namespace rapt::tests
