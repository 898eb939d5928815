// Arrays of the tests: any strides, flush against a guard page, poison between the elements.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
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
Layout random_layout(Random& random, int rank, bool input);

// A float that no computation makes: a signalling NaN with a payload.
inline constexpr std::uint32_t kPoison = 0x7fa5a5a5u;

// All of a tensor that does not depend on its type. (In a source file, because it is optimized
// there: tests are not.)
class AnyTensor {
 public:
  std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()); }
  const std::vector<std::int64_t>& extents() const { return extents_; }
  const std::vector<std::int64_t>& strides() const { return strides_; }

  // Remembers every byte; the two checks below compare with it.
  void seal();
  // Nothing was written at all.
  testing::AssertionResult unchanged() const;
  // Nothing was written between the elements.
  testing::AssertionResult gaps_unchanged() const;
  // Every element and every gap poisoned again, and sealed: ready to be written.
  void reset();

 protected:
  AnyTensor(std::vector<std::int64_t> extents, const Layout& layout, std::size_t element_bytes);
  std::byte* memory() const { return memory_.data(); }
  std::int64_t origin() const { return origin_; }
  std::int64_t offset(std::int64_t i) const { return offsets_[static_cast<std::size_t>(i)]; }
  void copy_elements(void* to) const;

 private:
  void poison();

  std::vector<std::int64_t> extents_, strides_, offsets_;
  std::size_t element_bytes_;
  GuardedMemory memory_;
  std::int64_t origin_ = 0;
  std::vector<std::byte> sealed_;
};

template <class T>
class Tensor : public AnyTensor {
 public:
  explicit Tensor(std::vector<std::int64_t> extents, const Layout& layout = {})
      : AnyTensor(std::move(extents), layout, sizeof(T)) {}

  // A view without elements still has an address, so that it counts as given.
  T* data() const { return reinterpret_cast<T*>(memory()); }
  T& operator[](std::int64_t i) const { return data()[offset(i)]; }

  template <class Make>
  void fill(const Make& make) {
    for (std::int64_t i = 0; i < size(); ++i) (*this)[i] = make(i);
  }
  template <class... Axes>
  View<T, Axes...> view() const {
    return {data() + origin(), extents().data(), extents().size(), strides().data(),
            strides().size()};
  }
  std::vector<T> values() const {
    std::vector<T> result(static_cast<std::size_t>(size()));
    copy_elements(result.data());
    return result;
  }
};

// The same bits, element by element.
testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace rapt::tests
