// K and V of one KV head, as the products of a tile read them.
#pragma once

#include <algorithm>
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

using kernels::StoredRows;

inline const std::byte* row_at(const StoredRows& rows, Index j) {
  const kernels::RowPages& pages = rows.pages;
  if (pages.table == nullptr) return rows.first + j * rows.stride;
  j += pages.begin;
  return rows.first + pages.table[j / pages.size * pages.table_stride] * pages.stride +
         j % pages.size * rows.stride;
}
// Without the first n.
inline StoredRows rows_from(StoredRows rows, Index n) {
  if (rows.pages.table == nullptr) {
    rows.first += n * rows.stride;
  } else {
    kernels::RowPages& pages = rows.pages;
    pages.table += (pages.begin + n) / pages.size * pages.table_stride;
    pages.begin = (pages.begin + n) % pages.size;
  }
  return rows;
}
inline StoredRows stored_rows(const KeyBlock& block) {
  return {.first = reinterpret_cast<const std::byte*>(block.data),
          .stride = block.row * bytes_of(Type::f32)};
}

// The `next` keys after those of a block, for a kernel to ask for; none where the block's keys,
// stored in `row_bytes` each, are not at equal distances.
inline kernels::NextRows next_rows(const StoredRows& stored, Index row_bytes, Keys keys,
                                   Keys next) {
  if (stored.first == nullptr || stored.pages.table != nullptr) return {};
  return {.first = stored.first + (next.begin - keys.begin) * stored.stride,
          .stride = stored.stride,
          .rows = next.count(),
          .row_bytes = row_bytes};
}

// k or v of one KV head of a batch element.
class KeyReader {
 public:
  KeyReader(const kernels::Kernels& kernel, const Rows& rows, const Stored<const std::byte>& array,
            const Array<const float>& scales, Index depth)
      : kernel_(kernel),
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

  Index depth() const { return depth_; }

  // Whether blocks lie as floats at equal distances.
  static bool in_place(const AttentionProblem& p, const Stored<const std::byte>& array) {
    return array.type == Type::f32 && array.contiguous() && !p.pages.table;
  }
  // And as a product reads them down the keys: rows that are a large power of two apart all fall
  // into a few sets of the L1 cache.
  static bool in_place_down(const AttentionProblem& p, const Stored<const std::byte>& array,
                            Index depth) {
    constexpr Index kKilobyte = 1024;
    return in_place(p, array) &&
           (array.row_stride % kKilobyte != 0 || array.row_stride == depth * bytes_of(Type::f32));
  }
  // Whether each key lies as a kernel reads it.
  static bool rows_in_place(const kernels::Kernels& kernel, const Stored<const std::byte>& array) {
    return array.contiguous() && (array.type != Type::int4 || kernel.lanes <= 16);
  }

  // As floats: in place, or copied into `copy` [keys, depth].
  KeyBlock floats(Keys keys, bool in_place, float* copy) const {
    if (in_place) {
      return {reinterpret_cast<const float*>(head_ + keys.begin * array_.row_stride),
              array_.row_stride / static_cast<Index>(sizeof(float))};
    }
    each_key(keys, head_, array_, [&](Index j, const std::byte* key) {
      read_row(kernel_, array_, key, depth_, copy + j * depth_);
    });
    each_scale(keys, [&](Index j, const float* scale) {
      for (Index x = 0; x < depth_; ++x) copy[j * depth_ + x] *= *scale;
    });
    return {copy, depth_};
  }

  // As pairs of bf16, the type that they have: in place, or copied into `copy` [keys, depth / 2,
  // rounded up].
  static bool pairs_in_place(const AttentionProblem& p, const Stored<const std::byte>& array,
                             Index depth) {
    return array.contiguous() && depth % 2 == 0 &&
           array.row_stride % static_cast<Index>(sizeof(float)) == 0 && !p.pages.table;
  }
  KeyBlock pairs(Keys keys, bool in_place, float* copy) const {
    if (in_place) {
      return {reinterpret_cast<const float*>(head_ + keys.begin * array_.row_stride),
              array_.row_stride / static_cast<Index>(sizeof(float))};
    }
    const Index row = (depth_ + 1) / 2;
    each_key(keys, head_, array_, [&](Index j, const std::byte* key) {
      copy_pairs(key, array_.column_stride, depth_, copy + j * row);
    });
    return {copy, row};
  }

