// K and V of one KV head, as the products of a tile read them.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "tiles/mask.hpp"
#include "tiles/stored.hpp"

namespace rapt::tiles {

// Keys of k or v as floats: where they lie, and their distance.
struct KeyBlock {
  const float* data;
  Index row;  // elements from key to key
};

// Keys of k or v as they are stored, each contiguous.
struct KeyRows {
  const void* const* rows;
  Type type;
};

// k or v of one KV head of a batch element.
class KeyReader {
 public:
  KeyReader(const AttentionPlan& plan, const Rows& rows, const Stored<const std::byte>& array,
            const Array<const float>& scales, Index depth)
      : kernel_(*plan.kernels),
        array_(array),
        scales_(scales),
        pages_(rows.problem->pages),
        depth_(depth) {
    head_ = rows.kv_head * array.head_stride + rows.sequence.first_key * array.row_stride +
            element(rows, array);
    if (scales) {
      head_scales_ = rows.kv_head * scales.head_stride +
                     rows.sequence.first_key * scales.row_stride + element(rows, scales);
    }
    if (pages_.table) table_ = rows.problem->batch.element(pages_.table, rows.sequence.number);
  }

  // Whether blocks lie as floats at equal distances.
  static bool in_place(const AttentionProblem& p, const Stored<const std::byte>& array) {
    return array.type == Type::f32 && array.contiguous() && !p.pages.table;
  }
  // Whether each key lies as a kernel reads it.
  static bool rows_in_place(const Stored<const std::byte>& array) {
    return array.contiguous() && array.type != Type::int4;
  }

  const std::byte* key(Index j) const { return head_ + offset(j, array_); }
  float scale(Index j) const { return head_scales_[offset(j, scales_)]; }
  bool scaled() const { return head_scales_ != nullptr; }

  // As floats: in place, or copied into `copy` [keys, depth].
  KeyBlock floats(Keys keys, bool in_place, float* copy) const {
    if (in_place)
      return {reinterpret_cast<const float*>(key(keys.begin)),
              array_.row_stride / static_cast<Index>(sizeof(float))};
    for (Index j = 0; j < keys.count(); ++j) {
      float* to = copy + j * depth_;
      read_row(kernel_, array_, key(keys.begin + j), depth_, to);
      if (scaled()) {
        const float s = scale(keys.begin + j);
        for (Index x = 0; x < depth_; ++x) to[x] *= s;
      }
    }
    return {copy, depth_};
  }

  // As they are stored, where that can be read; else copied into `copy` [keys, depth] as floats.
  // `rows`: [keys]. `scales`: [keys], written where they are not yet multiplied in.
  KeyRows rows(Keys keys, float* copy, const void** rows, float* scales) const {
    const bool direct = rows_in_place(array_);
    if (!direct) floats(keys, false, copy);
    for (Index j = 0; j < keys.count(); ++j) {
      rows[j] = direct ? static_cast<const void*>(key(keys.begin + j)) : copy + j * depth_;
      if (direct && scaled()) scales[j] = scale(keys.begin + j);
    }
    return {rows, direct ? array_.type : Type::f32};
  }

 private:
  template <class T>
  T* element(const Rows& rows, const Array<T>& array) const {
    return pages_.table ? array.data : rows.problem->batch.element(array, rows.sequence.number);
  }
  template <class T>
  Index offset(Index j, const Array<T>& array) const {
    if (table_ == nullptr) return j * array.row_stride;
    const Index page = table_[j / pages_.size * pages_.table.row_stride];
    return page * array.batch_stride[0] + j % pages_.size * array.row_stride;
  }

  const kernels::Kernels& kernel_;
  const Stored<const std::byte>& array_;
  const Array<const float>& scales_;
  const Pages& pages_;
  Index depth_;
  const std::byte* head_;
  const float* head_scales_ = nullptr;
  const std::int32_t* table_ = nullptr;
};

// Values with NaN or infinity, in a tile where not every row attends every key. 0 * NaN would reach
// rows that do not attend it, so the product runs on a copy with zeros in their place (the same
// bits for every row that attends none of them), and then the rows that do attend one get it added,
// pair by pair.
class NotFinite {
 public:
  // copy: [keys, depth], for this block of keys.
  NotFinite(const kernels::Kernels& kernel, KeyRows v, Index keys, Index depth, float* copy)
      : kernel_(kernel), v_(v), keys_(keys), depth_(depth), copy_(copy) {}

  // Whether there are any. Looked up once for a block.
  bool any() {
    if (known_) return any_;
    known_ = true;
    for (Index j = 0; j < keys_ && !any_; ++j) any_ = any_in(v_.rows[j]);
    for (Index j = 0; any_ && j < keys_; ++j) {
      float* to = copy_ + j * depth_;
      kernel_.widen(v_.type, v_.rows[j], depth_, to);
      for (Index x = 0; x < depth_; ++x) to[x] = std::isfinite(to[x]) ? to[x] : 0.0f;
    }
    return any_;
  }
  KeyBlock zeroed() const { return {copy_, depth_}; }

  // out[r * out_row + x * out_depth] += p[r * row_step + j * key_step] * v[j, x] where v[j, x] is
  // not finite and the row attends key j of the n: all of the first `whole`, and then those whose
  // bias is not -inf.
  void add(Index n, Index whole, Index rows, const float* p, const float* bias, Index row_step,
           Index key_step, float* out, Index out_row, Index out_depth) const {
    const Index bytes = bytes_of(v_.type);
    for (Index j = 0; j < n; ++j) {
      if (!any_in(v_.rows[j])) continue;
      const auto* value = static_cast<const std::byte*>(v_.rows[j]);
      for (Index r = 0; r < rows; ++r) {
        const Index pair = r * row_step + j * key_step;
        if (j >= whole && bias[pair] == -std::numeric_limits<float>::infinity()) continue;
        for (Index x = 0; x < depth_; ++x) {
          const float v = read_element(v_.type, value + x * bytes);
          if (!std::isfinite(v)) out[r * out_row + x * out_depth] += p[pair] * v;
        }
      }
    }
  }

 private:
  // Without a branch in the loop, so that it runs in vectors.
  template <class Bits>
  static bool any_in(const void* key, Index depth, Bits exponent) {
    Bits found = 0;
    for (Index x = 0; x < depth; ++x) {
      Bits bits;
      std::memcpy(&bits, static_cast<const std::byte*>(key) + x * Index{sizeof(bits)},
                  sizeof(bits));
      found = static_cast<Bits>(found | ((bits & exponent) == exponent ? 1 : 0));
    }
    return found != 0;
  }
  bool any_in(const void* key) const {
    switch (v_.type) {
      case Type::bf16:
        return any_in(key, depth_, std::uint16_t{0x7f80});
      case Type::f16:
        return any_in(key, depth_, std::uint16_t{0x7c00});
      case Type::int8:
        return false;
      case Type::f32:
      case Type::int4:
        break;
    }
    return any_in(key, depth_, std::uint32_t{0x7f800000});
  }

  const kernels::Kernels& kernel_;
  KeyRows v_;
  Index keys_, depth_;
  float* copy_;
  bool known_ = false, any_ = false;
};

}  // namespace rapt::tiles
