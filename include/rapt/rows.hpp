// Rows: any of q, k, v and out, for functions to which these are alike.
//
// Every view of three named axes, one of each line, in any order, converts to AnyRows:
//   Head, KvHead, or Head                  the heads
//   Query, Key, or Position                the positions
//   DepthK, DepthV, or Depth               the depth: an element of [batch..., heads, positions]
//                                          is a row of so many numbers
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "rapt/types.hpp"
#include "rapt/view.hpp"

namespace rapt {

namespace detail {

// The name under which rows know an axis.
template <class Axis>
struct RowAxis {
  using type = Axis;
};
// clang-format off
template <> struct RowAxis<axis::KvHead> { using type = axis::Head; };
template <> struct RowAxis<axis::Query>  { using type = axis::Position; };
template <> struct RowAxis<axis::Key>    { using type = axis::Position; };
template <> struct RowAxis<axis::DepthK> { using type = axis::Depth; };
template <> struct RowAxis<axis::DepthV> { using type = axis::Depth; };
// clang-format on

template <class T, class... Given>
View<T, typename RowAxis<Given>::type...> as_rows(const View<T, Given...>& view) {
  std::int64_t extents[kMaxBatchAxes + sizeof...(Given)] = {};
  std::int64_t strides[kMaxBatchAxes + sizeof...(Given)] = {};
  int n = 0;
  for (; n < view.batch_axes(); ++n) {
    extents[n] = view.batch_extent(n);
    strides[n] = view.batch_stride(n);
  }
  ((extents[n] = view.template extent<Given>(), strides[n] = view.template stride<Given>(), ++n),
   ...);
  const auto size = static_cast<std::size_t>(n);
  return {view.data(), extents, size, strides, size};
}

}  // namespace detail

// Byte: const std::byte to read, std::byte to write.
template <class Byte>
class AnyRowsOf : public AnyView<Byte, axis::Head, axis::Position, axis::Depth> {
  using Base = AnyView<Byte, axis::Head, axis::Position, axis::Depth>;
  template <class T>
  static constexpr bool fits =
      is_stored<std::remove_const_t<T>> && (std::is_const_v<Byte> || !std::is_const_v<T>);

 public:
  AnyRowsOf() = default;
  template <class T, class... Given>
    requires(fits<T>)
  AnyRowsOf(const View<T, Given...>& view)  // NOLINT(google-explicit-constructor): the same memory
      : Base(detail::as_rows(view)) {}
  template <class Other, class... Given>
    requires(std::is_convertible_v<Other (*)[], Byte (*)[]>)
  AnyRowsOf(const AnyView<Other, Given...>& view)  // NOLINT(google-explicit-constructor)
      : Base(detail::as_rows(static_cast<const View<Other, Given...>&>(view)), view.type()) {}

  // [batch..., heads, positions, depth]: dense, or with strides in elements.
  template <class T>
    requires(fits<T>)
  AnyRowsOf(T* data, std::initializer_list<std::int64_t> extents) : Base(data, extents) {}
  template <class T>
    requires(fits<T>)
  AnyRowsOf(T* data, std::initializer_list<std::int64_t> extents,
            std::initializer_list<std::int64_t> strides)
      : Base(data, extents, strides) {}
};

using AnyRows = AnyRowsOf<const std::byte>;
using AnyRowsOut = AnyRowsOf<std::byte>;

}  // namespace rapt
