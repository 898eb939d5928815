// Arrays of Python libraries: any object on the CPU with DLPack or the buffer protocol is read and
// written in place, and a result becomes an array of the caller's library.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "array.hpp"

namespace rapt::python {

namespace nb = nanobind;

struct ExchangeApi;

// What is known of an array by its type.
struct Library {
  enum { numpy, torch, jax } name = numpy;  // numpy: all others too
  const ExchangeApi* exchange = nullptr;
};

Library library_of(nb::handle object);

// The arrays of one call: they live as long as this.
class Objects {
 public:
  Array read(const char* name, nb::handle object);
  Array write(const char* name, nb::handle object);

 private:
  Array imported(const char* name, nb::handle object, bool to_be_written);

  std::vector<nb::ndarray<nb::ro>> read_;
  std::vector<nb::ndarray<>> written_;
};

// A new dense array.
class Result {
 public:
  Result(const char* name, Element element, const std::vector<std::int64_t>& extents);

  const Array& array() const { return array_; }
  nb::object as(Library library) const;

 private:
  nb::object exchanged(const ExchangeApi& api) const;

  Array array_;
  std::shared_ptr<void> memory_;
};

}  // namespace rapt::python
