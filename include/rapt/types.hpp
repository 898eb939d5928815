// What arrays may be stored in. Everything is computed in f32, whatever it is stored in.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "rapt/view.hpp"

namespace rapt {

enum class Type : std::uint8_t { f32, bf16, f16, int8, int4 };

// bf16: the upper half of a float.
struct BFloat16 {
  std::uint16_t bits;
};

// f16: IEEE 754 binary16.
struct Float16 {
  std::uint16_t bits;
};

// 32 neighbours along the depth in 4 bits each: element i is scale * (n - 8), with n the low half
// of nibbles[i] for i < 16, the high half of nibbles[i - 16] for the rest.
struct Int4Group {
  static constexpr int kSize = 32;
  Float16 scale;
  std::uint8_t nibbles[16];
};

// The nearest, ties to even; NaN stays NaN, what is too large becomes infinite.
inline float to_float(BFloat16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }
inline float to_float(Float16 x) {
  const std::uint32_t sign = std::uint32_t{x.bits & 0x8000u} << 16, rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // Scaling by 2^112 moves the exponent, also that of denormals.
  return std::bit_cast<float>(
      sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest << 13) * 0x1p112f));
}
inline BFloat16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
inline Float16 to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const auto with = [&](std::uint32_t rest) {
    return Float16{static_cast<std::uint16_t>(sign | rest)};
  };
  if (magnitude > 0x7f800000u) return with(0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return with(0x7c00u);  // 65520, halfway to the next, rounds up
  if (magnitude < 0x38800000u) {                       // a denormal: let the addition round
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return with(std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u);
  }
  return with((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

template <class T>
inline constexpr bool is_stored = false;
// clang-format off
template <> inline constexpr bool is_stored<float> = true;
template <> inline constexpr bool is_stored<BFloat16> = true;
template <> inline constexpr bool is_stored<Float16> = true;
template <> inline constexpr bool is_stored<std::int8_t> = true;
template <> inline constexpr bool is_stored<Int4Group> = true;
// clang-format on

template <class T>
constexpr Type type_of() {
  if constexpr (std::is_same_v<T, BFloat16>) return Type::bf16;
  if constexpr (std::is_same_v<T, Float16>) return Type::f16;
  if constexpr (std::is_same_v<T, std::int8_t>) return Type::int8;
  if constexpr (std::is_same_v<T, Int4Group>) return Type::int4;
  return Type::f32;
}

// A view whose element type is known at run time: any View over float, BFloat16, Float16, int8_t or
// Int4Group with these axes converts to it. Extents and strides count elements. Those of Int4Group
// are groups of 32 along d_k or d_v, whose extent is then that of the depth / 32.
// Byte: const std::byte to read, std::byte to write.
template <class Byte, class... Axes>
class AnyView : public View<Byte, Axes...> {
 public:
  AnyView() = default;
  template <class T, class... Given>
    requires(is_stored<std::remove_const_t<T>> && (std::is_const_v<Byte> || !std::is_const_v<T>))
  AnyView(const View<T, Given...>& view)  // NOLINT(google-explicit-constructor): the same memory
      : View<Byte, Axes...>(erased<T>(view)), type_(type_of<std::remove_const_t<T>>()) {}

  // The same memory, to be read only, or with the axes in another order.
  template <class Other, class... Given>
    requires(std::is_convertible_v<Other (*)[], Byte (*)[]>)
  AnyView(const AnyView<Other, Given...>& other)  // NOLINT(google-explicit-constructor)
      : AnyView(static_cast<const View<Other, Given...>&>(other), other.type()) {}

  // As those of View: dense, or with strides in elements.
  template <class T>
    requires(is_stored<std::remove_const_t<T>> && (std::is_const_v<Byte> || !std::is_const_v<T>))
  AnyView(T* data, std::initializer_list<std::int64_t> extents)
      : AnyView(View<T, Axes...>(data, extents)) {}
  template <class T>
    requires(is_stored<std::remove_const_t<T>> && (std::is_const_v<Byte> || !std::is_const_v<T>))
  AnyView(T* data, std::initializer_list<std::int64_t> extents,
          std::initializer_list<std::int64_t> strides)
      : AnyView(View<T, Axes...>(data, extents, strides)) {}

  // The same from arrays, for callers whose type and rank are known only at run time.
  AnyView(Type type, Byte* data, const std::int64_t* extents, std::size_t n_extents,
          const std::int64_t* strides, std::size_t n_strides)
      : View<Byte, Axes...>(data, extents, n_extents, strides, n_strides), type_(type) {}

  Type type() const { return type_; }

 protected:
  AnyView(const View<Byte, Axes...>& view, Type type) : View<Byte, Axes...>(view), type_(type) {}

 private:
  template <class T>
  static View<Byte, Axes...> erased(const View<T, Axes...>& view) {
    return view.over(reinterpret_cast<Byte*>(view.data()));
  }

  Type type_ = Type::f32;
};

}  // namespace rapt
