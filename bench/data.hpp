// Memory for operands and results, as the benchmark and the peers use it, and reproducible numbers
// to fill it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rapt::bench {

// Uninitialised floats on huge pages where the system gives them on request, as NumPy's arrays are:
// the bandwidth of memory is then not the bandwidth of the TLB.
class Buffer {
 public:
  explicit Buffer(std::int64_t size) : size_(static_cast<std::size_t>(size)) {
    constexpr std::size_t kPage = std::size_t{2} << 20;
    const std::size_t align = size_ * sizeof(float) >= kPage ? kPage : 64;
    const std::size_t bytes = (size_ * sizeof(float) + align - 1) / align * align;
    data_.reset(static_cast<float*>(std::aligned_alloc(align, bytes > 0 ? bytes : align)));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
    if (align == kPage) (void)madvise(data_.get(), bytes, MADV_HUGEPAGE);  // may be refused
#endif
  }

  float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::span<float> span() const { return {data(), size()}; }
  float& operator[](std::int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::size_t size_;
  std::unique_ptr<float[], Free> data_;
};

// Normal(0, 1), from a table of prime length, so that a large operand costs a copy and no two of
// its rows are the same. Another `start` gives other numbers.
inline void fill_normal(std::span<float> out, std::size_t start) {
  static const std::vector<float> table = [] {
    std::vector<float> numbers(1000003);
    std::uint64_t state = 1;
    const auto uniform = [&state] {  // (0, 1), splitmix64
      std::uint64_t z = state += 0x9e3779b97f4a7c15u;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      return (static_cast<double>((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
    };
    for (float& number : numbers) {  // Box and Muller
      const double radius = std::sqrt(-2 * std::log(uniform()));
      number = static_cast<float>(radius * std::cos(6.283185307179586 * uniform()));
    }
    return numbers;
  }();
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = table[(start + i) % table.size()];
}

}  // namespace rapt::bench
