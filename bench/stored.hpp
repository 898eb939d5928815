// Rows of numbers in any storage type, as the benchmark keeps and reads them. Reading is written
// here once more, and not taken from the library, because results are checked with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "rapt/types.hpp"

namespace rapt::bench {

// Calls work(std::type_identity<T>()), where T is what arrays of this type have as elements.
template <class Work>
auto with_element(Type type, Work work) {
  switch (type) {
    case Type::bf16:
      return work(std::type_identity<BFloat16>());
    case Type::f16:
      return work(std::type_identity<Float16>());
    case Type::int8:
      return work(std::type_identity<std::int8_t>());
    case Type::int4:
      return work(std::type_identity<Int4Group>());
    case Type::f32:
      break;
  }
  return work(std::type_identity<float>());
}

// Elements of a row, and its bytes without the scale that an int8 row has beside it.
inline std::int64_t row_elements(Type type, std::int64_t depth) {
  return type == Type::int4 ? depth / Int4Group::kSize : depth;
}
inline std::int64_t row_bytes(Type type, std::int64_t depth) {
  return with_element(type, [&](auto element) {
    return row_elements(type, depth) *
           static_cast<std::int64_t>(sizeof(typename decltype(element)::type));
  });
}

// What q and out are stored in beside k and v of this type.
inline Type plain_type(Type type) {
  return type == Type::bf16 || type == Type::f16 ? type : Type::f32;
}

// Rows of `depth` numbers, one after another.
struct StoredRows {
  Type type;
  std::int64_t depth;
  std::byte* data;
  float* scales = nullptr;  // one for each row, of int8

  // Number d of a row. f64 holds the product with a scale exactly.
  double at(std::int64_t row, std::int64_t d) const {
    const std::byte* from = data + row * row_bytes(type, depth);
    switch (type) {
      case Type::bf16:
        return to_float(reinterpret_cast<const BFloat16*>(from)[d]);
      case Type::f16:
        return to_float(reinterpret_cast<const Float16*>(from)[d]);
      case Type::int8:
        return double{scales[row]} * reinterpret_cast<const std::int8_t*>(from)[d];
      case Type::int4: {
        const Int4Group& group = reinterpret_cast<const Int4Group*>(from)[d / Int4Group::kSize];
        const std::int64_t i = d % Int4Group::kSize;
        const int nibble = i < 16 ? group.nibbles[i] & 15 : group.nibbles[i - 16] >> 4;
        return double{to_float(group.scale)} * (nibble - 8);
      }
      case Type::f32:
        break;
    }
    return reinterpret_cast<const float*>(from)[d];
  }

  // As AnyQ, AnyK, AnyV, AnyOut or their like; the last extent is row_elements().
  template <class AnyView>
  AnyView view(std::initializer_list<std::int64_t> extents) const {
    return with_element(type, [&](auto element) {
      return AnyView(reinterpret_cast<typename decltype(element)::type*>(data), extents);
    });
  }
};

}  // namespace rapt::bench
