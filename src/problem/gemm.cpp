// The checks of the matrix product.
#include "problem/arrays.hpp"
#include "problem/axes.hpp"
#include "problem/check.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

kernels::Finish finish_of(Activation activation) {
  switch (activation) {
    case Activation::none:
      return kernels::Finish::none;
    case Activation::relu:
      return kernels::Finish::relu;
    case Activation::gelu:
      return kernels::Finish::gelu;
  }
  fail(ErrorCode::bad_value,
       {"activation", static_cast<std::int64_t>(activation), "must be none, relu or gelu"});
}

template <class RowAxis, class ColumnAxis, class T>
tiles::Array<T> matrix_of(const View<T, RowAxis, ColumnAxis>& view) {
  tiles::Array<T> array;
  array.data = view.data();
  array.row_stride = view.template stride<RowAxis>();
  array.column_stride = view.template stride<ColumnAxis>();
  return array;
}

// Copies of a and b are padded to whole tiles, either way round: by less than this along each axis.
// The rows of all batch elements may be those of one product.
void copy_fits(const char* name, const char* axis, std::int64_t extent, std::int64_t k) {
  constexpr std::int64_t kPadding = 4 * kernels::kMaxColumns;
  constexpr std::int64_t kSmall = 1 << 28;  // two such extents are far from the limit
  if (extent < kSmall && k < kSmall) return;
  Range range(name, sizeof(float));
  range.axis(Inner::name, k + kPadding, 1);
  range.axis(axis, extent + kPadding, k + kPadding);
}

// And in a storage type.
template <class RowAxis, class ColumnAxis>
tiles::Stored<const std::byte> matrix_of(
    const AnyView<const std::byte, RowAxis, ColumnAxis>& view) {
  const tiles::Index bytes = tiles::bytes_of(view.type());
  tiles::Stored<const std::byte> array;
  array.data = view.data();
  array.type = view.type();
  array.row_stride = view.template stride<RowAxis>() * bytes;
  array.column_stride = view.template stride<ColumnAxis>() * bytes;
  return array;
}

template <class AnyViewOf>
void broadcast_stored(const char* name, const AnyViewOf& view, const tiles::Batch& batch,
                      tiles::Stored<const std::byte>& array) {
  broadcast_batch(name, view, "c", batch, array.batch_stride);
  for (int i = 0; i < batch.axes; ++i) array.batch_stride[i] *= tiles::bytes_of(array.type);
}

}  // namespace

tiles::GemmProblem check_gemm(const AnyView<const std::byte, Row, Inner>& a,
                              const AnyView<const std::byte, Inner, Column>& b,
                              const View<float, Row, Column>& c, const GemmOptions& options) {
  check_memory("a", a, tiles::bytes_of(a.type()));
  check_memory("b", b, tiles::bytes_of(b.type()));
  plain_type("a", a.type());
  if (b.type() == Type::int4)
    fail(ErrorCode::bad_value, {"the type of b", "int4", "must be f32, bf16, f16 or int8"});
  check_output("c", c);
  agree(Inner::name, "a", a.extent<Inner>(), "b", b.extent<Inner>());
  agree(Row::name, "a", a.extent<Row>(), "c", c.extent<Row>());
  agree(Column::name, "b", b.extent<Column>(), "c", c.extent<Column>());

  tiles::GemmProblem p{.batch = flatten_batch(c)};
  p.m = c.extent<Row>();
  p.n = c.extent<Column>();
  p.k = a.extent<Inner>();
  copy_fits("a, a row for each of c,", Row::name, p.batch.size * p.m, p.k);
  copy_fits("b", Column::name, p.n, p.k);
  p.alpha = options.alpha;
  p.beta = options.beta;
  p.a = matrix_of(a);
  p.b = matrix_of(b);
  p.c = matrix_of(c);
  broadcast_stored("a", a, p.batch, p.a);
  broadcast_stored("b", b, p.batch, p.b);
  for (int i = 0; i < c.batch_axes(); ++i) p.c.batch_stride[i] = c.batch_stride(i);
  // k = 0: no elements, and no offsets from a null pointer
  if (p.a.data == nullptr) p.a = {};
  if (p.b.data == nullptr) p.b = {};
  if (options.b_scales) {
    if (b.type() != Type::int8) fail(ErrorCode::bad_value, {"b_scales", "given", "b is not int8"});
    check_memory("b_scales", options.b_scales);
    if (options.b_scales.batch_axes() != 0) {
      fail(ErrorCode::wrong_rank, {"b_scales", std::int64_t{options.b_scales.batch_axes()},
                                   "the scales of b", std::int64_t{0}});
    }
    agree(Column::name, "b_scales", options.b_scales.extent<Column>(), "c", p.n);
    p.b_scale = options.b_scales.data();
    p.b_scale_stride = options.b_scales.stride<Column>();
  }
  if (options.bias) {
    check_memory("bias", options.bias);
    if (options.bias.batch_axes() != 0) {
      fail(ErrorCode::wrong_rank,
           {"bias", std::int64_t{options.bias.batch_axes()}, "a bias", std::int64_t{0}});
    }
    agree(Column::name, "bias", options.bias.extent<Column>(), "c", p.n);
    p.bias = options.bias.data();
    p.bias_stride = options.bias.stride<Column>();
  }
  p.finish = finish_of(options.activation);
  return p;
}

