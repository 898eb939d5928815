// Bounds: u = 2^-24. A sum of n products of magnitude S is off by at most g(n) S, where g is the
// smaller of the proven n u and the probabilistic 6 sqrt(n) u (Higham and Mary 2019). A score that
// is off by r makes its weight off by the factor e^r, that is by about r.
#include "expected.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace rapt::bench {
namespace {

constexpr double kU = 0x1p-24;
constexpr double kExpError = 2 * kU;  // one ULP
constexpr std::int64_t kBlockKv =
    64;  // keys of one step of an online softmax: no fewer than this is sensible
constexpr double kSecondOrder = 1.01;  // products of two errors
constexpr int kRoundings = 2;  // of a number, before it is summed: by its scale, and another one

double g(std::int64_t n) {
  const double terms = static_cast<double>(n);
  return std::min(terms * kU / (1 - terms * kU), 6 * std::sqrt(terms) * kU);
}

// Sums of an online softmax over n keys: the sum itself and one rescale per block.
double g_softmax(std::int64_t n) {
  const std::int64_t blocks = (n + kBlockKv - 1) / kBlockKv;
  return g(n + blocks) + static_cast<double>(blocks) * (kExpError + 2 * kU);
}

// A few of n rows: the first, the last, and some between that lie at different places of a block.
std::vector<std::int64_t> sample(std::int64_t n) {
  std::vector<std::int64_t> rows = {0, n / 3 + 5, n / 2, 3 * n / 4 + 1, n - 2, n - 1};
  std::erase_if(rows, [n](std::int64_t row) { return row < 0 || row >= n; });
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

// Softmax of scores in place; on return r[j] is the error of p[j] relative to p[j], given the error
// that r[j] had as that of the score.
void softmax(std::vector<double>& s, std::vector<double>& r) {
  const double max = *std::max_element(s.begin(), s.end());
  double sum = 0;
  for (std::size_t j = 0; j < s.size(); ++j) {
    r[j] += 2 * kU * std::abs(s[j]) + kU * std::abs(s[j] - max) + kExpError;
    sum += s[j] = std::exp(s[j] - max);
  }
  for (double& p : s) p /= sum;
}

// What storing a number costs, to the nearest: half the distance of two neighbours.
double rounding(Type type, double number) {
  if (type == Type::bf16) return 0x1p-8 * std::abs(number);
  if (type == Type::f16) return std::max(0x1p-11 * std::abs(number), 0x1p-25);
  return 0;
}

}  // namespace

Expected expected_gemm(const Shape& shape, const GemmOperands& operands, double between) {
  const Modifiers& m = shape.modifiers;
  const GemmSizes s = shape.gemm();
  // Of element [row, column] in a dense matrix of the shape, or of its transpose.
  const auto in = [](std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t columns,
                     bool transposed) {
    return transposed ? column * rows + row : row * columns + column;
  };
  Expected expected;
  std::vector<double> c(static_cast<std::size_t>(s.n)), magnitude(c.size());
  for (const std::int64_t row : sample(m.batch * s.m)) {
    const std::int64_t batch = row / s.m, i = row % s.m;
    const std::int64_t b_first = m.one_b ? 0 : batch * s.k * s.n;
    std::fill(c.begin(), c.end(), 0.0);
    std::fill(magnitude.begin(), magnitude.end(), 0.0);
    for (std::int64_t x = 0; x < s.k; ++x) {
      const double factor = operands.a[batch * s.m * s.k + in(i, x, s.m, s.k, m.transposed_a)];
      for (std::int64_t column = 0; column < s.n; ++column) {
        const std::int64_t at = b_first + in(x, column, s.k, s.n, m.transposed_b);
        const double b = m.type == Type::int8
                             ? double{operands.b_scales[column]} *
                                   reinterpret_cast<const std::int8_t*>(operands.b.data)[at]
                             : operands.b.at(at, 0);
        c[static_cast<std::size_t>(column)] += factor * b;
        magnitude[static_cast<std::size_t>(column)] += std::abs(factor * b);
      }
    }
    for (std::int64_t column = 0; column < s.n; ++column) {
      const auto at = static_cast<std::size_t>(column);
      const double before = m.beta ? 1.0 : 0.0;
      const double bias = operands.bias == nullptr ? 0.0 : double{operands.bias[column]};
      double value = c[at] + before + bias;
      double bound = g(s.k + 2 + 2 * kRoundings) * (magnitude[at] + before + std::abs(bias)) +
                     between * magnitude[at];
      if (m.activation == Activation::relu) value = std::max(value, 0.0);
      if (m.activation == Activation::gelu) {
        // Its slope is below 1.13; 8 u are its own error.
        bound = 1.13 * bound + 8 * kU * std::abs(value);
        value = value / 2 * (1 + std::erf(value / std::sqrt(2.0)));
      }
      expected.push_back(
          {batch * s.m * s.n + in(i, column, s.m, s.n, m.transposed_c), value, bound});
    }
  }
  return expected;
}

Expected expected_attention(const AttentionLayout& layout, const AttentionArrays& arrays,
                            double between) {
  Expected expected;
  const Shape& shape = layout.shape();
  const Modifiers& m = shape.modifiers;
  const AttentionSizes sizes = shape.attention();
  const double scale = 1 / std::sqrt(static_cast<double>(sizes.d_k));
  // Weights may be rounded, see RoundWeights; what is divided by their sum is not.
  const bool all_bf16 = arrays.q.type == Type::bf16 && arrays.k.type == Type::bf16 &&
                        arrays.v.type == Type::bf16 && arrays.out.type == Type::bf16;
  const double rounded = all_bf16 ? 0x1p-8 : 0;
  for (const std::int64_t row : sample(sizes.batch * sizes.heads * sizes.seq_q)) {
    const std::int64_t batch = row / sizes.seq_q / sizes.heads;
    const std::int64_t head = row / sizes.seq_q % sizes.heads;
    const std::int64_t kv_head = head / (sizes.heads / sizes.kv_heads);
    if (shape.queries(batch) == 0) continue;
    const std::int64_t i = row % sizes.seq_q * shape.queries(batch) / sizes.seq_q;
    const std::int64_t q_row = layout.q_row(batch, head, i);

    // Scores p and the error r of each; the sink is the last, and has no key.
    std::vector<double> p, r;
    std::vector<std::int64_t> keys;
    for (std::int64_t key = 0; key < shape.keys(batch); ++key) {
      if (!layout.attended(batch, head, i, key)) continue;
      const std::int64_t k_row = layout.kv_row(batch, kv_head, key);
      double dot = 0, magnitude = 0;
      for (std::int64_t d = 0; d < sizes.d_k; ++d) {
        const double product = arrays.q.at(q_row, d) * arrays.k.at(k_row, d);
        dot += product;
        magnitude += std::abs(product);
      }
      double score = scale * dot;
      double error = scale * g(sizes.d_k + kRoundings) * magnitude;
      if (m.softcap) {
        constexpr double kCap = AttentionLayout::kSoftcap;
        score = kCap * std::tanh(score / kCap);  // its slope is 1 at most
        error += 8 * kU * std::abs(score);
      }
      const double bias = layout.bias(batch, head, i, key);
      score += bias;
      error += 4 * kU * (std::abs(bias) + std::abs(score));
      keys.push_back(key);
      p.push_back(score);
      r.push_back(error + between * (1 + std::abs(score)));
    }
    if (m.sinks) {
      p.push_back(layout.sink(head));
      r.push_back(0);
    }
    if (!p.empty()) softmax(p, r);

    double sum_error = 0;
    for (std::size_t at = 0; at < p.size(); ++at) sum_error += r[at] * p[at];
    std::vector<double> out(static_cast<std::size_t>(sizes.d_v)), magnitude(out.size()),
        moved(out.size());
    for (std::size_t at = 0; at < keys.size(); ++at) {
      const std::int64_t v_row = layout.kv_row(batch, kv_head, keys[at]);
      for (std::size_t d = 0; d < out.size(); ++d) {
        const double product = p[at] * arrays.v.at(v_row, static_cast<std::int64_t>(d));
        out[d] += product;
        magnitude[d] += std::abs(product);
        moved[d] += r[at] * std::abs(product);
      }
    }
    const double g_sums = g_softmax(static_cast<std::int64_t>(p.size()) + 1) + kRoundings * kU;
    for (std::size_t d = 0; d < out.size(); ++d) {
      const double computed = moved[d] + rounded * magnitude[d] + std::abs(out[d]) * sum_error +
                              g_sums * (magnitude[d] + std::abs(out[d])) +
                              3 * kU * std::abs(out[d]);
      expected.push_back({q_row * sizes.d_v + static_cast<std::int64_t>(d), out[d],
                          kSecondOrder * computed + rounding(arrays.out.type, out[d])});
    }
  }
  return expected;
}

// No key and no value is computed: q_i . (x_j w_k) = (w_k q_i) . x_j, and sum_j p_j (x_j w_v) is
// (sum_j p_j x_j) w_v. Names ending in _size are the same sums of absolute values.
Expected expected_layer(const LayerSizes& sizes, const float* tokens, const LayerWeights& weights) {
  Expected expected;
  const std::int64_t e_n = sizes.embedding, depth = sizes.depth, seq = sizes.seq;
  const double scale = 1 / std::sqrt(static_cast<double>(depth));
  const double g_project = g(e_n + 2);
  using Row = std::vector<double>;
  const auto zeros = [](std::int64_t n) { return Row(static_cast<std::size_t>(n)); };

  for (const std::int64_t row : sample(sizes.batch * seq)) {
    const float* x = tokens + row / seq * seq * e_n;  // [seq, embedding] of this batch element
    const float* x_i = tokens + row * e_n;
    Row result = zeros(e_n), bound = zeros(e_n);
    for (std::int64_t head = 0; head < sizes.heads; ++head) {
      const double* w_q = weights.q + head * e_n * depth;
      const double* w_k = weights.k + head * e_n * depth;
      const double* w_v = weights.v + head * e_n * depth;
      const double* w_o = weights.output + head * depth * e_n;

      Row q = zeros(depth), q_size = zeros(depth);
      for (std::int64_t e = 0; e < e_n; ++e) {
        for (std::int64_t d = 0; d < depth; ++d) {
          const double product = x_i[e] * w_q[e * depth + d];
          q[static_cast<std::size_t>(d)] += product;
          q_size[static_cast<std::size_t>(d)] += std::abs(product);
        }
      }
      Row wq = zeros(e_n), wq_size = zeros(e_n);  // w_k q_i
      for (std::int64_t e = 0; e < e_n; ++e) {
        for (std::int64_t d = 0; d < depth; ++d) {
          wq[static_cast<std::size_t>(e)] += w_k[e * depth + d] * q[static_cast<std::size_t>(d)];
          wq_size[static_cast<std::size_t>(e)] +=
              std::abs(w_k[e * depth + d]) * q_size[static_cast<std::size_t>(d)];
        }
      }
      Row p = zeros(seq), r = zeros(seq);
      for (std::int64_t j = 0; j < seq; ++j) {
        double dot = 0, size = 0;
        for (std::int64_t e = 0; e < e_n; ++e) {
          dot += x[j * e_n + e] * wq[static_cast<std::size_t>(e)];
          size += std::abs(x[j * e_n + e]) * wq_size[static_cast<std::size_t>(e)];
        }
        p[static_cast<std::size_t>(j)] = scale * dot;
        r[static_cast<std::size_t>(j)] = scale * (2 * g_project + g(depth + 2)) * size;
      }
      softmax(p, r);

      Row px = zeros(e_n), px_size = zeros(e_n), px_moved = zeros(e_n);  // sum_j p_j x_j
      double sum_error = 0;
      for (std::int64_t j = 0; j < seq; ++j) {
        const double p_j = p[static_cast<std::size_t>(j)], r_j = r[static_cast<std::size_t>(j)];
        sum_error += p_j * r_j;
        for (std::int64_t e = 0; e < e_n; ++e) {
          const double product = p_j * x[j * e_n + e];
          px[static_cast<std::size_t>(e)] += product;
          px_size[static_cast<std::size_t>(e)] += std::abs(product);
          px_moved[static_cast<std::size_t>(e)] += r_j * std::abs(product);
        }
      }
      for (std::int64_t d = 0; d < depth; ++d) {
        double out = 0, size = 0, moved = 0;
        for (std::int64_t e = 0; e < e_n; ++e) {
          const double w = w_v[e * depth + d];
          out += px[static_cast<std::size_t>(e)] * w;
          size += px_size[static_cast<std::size_t>(e)] * std::abs(w);
          moved += px_moved[static_cast<std::size_t>(e)] * std::abs(w);
        }
        const double out_error = moved + std::abs(out) * sum_error +
                                 (g_softmax(seq) + g_project) * (size + std::abs(out));
        for (std::int64_t e = 0; e < e_n; ++e) {
          const double w = w_o[d * e_n + e];
          result[static_cast<std::size_t>(e)] += out * w;
          bound[static_cast<std::size_t>(e)] +=
              (out_error + g(sizes.heads * depth + 2) * std::abs(out)) * std::abs(w);
        }
      }
    }
    for (std::int64_t e = 0; e < e_n; ++e) {
      expected.push_back({row * e_n + e, result[static_cast<std::size_t>(e)],
                          kSecondOrder * bound[static_cast<std::size_t>(e)]});
    }
  }
  return expected;
}

std::string compare(const Expected& expected, Type type, const void* result) {
  const StoredRows numbers{type, 1, static_cast<std::byte*>(const_cast<void*>(result))};
  for (const ExpectedElement& element : expected) {
    const double got = numbers.at(element.at, 0);
    if (!(std::abs(got - element.value) <= element.bound)) {  // NaN is wrong too
      char sentence[160];
      std::snprintf(sentence, sizeof sentence,
                    "element %lld of the result is %.9g, and should be %.9g within %.2g",
                    static_cast<long long>(element.at), got, element.value, element.bound);
      return sentence;
    }
  }
  return {};
}

}  // namespace rapt::bench
