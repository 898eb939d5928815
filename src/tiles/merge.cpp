#include "tiles/merge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tiles/stored.hpp"

namespace rapt::tiles {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// sum_i exp(lse_i), the largest taken out: so weights add up to 1 however large it is.
struct Total {
  double largest, sum;
  double lse() const { return largest + std::log(sum); }  // of one part: its own, log 1 being 0
  float weight(double lse) const {
    // The first test keeps -inf - -inf from being NaN.
    return lse == -kInfinity ? 0.0f : static_cast<float>(std::exp(lse - largest) / sum);
  }
};

template <class LseOf>
Total total_of(std::size_t parts, const LseOf& lse_of) {
  double largest = -kInfinity;
  for (std::size_t i = 0; i < parts; ++i) {
    if (std::isnan(lse_of(i))) return {lse_of(i), 1};
    largest = std::max(largest, lse_of(i));
  }
  if (std::isinf(largest)) return {largest, 1};
  double sum = 0;
  for (std::size_t i = 0; i < parts; ++i) sum += std::exp(lse_of(i) - largest);
  return {largest, sum};
}

}  // namespace

void run_row(const MergeProblem& p, const kernels::Kernels& kernels, Index row) {
  const Index query = row % p.seq_q, head = row / p.seq_q % p.heads, b = row / p.seq_q / p.heads;
  const auto at = [&](const auto& array) {
    return p.batch.element(array, b) + head * array.head_stride + query * array.row_stride;
  };
  const auto lse_of = [&](std::size_t i) -> double { return *at(p.parts[i].lse); };
  const Total total = total_of(p.parts.size(), lse_of);

  // Everything is read before anything is written: the result may lie where a part lay.
  float sum[kMaxDepth], x[kMaxDepth];
  bool empty = true;
  for (std::size_t i = 0; i < p.parts.size(); ++i) {
    const float weight = total.weight(lse_of(i));
    if (weight == 0) continue;
    read_row(kernels, p.parts[i].out, at(p.parts[i].out), p.d_v, x);
    // The first is not added to 0, which would take the sign of a -0.
    for (Index d = 0; d < p.d_v; ++d) sum[d] = empty ? weight * x[d] : sum[d] + weight * x[d];
    empty = false;
  }
  if (empty) std::fill_n(sum, p.d_v, 0.0f);
  write_row(kernels, p.out, sum, p.d_v, at(p.out));
  if (p.lse) *at(p.lse) = static_cast<float>(total.lse());
}

}  // namespace rapt::tiles
