// Positions with names, and arrays that are read by them: at(q, h, i, d) compiles only where h, i
// and d are positions along the axes of q. This is how reference.cpp can say over which axis each
// sum runs.
#pragma once

#include <cstdint>
#include <vector>

#include "rapt/view.hpp"

namespace rapt::reference {

// A position along an axis: At<Query> and At<Key> do not mix.
template <class Axis>
struct At {
  std::int64_t value = 0;
};

// All positions along an axis, for range-for: for (At<Key> j : keys).
template <class Axis>
struct Along {
  std::int64_t extent = 0;

  struct Iterator {
    At<Axis> position;
    At<Axis> operator*() const { return position; }
    Iterator& operator++() { return ++position.value, *this; }
    bool operator!=(const Iterator& other) const { return position.value != other.position.value; }
  };
  Iterator begin() const { return {}; }
  Iterator end() const { return {{extent}}; }
};

template <class Axis, class AnyArray>
Along<Axis> along(const AnyArray& array) {
  return {array.template extent<Axis>()};
}

// The element of a View or an Array at positions given in any order. An axis of extent 1 is
// broadcast.
template <class AnyArray, class... Axes>
auto& at(AnyArray&& array, At<Axes>... position) {
  static_assert(sizeof...(Axes) == std::remove_cvref_t<AnyArray>::kNamedAxes,
                "one position for each axis");
  return array.data()[(
      std::int64_t{0} + ... +
      (array.template extent<Axes>() == 1 ? 0 : position.value * array.template stride<Axes>()))];
}

// An owning f64 array, dense, zero at first.
template <class... Axes>
class Array {
 public:
  static constexpr int kNamedAxes = sizeof...(Axes);

  Array(Along<Axes>... extents)  // NOLINT(google-explicit-constructor)
      : extents_{extents.extent...}, values_(static_cast<std::size_t>((extents.extent * ...))) {
    std::int64_t stride = 1;
    for (int i = kNamedAxes; i-- > 0; stride *= extents_[i]) strides_[i] = stride;
  }

  double* data() { return values_.data(); }
  const double* data() const { return values_.data(); }
  template <class Axis>
  std::int64_t extent() const {
    return extents_[position<Axis>()];
  }
  template <class Axis>
  std::int64_t stride() const {
    return strides_[position<Axis>()];
  }
  operator View<const double, Axes...>()
      const {  // NOLINT(google-explicit-constructor): an array reads as a view
    return {data(), extents_, kNamedAxes, strides_, kNamedAxes};
  }

 private:
  template <class Axis>
  static constexpr int position() {
    static_assert(detail::contains<Axis, Axes...>, "this array has no such axis");
    return detail::AxisList<Axes...>::template index<Axis>();
  }

  std::int64_t extents_[kNamedAxes], strides_[kNamedAxes];
  std::vector<double> values_;
};

// A position along the batch axes of a result.
struct Batch {
  int axes = 0;
  std::int64_t position[kMaxBatchAxes] = {};
};

// The same view at that position, without its batch axes: they align with the result's from the
// right, and broadcast where they are missing or of extent 1.
template <class T, class... Axes>
View<T, Axes...> batch_element(const View<T, Axes...>& view, const Batch& batch) {
  T* data = view.data();
  if (data == nullptr) return {};
  for (int i = 0; i < view.batch_axes(); ++i) {
    const std::int64_t position = batch.position[batch.axes - view.batch_axes() + i];
    if (view.batch_extent(i) != 1) data += position * view.batch_stride(i);
  }
  // The last one is for views without named axes.
  const std::int64_t extents[] = {view.template extent<Axes>()..., 0};
  const std::int64_t strides[] = {view.template stride<Axes>()..., 0};
  return {data, extents, sizeof...(Axes), strides, sizeof...(Axes)};
}

// The number of that position, the last axis fastest.
template <class AnyView>
std::int64_t number_of(const AnyView& view, const Batch& batch) {
  std::int64_t number = 0;
  for (int i = 0; i < batch.axes; ++i) number = number * view.batch_extent(i) + batch.position[i];
  return number;
}

// Positions [begin, begin + extent) along an axis of a view without batch axes.
template <class Axis, class T, class... Axes>
View<T, Axes...> slice(const View<T, Axes...>& view, std::int64_t begin, std::int64_t extent) {
  const std::int64_t extents[] = {
      (std::is_same_v<Axis, Axes> ? extent : view.template extent<Axes>())...};
  const std::int64_t strides[] = {view.template stride<Axes>()...};
  return {view.data() + begin * view.template stride<Axis>(), extents, sizeof...(Axes), strides,
          sizeof...(Axes)};
}

// The first n of `whole` positions along an axis that may be broadcast.
template <class Axis, class AnyView>
AnyView first_of(const AnyView& view, std::int64_t n, std::int64_t whole) {
  return view && view.template extent<Axis>() == whole ? slice<Axis>(view, 0, n) : view;
}

// Calls visit(batch) for every position along the batch axes of a view, the last axis fastest.
template <class AnyView, class Visit>
void for_each_batch(const AnyView& view, const Visit& visit) {
  Batch batch{view.batch_axes(), {}};
  for (int i = 0; i < batch.axes; ++i) {
    if (view.batch_extent(i) == 0) return;
  }
  for (int i = batch.axes; i >= 0;) {
    visit(static_cast<const Batch&>(batch));
    for (i = batch.axes - 1; i >= 0 && ++batch.position[i] == view.batch_extent(i); --i)
      batch.position[i] = 0;
  }
}

}  // namespace rapt::reference
