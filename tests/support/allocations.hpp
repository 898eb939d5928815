// Replaces operator new, so that tests see every allocation of the program and can refuse one.
// Included by one file of a program.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

// Clang's word for it, and g++'s.
#if defined(__has_feature)
#define RAPT_THREAD_SANITIZER __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define RAPT_THREAD_SANITIZER 1
#else
#define RAPT_THREAD_SANITIZER 0
#endif

namespace rapt::tests {

inline std::atomic<std::int64_t> allocations{0};  // so far
inline std::atomic<std::int64_t> live{0};         // not yet freed
inline std::atomic<std::size_t> largest{0};       // in bytes

// After so many more allocations of this thread, the next one fails; negative: none does.
inline thread_local std::int64_t fails_after = -1;

inline void* allocate(std::size_t bytes, std::size_t alignment) {
  if (fails_after >= 0 && fails_after-- == 0) throw std::bad_alloc();
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes == 0 ? 1 : bytes) != 0) throw std::bad_alloc();
  ++allocations;
  ++live;
  if (bytes > largest) largest = bytes;
  return memory;
}
inline void deallocate(void* memory) {
  if (memory != nullptr) --live;
  std::free(memory);
}

}  // namespace rapt::tests

// ThreadSanitizer brings its own; there nothing is counted and nothing refused.
#if !RAPT_THREAD_SANITIZER
void* operator new(std::size_t bytes) {
  return rapt::tests::allocate(bytes, sizeof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return rapt::tests::allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { rapt::tests::deallocate(memory); }
void operator delete(void* memory, std::size_t) noexcept { rapt::tests::deallocate(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { rapt::tests::deallocate(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  rapt::tests::deallocate(memory);
}
#endif
