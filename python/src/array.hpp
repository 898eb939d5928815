// An array of any library as rapt's views take it. Nothing here knows about Python, and no check of
// a problem stands here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "rapt/rapt.hpp"

namespace rapt::python {

// An argument of a type that is not taken: TypeError.
class TypeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What an array holds, as DLPack says it.
struct Element {
  std::uint8_t code, bits;
  friend bool operator==(const Element&, const Element&) = default;
};
inline constexpr Element kInt8{0, 8}, kInt32{0, 32}, kInt64{0, 64}, kUint8{1, 8}, kF16{2, 16},
    kF32{2, 32}, kF64{2, 64}, kBf16{4, 16}, kBool{6, 8};

std::string name_of(Element element);

// No view takes more axes: those that an argument names, and batch axes.
inline constexpr int kMaxAxes = 8;

// The axes stand in the order of the argument's; strides count elements.
struct Array {
  const char* name = "";  // of the argument
  Element element = kF32;
  void* data = nullptr;
  int rank = 0;
  std::int64_t extents[kMaxAxes] = {};
  std::int64_t strides[kMaxAxes] = {};

  // As negative indices of Python: axis -1 is the last.
  std::int64_t extent(int axis) const { return extents[axis < 0 ? rank + axis : axis]; }
  void append(std::int64_t extent, std::int64_t stride);
};

// Memory for what is small and converted before the call: lengths of 64 bits, biases of 16.
class Pool {
 public:
  template <class T>
  T* make(std::int64_t n) {
    // new[] of bytes is aligned for anything.
    memory_.push_back(std::make_unique<std::byte[]>(static_cast<std::size_t>(n) * sizeof(T)));
    return reinterpret_cast<T*>(memory_.back().get());
  }

 private:
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};

// In which order the axes of q, k, v, out and of caches stand.
enum class Layout { bhsd, bshd };
Layout layout_of(const std::string& name);

// What is computed with, read in place where it has this very type, else converted into the pool.
Array floats(const Array& array, Pool& pool);
Array ints(const Array& array, Pool& pool);
Array booleans(const Array& array, Pool& pool);
std::vector<double> doubles(const Array& array);
// A bool for each key of a tree, [..., seq_q, tree_keys], becomes bits, [..., seq_q, words].
Array bits_of(const Array& array, Pool& pool);

// Where there are fewer axes than so many, axes of extent 1 stand before them: broadcast.
Array at_least(int rank, const Array& array);

// A view does not know the name of its argument.
template <class Make>
auto named(const char* name, const Make& make) {
  try {
    return make();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::wrong_rank) throw;
    throw Error(error.code(), std::string(name) + ": " + error.what());
  }
}

template <class ViewType>
ViewType view_of(const Array& a) {
  using T = typename ViewType::Element;
  const auto rank = static_cast<std::size_t>(a.rank);
  return named(a.name,
               [&] { return ViewType(static_cast<T*>(a.data), a.extents, rank, a.strides, rank); });
}

// Views of the element types of options.
template <class... Axes>
View<const float, Axes...> typed(const View<const float, Axes...>*, const Array& a, Pool& pool) {
  return view_of<View<const float, Axes...>>(at_least(sizeof...(Axes), floats(a, pool)));
}
template <class... Axes>
View<const std::int32_t, Axes...> typed(const View<const std::int32_t, Axes...>*, const Array& a,
                                        Pool& pool) {
  return view_of<View<const std::int32_t, Axes...>>(at_least(sizeof...(Axes), ints(a, pool)));
}
template <class... Axes>
View<const bool, Axes...> typed(const View<const bool, Axes...>*, const Array& a, Pool& pool) {
  return view_of<View<const bool, Axes...>>(at_least(sizeof...(Axes), booleans(a, pool)));
}
template <class... Axes>
View<const std::uint64_t, Axes...> typed(const View<const std::uint64_t, Axes...>*, const Array& a,
                                         Pool& pool) {
  return view_of<View<const std::uint64_t, Axes...>>(bits_of(a, pool));
}

// f32 memory that is written, so never converted.
template <class ViewType>
ViewType written_floats(const Array& a) {
  if (a.element != kF32)
    throw TypeError("the type of " + std::string(a.name) + " is " + name_of(a.element) +
                    ", but must be float32");
  return view_of<ViewType>(a);
}

// What q, k, v, out and caches may be stored in. uint8 stands for groups of 4-bit numbers, of which
// each takes sizeof(Int4Group) bytes of the last axis; extents and strides count groups then.
struct StoredArray {
  Type type;
  Array array;
};
StoredArray stored(const Array& array);

// [batch..., heads, positions, depth], whatever the order in the argument.
Array in_order(const Array& array, Layout layout);

template <class AnyType>
AnyType stored_view(const Array& given, Layout layout) {
  using Byte = typename AnyType::Element;
  const auto [type, a] = stored(in_order(given, layout));
  const auto rank = static_cast<std::size_t>(a.rank);
  return named(given.name, [&, type = type, a = &a] {
    return AnyType(type, static_cast<Byte*>(a->data), a->extents, rank, a->strides, rank);
  });
}

}  // namespace rapt::python
