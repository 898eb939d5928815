// Arrays as the tiles see them: a pointer and strides, nothing left to check.
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace rapt::tiles {

using kernels::Index;
inline constexpr int kBatchAxes = 4;
inline constexpr Index kMaxDepth = 1024;  // of a row of q, k, v or out

// Element [b..., head, row, column]; a matrix has no head. A broadcast axis has stride 0.
template <class T>
struct Array {
  T* data = nullptr;
  Index batch_stride[kBatchAxes] = {};
  Index head_stride = 0, row_stride = 0, column_stride = 0;
  explicit operator bool() const { return data != nullptr; }
};

constexpr Index bytes_of(Type type) {
  switch (type) {
    case Type::bf16:
    case Type::f16:
      return 2;
    case Type::int8:
      return 1;
    case Type::int4:
      return sizeof(Int4Group);
    case Type::f32:
      break;
  }
  return 4;
}

// Of a row of depth elements, a multiple of 32 for int4.
constexpr Index bytes_of_row(Type type, Index depth) {
  return type == Type::int4 ? depth / Int4Group::kSize * bytes_of(type) : depth * bytes_of(type);
}

// An array in any storage type: strides count bytes.
template <class Byte>
struct Stored : Array<Byte> {
  Type type = Type::f32;
  bool contiguous() const { return this->column_stride == bytes_of(type); }
};

// An array of floats, with its strides in elements or in bytes.
inline Stored<const std::byte> stored(const Array<const float>& array) {
  Stored<const std::byte> to;
  to.data = reinterpret_cast<const std::byte*>(array.data);
  for (int i = 0; i < kBatchAxes; ++i) to.batch_stride[i] = array.batch_stride[i] * 4;
  to.head_stride = array.head_stride * 4;
  to.row_stride = array.row_stride * 4;
  to.column_stride = array.column_stride * 4;
  return to;
}
inline Array<const float> floats(const Stored<const std::byte>& array) {
  Array<const float> to;
  to.data = reinterpret_cast<const float*>(array.data);
  for (int i = 0; i < kBatchAxes; ++i) to.batch_stride[i] = array.batch_stride[i] / 4;
  to.head_stride = array.head_stride / 4;
  to.row_stride = array.row_stride / 4;
  to.column_stride = array.column_stride / 4;
  return to;
}

// The leading axes of a problem, flattened to one index by whoever hands out the work.
struct Batch {
  int axes = 0;
  Index extent[kBatchAxes] = {};
  Index size = 1;

  template <class T>
  T* element(const Array<T>& array, Index b) const {
    T* at = array.data;
    for (int axis = axes - 1; axis >= 0; --axis) {
      at += b % extent[axis] * array.batch_stride[axis];
      b /= extent[axis];
    }
    return at;
  }
};

}  // namespace rapt::tiles
