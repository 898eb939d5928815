// Named axes: a view is element type + axes + extents + strides over memory that the caller owns.
//
//     rapt::View<const float, Head, Query, DepthK> q(data, {batch, heads, seq_q, d_k});
//
// The axes are types. A function that wants [Head, Query, DepthK] takes any view with those three
// axes in any order, because the order of axes in memory is a matter of strides only: [batch, seq,
// heads, depth] and [batch, heads, seq, depth] are the same call. A view with another axis does not
// compile, and the message names both axes.
//
// Extents before the named axes are batch axes (at most kMaxBatchAxes), matched by position. A view
// without named axes has one element for each batch element.
// Strides are counted in elements; zero and negative strides are legal for what is only read.
// A view is a small value: copy it freely. It is safe to use one from many threads.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "rapt/error.hpp"

namespace rapt {

// The axes, with the name that error messages use.
namespace axis {
// clang-format off
struct Head      { static constexpr const char* name = "heads"; };
struct KvHead    { static constexpr const char* name = "kv_heads"; };
struct Query     { static constexpr const char* name = "seq_q"; };
struct Key       { static constexpr const char* name = "seq_kv"; };
struct DepthK    { static constexpr const char* name = "d_k"; };
struct DepthV    { static constexpr const char* name = "d_v"; };
struct Page      { static constexpr const char* name = "pages"; };      // of a block table
struct Boundary  { static constexpr const char* name = "sequences + 1"; };  // of cumulative lengths
struct Word      { static constexpr const char* name = "words"; };      // of 64 bits
struct Row       { static constexpr const char* name = "m"; };    // of c and a in a matrix product
struct Inner     { static constexpr const char* name = "k"; };    // summed over
struct Column    { static constexpr const char* name = "n"; };    // of c and b
struct Stack     { static constexpr const char* name = "qkv"; };  // 0: q, 1: k, 2: v
struct Embedding { static constexpr const char* name = "embedding"; };
struct Model     { static constexpr const char* name = "d_model"; };
// Where queries and keys, or keys and values, are treated alike (rapt/rows.hpp).
struct Position  { static constexpr const char* name = "positions"; };
struct Depth     { static constexpr const char* name = "depth"; };
struct Pair      { static constexpr const char* name = "dims / 2"; };  // of a rotation
// clang-format on
}  // namespace axis

inline constexpr int kMaxBatchAxes = 4;

namespace detail {

template <class Axis, class... Axes>
inline constexpr bool contains = (std::is_same_v<Axis, Axes> || ...);

// Compiles only when Given is Wanted: the compiler's message shows both.
template <class Wanted, class Given>
struct AxisMismatch {
  static_assert(std::is_same_v<Wanted, Given>,
                "rapt: this view has an axis that the function does not take: see "
                "AxisMismatch<Wanted, Given>");
};

template <class... Axes>
struct AxisList {
  // The first axis of this list that is not among Others, or void.
  template <class... Others>
  static constexpr auto first_not_in() {
    return pick<AxisList<Others...>, Axes..., void>();
  }
  template <class Others, class First, class... Rest>
  static constexpr auto pick() {
    if constexpr (std::is_void_v<First> || !Others::template has<First>)
      return std::type_identity<First>{};
    else
      return pick<Others, Rest...>();
  }
  template <class Axis>
  static constexpr bool has = contains<Axis, Axes...>;

  template <class Axis>
  static constexpr int index() {
    [[maybe_unused]] int at = 0;
    int found = -1;
    ((std::is_same_v<Axis, Axes> ? void(found = at++) : void(at++)), ...);
    return found;
  }
};

// The strides of a dense array, the last axis contiguous.
inline void dense_strides(const std::int64_t* extents, int rank, std::int64_t* strides) {
  std::int64_t stride = 1;
  for (int i = rank - 1; i >= 0; --i) {
    strides[i] = stride;
    // Unsigned, because extents may be hostile: the check of the problem refuses such sizes later.
    stride = static_cast<std::int64_t>(static_cast<std::uint64_t>(stride) *
                                       static_cast<std::uint64_t>(extents[i] > 0 ? extents[i] : 1));
  }
}

}  // namespace detail

template <class T, class... Axes>
class View {
 public:
  static constexpr int kNamedAxes = sizeof...(Axes);
  using Element = T;
  using Extents = std::array<std::int64_t, kMaxBatchAxes + kNamedAxes>;

