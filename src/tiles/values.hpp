// K and V of one KV head, as the products of a tile read them.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "tiles/mask.hpp"

namespace rapt::tiles {

// Keys [keys.begin, keys.end) of k or v: where they lie, and their distance.
struct KeyBlock {
  const float* data;  // key keys.begin
  Index row;          // elements from key to key
};

// In place where the depth is contiguous, else copied into `copy` [keys, depth].
inline KeyBlock read_keys(const Array<const float>& array, const float* head, Keys keys,
                          Index depth, bool in_place, float* copy) {
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

// Values with NaN or infinity, in a tile where not every row attends every key. 0 * NaN would reach
// rows that do not attend it, so the product runs on a copy with zeros in their place (the same
// bits for every row that attends none of them), and then the rows that do attend one get it added,
// pair by pair.
class NotFinite {
 public:
  // copy: [keys, depth], for this block of keys.
  NotFinite(const KeyBlock& v, Index keys, Index depth, float* copy)
      : v_(v), keys_(keys), depth_(depth), copy_(copy) {}

  // Whether there are any. Looked up once for a block.
  bool any() {
    if (known_) return any_;
    known_ = true;
    for (Index j = 0; j < keys_ && !any_; ++j) any_ = any_in(v_.data + j * v_.row);
    for (Index j = 0; any_ && j < keys_; ++j) {
      for (Index x = 0; x < depth_; ++x)
        copy_[j * depth_ + x] = std::isfinite(value(j, x)) ? value(j, x) : 0.0f;
    }
    return any_;
  }
  KeyBlock zeroed() const { return {copy_, depth_}; }

  // out[r * out_row + x * out_depth] += p[r * row_step + j * key_step] * v[j, x] where v[j, x] is
  // not finite and the row attends key j of the n: all of the first `whole`, and then those whose
  // bias is not -inf.
  void add(Index n, Index whole, Index rows, const float* p, const float* bias, Index row_step,
           Index key_step, float* out, Index out_row, Index out_depth) const {
    for (Index j = 0; j < n; ++j) {
      if (!any_in(v_.data + j * v_.row)) continue;
      for (Index r = 0; r < rows; ++r) {
        const Index pair = r * row_step + j * key_step;
        if (j >= whole && bias[pair] == -std::numeric_limits<float>::infinity()) continue;
        for (Index x = 0; x < depth_; ++x) {
          if (!std::isfinite(value(j, x)))
            out[r * out_row + x * out_depth] += p[pair] * value(j, x);
        }
      }
    }
  }

 private:
  float value(Index j, Index x) const { return v_.data[j * v_.row + x]; }

  // Without a branch in the loop, so that it runs in vectors.
  bool any_in(const float* key) const {
    constexpr std::uint32_t kExponent = 0x7f800000u;
    std::uint32_t found = 0;
    for (Index x = 0; x < depth_; ++x) {
      std::uint32_t bits;
      std::memcpy(&bits, key + x, sizeof(bits));
      found |= (bits & kExponent) == kExponent ? 1u : 0u;
    }
    return found != 0;
  }

  KeyBlock v_;
  Index keys_, depth_;
  float* copy_;
  bool known_ = false, any_ = false;
};

}  // namespace rapt::tiles
