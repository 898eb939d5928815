// The allocator of the process, and the memory that a thread keeps.
#include "parallel/memory.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <forward_list>
#include <mutex>
#include <new>
#include <string>

#include "rapt/error.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rapt {
namespace {

std::atomic<const Allocator*> current{nullptr};  // null: operator new

}  // namespace

void set_allocator(const Allocator& allocator) {
  if ((allocator.allocate == nullptr) != (allocator.deallocate == nullptr)) {
    const bool no_allocate = allocator.allocate == nullptr;
    throw Error(ErrorCode::bad_value,
                std::string("allocator.") + (no_allocate ? "allocate" : "deallocate") +
                    " is null, but " + (no_allocate ? "deallocate" : "allocate") + " is given");
  }
  if (allocator.allocate == nullptr) return current.store(nullptr);
  // Each stays for ever, because blocks of calls that run point to theirs.
  static std::mutex mutex;
  static auto& all = *new std::forward_list<Allocator>;
  const std::lock_guard lock(mutex);
  const auto known = std::find_if(all.begin(), all.end(), [&](const Allocator& other) {
    return other.allocate == allocator.allocate && other.deallocate == allocator.deallocate &&
           other.context == allocator.context;
  });
  current.store(known == all.end() ? &all.emplace_front(allocator) : &*known);
}

namespace parallel {
namespace {

using kernels::Index;

constexpr Index kKept = Index{1} << 25;  // 128 MiB
constexpr std::align_val_t kLine{64}, kHugePage{std::size_t{2} << 20};

// What is read again and again takes a huge page, if the system has some: tiles that stream through
// small ones wait for the TLB.
std::align_val_t alignment_of(std::size_t bytes) {
  return bytes >= 2 * static_cast<std::size_t>(kHugePage) ? kHugePage : kLine;
}

void* new_memory(std::size_t bytes) {
  const std::align_val_t alignment = alignment_of(bytes);
  void* const memory = ::operator new(bytes, alignment);
#ifdef __linux__
  if (alignment == kHugePage) (void)madvise(memory, bytes, MADV_HUGEPAGE);  // may be refused
#endif
  return memory;
}

// What the thread keeps. A call that comes after a thread's destructors finds nothing.
thread_local bool kept_is_gone = false;
struct Kept {
  Block block;
  ~Kept() { kept_is_gone = true; }
};
thread_local Kept kept;

std::size_t bytes_of(Index floats) {
  constexpr Index kMost = PTRDIFF_MAX / sizeof(float);
  if (floats < 0 || floats > kMost) throw std::bad_array_new_length();
  return static_cast<std::size_t>(floats) * sizeof(float);
}

}  // namespace

Block::Block(Index floats) : from_(current.load()), floats_(floats) {
  const std::size_t bytes = bytes_of(floats);
  if (bytes == 0) return;
  void* const memory =
      from_ == nullptr ? new_memory(bytes) : from_->allocate(from_->context, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  const auto beyond = reinterpret_cast<std::uintptr_t>(memory) % static_cast<std::size_t>(kLine);
  if (beyond != 0) {
    from_->deallocate(from_->context, memory, bytes);
    throw Error(ErrorCode::bad_value, "the address that allocator.allocate returned modulo 64 is " +
                                          std::to_string(beyond) + ", but must be 0");
  }
  data_ = static_cast<float*>(memory);
}

Block::~Block() {
  if (data_ == nullptr) return;
  if (from_ == nullptr) {
    ::operator delete(data_, alignment_of(bytes_of(floats_)));
  } else {
    from_->deallocate(from_->context, data_, bytes_of(floats_));
  }
}

Memory::Memory(Index floats) {
  if (floats == 0) return;
  // With an allocator, what was kept before there was one is given back.
  if (!kept_is_gone) block_ = std::move(kept.block);
  if (current.load() != nullptr) block_ = Block();
  if (block_.floats() < floats) {
    block_ = Block();  // before the larger one comes
    block_ = Block(floats);
  }
}

Memory::~Memory() {
  if (block_.floats() > 0 && block_.is_of_operator_new() && !kept_is_gone &&
      block_.floats() <= kKept && block_.floats() > kept.block.floats())
    kept.block = std::move(block_);
}

}  // namespace parallel
}  // namespace rapt
