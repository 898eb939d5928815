// What attention and its backward pass check alike: batch elements, and the arrays laid out to
// them.
#pragma once

#include "problem/arrays.hpp"
#include "tiles/attention.hpp"

namespace rapt::problem {

// What the batch elements are, to which every array is laid out.
struct Elements {
  tiles::Batch batch;
  const char* named_by = "q";
  bool packed_q = false, packed_kv = false, paged = false;

  // What says how many keys the longest element may have.
  const char* keys_named_by() const {
    return packed_kv ? "the longest of cu_seqlens_kv" : paged ? "block_table" : "k";
  }
};

// Batch axes: none where packed, else the problem's.
template <class AnyView>
void expect_batch(const char* name, const AnyView& view, const Elements& elements, bool packed) {
  const tiles::Batch& batch = elements.batch;
  const char* other = packed ? "a packed array" : elements.named_by;
  const std::int64_t axes = packed ? 0 : batch.axes;
  if (view.batch_axes() != axes)
    fail(ErrorCode::wrong_rank, {other, axes, name, std::int64_t{view.batch_axes()}});
  for (int i = 0; i < axes; ++i)
    agree(AxisName::batch(i), other, batch.extent[i], name, view.batch_extent(i));
}

// The strides of batch axes that may be missing or of extent 1.
template <class T, class AnyView>
void broadcast_to(const char* name, const AnyView& view, const Elements& elements, bool packed,
                  tiles::Array<T>& array) {
  if (packed) {
    expect_batch(name, view, elements, true);
  } else {
    broadcast_batch(name, view, elements.named_by, elements.batch, array.batch_stride);
  }
}

// One number for each head.
template <class T>
tiles::Array<T> per_head(const char* name, const View<T, axis::Head>& view, std::int64_t heads,
                         const Elements& elements) {
  if (!view) return {};
  check_memory(name, view);
  agree(axis::Head::name, name, view.template extent<axis::Head>(), "q", heads);
  tiles::Array<T> array;
  array.data = view.data();
  broadcast_to(name, view, elements, false, array);
  array.head_stride = view.template stride<axis::Head>();
  return array;
}

// A mask or a bias: broadcast to [batch..., heads, seq_q, seq_kv].
template <class T>
tiles::Array<T> pair_array(const char* name,
                           const View<T, axis::Head, axis::Query, axis::Key>& view, const AnyQ& q,
                           std::int64_t seq_kv, const Elements& elements) {
  if (!view) return {};
  check_memory(name, view);
  tiles::Array<T> array;
  array.data = view.data();
  broadcast_to(name, view, elements, elements.packed_q, array);
  array.head_stride =
      broadcast_axis(axis::Head::name, name, view.template extent<axis::Head>(),
                     view.template stride<axis::Head>(), "q", q.extent<axis::Head>());
  array.row_stride =
      broadcast_axis(axis::Query::name, name, view.template extent<axis::Query>(),
                     view.template stride<axis::Query>(), "q", q.extent<axis::Query>());
  array.column_stride =
      broadcast_axis(axis::Key::name, name, view.template extent<axis::Key>(),
                     view.template stride<axis::Key>(), elements.keys_named_by(), seq_kv);
  return array;
}

// Throws where options do not go together.
Elements elements_of(const AnyQ& q, const AttentionOptions& options);

// Everything that q, k and the options say; and v.
tiles::AttentionProblem check_scores(const AnyQ& q, const AnyK& k, const AttentionOptions& options);
void check_values(const AnyQ& q, const AnyK& k, const AnyV& v, const AttentionOptions& options,
                  tiles::AttentionProblem& p);

// An array like out, for queries of q: its extents, but for the depth.
template <class AnyView>
void like_queries(const char* name, const AnyView& view, const AnyQ& q, const Elements& elements) {
  expect_batch(name, view, elements, elements.packed_q);
  agree(axis::Head::name, "q", q.extent<axis::Head>(), name, view.template extent<axis::Head>());
  agree(axis::Query::name, "q", q.extent<axis::Query>(), name, view.template extent<axis::Query>());
}

}  // namespace rapt::problem
