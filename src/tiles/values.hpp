// K and V of one KV head, as the products of a tile read them.
#pragma once

#include <cstring>

#include "tiles/mask.hpp"

namespace rapt::tiles {

// Keys [keys.begin, keys.end) of k or v: where they lie, and their distance.
struct KeyBlock {
  const float* data;  // key keys.begin
  Index row;          // elements from key to key
};

// In place where the depth is contiguous, else copied into `copy` [keys, depth].
inline KeyBlock read_keys(const Array<const float>& array, const float* head, Keys keys, Index depth, bool in_place,
                          float* copy) {
  const float* from = head + keys.begin * array.row_stride;
  if (in_place) return {from, array.row_stride};
  for (Index j = 0; j < keys.count(); ++j, from += array.row_stride) {
    if (array.column_stride == 1) {
      std::memcpy(copy + j * depth, from, static_cast<std::size_t>(depth) * sizeof(float));
    } else {
      for (Index x = 0; x < depth; ++x) copy[j * depth + x] = from[x * array.column_stride];
    }
  }
  return {copy, depth};
}

// Whether any of these n keys has a NaN or an infinity in its value.
inline bool any_not_finite(const KeyBlock& v, Index n, Index depth) {
  constexpr std::uint32_t kExponent = 0x7f800000u;
  std::uint32_t found = 0;
  for (Index j = 0; j < n && found == 0; ++j) {
    for (Index x = 0; x < depth; ++x) {
      std::uint32_t bits;
      std::memcpy(&bits, v.data + j * v.row + x, sizeof(bits));
      found |= (bits & kExponent) == kExponent ? 1u : 0u;
    }
  }
  return found != 0;
}

}  // namespace rapt::tiles
