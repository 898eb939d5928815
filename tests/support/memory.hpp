// Memory with a page that faults directly after its last byte, and another directly before its
// first: one of the two is flush against the data, so that a read or write one byte outside is a
// crash, in every build and without a sanitizer.
#pragma once

#include <cstddef>

namespace rapt::tests {

// Which end of the data touches a guard page.
enum class Edge { end, start };

class GuardedMemory {
 public:
  GuardedMemory(std::size_t bytes, Edge edge);
  ~GuardedMemory();
  GuardedMemory(GuardedMemory&&) noexcept;
  GuardedMemory& operator=(GuardedMemory&&) noexcept;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Address space without memory behind it: pages come into being where they are touched.
class SparseMemory {
 public:
  explicit SparseMemory(std::size_t bytes);  // bytes() is 0 where the system refuses
  ~SparseMemory();
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace rapt::tests
