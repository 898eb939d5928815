// Memory that outlives a call: asking the system for megabytes on every call would cost more than
// small products.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "kernels/kernels.hpp"

namespace rapt::parallel {

// Floats on cache lines, kept by the thread from call to call up to kKept. A call that runs inside
// another one (from a caller's executor) finds the memory taken and gets its own.
class Memory {
 public:
  explicit Memory(kernels::Index floats) {
    block_ = std::exchange(kept(), Block());
    if (block_.floats < floats) block_ = Block(floats);
  }
  ~Memory() {
    if (block_.floats <= kKept && block_.floats > kept().floats) kept() = std::move(block_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  float* data() { return block_.data.get(); }

 private:
  static constexpr kernels::Index kKept = kernels::Index{1} << 25;  // 128 MiB
  static constexpr std::align_val_t kLine{64};

  struct Free {
    void operator()(float* data) const { ::operator delete(data, kLine); }
  };
  struct Block {
    Block() = default;
    explicit Block(kernels::Index n)
        : floats(n),
          data(static_cast<float*>(
              ::operator new(static_cast<std::size_t>(n) * sizeof(float), kLine))) {}
    Block(Block&& other) noexcept
        : floats(std::exchange(other.floats, 0)), data(std::move(other.data)) {}
    Block& operator=(Block&& other) noexcept {
      floats = std::exchange(other.floats, 0);
      data = std::move(other.data);
      return *this;
    }
    kernels::Index floats = 0;
    std::unique_ptr<float, Free> data;
  };
  static Block& kept() {
    thread_local Block block;
    return block;
  }

  Block block_;
};

}  // namespace rapt::parallel
