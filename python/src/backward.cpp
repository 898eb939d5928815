// attention_backward, explain_backward.
#include "module.hpp"
#include "signatures.hpp"

namespace rapt::python {
namespace {

using namespace nb::literals;  // NOLINT(google-build-using-namespace)

// New arrays for gradients, of which each is like what it is of.
class Gradients {
 public:
  Gradients(Keywords& keywords, Library library) : keywords_(keywords), library_(library) {}

  template <class AnyType>
  AnyType of(const Array& array, const char* name, Layout layout) {
    return stored_view<AnyType>(make(name, result_element(array), array), layout);
  }
  // That of an option, where it is asked for.
  template <class... Axes>
  void of(const char* option, const char* name, View<float, Axes...>& view) {
    const std::string asked = std::string("return_") + name;
    bool wanted = false;
    keywords_.value(asked.c_str(), wanted);
    if (!wanted) return;
    const nb::object given = keywords_.object(option);
    if (given.is_none())
      throw Error(ErrorCode::bad_value, asked + " is True, but " + option + " is not given");
    const Array& array = make(name, kF32, keywords_.objects.read(option, given));
    view = view_of<View<float, Axes...>>(at_least(sizeof...(Axes), array));
  }
  nb::tuple objects() const {
    nb::list all;
    for (const Result& result : results_) all.append(result.as(library_));
    return nb::tuple(all);
  }

 private:
  const Array& make(const char* name, Element element, const Array& like) {
    return results_.emplace_back(name, element, extents_of(like)).array();
  }

  Keywords& keywords_;
  Library library_;
  std::vector<Result> results_;
};

// Calls call(arguments...), as attention_backward() has them, without the GIL, and returns the
// gradients.
template <class Call>
nb::tuple differentiate(const char* function, nb::handle q, nb::handle k, nb::handle v,
                        nb::handle out, nb::handle lse, nb::handle grad_out,
                        const nb::kwargs& given, const Call& call) {
  Keywords keywords(function, given);
  const Layout layout = Common::read_layout(keywords, "bhsd");
  const AtMost threads = Common::read_threads(keywords);
  AttentionOptions options;
  read_options(keywords, options);
  read_boundaries(keywords, options);
  options.executor = threads.get();
  BackwardOptions backward;
  keywords.add("lse", lse);
  LseIn lse_view;
  keywords.array("lse", lse_view);
  keywords.array("grad_lse", backward.grad_lse);

  const Array q_array = keywords.objects.read("q", q), k_array = keywords.objects.read("k", k),
              v_array = keywords.objects.read("v", v);
  const auto rows = [&](const char* name, nb::handle object) {
    return stored_view<AnyOutIn>(keywords.objects.read(name, object), layout);
  };
  const AnyOutIn out_view = rows("out", out), grad_out_view = rows("grad_out", grad_out);
  Gradients gradients(keywords, library_of(q));
  const auto grad_q = gradients.of<AnyGradQ>(q_array, "grad_q", layout);
  const auto grad_k = gradients.of<AnyGradK>(k_array, "grad_k", layout);
  const auto grad_v = gradients.of<AnyGradV>(v_array, "grad_v", layout);
  gradients.of("bias", "grad_bias", backward.grad_bias);
  gradients.of("alibi_slopes", "grad_alibi_slopes", backward.grad_alibi_slopes);
  gradients.of("sinks", "grad_sinks", backward.grad_sinks);
  keywords.finish();

  compute([&] {
    call(stored_view<AnyQ>(q_array, layout), stored_view<AnyK>(k_array, layout),
         stored_view<AnyV>(v_array, layout), out_view, lse_view, grad_out_view, grad_q, grad_k,
         grad_v, options, backward);
  });
  return gradients.objects();
}

nb::tuple attention_backward(nb::handle q, nb::handle k, nb::handle v, nb::handle out,
                             nb::handle lse, nb::handle grad_out, const nb::kwargs& given) {
  return differentiate("attention_backward", q, k, v, out, lse, grad_out, given,
                       [](const auto&... arguments) { rapt::attention_backward(arguments...); });
}

Explanation explain_backward(nb::handle q, nb::handle k, nb::handle v, nb::handle out,
                             nb::handle lse, nb::handle grad_out, const nb::kwargs& given) {
  Explanation explanation;
  differentiate(
      "explain_backward", q, k, v, out, lse, grad_out, given,
      [&](const auto&... arguments) { explanation = rapt::explain_backward(arguments...); });
  return explanation;
}

// Of both functions.
#define RAPT_BACKWARD                                                                           \
  "(q: Array, k: Array, v: Array, out: Array, lse: Array, grad_out: Array, *, " RAPT_OPTIONS    \
  ", cu_seqlens_q: Array | None = None, cu_seqlens_kv: Array | None = None, grad_lse: Array | " \
  "None = None, return_grad_bias: bool = False, return_grad_alibi_slopes: bool = False, "       \
  "return_grad_sinks: bool = False, " RAPT_COMMON ") -> "

}  // namespace

void add_backward(nb::module_& module) {
  module.def("attention_backward", attention_backward, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a,
             "grad_out"_a, "options"_a,
             nb::sig("def attention_backward" RAPT_BACKWARD "tuple[typing.Any, ...]"),
             attention_backward_text);
  module.def("explain_backward", explain_backward, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a,
             "grad_out"_a, "options"_a, nb::sig("def explain_backward" RAPT_BACKWARD "Explanation"),
             explain_backward_text);
}

}  // namespace rapt::python
