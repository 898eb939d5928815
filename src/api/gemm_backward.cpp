// gemm_backward(): check, and a few calls of gemm().
#include <utility>

#include "problem/check.hpp"
#include "rapt/gemm.hpp"

namespace rapt {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using tiles::Index;

// x [batch..., m, k], y [batch..., k, n], z [batch..., m, n].
struct Product {
  tiles::Batch batch;
  Index m, n, k;
  tiles::Array<const float> x, y;
  tiles::Array<float> z;

  // z is the sum over this batch axis.
  bool summed(int axis) const { return batch.extent[axis] != 1 && z.batch_stride[axis] == 0; }

  // The same without this batch axis, at a position of it.
  Product at(int axis, Index position) const {
    Product p = *this;
    const auto move = [&](auto& array) {
      if (position > 0 && array) array.data += position * array.batch_stride[axis];
      for (int i = axis; i + 1 < batch.axes; ++i) array.batch_stride[i] = array.batch_stride[i + 1];
    };
    move(p.x);
    move(p.y);
    move(p.z);
    for (int i = axis; i + 1 < batch.axes; ++i) p.batch.extent[i] = batch.extent[i + 1];
    --p.batch.axes;
    return p;
  }

  template <class RowAxis, class ColumnAxis, class T>
  View<T, RowAxis, ColumnAxis> view(const tiles::Array<T>& array, Index rows, Index columns) const {
    std::int64_t extents[kMaxBatchAxes + 2], strides[kMaxBatchAxes + 2];
    int n = 0;
    for (; n < batch.axes; ++n) {
      extents[n] = batch.extent[n];
      strides[n] = array.batch_stride[n];
    }
    extents[n] = rows;
    strides[n++] = array.row_stride;
    extents[n] = columns;
    strides[n++] = array.column_stride;
    const auto rank = static_cast<std::size_t>(n);
    return {array.data, extents, rank, strides, rank};
  }
};

template <class T>
tiles::Array<T> transposed(tiles::Array<T> array) {
  std::swap(array.row_stride, array.column_stride);
  return array;
}

void add_products(const Product& p, float alpha, float beta, const Executor* executor) {
  for (int axis = 0; axis < p.batch.axes; ++axis) {
    if (!p.summed(axis)) continue;
    for (Index i = 0; i < p.batch.extent[axis]; ++i)
      add_products(p.at(axis, i), alpha, i == 0 ? beta : 1.0f, executor);
    return;
  }
  gemm(p.view<Row, Inner>(p.x, p.m, p.k), p.view<Inner, Column>(p.y, p.k, p.n),
       p.view<Row, Column>(p.z, p.m, p.n), {.alpha = alpha, .beta = beta, .executor = executor});
}

// z = alpha x y, where z is wanted, summed over the batch axes along which z does not move. Where x
// and y go on in the next batch element, this only makes their common axis longer; otherwise one
// product is added for each element.
void sum_products(Product p, float alpha, const Executor* executor) {
  if (!p.z) return;
  for (int axis = p.batch.axes; axis-- > 0;) {
    if (!p.summed(axis)) continue;
    const bool goes_on = p.x.batch_stride[axis] == p.k * p.x.column_stride &&
                         p.y.batch_stride[axis] == p.k * p.y.row_stride;
    if (!goes_on && p.batch.extent[axis] > 0) continue;
    const Index k = p.k * p.batch.extent[axis];  // 0: z = 0
    p = p.at(axis, 0);
    p.k = k;
  }
  add_products(p, alpha, 0.0f, executor);
}

}  // namespace

void gemm_backward(View<const float, Row, Inner> a, View<const float, Inner, Column> b,
                   View<const float, Row, Column> grad_c, View<float, Row, Inner> grad_a,
                   View<float, Inner, Column> grad_b, const GemmBackwardOptions& options) {
  const problem::GemmBackwardProblem p =
      problem::check_gemm_backward(a, b, grad_c, grad_a, grad_b, options);
  sum_products({p.batch, p.m, p.k, p.n, p.grad_c, transposed(p.b), p.grad_a}, options.alpha,
               options.executor);
  sum_products({p.batch, p.k, p.n, p.m, transposed(p.a), p.grad_c, p.grad_b}, options.alpha,
               options.executor);
  constexpr float kOne = 1;
  tiles::Array<const float> ones;  // [1, m], every element the same
  ones.data = &kOne;
  sum_products({p.batch, 1, p.n, p.m, ones, p.grad_c, p.grad_bias}, 1.0f, options.executor);
}

}  // namespace rapt
