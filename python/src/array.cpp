// Element types by name, conversions of small arrays, layouts.
#include "array.hpp"

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

namespace rapt::python {
namespace {

[[noreturn]] void wrong_type(const Array& array, const std::string& wanted) {
  throw TypeError("the type of " + std::string(array.name) + " is " + name_of(array.element) +
                  ", but must be " + wanted);
}

// Lays an array out densely, but for the axes that are broadcast (stride 0), and returns how many
// elements it has then.
std::int64_t make_dense(Array& array) {
  std::int64_t size = 1;
  for (int i = array.rank - 1; i >= 0; --i) {
    if (array.strides[i] == 0 && array.extents[i] > 0) continue;
    array.strides[i] = size;
    size *= array.extents[i];
  }
  return size;
}

// Calls visit(n, offset) for the elements of an array in the order in which make_dense() lays them.
template <class Visit>
void each_element(const Array& array, std::int64_t size, const Visit& visit) {
  std::int64_t at[kMaxAxes] = {};
  for (std::int64_t n = 0; n < size; ++n) {
    std::int64_t offset = 0;
    for (int i = 0; i < array.rank; ++i) offset += at[i] * array.strides[i];
    visit(n, offset);
    for (int i = array.rank - 1; i >= 0; --i) {
      if (array.strides[i] == 0) continue;
      if (++at[i] < array.extents[i]) break;
      at[i] = 0;
    }
  }
}

// Calls visit(n, x) for the elements x of an array of floating-point numbers.
template <class Visit>
void each_number(const Array& array, std::int64_t size, const Visit& visit) {
  const auto as = [&]<class T>(const T* data) {
    each_element(array, size, [&](std::int64_t n, std::int64_t offset) {
      if constexpr (std::is_floating_point_v<T>) {
        visit(n, data[offset]);
      } else {
        visit(n, to_float(data[offset]));
      }
    });
  };
  if (array.element == kF32) return as(static_cast<const float*>(array.data));
  if (array.element == kF64) return as(static_cast<const double*>(array.data));
  if (array.element == kBf16) return as(static_cast<const BFloat16*>(array.data));
  if (array.element == kF16) return as(static_cast<const Float16*>(array.data));
  wrong_type(array, "float32, or float64, float16 or bfloat16, which are converted");
}

}  // namespace

std::string name_of(Element element) {
  static constexpr const char* kNames[] = {"int", "uint", "float", "opaque", "bfloat", "complex"};
  if (element == kBool) return "bool";
  return (element.code < std::size(kNames) ? kNames[element.code] : "a type of DLPack with bits ") +
         std::to_string(element.bits);
}

void Array::append(std::int64_t extent, std::int64_t stride) {
  if (rank == kMaxAxes) {
    throw Error(ErrorCode::wrong_rank, std::string(name) + ": an array has more than " +
                                           std::to_string(kMaxAxes) + " axes");
  }
  extents[rank] = extent;
  strides[rank] = stride;
  ++rank;
}

Layout layout_of(const std::string& name) {
  if (name == "bhsd") return Layout::bhsd;
  if (name == "bshd") return Layout::bshd;
  throw Error(ErrorCode::bad_value, "layout is " + name + ", but must be bhsd or bshd");
}

Array floats(const Array& array, Pool& pool) {
  if (array.element == kF32) return array;
  Array result = array;
  const std::int64_t size = make_dense(result);
  auto* const data = pool.make<float>(size);
  each_number(array, size, [&](std::int64_t n, auto x) { data[n] = static_cast<float>(x); });
  result.element = kF32;
  result.data = data;
  return result;
}

std::vector<double> doubles(const Array& array) {
  Array dense = array;
  std::vector<double> numbers(static_cast<std::size_t>(make_dense(dense)));
  each_number(array, static_cast<std::int64_t>(numbers.size()), [&](std::int64_t n, auto x) {
    numbers[static_cast<std::size_t>(n)] = static_cast<double>(x);
  });
  return numbers;
}

Array ints(const Array& array, Pool& pool) {
  if (array.element == kInt32) return array;
  if (array.element != kInt64) wrong_type(array, "int32, or int64, which is converted");
  Array result = array;
  const std::int64_t size = make_dense(result);
  auto* const data = pool.make<std::int32_t>(size);
  each_element(array, size, [&](std::int64_t n, std::int64_t offset) {
    const std::int64_t x = static_cast<const std::int64_t*>(array.data)[offset];
    data[n] = static_cast<std::int32_t>(x);
    if (data[n] != x) {
      throw Error(ErrorCode::bad_value,
                  std::string(array.name) + " is " + std::to_string(x) + ", but must fit int32");
    }
  });
  result.element = kInt32;
  result.data = data;
  return result;
}

Array booleans(const Array& array, Pool&) {
  if (array.element != kBool) wrong_type(array, "bool (true = attend)");
  return array;
}

Array bits_of(const Array& given, Pool& pool) {
  const Array tree = at_least(2, booleans(given, pool));
  const std::int64_t keys = tree.extent(-1), words = (keys + 63) / 64;
  const std::int64_t stride = tree.strides[tree.rank - 1];
  Array rows = tree;  // element n is the first bool of row n
  --rows.rank;
  Array bits = rows;
  const std::int64_t size = make_dense(bits);
  auto* const data = pool.make<std::uint64_t>(size * words);
  each_element(rows, size, [&](std::int64_t n, std::int64_t offset) {
    for (std::int64_t key = 0; key < keys; ++key) {
      if (static_cast<const bool*>(tree.data)[offset + key * stride])
        data[n * words + key / 64] |= std::uint64_t{1} << key % 64;
    }
  });
  bits.data = data;
  for (int i = 0; i < bits.rank; ++i) bits.strides[i] *= words;
  bits.append(words, 1);
  return bits;
}

Array at_least(int rank, const Array& array) {
  if (array.rank >= rank) return array;
  Array padded = array;
  padded.rank = 0;
  while (padded.rank < rank - array.rank) padded.append(1, 0);
  for (int i = 0; i < array.rank; ++i) padded.append(array.extents[i], array.strides[i]);
  return padded;
}

StoredArray stored(const Array& array) {
  if (array.element == kF32) return {Type::f32, array};
  if (array.element == kBf16) return {Type::bf16, array};
  if (array.element == kF16) return {Type::f16, array};
  if (array.element == kInt8) return {Type::int8, array};
  if (array.element != kUint8)
    wrong_type(array, "float32, bfloat16 or float16 (or int8, or uint8: 4-bit groups)");
  constexpr std::int64_t kBytes = sizeof(Int4Group);
  const auto refuse = [&](const char* what, std::int64_t bytes, const std::string& rule) {
    throw Error(ErrorCode::bad_value, std::string(what) + " of " + array.name + " is " +
                                          std::to_string(bytes) + " bytes, but " + rule);
  };
  const std::string multiple = "must be a multiple of " + std::to_string(kBytes) +
                               ", the bytes of a group of 32 4-bit numbers";
  Array groups = array;
  const int last = array.rank - 1;
  if (last < 0) return {Type::int4, groups};  // for the view to refuse
  const bool empty = std::count(array.extents, array.extents + array.rank, 0) > 0;
  if (array.extents[last] % kBytes != 0) refuse("the last extent", array.extents[last], multiple);
  if (array.strides[last] != 1 && !empty)
    refuse("the last stride", array.strides[last], "the bytes of a group must be adjacent");
  groups.extents[last] = array.extents[last] / kBytes;
  for (int i = 0; i < last; ++i) {
    if (array.strides[i] % kBytes != 0 && array.extents[i] > 1 && !empty)
      refuse("a stride", array.strides[i], multiple);
    groups.strides[i] = array.strides[i] / kBytes;
  }
  return {Type::int4, groups};
}

Array in_order(const Array& array, Layout layout) {
  Array a = array;
  if (layout == Layout::bshd && a.rank >= 3) {
    std::swap(a.extents[a.rank - 3], a.extents[a.rank - 2]);
    std::swap(a.strides[a.rank - 3], a.strides[a.rank - 2]);
  }
  return a;
}

}  // namespace rapt::python