  // A view of nothing: an option that is not given.
  View() = default;

  // Dense, the last axis contiguous.
  View(T* data, std::initializer_list<std::int64_t> extents) : data_(data) {
    set_extents(extents.begin(), extents.size());
    detail::dense_strides(extents_.data(), rank(), strides_.data());
  }

  // Any strides, in elements, one for each extent.
  View(T* data, std::initializer_list<std::int64_t> extents,
       std::initializer_list<std::int64_t> strides)
      : View(data, extents.begin(), extents.size(), strides.begin(), strides.size()) {}

  // The same from arrays, for callers whose rank is known only at run time.
  View(T* data, const std::int64_t* extents, std::size_t n_extents, const std::int64_t* strides,
       std::size_t n_strides)
      : data_(data) {
    if (n_extents != n_strides) {
      throw Error(ErrorCode::wrong_rank, "a view has " + std::to_string(n_extents) +
                                             " extents but " + std::to_string(n_strides) +
                                             " strides");
    }
    set_extents(extents, n_extents);
    for (int i = 0; i < rank(); ++i) strides_[i] = strides[i];
  }

  // From a view with the same axes in any order, const or not.
  template <class U, class... Given>
    requires(std::is_convertible_v<U (*)[], T (*)[]>)
  View(const View<U, Given...>&
           other)  // NOLINT(google-explicit-constructor): the same memory, read by name
      : data_(other.data()), batch_axes_(other.batch_axes()) {
    using Wanted = decltype(detail::AxisList<Axes...>::template first_not_in<Given...>());
    using Extra = decltype(detail::AxisList<Given...>::template first_not_in<Axes...>());
    (void)sizeof(detail::AxisMismatch<typename Wanted::type, typename Extra::type>);
    if constexpr (std::is_same_v<typename Wanted::type, typename Extra::type>) {
      for (int i = 0; i < batch_axes_; ++i) {
        extents_[i] = other.batch_extent(i);
        strides_[i] = other.batch_stride(i);
      }
      int i = batch_axes_;
      ((extents_[i] = other.template extent<Axes>(), strides_[i] = other.template stride<Axes>(),
        ++i),
       ...);
    }
  }

  // The same extents and strides over other memory.
  template <class U>
  View<U, Axes...> over(U* data) const {
    const int n = rank();
    return {data, extents_.data(), static_cast<std::size_t>(n), strides_.data(),
            static_cast<std::size_t>(n)};
  }

  T* data() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }
  int batch_axes() const { return batch_axes_; }
  std::int64_t batch_extent(int i) const { return extents_[i]; }
  std::int64_t batch_stride(int i) const { return strides_[i]; }

  template <class Axis>
  std::int64_t extent() const {
    return extents_[batch_axes_ + position<Axis>()];
  }
  template <class Axis>
  std::int64_t stride() const {
    return strides_[batch_axes_ + position<Axis>()];
  }

 private:
  template <class Axis>
  static constexpr int position() {
    static_assert(detail::contains<Axis, Axes...>, "rapt: this view has no such axis");
    return detail::AxisList<Axes...>::template index<Axis>();
  }

  int rank() const { return batch_axes_ + kNamedAxes; }

  void set_extents(const std::int64_t* extents, std::size_t n) {
    if (n < kNamedAxes || n > static_cast<std::size_t>(kNamedAxes + kMaxBatchAxes)) {
      std::string names;
      ((names += std::string(names.empty() ? "" : ", ") + Axes::name), ...);
      throw Error(ErrorCode::wrong_rank, "a view of [batch..., " + names + "] takes " +
                                             std::to_string(kNamedAxes) + " to " +
                                             std::to_string(kNamedAxes + kMaxBatchAxes) +
                                             " extents, but " + std::to_string(n) + " were given");
    }
    batch_axes_ = static_cast<int>(n) - kNamedAxes;
    for (int i = 0; i < rank(); ++i) extents_[i] = extents[i];
  }

  T* data_ = nullptr;
  int batch_axes_ = 0;
  Extents extents_{};  // batch axes first, then Axes... in order
  Extents strides_{};
};

}  // namespace rapt
