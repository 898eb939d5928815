// The keyword arguments of one call of Python, read by name.
#pragma once

#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "objects.hpp"
#include "threads.hpp"

namespace rapt::python {

// clang-format off
template <class T> inline constexpr const char* type_text = "";
template <> inline constexpr const char* type_text<bool> = "True or False";
template <> inline constexpr const char* type_text<float> = "a float";
template <> inline constexpr const char* type_text<std::int64_t> = "an int";
template <> inline constexpr const char* type_text<std::uint64_t> = "an int of 64 bits, not negative";
template <> inline constexpr const char* type_text<std::uint32_t> = "an int of 32 bits, not negative";
template <> inline constexpr const char* type_text<std::string> = "a str";
template <> inline constexpr const char* type_text<std::array<std::int64_t, 2>> = "two ints";
// clang-format on

// The keywords of one call, the arrays that it reads, and what had to be converted for it. None is
// as good as not given.
class Keywords {
 public:
  Keywords(const char* function, const nb::dict& given) : function_(function) {
    for (const auto& [name, value] : given)
      given_.push_back({nb::borrow<nb::str>(name).c_str(), nb::borrow(value)});
  }

  // What the function takes by position, but is read as the keywords are.
  void add(const char* name, nb::handle value) { given_.push_back({name, nb::borrow(value)}); }

  nb::object object(const char* name) {
    for (Given& given : given_) {
      if (given.name != name) continue;
      given.asked_for = true;
      return given.value;
    }
    return nb::none();
  }

  template <class T>
  void value(const char* name, T& field) {
    const nb::object given = object(name);
    if (!given.is_none()) cast(name, given, field);
  }
  template <class T>
  void value(const char* name, std::optional<T>& field) {
    const nb::object given = object(name);
    if (!given.is_none()) cast(name, given, field.emplace());
  }

  // Returns the last extent of what was given, or 0.
  template <class ViewType>
  std::int64_t array(const char* name, ViewType& view) {
    const nb::object given = object(name);
    if (given.is_none()) return 0;
    const Array array = read(name, given);
    view = typed(static_cast<ViewType*>(nullptr), array, pool);
    return array.rank > 0 ? array.extent(-1) : 0;
  }

  // An int is an array of no axes.
  Array read(const char* name, nb::handle given) {
    if (!PyLong_Check(given.ptr())) return objects.read(name, given);
    Array array;
    array.name = name;
    array.element = kInt64;
    auto* const number = pool.make<std::int64_t>(1);
    if (!nb::try_cast(given, *number))
      throw TypeError(std::string(name) + " is " + nb::repr(given).c_str() + ", beyond 64 bits");
    array.data = number;
    return array;
  }

  // To be called when all that the function knows have been asked for.
  void finish() const {
    for (const Given& given : given_) {
      if (!given.asked_for)
        throw TypeError(std::string(function_) + "() has no argument " + std::string(given.name));
    }
  }

  Objects objects;
  Pool pool;

 private:
  template <class T>
  void cast(const char* name, const nb::object& given, T& field) {
    if (nb::try_cast(given, field)) return;
    throw TypeError(std::string(name) + " is " + nb::repr(given).c_str() + ", but must be " +
                    type_text<T>);
  }

  struct Given {
    std::string_view name;
    nb::object value;
    bool asked_for = false;
  };

  const char* function_;
  std::vector<Given> given_;
};

}  // namespace rapt::python
