// What forward and backward pass of the layer share: where its weights are, and its arrays as the
// products see them.
#pragma once

#include "problem/check.hpp"
#include "rapt/layer.hpp"

namespace rapt::layers {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)
using problem::layer_width;

// Where each parameter begins among those that the products read: f32, the heads side by side.
struct Offsets {
  std::int64_t qkv, w_q, w_k, w_v, output, b_q, b_k, b_v, b_output, end;
  explicit Offsets(const LayerShape& s) {
    const std::int64_t w = layer_width(s);
    qkv = 0;
    w_q = qkv + 3 * s.embedding * s.d_model;
    w_k = w_q + w * s.heads * s.d_k;
    w_v = w_k + w * s.heads * s.d_k;
    output = w_v + w * s.heads * s.d_v;
    b_q = output + s.heads * s.d_v * s.embedding;
    b_k = b_q + s.heads * s.d_k;
    b_v = b_k + s.heads * s.d_k;
    b_output = b_v + s.heads * s.d_v;
    end = b_output + s.embedding;
  }
};

// Extents or strides: those of the batch axes, then two more.
using Numbers = std::array<std::int64_t, kMaxBatchAxes + 3>;

// A matrix product over all tokens. Every product of the layer has the shape [batch..., seq, in]
// [in, out].
struct TokenProduct {
  int batch_axes = 0;
  Numbers extents{};  // batch axes
  std::int64_t seq = 0;
  std::int64_t elements = 1;  // of the batch

  template <class Axis, class T>
  explicit TokenProduct(const View<T, Axis, Embedding>& tokens)
      : batch_axes(tokens.batch_axes()), seq(tokens.template extent<Axis>()) {
    for (int i = 0; i < batch_axes; ++i) {
      extents[static_cast<std::size_t>(i)] = tokens.batch_extent(i);
      elements *= tokens.batch_extent(i);
    }
  }

  // The dense array [batch..., rows, columns].
  template <class First, class Second, class T>
  View<T, First, Second> dense_of(T* data, std::int64_t rows, std::int64_t columns) const {
    Numbers shape = extents, strides{};
    const auto axes = static_cast<std::size_t>(batch_axes);
    shape[axes] = rows;
    shape[axes + 1] = columns;
    detail::dense_strides(shape.data(), batch_axes + 2, strides.data());
    return {data, shape.data(), axes + 2, strides.data(), axes + 2};
  }
  template <class T>
  View<T, Row, Inner> dense(T* data, std::int64_t columns) const {
    return dense_of<Row, Inner>(data, seq, columns);
  }
  template <class T>
  View<T, Head, Query> dense_lse(T* data, std::int64_t heads) const {
    return dense_of<Head, Query>(data, heads, seq);
  }

  // Tokens as the caller laid them out.
  template <class Axis, class T>
  View<T, Row, Inner> as_rows(const View<T, Axis, Embedding>& tokens) const {
    Numbers shape = extents, strides{};
    const auto axes = static_cast<std::size_t>(batch_axes);
    for (int i = 0; i < batch_axes; ++i)
      strides[static_cast<std::size_t>(i)] = tokens.batch_stride(i);
    shape[axes] = seq;
    shape[axes + 1] = tokens.template extent<Embedding>();
    strides[axes] = tokens.template stride<Axis>();
    strides[axes + 1] = tokens.template stride<Embedding>();
    return {tokens.data(), shape.data(), axes + 2, strides.data(), axes + 2};
  }

  // [batch..., seq, heads * depth] seen as [batch..., Head, Position, Depth].
  template <class HeadAxis, class Position, class Depth, class T>
  View<T, HeadAxis, Position, Depth> split_heads(T* data, std::int64_t heads,
                                                 std::int64_t depth) const {
    Numbers shape = extents, strides{};
    const auto axes = static_cast<std::size_t>(batch_axes);
    const std::int64_t row = heads * depth;
    shape[axes] = heads;
    shape[axes + 1] = seq;
    shape[axes + 2] = depth;
    strides[axes] = depth;
    strides[axes + 1] = row;
    strides[axes + 2] = 1;
    std::int64_t stride = seq * row;
    for (std::size_t i = axes; i-- > 0;) {
      strides[i] = stride;
      stride *= shape[i];
    }
    return {data, shape.data(), axes + 3, strides.data(), axes + 3};
  }
};

// A dense result is the same array, read as [Row, Column].
template <class T>
View<T, Row, Column> as_result(const View<T, Row, Inner>& rows) {
  Numbers shape{}, strides{};
  const auto axes = static_cast<std::size_t>(rows.batch_axes());
  for (int i = 0; i < rows.batch_axes(); ++i) {
    shape[static_cast<std::size_t>(i)] = rows.batch_extent(i);
    strides[static_cast<std::size_t>(i)] = rows.batch_stride(i);
  }
  shape[axes] = rows.template extent<Row>();
  shape[axes + 1] = rows.template extent<Inner>();
  strides[axes] = rows.template stride<Row>();
  strides[axes + 1] = rows.template stride<Inner>();
  return {rows.data(), shape.data(), axes + 2, strides.data(), axes + 2};
}

}  // namespace rapt::layers
