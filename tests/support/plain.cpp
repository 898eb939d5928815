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

}  // namespace rapt::tests
