// Arrays as the tiles see them: a pointer and strides, nothing left to check.
#pragma once

#include "kernels/kernels.hpp"

namespace rapt::tiles {

using kernels::Index;
inline constexpr int kBatchAxes = 4;

// Element [b..., head, row, column]; a matrix has no head. A broadcast axis has stride 0.
template <class T>
struct Array {
  T* data = nullptr;
  Index batch_stride[kBatchAxes] = {};
  Index head_stride = 0, row_stride = 0, column_stride = 0;
  explicit operator bool() const { return data != nullptr; }
};

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
