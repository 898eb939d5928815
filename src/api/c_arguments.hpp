// What C gives, as C++ takes it: arrays become views, structs of any version become the one of this
// version, and what is thrown becomes a status. No check of a problem stands here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>

#include "problem/sentences.hpp"
#include "rapt/rapt.h"
#include "rapt/rapt.hpp"

namespace rapt::c {

inline thread_local char last_error[1024] = "";  // plain memory: keeping a message cannot fail

inline rapt_status failed(rapt_status status, const char* sentence) {
  const std::size_t n = std::min(std::strlen(sentence), sizeof(last_error) - 1);
  std::memcpy(last_error, sentence, n);
  last_error[n] = 0;
  return status;
}

static_assert(static_cast<int>(ErrorCode::null_data) + 1 == RAPT_NULL_DATA);
static_assert(static_cast<int>(ErrorCode::wrong_rank) + 1 == RAPT_WRONG_RANK);
static_assert(static_cast<int>(ErrorCode::extent_mismatch) + 1 == RAPT_EXTENT_MISMATCH);
static_assert(static_cast<int>(ErrorCode::extent_range) + 1 == RAPT_EXTENT_RANGE);
static_assert(static_cast<int>(ErrorCode::heads_not_multiple) + 1 == RAPT_HEADS_NOT_MULTIPLE);
static_assert(static_cast<int>(ErrorCode::too_large) + 1 == RAPT_TOO_LARGE);
static_assert(static_cast<int>(ErrorCode::bad_value) + 1 == RAPT_BAD_VALUE);
static_assert(static_cast<int>(ErrorCode::unknown_target) + 1 == RAPT_UNKNOWN_TARGET);
static_assert(static_cast<int>(ErrorCode::bad_config) + 1 == RAPT_BAD_CONFIG);

// Runs a call so that nothing is thrown out of it.
template <class Call>
rapt_status guarded(const Call& call) noexcept {
  try {
    call();
    return RAPT_OK;
  } catch (const Error& error) {
    return failed(static_cast<rapt_status>(static_cast<int>(error.code()) + 1), error.what());
  } catch (const std::bad_alloc&) {
    return failed(RAPT_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return failed(RAPT_UNKNOWN_ERROR, error.what());
  } catch (...) {
    return failed(RAPT_UNKNOWN_ERROR, "something was thrown that is no std::exception");
  }
}

// What a pointer that must not be null points to.
template <class T>
T& must(const char* name, T* pointer) {
  if (pointer == nullptr) problem::fail(ErrorCode::bad_value, {name, "null", "must be given"});
  return *pointer;
}

// Whether a size is that of some version of the struct.
template <class Struct>
void check_size(const char* name, std::size_t size) {
  constexpr std::size_t kLargest = 4096;  // no version's: a size that was never set
  if (size >= sizeof(size) && size <= kLargest) return;
  problem::fail(ErrorCode::bad_value, {std::string(name) + ".size", std::to_string(size),
                                       "must be the sizeof of the struct, " +
                                           std::to_string(sizeof(Struct)) + " in this version"});
}

// The struct of a caller of any version: what it does not have is 0, and so is what this version
// does not have, or the caller wants something that would be left undone.
template <class Struct>
Struct known(const char* name, const Struct* given) {
  Struct fields{};
  if (given == nullptr) return fields;
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof(size));
  check_size<Struct>(name, size);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  std::memcpy(&fields, bytes, std::min(size, sizeof(Struct)));
  for (std::size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] != 0)
      problem::fail(ErrorCode::bad_value, {std::string(name) + ".size", std::to_string(size),
                                           "a field beyond the " + std::to_string(sizeof(Struct)) +
                                               " bytes that this version knows is set"});
  }
  return fields;
}

// And the way back: a struct is written as far as the caller's version has it, the rest is 0.
template <class Struct>
void give(const char* name, Struct fields, Struct* to) {
  std::size_t size = 0;
  std::memcpy(&size, to, sizeof(size));
  check_size<Struct>(name, size);
  fields.size = size;
  std::memset(to, 0, size);
  std::memcpy(to, &fields, std::min(size, sizeof(Struct)));
}

