// From views to arrays as the tiles see them, and the checks that several problems share.
#pragma once

#include <algorithm>
#include <string>

#include "problem/axes.hpp"
#include "rapt/attention.hpp"
#include "rapt/rope.hpp"
#include "tiles/array.hpp"

namespace rapt::problem {

using tiles::kMaxDepth;
// Positions stay this far from the ends of int64, so that sums of a few of them cannot overflow; no
// key is that far.
inline constexpr std::int64_t kFar = std::int64_t{1} << 60;

// Element [head, position, depth] of q, k, v or out. Strides count bytes from here on.
template <class Byte, class HeadAxis, class RowAxis, class ColumnAxis>
tiles::Stored<Byte> stored(const AnyView<Byte, HeadAxis, RowAxis, ColumnAxis>& any) {
  tiles::Stored<Byte> array;
  array.type = any.type();
  const View<Byte, HeadAxis, RowAxis, ColumnAxis>& view = any;
  // Unsigned: the stride of an axis of extent 1 may be anything.
  const auto in_bytes = [&](std::int64_t stride) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(stride) *
                                     static_cast<std::uint64_t>(tiles::bytes_of(any.type())));
  };
  array.column_stride = in_bytes(1);
  array.data = view.data();
  if (array.data == nullptr) return array;  // no elements, and no offsets from a null pointer
  for (int i = 0; i < view.batch_axes(); ++i)
    array.batch_stride[i] = in_bytes(view.batch_stride(i));
  array.head_stride = in_bytes(view.template stride<HeadAxis>());
  array.row_stride = in_bytes(view.template stride<RowAxis>());
  array.column_stride = in_bytes(view.template stride<ColumnAxis>());
  return array;
}

// Element [head, position] of what has one number for each row.
template <class T, class HeadAxis, class RowAxis>
tiles::Array<T> array_of(const View<T, HeadAxis, RowAxis>& view) {
  tiles::Array<T> array;
  array.data = view.data();
  for (int i = 0; i < view.batch_axes(); ++i) array.batch_stride[i] = view.batch_stride(i);
  array.head_stride = view.template stride<HeadAxis>();
  array.row_stride = view.template stride<RowAxis>();
  return array;
}

// d_k or d_v of an array: groups have 32 of them.
template <class DepthAxis, class Any>
std::int64_t depth_of(const Any& any) {
  const std::int64_t extent = any.template extent<DepthAxis>();
  constexpr std::int64_t kLargest = std::int64_t{1} << 40;
  return any.type() == Type::int4 && extent < kLargest ? extent * Int4Group::kSize : extent;
}

// f32, bf16 and f16 hold anything; the others are for keys and values.
inline void plain_type(const char* name, Type type) {
  if (type == Type::int8 || type == Type::int4)
    fail(ErrorCode::bad_value, {std::string("the type of ") + name,
                                type == Type::int8 ? "int8" : "int4", "must be f32, bf16 or f16"});
}

// One position for each of seq rows of each batch element.
inline tiles::Array<const std::int32_t> positions_of(const PositionsView& view, const char* other,
                                                     const tiles::Batch& batch, std::int64_t seq) {
  check_memory("positions", view);
  agree(axis::Position::name, "positions", view.extent<axis::Position>(), other, seq);
  tiles::Array<const std::int32_t> array;
  array.data = view.data();
  broadcast_batch("positions", view, other, batch, array.batch_stride);
  array.row_stride = view.stride<axis::Position>();
  return array;
}

template <class T>
void each_within(const char* name, const tiles::Array<T>& array, const tiles::Batch& batch,
                 std::int64_t low, std::int64_t high) {
  for (std::int64_t b = 0; b < batch.size; ++b) {
    const std::int64_t value = *batch.element(array, b);
    if (value < low || value > high)
      fail(ErrorCode::bad_value,
           {std::string(name) + "[" + std::to_string(b) + "]", value,
            "must be from " + std::to_string(low) + " to " + std::to_string(high)});
  }
}

// Cumulative lengths of packed sequences: from 0, never falling, to the extent of the packed axis.
// Returns the longest length.
inline std::int64_t check_boundaries(const char* name, const BoundariesView& view,
                                     std::int64_t sequences, const char* packed,
                                     std::int64_t extent) {
  check_memory(name, view);
  if (view.batch_axes() != 0)
    fail(ErrorCode::wrong_rank, {name, std::int64_t{view.batch_axes()}, packed, std::int64_t{0}});
  agree(axis::Boundary::name, name, view.extent<axis::Boundary>(), "cu_seqlens_q", sequences + 1);
  if (view.stride<axis::Boundary>() != 1 && sequences > 0)
    fail(ErrorCode::bad_value,
         {std::string("the stride of ") + name, view.stride<axis::Boundary>(), "must be 1"});
  const std::int32_t* at = view.data();
  const auto wrong = [&](std::int64_t i, const std::string& rule) {
    fail(ErrorCode::bad_value,
         {std::string(name) + "[" + std::to_string(i) + "]", std::int64_t{at[i]}, rule});
  };
  if (at[0] != 0) wrong(0, "the first sequence begins at 0");
  std::int64_t longest = 0;
  for (std::int64_t i = 1; i <= sequences; ++i) {
    if (at[i] < at[i - 1])
      wrong(i, "lengths are not negative: it follows " + std::to_string(at[i - 1]));
    longest = std::max<std::int64_t>(longest, at[i] - at[i - 1]);
  }
  if (at[sequences] != extent)
    wrong(sequences,
          std::string("the packed axis of ") + packed + " has " + std::to_string(extent));
  return longest;
}

}  // namespace rapt::problem
