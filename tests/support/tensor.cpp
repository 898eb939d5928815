// Layouts, and what of a tensor does not depend on its type.
#include "support/tensor.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace rapt::tests {

Layout random_layout(Random& random, int rank, bool input) {
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

AnyTensor::AnyTensor(std::vector<std::int64_t> extents, const Layout& layout,
                     std::size_t element_bytes)
    : extents_(std::move(extents)),
      strides_(extents_.size()),
      element_bytes_(element_bytes),
      memory_(0, Edge::end) {
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
  memory_ = GuardedMemory(count * element_bytes_, layout.edge);
  poison();
  origin_ = size == 0 ? 0 : first;

  // The offset of every element, in the order of the listed axes.
  offsets_.resize(static_cast<std::size_t>(size));
  std::vector<std::int64_t> at(extents_.size());
  std::int64_t next = origin_;
  for (std::int64_t& offset : offsets_) {
    offset = next;
    for (std::size_t a = at.size(); a-- > 0;) {
      next += strides_[a];
      if (++at[a] < extents_[a]) break;
      next -= at[a] * strides_[a];
      at[a] = 0;
    }
  }
}

void AnyTensor::seal() { sealed_.assign(memory(), memory() + memory_.bytes()); }

testing::AssertionResult AnyTensor::unchanged() const {
  // No bytes may have no address.
  if (sealed_.empty() || std::memcmp(sealed_.data(), memory(), sealed_.size()) == 0)
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "memory was written that should not have been";
}

testing::AssertionResult AnyTensor::gaps_unchanged() const {
  std::vector<char> element(memory_.bytes() / element_bytes_);
  for (std::int64_t offset : offsets_) element[static_cast<std::size_t>(offset)] = 1;
  for (std::size_t i = 0; i < element.size(); ++i) {
    if (element[i] != 0) continue;
    const std::size_t byte = i * element_bytes_;
    if (std::memcmp(&sealed_[byte], memory() + byte, element_bytes_) != 0)
      return testing::AssertionFailure() << "padding was written at offset " << i;
  }
  return testing::AssertionSuccess();
}

void AnyTensor::reset() {
  poison();
  seal();
}

void AnyTensor::copy_elements(void* to) const {
  auto* next = static_cast<std::byte*>(to);
  for (std::int64_t offset : offsets_) {
    std::memcpy(next, memory() + static_cast<std::size_t>(offset) * element_bytes_, element_bytes_);
    next += element_bytes_;
  }
}

void AnyTensor::poison() {
  const std::size_t bytes = memory_.bytes();
  if (element_bytes_ != sizeof(kPoison)) {
    if (bytes > 0) std::memset(memory(), 0xa5, bytes);
    return;
  }
  for (std::size_t at = 0; at < bytes; at += sizeof(kPoison))
    std::memcpy(memory() + at, &kPoison, sizeof(kPoison));
}

testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size())
    return testing::AssertionFailure() << a.size() << " elements against " << b.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return testing::AssertionFailure()
             << "element " << i << " is " << a[i] << " in one run and " << b[i] << " in the other";
  }
  return testing::AssertionSuccess();
}

}  // namespace rapt::tests
