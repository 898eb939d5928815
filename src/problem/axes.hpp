// The checks of single views and pairs of views that every problem is made of.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include "problem/sentences.hpp"
#include "rapt/view.hpp"
#include "tiles/array.hpp"

namespace rapt::problem {

// Offsets stay this far from the ends of int64, so that sums of a few of them cannot overflow.
inline constexpr std::int64_t kMaxOffset = std::int64_t{1} << 60;

inline std::string batch_name(int i) { return "batch " + std::to_string(i); }

// One axis at a time: extents are not negative, the element count and the furthest offset fit.
class Range {
 public:
  Range(const char* view, std::int64_t element_size)
      : view_(view), bytes_(static_cast<Bytes>(element_size)) {}

  void axis(std::string_view name, std::int64_t extent, std::int64_t stride) {
    if (extent < 0) negative(name, extent);
    if (extent == 0) empty_ = true;
    // A stride may be anything where it is never taken.
    const Bytes steps = static_cast<Bytes>(extent > 1 ? extent - 1 : 0);
    const Bytes magnitude =
        stride < 0 ? Bytes{0} - static_cast<Bytes>(stride) : static_cast<Bytes>(stride);
    elements_ = times(elements_, steps + 1);
    const Bytes further = times(times(steps, magnitude), bytes_);
    // Each is small when the next axis comes, so that this sum cannot overflow.
    if (times(elements_, bytes_) > kMaxOffset || further > kMaxOffset ||
        reach_ + further > kMaxOffset)
      too_large(name, extent, stride);
    reach_ += further;
  }
  std::int64_t count() const { return empty_ ? 0 : static_cast<std::int64_t>(elements_); }

 private:
  using Bytes = std::uint64_t;
  // The product, or the most there is.
  static Bytes times(Bytes a, Bytes b) {
    Bytes product;
    return __builtin_mul_overflow(a, b, &product) ? ~Bytes{0} : product;
  }

  // By themselves, because checks are a good part of a small call.
  [[noreturn, gnu::cold, gnu::noinline]] void negative(std::string_view name,
                                                       std::int64_t extent) const {
    fail(ErrorCode::extent_range, {std::string(name), view_, extent, std::int64_t{0}, kMaxOffset});
  }
  [[noreturn, gnu::cold, gnu::noinline]] void too_large(std::string_view name, std::int64_t extent,
                                                        std::int64_t stride) const {
    fail(ErrorCode::too_large, {view_, std::string(name), extent, stride});
  }

  const char* view_;
  Bytes bytes_, reach_ = 0;
  Bytes elements_ = 1;  // but for axes that have none
  bool empty_ = false;
};

// Returns the number of elements.
template <class T, class... Axes>
std::int64_t check_memory(const char* name, const View<T, Axes...>& view,
                          std::int64_t element_size = sizeof(T)) {
  Range range(name, element_size);
  for (int i = 0; i < view.batch_axes(); ++i)
    range.axis(batch_name(i), view.batch_extent(i), view.batch_stride(i));
  (range.axis(Axes::name, view.template extent<Axes>(), view.template stride<Axes>()), ...);
  if (range.count() > 0 && view.data() == nullptr)
    fail(ErrorCode::null_data, {name, range.count()});
  return range.count();
}

// An output: two of its elements must not be one.
template <class T, class... Axes>
void check_output(const char* name, const View<T, Axes...>& view,
                  std::int64_t element_size = sizeof(T)) {
  if (check_memory(name, view, element_size) == 0) return;
  const auto distinct = [&](std::string_view axis, std::int64_t extent, std::int64_t stride) {
    if (extent > 1 && stride == 0) {
      fail(ErrorCode::bad_value,
           {"the stride of axis " + std::string(axis) + " of " + name, stride,
            "an output's elements must lie apart: extent " + std::to_string(extent)});
    }
  };
  for (int i = 0; i < view.batch_axes(); ++i)
    distinct(batch_name(i), view.batch_extent(i), view.batch_stride(i));
  (distinct(Axes::name, view.template extent<Axes>(), view.template stride<Axes>()), ...);
}

inline void agree(std::string_view axis, const char* one, std::int64_t a, const char* other,
                  std::int64_t b) {
  if (a != b) fail(ErrorCode::extent_mismatch, {std::string(axis), one, a, other, b});
}

inline void within(const char* axis, const char* view, std::int64_t extent, std::int64_t low,
                   std::int64_t high) {
  if (extent < low || extent > high) fail(ErrorCode::extent_range, {axis, view, extent, low, high});
}

// Both views have the same batch axes.
template <class A, class B>
void agree_batch(const char* one, const A& a, const char* other, const B& b) {
  if (a.batch_axes() != b.batch_axes()) {
    fail(ErrorCode::wrong_rank,
         {one, std::int64_t{a.batch_axes()}, other, std::int64_t{b.batch_axes()}});
  }
  for (int i = 0; i < a.batch_axes(); ++i)
    agree(batch_name(i), one, a.batch_extent(i), other, b.batch_extent(i));
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
  if (missing < 0) {
    fail(ErrorCode::wrong_rank,
         {name, std::int64_t{small.batch_axes()}, other, std::int64_t{large.axes}});
  }
  for (int i = 0; i < large.axes; ++i) {
    strides[i] = 0;
    if (i < missing || small.batch_extent(i - missing) == 1) continue;
    agree(batch_name(i), name, small.batch_extent(i - missing), other, large.extent[i]);
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