static_assert(RAPT_F32 == static_cast<int>(Type::f32) && RAPT_BF16 == static_cast<int>(Type::bf16));
static_assert(RAPT_F16 == static_cast<int>(Type::f16) && RAPT_INT8 == static_cast<int>(Type::int8));
static_assert(RAPT_INT4 == static_cast<int>(Type::int4));
static_assert(sizeof(rapt_int4_group) == sizeof(Int4Group));

inline std::string name_of(std::int32_t type) {
  switch (type) {
    case RAPT_F32:
      return "f32";
    case RAPT_BF16:
      return "bf16";
    case RAPT_F16:
      return "f16";
    case RAPT_INT8:
      return "int8";
    case RAPT_INT4:
      return "int4";
    case RAPT_INT32:
      return "int32";
    case RAPT_UINT64:
      return "uint64";
    case RAPT_BOOL:
      return "bool";
  }
  return std::to_string(type);
}

[[noreturn]] inline void wrong_type(const char* name, std::int32_t is, const std::string& wanted) {
  problem::fail(ErrorCode::bad_value,
                {std::string("the type of ") + name, name_of(is), "must be " + wanted});
}

// clang-format off
template <class T> inline constexpr std::int32_t type_code = -1;
template <> inline constexpr std::int32_t type_code<float> = RAPT_F32;
template <> inline constexpr std::int32_t type_code<std::int32_t> = RAPT_INT32;
template <> inline constexpr std::int32_t type_code<std::uint64_t> = RAPT_UINT64;
template <> inline constexpr std::int32_t type_code<bool> = RAPT_BOOL;
// clang-format on

// A view of elements whose type the function says. (The last argument only says which view.)
template <class T, class... Axes>
View<T, Axes...> view_of(const char* name, const rapt_array& array, const View<T, Axes...>*) {
  constexpr std::int32_t kType = type_code<std::remove_const_t<T>>;
  static_assert(kType >= 0);
  if (array.type != kType) wrong_type(name, array.type, name_of(kType));
  const auto rank = static_cast<std::size_t>(array.rank);
  return {static_cast<T*>(array.data), array.extents, rank, array.strides, rank};
}

// A view of elements whose type the array says.
template <class Byte, class... Axes>
AnyView<Byte, Axes...> view_of(const char* name, const rapt_array& array,
                               const AnyView<Byte, Axes...>*) {
  if (array.type < RAPT_F32 || array.type > RAPT_INT4)
    wrong_type(name, array.type, "f32, bf16, f16, int8 or int4");
  const auto rank = static_cast<std::size_t>(array.rank);
  return {static_cast<Type>(array.type),
          static_cast<Byte*>(array.data),
          array.extents,
          rank,
          array.strides,
          rank};
}

// An array that must be given. Any rank is safe: no view takes more axes than a rapt_array has.
template <class AnyOrView>
AnyOrView required(const char* name, const rapt_array* array) {
  static_assert(AnyOrView::kNamedAxes + kMaxBatchAxes <= RAPT_MAX_AXES);
  try {
    return view_of(name, must(name, array), static_cast<const AnyOrView*>(nullptr));
  } catch (const Error& error) {  // a view does not know its name
    if (error.code() != ErrorCode::wrong_rank) throw;
    throw Error(error.code(), std::string(name) + ": " + error.what());
  }
}

// An array that may be given.
template <class AnyOrView>
void optional(AnyOrView& view, const char* name, const rapt_array* array) {
  if (array != nullptr && array->data != nullptr) view = required<AnyOrView>(name, array);
}

// An executor made of C functions, or none.
class Callbacks final : public Executor {
 public:
  explicit Callbacks(const rapt_executor* given) : functions_(known("executor", given)) {
    if (given == nullptr) return;
    must("executor.workers", functions_.workers);
    must("executor.parallel_for", functions_.parallel_for);
  }
  const Executor* get() const { return functions_.workers == nullptr ? nullptr : this; }

  int workers() const override { return functions_.workers(functions_.context); }
  void parallel_for(std::int64_t tasks, Task task, const void* context) const override {
    functions_.parallel_for(functions_.context, tasks, task, context);
  }

 private:
  const rapt_executor functions_;
};

inline void write_text(const std::string& all, char* text, std::size_t capacity,
                       std::size_t* length) {
  if (length != nullptr) *length = all.size();
  if (capacity == 0) return;
  const std::size_t n = std::min(all.size(), capacity - 1);
  std::memcpy(&must("text", text), all.data(), n);
  text[n] = 0;
}

}  // namespace rapt::c
