// Workspaces: memory from the allocator of the process.
#pragma once

#include <utility>

#include "kernels/kernels.hpp"
#include "rapt/memory.hpp"

namespace rapt::parallel {

// Floats on cache lines, given back to whom they came from.
class Block {
 public:
  Block() = default;
  explicit Block(kernels::Index floats);  // throws std::bad_alloc
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    Block(std::move(other)).swap(*this);
    return *this;
  }
  ~Block();

  float* data() const { return data_; }
  kernels::Index floats() const { return floats_; }
  bool is_of_operator_new() const { return from_ == nullptr; }

 private:
  void swap(Block& other) noexcept {
    std::swap(from_, other.from_);
    std::swap(data_, other.data_);
    std::swap(floats_, other.floats_);
  }
  const Allocator* from_ = nullptr;  // null: operator new
  float* data_ = nullptr;
  kernels::Index floats_ = 0;
};

// The block of one call. Asking the system for megabytes on every call would cost more than small
// products, so where no allocator is set the thread keeps it from call to call. A call that runs
// inside another one (from a caller's executor) finds the memory taken and gets its own.
class Memory {
 public:
  explicit Memory(kernels::Index floats);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  float* data() const { return block_.data(); }

 private:
  Block block_;
};

}  // namespace rapt::parallel
