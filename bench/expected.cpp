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

// `rounding`: what the number may be off by on top, independently of others.
struct Number {
  double value, error, rounding = 0;
};

// Of a pair that is attended.
Number score_of(const AttentionLayout& layout, const AttentionArrays& arrays, std::int64_t batch,
                std::int64_t head, std::int64_t query, std::int64_t key, double between) {
  const Modifiers& m = layout.shape().modifiers;
  const AttentionSizes sizes = layout.shape().attention();
  const double scale = 1 / std::sqrt(static_cast<double>(sizes.d_k));
  const std::int64_t q_row = layout.q_row(batch, head, query),
                     k_row = layout.kv_row(batch, head / (sizes.heads / sizes.kv_heads), key);
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
  const double bias = layout.bias(batch, head, query, key);
  score += bias;
  error += 4 * kU * (std::abs(bias) + std::abs(score));
  return {score, error, between * (1 + std::abs(score))};
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
      const double factor =
          operands.a.at(batch * s.m * s.k + in(i, x, s.m, s.k, m.transposed_a), 0);
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

namespace {

// How far weights, and gradients of scores, may be rounded: see RoundWeights.
double rounded_weights(const AttentionArrays& arrays) {
  const bool all_bf16 = arrays.q.type == Type::bf16 && arrays.k.type == Type::bf16 &&
                        arrays.v.type == Type::bf16 && arrays.out.type == Type::bf16;
  return all_bf16 ? 0x1p-8 : 0;
}

}  // namespace

Expected expected_attention(const AttentionLayout& layout, const AttentionArrays& arrays,
                            double between) {
  Expected expected;
  const Shape& shape = layout.shape();
  const Modifiers& m = shape.modifiers;
  const AttentionSizes sizes = shape.attention();
  // What is divided by the sum of the weights is not rounded.
  const double rounded = rounded_weights(arrays);
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
      const Number score = score_of(layout, arrays, batch, head, i, key, between);
      keys.push_back(key);
      p.push_back(score.value);
      r.push_back(score.error + score.rounding);
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
      const double kept = layout.kept(batch, head, i, keys[at]);
      for (std::size_t d = 0; d < out.size(); ++d) {
        const double product = kept * p[at] * arrays.v.at(v_row, static_cast<std::int64_t>(d));
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

namespace {

// Sums of numbers with errors: what a sum of f32 numbers may be off by.
struct Sum {
  double value = 0, error = 0, magnitude = 0, roundings = 0, squares = 0;
  std::int64_t terms = 0;
  void add(const Number& x, double factor = 1) {
    value += x.value * factor;
    error += x.error * std::abs(factor);
    magnitude += std::abs(x.value * factor);
    const double rounding = x.rounding * std::abs(factor);
    roundings += rounding;
    squares += rounding * rounding;
    ++terms;
  }
  double bound(Type type) const {
    return kSecondOrder * (error + (g(terms + 4) + 2 * kU) * (magnitude + error) +
                           std::min(roundings, 6 * std::sqrt(squares))) +
           rounding(type, value) + static_cast<double>(terms) * 0x1p-126;
  }
};

// The backward pass, a pair at a time.
class BackwardPairs {
 public:
  BackwardPairs(const AttentionLayout& layout, const BackwardArrays& arrays, bool own_forward,
                double between)
      : layout_(layout),
        arrays_(arrays),
        sizes_(layout.shape().attention()),
        own_forward_(own_forward),
        between_(between),
        rounded_(rounded_weights(arrays.forward)) {
    for (std::int64_t row = 0; own_forward && row < layout.kv_rows(); ++row)
      largest_norm_ = std::max(largest_norm_, norm(arrays.forward.k, row, sizes_.d_k));
  }

  // delta of a row, less the gradient of its lse; and what its lse may be off by.
  struct Row {
    Number delta;
    double lse, lse_error;
  };
  Row row(std::int64_t batch, std::int64_t head, std::int64_t query) const {
    const std::int64_t q_row = layout_.q_row(batch, head, query);
    Row of{{-layout_.dlse(q_row), 0}, layout_.lse(q_row), 0};
    double magnitude = std::abs(of.delta.value), out_error = 0, squares = 0;
    if (own_forward_) {
      // Of a score, of which all but the largest are smaller; of many that are rounded, some up and
      // some down.
      const double q = norm(arrays_.forward.q, q_row, sizes_.d_k);
      const double largest = q * largest_norm_ / std::sqrt(static_cast<double>(sizes_.d_k));
      const auto n = static_cast<double>(layout_.shape().keys_of(batch, query).count());
      const double many = std::min(1.0, 6 / std::sqrt(std::max(n, 1.0)));
      const double rounded = between_ * many;
      of.lse_error = (g(sizes_.d_k + kRoundings) + 8 * kU) * largest + 2 * kU * std::abs(of.lse) +
                     g_softmax(sizes_.seq_kv);
      out_error = (2 * of.lse_error + g_softmax(sizes_.seq_kv)) * kLargestValue +
                  2 * (rounded + rounded_ * many);
      of.lse_error += rounded * (1 + largest);
    }
    for (std::int64_t d = 0; d < sizes_.d_v; ++d) {
      const double out = arrays_.forward.out.at(q_row, d), dout = arrays_.dout.at(q_row, d);
      of.delta.value += dout * out;
      magnitude += std::abs(dout * out);
      if (!own_forward_) continue;
      const double error = dout * (out_error + 2 * rounding(arrays_.forward.out.type, out));
      squares += error * error;
    }
    of.delta.error += g(sizes_.d_v + 3) * magnitude + 6 * std::sqrt(squares);
    return of;
  }

  struct Pair {
    Number weight;  // after dropout
    Number dscore;  // of the score
    Number ds;      // of the product q k, but for the scale
  };
  Pair pair(const Row& row, std::int64_t batch, std::int64_t head, std::int64_t query,
            std::int64_t key) const {
    const Modifiers& m = layout_.shape().modifiers;
    const std::int64_t q_row = layout_.q_row(batch, head, query);
    const std::int64_t kv_row = layout_.kv_row(batch, head / group(), key);
    const Number s = score_of(layout_, arrays_.forward, batch, head, query, key, between_);
    const double kept = layout_.kept(batch, head, query, key);
    const double p = std::exp(s.value - row.lse);
    const double p_error = p * (s.error + row.lse_error +
                                3 * kU * (std::abs(s.value) + std::abs(row.lse)) + kExpError);
    const double p_rounding = p * (s.rounding + between_);
    double dp = 0, magnitude = 0;
    for (std::int64_t d = 0; d < sizes_.d_v; ++d) {
      const double product = kept * arrays_.dout.at(q_row, d) * arrays_.forward.v.at(kv_row, d);
      dp += product;
      magnitude += std::abs(product);
    }
    const double dp_error = g(sizes_.d_v + 3) * magnitude;
    const double difference = dp - row.delta.value;
    Pair of;
    of.weight = {kept * p, kept * (p_error + 2 * kU * p), kept * (p_rounding + rounded_ * p)};
    of.dscore = {
        p * difference,
        p_error * std::abs(difference) + (p + p_error) * (dp_error + row.delta.error) +
            3 * kU * p * std::abs(difference),
        p_rounding * std::abs(difference) + between_ * p * (std::abs(dp) + std::abs(difference))};
    of.ds = of.dscore;
    if (m.softcap) {
      constexpr double kCap = AttentionLayout::kSoftcap;
      const double tanh = (s.value - layout_.bias(batch, head, query, key)) / kCap;
      const double slope = 1 - tanh * tanh;
      const double slope_error = 2 * std::abs(tanh) * (16 * kU + s.error / kCap) + 2 * kU;
      of.ds = {of.dscore.value * slope,
               of.dscore.error * (slope + slope_error) + std::abs(of.dscore.value) * slope_error,
               of.dscore.rounding + std::abs(of.dscore.value) * 2 * s.rounding / kCap};
    }
    of.ds.rounding += rounded_ * std::abs(of.ds.value);
    return of;
  }

  std::int64_t group() const { return sizes_.heads / sizes_.kv_heads; }

 private:
  static constexpr double kLargestValue = 5;  // of normal numbers, as all values are

  static double norm(const StoredRows& rows, std::int64_t row, std::int64_t depth) {
    double sum = 0;
    for (std::int64_t d = 0; d < depth; ++d) sum += rows.at(row, d) * rows.at(row, d);
    return std::sqrt(sum);
  }

  const AttentionLayout& layout_;
  const BackwardArrays& arrays_;
  const AttentionSizes sizes_;
  const bool own_forward_;
  const double between_, rounded_;
  double largest_norm_ = 0;  // of a key
};

}  // namespace

Expected expected_backward(const AttentionLayout& layout, const BackwardArrays& arrays,
                           bool own_forward, double between) {
  Expected expected;
  const Shape& shape = layout.shape();
  const Modifiers& m = shape.modifiers;
  const AttentionSizes sizes = shape.attention();
  const double scale = 1 / std::sqrt(static_cast<double>(sizes.d_k));
  const BackwardPairs pairs(layout, arrays, own_forward, between);
  const auto add_row = [&](std::size_t result, const StoredRows& of, std::int64_t row,
                           const std::vector<Sum>& sums) {
    for (std::int64_t d = 0; d < of.depth; ++d) {
      const Sum& sum = sums[static_cast<std::size_t>(d)];
      expected.push_back({row * of.depth + d, sum.value, sum.bound(of.type), result});
    }
  };

  for (const std::int64_t row : sample(sizes.batch * sizes.heads * sizes.seq_q)) {
    const std::int64_t batch = row / sizes.seq_q / sizes.heads;
    const std::int64_t head = row / sizes.seq_q % sizes.heads;
    if (shape.queries(batch) == 0) continue;
    const std::int64_t i = row % sizes.seq_q * shape.queries(batch) / sizes.seq_q;
    const BackwardPairs::Row of_row = pairs.row(batch, head, i);
    std::vector<Sum> dq(static_cast<std::size_t>(sizes.d_k));
    for (std::int64_t key = 0; key < shape.keys(batch); ++key) {
      if (!layout.attended(batch, head, i, key)) continue;
      const Number ds = pairs.pair(of_row, batch, head, i, key).ds;
      const std::int64_t k_row = layout.kv_row(batch, head / pairs.group(), key);
      for (std::size_t d = 0; d < dq.size(); ++d)
        dq[d].add(ds, scale * arrays.forward.k.at(k_row, static_cast<std::int64_t>(d)));
    }
    add_row(0, arrays.dq, layout.q_row(batch, head, i), dq);
  }

  for (const std::int64_t row : sample(sizes.batch * sizes.kv_heads * sizes.seq_kv)) {
    const std::int64_t batch = row / sizes.seq_kv / sizes.kv_heads;
    const std::int64_t kv_head = row / sizes.seq_kv % sizes.kv_heads;
    if (shape.keys(batch) == 0) continue;
    const std::int64_t key = row % sizes.seq_kv * shape.keys(batch) / sizes.seq_kv;
    std::vector<Sum> dk(static_cast<std::size_t>(sizes.d_k)),
        dv(static_cast<std::size_t>(sizes.d_v));
    for (std::int64_t head = kv_head * pairs.group(); head < (kv_head + 1) * pairs.group();
         ++head) {
      for (std::int64_t i = 0; i < shape.queries(batch); ++i) {
        if (!layout.attended(batch, head, i, key)) continue;
        const BackwardPairs::Pair pair = pairs.pair(pairs.row(batch, head, i), batch, head, i, key);
        const std::int64_t q_row = layout.q_row(batch, head, i);
        for (std::size_t d = 0; d < dk.size(); ++d)
          dk[d].add(pair.ds, scale * arrays.forward.q.at(q_row, static_cast<std::int64_t>(d)));
        for (std::size_t d = 0; d < dv.size(); ++d)
          dv[d].add(pair.weight, arrays.dout.at(q_row, static_cast<std::int64_t>(d)));
      }
    }
    add_row(1, arrays.dk, layout.kv_row(batch, kv_head, key), dk);
    add_row(2, arrays.dv, layout.kv_row(batch, kv_head, key), dv);
  }

  // What is summed over all that has it.
  const auto add_number = [&](std::size_t result, std::int64_t at, const Sum& sum) {
    expected.push_back({at, sum.value, sum.bound(Type::f32), result});
  };
  const auto within = [](std::int64_t at, std::int64_t one, bool each) {
    return each ? at == one : at >= 0;
  };
  for (const std::int64_t n :
       m.dbias ? sample(sizes.heads * sizes.seq_q) : std::vector<std::int64_t>()) {
    const std::int64_t head = n / sizes.seq_q, i = n % sizes.seq_q;
    const std::int64_t own = n % sizes.batch, key = (n + 1) % sizes.seq_kv;
    if (i >= shape.queries(own)) continue;
    Sum sum;
    for (std::int64_t b = 0; b < sizes.batch; ++b) {
      for (std::int64_t h = 0; h < sizes.heads; ++h) {
        if (!within(b, own, m.packed_q) || !within(h, head, m.bias == Pairs::each)) continue;
        if (i >= shape.queries(b) || key >= shape.keys(b) || !layout.attended(b, h, i, key))
          continue;
        sum.add(pairs.pair(pairs.row(b, h, i), b, h, i, key).dscore);
      }
    }
    add_number(3, static_cast<std::int64_t>(layout.bias_at(own, head, i, key)), sum);
  }
  constexpr double kFewFlops = 1e8;
  const bool few = shape.flops() < kFewFlops;
  for (const std::int64_t head : {std::int64_t{0}, sizes.heads - 1}) {
    Sum slopes, sinks;
    for (std::int64_t b = 0; b < sizes.batch; ++b) {
      for (std::int64_t i = 0; i < shape.queries(b); ++i) {
        if (!m.dsinks && !(m.dalibi && few)) continue;
        const BackwardPairs::Row row = pairs.row(b, head, i);
        for (std::int64_t key = 0; m.dalibi && few && key < shape.keys(b); ++key) {
          if (!layout.attended(b, head, i, key)) continue;
          slopes.add(pairs.pair(row, b, head, i, key).dscore,
                     static_cast<double>(key - i - shape.offset(b)));
        }
        if (!m.dsinks) continue;
        const double sink = layout.sink(head), p = std::exp(sink - row.lse);
        const double p_error =
            p * (row.lse_error + 3 * kU * (std::abs(sink) + std::abs(row.lse)) + kExpError);
        sinks.add({-p * row.delta.value,
                   p_error * std::abs(row.delta.value) + (p + p_error) * row.delta.error});
      }
    }
    if (m.dalibi && few) add_number(4, head, slopes);
    if (m.dsinks) add_number(5, head, sinks);
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

std::string compare(const Expected& expected, std::span<const Result> results) {
  for (const ExpectedElement& element : expected) {
    const Result& result = results[element.result];
    const StoredRows numbers{result.type, 1, reinterpret_cast<std::byte*>(result.memory.data())};
    const double got = numbers.at(element.at, 0);
    if (!(std::abs(got - element.value) <= element.bound)) {  // NaN is wrong too
      char sentence[160];
      std::snprintf(
          sentence, sizeof sentence, "element %lld of %s is %.9g, and should be %.9g within %.2g",
          static_cast<long long>(element.at), result.name, got, element.value, element.bound);
      return sentence;
    }
  }
  return {};
}

std::string compare(const Expected& expected, Type type, const void* result) {
  const Result all[] = {{"the result", type, {static_cast<float*>(const_cast<void*>(result)), 1}}};
  return compare(expected, all);
}

}  // namespace rapt::bench