  // Where they are stored, if at equal distances.
  kernels::NextRows next(Keys keys) const {
    if (table_ != nullptr || !array_.contiguous()) return {};
    return {.first = head_ + keys.begin * array_.row_stride,
            .stride = array_.row_stride,
            .rows = std::max(keys.count(), Index{0}),
            .row_bytes = bytes_of_row(array_.type, depth_)};
  }

  // As they are stored, where that can be read; else copied into `copy` [keys, depth] as floats.
  StoredRows rows(Keys keys, float* copy) const {
    if (!rows_in_place(kernel_, array_)) return stored_rows(floats(keys, false, copy));
    StoredRows all{.first = head_, .stride = array_.row_stride, .type = array_.type};
    if (table_ != nullptr) {
      all.pages = {.table = table_,
                   .table_stride = pages_.table.row_stride,
                   .stride = array_.batch_stride[0],
                   .size = pages_.size,
                   .inverse = kernels::RowPages::inverse_of(pages_.size)};
    }
    return rows_from(all, keys.begin);
  }

  // What rows() of int8 are still to be multiplied by: in place, or copied into `copy` [keys].
  const float* scales(Keys keys, float* copy) const {
    if (table_ == nullptr && scales_.row_stride == 1) return head_scales_ + keys.begin;
    each_run(keys, head_scales_, scales_, [&](Index j, const float* scale, Index n) {
      if (scales_.row_stride == 1) {
        std::copy_n(scale, n, copy + j);
      } else {
        for (Index i = 0; i < n; ++i) copy[j + i] = scale[i * scales_.row_stride];
      }
    });
    return copy;
  }

 private:
  template <class T>
  T* element(const Rows& rows, const Array<T>& array) const {
    return pages_.table ? array.data : rows.problem->batch.element(array, rows.sequence.number);
  }

