// Rows of q, k, v and out, from and to their storage types.
#pragma once

#include <cstring>

#include "tiles/array.hpp"

namespace rapt::tiles {

// One element; not of int4.
inline float read_element(Type type, const std::byte* from) {
  switch (type) {
    case Type::bf16:
      return to_float(*reinterpret_cast<const BFloat16*>(from));
    case Type::f16:
      return to_float(*reinterpret_cast<const Float16*>(from));
    case Type::int8:
      return *reinterpret_cast<const std::int8_t*>(from);
    case Type::f32:
    case Type::int4:
      break;
  }
  return *reinterpret_cast<const float*>(from);
}

// n elements of a row as floats.
inline void read_row(const kernels::Kernels& kernel, const Stored<const std::byte>& array,
                     const std::byte* from, Index n, float* to) {
  if (array.contiguous()) return kernel.widen(array.type, from, n, to);
  if (array.type == Type::int4) {
    for (Index x = 0; x < n; x += Int4Group::kSize, from += array.column_stride)
      kernel.widen(array.type, from, Int4Group::kSize, to + x);
    return;
  }
  for (Index x = 0; x < n; ++x) to[x] = read_element(array.type, from + x * array.column_stride);
}

// n bf16, each `stride` bytes after the one before it, as pairs; 0 fills the last.
inline void copy_pairs(const std::byte* from, Index stride, Index n, float* to) {
  auto* at = reinterpret_cast<std::byte*>(to);
  constexpr auto kSize = static_cast<Index>(sizeof(BFloat16));
  if (stride == kSize) {
    std::memcpy(at, from, static_cast<std::size_t>(n * kSize));
  } else {
    for (Index x = 0; x < n; ++x) std::memcpy(at + x * kSize, from + x * stride, sizeof(BFloat16));
  }
  if (n % 2 != 0) std::memset(at + n * kSize, 0, sizeof(BFloat16));
}

// n floats into a row of out.
inline void write_row(const kernels::Kernels& kernel, const Stored<std::byte>& array,
                      const float* from, Index n, std::byte* to) {
  if (array.contiguous()) return kernel.narrow(array.type, from, n, to);
  for (Index x = 0; x < n; ++x, to += array.column_stride)
    kernel.narrow(array.type, from + x, 1, to);
}

}  // namespace rapt::tiles
