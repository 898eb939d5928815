// The checks of single views and pairs of views that every problem is made of.
#pragma once

#include <cstdlib>
#include <string>

#include "problem/sentences.hpp"
#include "rapt/view.hpp"
#include "tiles/array.hpp"

namespace rapt::problem {

// Offsets stay this far from the ends of int64, so that sums of a few of them cannot overflow.
inline constexpr std::int64_t kMaxOffset = std::int64_t{1} << 60;

// What a sentence calls an axis. It is spelled there alone, and what fails stands in functions of
// its own, because checks are a good part of a small call.
class AxisName {
 public:
  AxisName(const char* name) : name_(name) {}  // NOLINT(google-explicit-constructor)
  static AxisName batch(int i) {
    AxisName axis("batch ");
    axis.batch_ = i;
    return axis;
  }
  std::string text() const { return batch_ < 0 ? name_ : name_ + std::to_string(batch_); }

 private:
  const char* name_;
  int batch_ = -1;
};

// One axis at a time: extents are not negative, the element count and the furthest offset fit.
class Range {
 public:
  Range(const char* view, std::int64_t element_size)
      : view_(view), most_(static_cast<Count>(kMaxOffset / element_size)) {}

  void axis(AxisName name, std::int64_t extent, std::int64_t stride) {
    if (extent < 0) negative(view_, name, extent);
    if (extent == 0) empty_ = true;
    // A stride may be anything where it is never taken.
    const Count steps = static_cast<Count>(extent > 1 ? extent - 1 : 0);
    const Count magnitude =
        stride < 0 ? Count{0} - static_cast<Count>(stride) : static_cast<Count>(stride);
    Count further;
    if (__builtin_mul_overflow(elements_, steps + 1, &elements_) || elements_ > most_ ||
        __builtin_mul_overflow(steps, magnitude, &further) || further > most_ - reach_)
      too_large(view_, name, extent, stride);
    reach_ += further;
  }
  std::int64_t count() const { return empty_ ? 0 : static_cast<std::int64_t>(elements_); }

 private:
  using Count = std::uint64_t;

  [[noreturn, gnu::cold, gnu::noinline]] static void negative(const char* view, AxisName name,
                                                              std::int64_t extent) {
    fail(ErrorCode::extent_range, {name.text(), view, extent, std::int64_t{0}, kMaxOffset});
  }
  [[noreturn, gnu::cold, gnu::noinline]] static void too_large(const char* view, AxisName name,
                                                               std::int64_t extent,
                                                               std::int64_t stride) {
    fail(ErrorCode::too_large, {view, name.text(), extent, stride});
  }

  const char* view_;
  Count most_, reach_ = 0;  // elements
  Count elements_ = 1;      // but for axes that have none
  bool empty_ = false;
};

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_null(const char* name, std::int64_t count) {
  fail(ErrorCode::null_data, {name, count});
}

// Returns the number of elements.
template <class T, class... Axes>
std::int64_t check_memory(const char* name, const View<T, Axes...>& view,
                          std::int64_t element_size = sizeof(T)) {
  Range range(name, element_size);
  for (int i = 0; i < view.batch_axes(); ++i)
    range.axis(AxisName::batch(i), view.batch_extent(i), view.batch_stride(i));
  (range.axis(Axes::name, view.template extent<Axes>(), view.template stride<Axes>()), ...);
  if (range.count() > 0 && view.data() == nullptr) fail_null(name, range.count());
  return range.count();
}

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_overlap(AxisName axis, const char* name,
                                                                std::int64_t extent) {
  fail(ErrorCode::bad_value,
       {"the stride of axis " + axis.text() + " of " + name, std::int64_t{0},
        "an output's elements must lie apart: extent " + std::to_string(extent)});
}

// An output: two of its elements must not be one.
template <class T, class... Axes>
void check_output(const char* name, const View<T, Axes...>& view,
                  std::int64_t element_size = sizeof(T)) {
  if (check_memory(name, view, element_size) == 0) return;
  const auto distinct = [&](AxisName axis, std::int64_t extent, std::int64_t stride) {
    if (extent > 1 && stride == 0) fail_overlap(axis, name, extent);
  };
  for (int i = 0; i < view.batch_axes(); ++i)
    distinct(AxisName::batch(i), view.batch_extent(i), view.batch_stride(i));
  (distinct(Axes::name, view.template extent<Axes>(), view.template stride<Axes>()), ...);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_agreement(AxisName axis, const char* one,
                                                                  std::int64_t a, const char* other,
                                                                  std::int64_t b) {
  fail(ErrorCode::extent_mismatch, {axis.text(), one, a, other, b});
}
inline void agree(AxisName axis, const char* one, std::int64_t a, const char* other,
                  std::int64_t b) {
  if (a != b) fail_agreement(axis, one, a, other, b);
}

inline void within(const char* axis, const char* view, std::int64_t extent, std::int64_t low,
                   std::int64_t high) {
  if (extent < low || extent > high) fail(ErrorCode::extent_range, {axis, view, extent, low, high});
}

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_rank(const char* one, int a,
                                                             const char* other, int b) {
  fail(ErrorCode::wrong_rank, {one, std::int64_t{a}, other, std::int64_t{b}});
}

// Both views have the same batch axes.
template <class A, class B>
void agree_batch(const char* one, const A& a, const char* other, const B& b) {
  if (a.batch_axes() != b.batch_axes()) fail_rank(one, a.batch_axes(), other, b.batch_axes());
  for (int i = 0; i < a.batch_axes(); ++i)
    agree(AxisName::batch(i), one, a.batch_extent(i), other, b.batch_extent(i));
}

// Both views have the same extents, all of them: a gradient, and what it is of.
template <class T, class Of, class... Axes>
void agree_all(const char* of, const View<Of, Axes...>& view, const char* name,
               const View<T, Axes...>& grad) {
  agree_batch(of, view, name, grad);
  (agree(Axes::name, of, view.template extent<Axes>(), name, grad.template extent<Axes>()), ...);
}

// The batch axes of `small` align with those of `large` from the right; missing ones and those of
// extent 1 are broadcast. Returns small's strides for large's axes.
template <class Small>
void broadcast_batch(const char* name, const Small& small, const char* other,
                     const tiles::Batch& large, tiles::Index (&strides)[tiles::kBatchAxes]) {
  const int missing = large.axes - small.batch_axes();
  if (missing < 0) fail_rank(name, small.batch_axes(), other, large.axes);
  for (int i = 0; i < large.axes; ++i) {
    strides[i] = 0;
    if (i < missing || small.batch_extent(i - missing) == 1) continue;
    agree(AxisName::batch(i), name, small.batch_extent(i - missing), other, large.extent[i]);
    strides[i] = small.batch_stride(i - missing);
  }
}

// The stride of an axis that may be broadcast.
inline std::int64_t broadcast_axis(const char* axis, const char* name, std::int64_t extent,
                                   std::int64_t stride, const char* other, std::int64_t wanted) {
  if (extent == 1) return 0;
  agree(axis, name, extent, other, wanted);
  return stride;
}

template <class Large>
tiles::Batch flatten_batch(const Large& view) {
  tiles::Batch batch;
  batch.axes = view.batch_axes();
  for (int i = 0; i < batch.axes; ++i) {
    batch.extent[i] = view.batch_extent(i);
    batch.size *= batch.extent[i];
  }
  return batch;
}

}  // namespace rapt::problem
