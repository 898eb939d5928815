// Where the library takes its workspaces from.
#pragma once

#include <cstddef>

#include "rapt/export.h"

namespace rapt {

// The functions of an engine's own memory. They are called by the threads that call rapt, many at
// once, and never by those of an executor.
struct Allocator {
  // bytes > 0; the memory begins at a multiple of 64. Null: there is none, and the call of rapt
  // throws std::bad_alloc.
  void* (*allocate)(void* context, std::size_t bytes) = nullptr;
  // What allocate returned, with its bytes. Must not throw.
  void (*deallocate)(void* context, void* memory, std::size_t bytes) = nullptr;
  void* context = nullptr;
};

// From now on the workspaces of attention, of the matrix product and of MultiHeadAttention come
// from `allocator`, in the whole process: each call asks when it starts, and gives all of it back
// before it returns. Neither function given: operator new again, and each thread keeps up to 128
// MiB from call to call. The rest is operator new's always: plans, messages and the config, which
// do not grow with the arrays; a layer's parameters; and salience_map, which is for looking.
// Thread-safe; calls that have started go on with the allocator that they had, so functions and
// context must outlive these. Throws bad_value when one function is given without the other.
RAPT_API void set_allocator(const Allocator& allocator);

}  // namespace rapt
