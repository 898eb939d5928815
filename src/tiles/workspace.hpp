// Named pieces of a worker's memory: booked with the same calls while planning (from null, to
// count) and while running (from the real memory), so that stated and used workspace cannot drift
// apart.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"

namespace rapt::tiles {

class Workspace {
 public:
  explicit Workspace(float* memory) : memory_(memory) {}

  // The next n floats, on a cache line of their own.
  float* floats(kernels::Index n) {
    float* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (n + 15) / 16 * 16;
    return piece;
  }
  template <class T>
  T** pointers(kernels::Index n) {
    static_assert(sizeof(T*) <= 2 * sizeof(float));
    return reinterpret_cast<T**>(floats(2 * n));
  }
  kernels::Index used() const { return used_; }

 private:
  float* memory_;
  kernels::Index used_ = 0;
};

}  // namespace rapt::tiles
