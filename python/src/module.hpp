// What the files of this room add to the module, and what they share.
#pragma once

#include "keywords.hpp"
#include "options.hpp"

namespace rapt::python {

void add_attention(nb::module_& module);
void add_backward(nb::module_& module);
void add_surroundings(nb::module_& module);  // gemm, merge, append_kv, quantize_kv, rope
void add_layer(nb::module_& module);
void add_machine(nb::module_& module);  // targets, config
void add_jax(nb::module_& module);

// The keywords that almost every function has.
struct Common {
  Layout layout;
  nb::object out;
  AtMost threads;

  explicit Common(Keywords& keywords, const char* default_layout = "bhsd")
      : layout(read_layout(keywords, default_layout)),
        out(keywords.object("out")),
        threads(read_threads(keywords)) {}

  static Layout read_layout(Keywords& keywords, const char* default_layout) {
    std::string name = default_layout;
    keywords.value("layout", name);
    return layout_of(name);
  }
  static AtMost read_threads(Keywords& keywords) {
    std::optional<std::int64_t> threads;
    keywords.value("threads", threads);
    return AtMost(threads);
  }
};

// Where a result goes: the array that the caller gave, or a new one.
class Output {
 public:
  Output(Keywords& keywords, const nb::object& out, Library library, Element element,
         const std::vector<std::int64_t>& extents)
      : given_(out), library_(library) {
    if (out.is_none()) {
      array_ = result_.emplace("out", element, extents).array();
    } else {
      array_ = keywords.objects.write("out", out);
    }
  }
  const Array& array() const { return array_; }
  nb::object object() const { return result_ ? result_->as(library_) : given_; }

 private:
  nb::object given_;
  Library library_;
  std::optional<Result> result_;
  Array array_;
};

inline std::vector<std::int64_t> extents_of(const Array& array) {
  return {array.extents, array.extents + array.rank};
}

// What rows of an array are computed to: an array of the same type, where that is a type of
// results.
inline Element result_element(const Array& like) {
  return like.element == kBf16 || like.element == kF16 ? like.element : kF32;
}

// Runs rapt while other threads of Python go on.
template <class Call>
void compute(const Call& call) {
  const nb::gil_scoped_release released;
  call();
}

}  // namespace rapt::python
