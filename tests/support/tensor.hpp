// Arrays of the tests: any strides, flush against a guard page, poison between the elements.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "rapt/view.hpp"
#include "support/memory.hpp"
#include "support/random.hpp"

namespace rapt::tests {

// How the axes lie in memory. Axes are counted from the outermost as the view lists them.
struct Layout {
  std::vector<int> order;    // axes from outermost to innermost; empty: as listed
  std::int64_t step = 1;     // stride of the innermost
  std::int64_t padding = 0;  // elements left free after each run of an axis
  unsigned reversed = 0;     // bit a: axis a runs backwards in memory (negative stride)
  unsigned shared = 0;       // bit a: axis a has stride 0 (for inputs)
  Edge edge = Edge::end;
};

// Any layout of `rank` axes. What is written may not share memory; inputs may run backwards.
inline Layout random_layout(Random& random, int rank, bool input) {
  Layout layout;
  layout.edge = random.percent(50) ? Edge::end : Edge::start;
  if (random.percent(40)) return layout;  // dense is what most users have
  layout.order.resize(static_cast<std::size_t>(rank));
  std::iota(layout.order.begin(), layout.order.end(), 0);
  // Mostly the last axis stays innermost: the fast paths want a contiguous depth.
  const int movable = random.percent(70) ? rank - 1 : rank;
  for (int i = movable - 1; i > 0; --i) {
    std::swap(layout.order[static_cast<std::size_t>(i)],
              layout.order[static_cast<std::size_t>(random.between(0, i))]);
  }
  layout.step = random.percent(80) ? 1 : random.between(2, 3);
  layout.padding = random.percent(50) ? 0 : random.between(1, 9);
  if (input && random.percent(20)) layout.reversed = static_cast<unsigned>(random.bits() & 0xff);
  return layout;
}

// A float that no computation makes: a signalling NaN with a payload.
inline constexpr std::uint32_t kPoison = 0x7fa5a5a5u;

template <class T>
class Tensor {
 public:
  explicit Tensor(std::vector<std::int64_t> extents, const Layout& layout = {})
      : extents_(std::move(extents)), strides_(extents_.size()), memory_(0, Edge::end) {
    const int rank = static_cast<int>(extents_.size());
    std::vector<int> order = layout.order;
    if (order.empty()) {
      order.resize(extents_.size());
      std::iota(order.begin(), order.end(), 0);
    }
    std::int64_t size = 1, run = layout.step, last = 0, first = 0;
    for (int i = rank - 1; i >= 0; --i) {
      const auto axis = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
      const std::int64_t extent = extents_[axis];
      size *= extent;
      if (layout.shared >> axis & 1) continue;  // stride 0
      const std::int64_t reach = std::max<std::int64_t>(extent - 1, 0) * run;
      last += reach;
      if (layout.reversed >> axis & 1) first += reach;
      strides_[axis] = layout.reversed >> axis & 1 ? -run : run;
      run = run * std::max<std::int64_t>(extent, 1) + layout.padding;
    }
    const std::size_t count = size == 0 ? 0 : static_cast<std::size_t>(last) + 1;
    memory_ = GuardedMemory(count * sizeof(T), layout.edge);
    for (std::size_t i = 0; i < count; ++i) poison(i);
    origin_ = size == 0 ? 0 : first;

    // The offset of every element, in the order of the listed axes.
    offsets_.resize(static_cast<std::size_t>(size));
    std::vector<std::int64_t> at(extents_.size());
    for (std::int64_t& offset : offsets_) {
      offset = origin_;
      for (std::size_t a = 0; a < at.size(); ++a) offset += at[a] * strides_[a];
      for (std::size_t a = at.size(); a-- > 0 && ++at[a] == extents_[a];) at[a] = 0;
    }
  }

  // A view without elements still has an address, so that it counts as given.
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()); }
  const std::vector<std::int64_t>& extents() const { return extents_; }
  const std::vector<std::int64_t>& strides() const { return strides_; }
  T& operator[](std::int64_t i) const { return data()[offsets_[static_cast<std::size_t>(i)]]; }

  template <class Make>
  void fill(const Make& make) {
    for (std::int64_t i = 0; i < size(); ++i) (*this)[i] = make(i);
  }
  template <class... Axes>
  View<T, Axes...> view() const {
    return {data() + origin_, extents_.data(), extents_.size(), strides_.data(), strides_.size()};
  }
  std::vector<T> values() const {
    std::vector<T> result;
    result.reserve(offsets_.size());
    for (std::int64_t offset : offsets_) result.push_back(data()[offset]);
    return result;
  }

  // Remembers every byte; the two checks below compare with it.
  void seal() { sealed_.assign(memory_.data(), memory_.data() + memory_.bytes()); }
  // Nothing was written at all.
  testing::AssertionResult unchanged() const {
    if (std::equal(sealed_.begin(), sealed_.end(), memory_.data())) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "memory was written that should not have been";
  }
  // Nothing was written between the elements.
  testing::AssertionResult gaps_unchanged() const {
    std::vector<bool> element(memory_.bytes() / sizeof(T));
    for (std::int64_t offset : offsets_) element[static_cast<std::size_t>(offset)] = true;
    for (std::size_t i = 0; i < element.size(); ++i) {
      const std::size_t byte = i * sizeof(T);
      if (!element[i] && std::memcmp(&sealed_[byte], memory_.data() + byte, sizeof(T)) != 0) {
        return testing::AssertionFailure() << "padding was written at offset " << i;
      }
    }
    return testing::AssertionSuccess();
  }
  // Every element and every gap poisoned again, and sealed: ready to be written.
  void reset() {
    for (std::size_t i = 0; i < memory_.bytes() / sizeof(T); ++i) poison(i);
    seal();
  }

 private:
  void poison(std::size_t i) {
    std::byte* to = memory_.data() + i * sizeof(T);
    if constexpr (sizeof(T) == sizeof(kPoison)) {
      std::memcpy(to, &kPoison, sizeof(kPoison));
    } else {
      std::memset(to, 0xa5, sizeof(T));
    }
  }

  std::vector<std::int64_t> extents_, strides_, offsets_;
  GuardedMemory memory_;
  std::int64_t origin_ = 0;
  std::vector<std::byte> sealed_;
};

// The same bits, element by element.
inline testing::AssertionResult same_bits(const std::vector<float>& a,
                                          const std::vector<float>& b) {
  if (a.size() != b.size()) {
    return testing::AssertionFailure() << a.size() << " elements against " << b.size();
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return testing::AssertionFailure()
             << "element " << i << " is " << a[i] << " in one run and " << b[i] << " in the other";
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace rapt::tests