GemmBackwardProblem check_gemm_backward(const View<const float, Row, Inner>& a,
                                        const View<const float, Inner, Column>& b,
                                        const View<const float, Row, Column>& grad_c,
                                        const View<float, Row, Inner>& grad_a,
                                        const View<float, Inner, Column>& grad_b,
                                        const GemmBackwardOptions& options) {
  check_memory("a", a);
  check_memory("b", b);
  check_memory("grad_c", grad_c);
  agree(Inner::name, "a", a.extent<Inner>(), "b", b.extent<Inner>());
  agree(Row::name, "a", a.extent<Row>(), "grad_c", grad_c.extent<Row>());
  agree(Column::name, "b", b.extent<Column>(), "grad_c", grad_c.extent<Column>());

  GemmBackwardProblem p;
  p.batch = flatten_batch(grad_c);
  p.m = grad_c.extent<Row>();
  p.n = grad_c.extent<Column>();
  p.k = a.extent<Inner>();
  copy_fits("a, a row for each of grad_c,", Row::name, p.batch.size * p.m, p.k);
  copy_fits("b", Column::name, p.n, p.k);
  copy_fits("grad_c", Row::name, p.batch.size * p.m, p.n);
  p.a = matrix_of(a);
  p.b = matrix_of(b);
  p.grad_c = matrix_of(grad_c);
  broadcast_batch("a", a, "grad_c", p.batch, p.a.batch_stride);
  broadcast_batch("b", b, "grad_c", p.batch, p.b.batch_stride);
  for (int i = 0; i < p.batch.axes; ++i) p.grad_c.batch_stride[i] = grad_c.batch_stride(i);
  if (grad_a) {
    check_output("grad_a", grad_a);
    agree_all("a", a, "grad_a", grad_a);
    p.grad_a = matrix_of(grad_a);
    broadcast_batch("grad_a", grad_a, "grad_c", p.batch, p.grad_a.batch_stride);
  }
  if (grad_b) {
    check_output("grad_b", grad_b);
    agree_all("b", b, "grad_b", grad_b);
    p.grad_b = matrix_of(grad_b);
    broadcast_batch("grad_b", grad_b, "grad_c", p.batch, p.grad_b.batch_stride);
  }
  if (options.grad_bias) {
    check_output("grad_bias", options.grad_bias);
    if (options.grad_bias.batch_axes() != 0) {
      fail(ErrorCode::wrong_rank, {"grad_bias", std::int64_t{options.grad_bias.batch_axes()},
                                   "the gradient of a bias", std::int64_t{0}});
    }
    agree(Column::name, "grad_bias", options.grad_bias.extent<Column>(), "grad_c", p.n);
    p.grad_bias.data = options.grad_bias.data();
    p.grad_bias.column_stride = options.grad_bias.stride<Column>();
  }
  return p;
}

}  // namespace rapt::problem