  // Calls visit(j - keys.begin, where key j lies, n) for every run of n keys at equal distances:
  // those of a page, or all.
  template <class T, class Visit>
  void each_run(Keys keys, T* head, const Array<T>& array, const Visit& visit) const {
    const Index size = table_ == nullptr ? keys.end : pages_.size;
    Index page = keys.begin / size, in_page = keys.begin % size;
    for (Index j = keys.begin; j < keys.end; ++page, in_page = 0) {
      T* at = head + in_page * array.row_stride;
      if (table_ != nullptr) at += table_[page * pages_.table.row_stride] * array.batch_stride[0];
      const Index n = std::min(keys.end - j, size - in_page);
      visit(j - keys.begin, at, n);
      j += n;
    }
  }
  // The same for every key.
  template <class T, class Visit>
  void each_key(Keys keys, T* head, const Array<T>& array, const Visit& visit) const {
    each_run(keys, head, array, [&](Index j, T* at, Index n) {
      for (const Index end = j + n; j < end; ++j, at += array.row_stride) visit(j, at);
    });
  }
  template <class Visit>
  void each_scale(Keys keys, const Visit& visit) const {
    if (head_scales_ != nullptr) each_key(keys, head_scales_, scales_, visit);
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
// pair by pair. The copy is of floats, or of bf16 where the values are.
class NotFinite {
 public:
  // copy: [keys, depth], for this block of keys; or null, where the caller makes it.
  NotFinite(const kernels::Kernels& kernel, const StoredRows& v, Index keys, Index depth,
            float* copy)
      : kernel_(kernel), v_(v), keys_(keys), depth_(depth), copy_(copy) {}

  // Whether there are any. Looked up once for a block.
  bool any() {
    if (known_) return any_;
    known_ = true;
    for (Index j = 0; j < keys_ && !any_; ++j) any_ = any_in(row_at(v_, j));
    for (Index j = 0; any_ && copy_ != nullptr && j < keys_; ++j) copy_finite(j);
    return any_;
  }
  bool found() const { return any_; }  // what any() said
  StoredRows zeroed() const {
    const Type type = v_.type == Type::bf16 ? Type::bf16 : Type::f32;
    return {.first = reinterpret_cast<const std::byte*>(copy_),
            .stride = depth_ * bytes_of(type),
            .type = type};
  }

  // out[r * out_row + x * out_depth] += p[r * row_step + j * key_step] * v[j, x] where v[j, x] is
  // not finite and the row attends key j of the n: all of the first `whole`, and then those
  // whose bias is not -inf.
  void add(Index n, Index whole, Index rows, const float* p, const float* bias, Index row_step,
           Index key_step, float* out, Index out_row, Index out_depth) const {
    for (Index j = 0; j < n; ++j) {
      if (!any_in(row_at(v_, j))) continue;
      for (Index r = 0; r < rows; ++r) {
        const Index pair = r * row_step + j * key_step;
        if (j >= whole && bias[pair] == -std::numeric_limits<float>::infinity()) continue;
        for (Index x = 0; x < depth_; ++x) {
          const float v = element(row_at(v_, j), x);
          if (!std::isfinite(v)) out[r * out_row + x * out_depth] += p[pair] * v;
        }
      }
    }
  }

 private:
  void copy_finite(Index j) const {
    const std::byte* from = row_at(v_, j);
    if (v_.type == Type::bf16) {
      const auto* values = reinterpret_cast<const BFloat16*>(from);
      BFloat16* to = reinterpret_cast<BFloat16*>(copy_) + j * depth_;
      for (Index x = 0; x < depth_; ++x)
        to[x] = std::isfinite(to_float(values[x])) ? values[x] : BFloat16{};
      return;
    }
    float* to = copy_ + j * depth_;
    kernel_.widen(v_.type, from, depth_, to);
    for (Index x = 0; x < depth_; ++x) to[x] = std::isfinite(to[x]) ? to[x] : 0.0f;
  }

  // Without a branch in the loop, so that it runs in vectors: the exponent's lowest bit, added,
  // carries into the sign where all of its bits are set.
  template <class Bits>
  static bool any_in(const void* key, Index depth, Bits exponent) {
    const auto lowest = static_cast<Bits>(exponent & -exponent);
    Bits found = 0;
    for (Index x = 0; x < depth; ++x) {
      Bits bits;
      std::memcpy(&bits, static_cast<const std::byte*>(key) + x * Index{sizeof(bits)},
                  sizeof(bits));
      found = static_cast<Bits>(found | ((bits & exponent) + lowest));
    }
    return found > std::numeric_limits<Bits>::max() / 2;
  }
  bool any_in(const void* key) const {
    switch (v_.type) {
      case Type::bf16:
        return any_in(key, depth_, std::uint16_t{0x7f80});
      case Type::f16:
        return any_in(key, depth_, std::uint16_t{0x7c00});
      case Type::int8:
        return false;
      case Type::int4:  // a scale may be infinite or NaN
        for (Index g = 0; g < depth_ / Int4Group::kSize; ++g) {
          if (any_in(&static_cast<const Int4Group*>(key)[g].scale, 1, std::uint16_t{0x7c00}))
            return true;
        }
        return false;
      case Type::f32:
        break;
    }
    return any_in(key, depth_, std::uint32_t{0x7f800000});
  }

  float element(const void* key, Index x) const {
    const auto* bytes = static_cast<const std::byte*>(key);
    if (v_.type != Type::int4) return read_element(v_.type, bytes + x * bytes_of(v_.type));
    const Int4Group& group = static_cast<const Int4Group*>(key)[x / Int4Group::kSize];
    const Index at = x % Int4Group::kSize;
    const int nibble = at < 16 ? group.nibbles[at] & 15 : group.nibbles[at - 16] >> 4;
    return to_float(group.scale) * static_cast<float>(nibble - 8);
  }

  const kernels::Kernels& kernel_;
  StoredRows v_;
  Index keys_, depth_;
  float* copy_;
  bool known_ = false, any_ = false;
};

}  // namespace rapt::tiles
