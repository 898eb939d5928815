// attention, attention_varlen, salience_map, explain.
#include <cstring>

#include "module.hpp"
#include "signatures.hpp"

namespace rapt::python {
namespace {

using namespace nb::literals;  // NOLINT(google-build-using-namespace)

// q, k, v and out as attention() takes them.
struct Arguments {
  AnyQ q;
  AnyK k;
  AnyV v;
  AnyOut out;
  AttentionOptions options;
};

// Calls call(arguments) without the GIL, and returns out or (out, lse).
template <class Call>
nb::object attend(Keywords& keywords, const char* default_layout, nb::handle q, nb::handle k,
                  nb::handle v, AttentionOptions options, const Call& call) {
  const Common common(keywords, default_layout);
  bool return_lse = false;
  keywords.value("return_lse", return_lse);
  read_options(keywords, options);
  keywords.finish();
  options.executor = common.threads.get();

  const Array q_array = keywords.objects.read("q", q);
  Arguments arguments{stored_view<AnyQ>(q_array, common.layout),
                      stored_view<AnyK>(keywords.objects.read("k", k), common.layout),
                      stored_view<AnyV>(keywords.objects.read("v", v), common.layout),
                      {},
                      options};
  std::vector<std::int64_t> extents = extents_of(q_array);
  const AnyV& v_view = arguments.v;
  extents.back() = v_view.extent<axis::DepthV>() * (v_view.type() == Type::int4 ? 32 : 1);
  const Library library = library_of(q);
  const Output out(keywords, common.out, library, result_element(q_array), extents);
  arguments.out = stored_view<AnyOut>(out.array(), common.layout);

  std::optional<Result> lse;
  if (return_lse) {
    extents = extents_of(in_order(q_array, common.layout));
    extents.pop_back();
    arguments.options.lse = view_of<LseView>(lse.emplace("lse", kF32, extents).array());
  }
  compute([&] { call(arguments); });
  if (!return_lse) return out.object();
  return nb::make_tuple(out.object(), lse->as(library));
}

void run(const Arguments& a) { rapt::attention(a.q, a.k, a.v, a.out, a.options); }

nb::object attention(nb::handle q, nb::handle k, nb::handle v, const nb::kwargs& given) {
  Keywords keywords("attention", given);
  return attend(keywords, "bhsd", q, k, v, {}, run);
}

nb::object attention_varlen(nb::handle q, nb::handle k, nb::handle v, nb::handle cu_seqlens_q,
                            nb::handle cu_seqlens_kv, const nb::kwargs& given) {
  Keywords keywords("attention_varlen", given);
  keywords.add("cu_seqlens_q", cu_seqlens_q);
  keywords.add("cu_seqlens_kv", cu_seqlens_kv);
  AttentionOptions options;
  read_boundaries(keywords, options);
  return attend(keywords, "bshd", q, k, v, options, run);
}

Explanation explain(nb::handle q, nb::handle k, nb::handle v, const nb::kwargs& given) {
  Keywords keywords("explain", given);
  AttentionOptions options;
  read_boundaries(keywords, options);
  Explanation explanation;
  attend(keywords, "bhsd", q, k, v, options,
         [&](const Arguments& a) { explanation = rapt::explain(a.q, a.k, a.v, a.out, a.options); });
  return explanation;
}

// The weights of one row: a function of a NumPy array of f64 that returns as many.
RowActivation activation_of(const nb::object& function) {
  if (function.is_none()) return {};
  if (PyCallable_Check(function.ptr()) == 0)
    throw TypeError(std::string("activation is ") + nb::repr(function).c_str() +
                    ", but must be a function");
  return [&function](double* scores, std::int64_t n) {
    const nb::gil_scoped_acquire acquired;
    const auto size = static_cast<std::size_t>(n);
    const nb::object row =
        nb::cast(nb::ndarray<nb::numpy, double>(scores, {size}, nb::handle()), nb::rv_policy::copy);
    const nb::object weights =
        nb::module_::import_("numpy").attr("ascontiguousarray")(function(row), "float64");
    const auto array = nb::cast<nb::ndarray<nb::ro, double, nb::c_contig>>(weights);
    if (array.ndim() != 1 || array.shape(0) != size) {
      throw Error(ErrorCode::extent_mismatch, "activation was given " + std::to_string(n) +
                                                  " scores, but returned another shape");
    }
    std::memcpy(scores, array.data(), size * sizeof(double));
  };
}

nb::object salience_map(nb::handle q, nb::handle k, const nb::kwargs& given) {
  Keywords keywords("salience_map", given);
  const nb::object function = keywords.object("activation");
  const RowActivation activation = activation_of(function);
  const Layout layout = Common::read_layout(keywords, "bhsd");
  AttentionOptions options;
  read_options(keywords, options);
  keywords.finish();
  const auto floats_of = [&](const char* name, nb::handle array) {
    return in_order(floats(keywords.objects.read(name, array), keywords.pool), layout);
  };
  const Array q_array = floats_of("q", q), k_array = floats_of("k", k);
  const auto q_view = view_of<QView>(q_array);
  const auto k_view = view_of<KView>(k_array);
  std::vector<std::int64_t> extents = extents_of(q_array);
  extents.back() = k_view.extent<axis::Key>();
  const Result salience("salience", kF32, extents);
  compute([&] {
    rapt::salience_map(q_view, k_view,
                       view_of<View<float, axis::Head, axis::Query, axis::Key>>(salience.array()),
                       options, activation);
  });
  return salience.as(library_of(q));
}

}  // namespace

void add_attention(nb::module_& module) {
  module.def("attention", attention, "q"_a, "k"_a, "v"_a, "options"_a,
             nb::sig("def attention(q: Array, k: Array, v: Array, *, " RAPT_OPTIONS
                     ", return_lse: bool = False, out: Array | None = None, " RAPT_COMMON
                     ") -> typing.Any"),
             attention_text);
  module.def("attention_varlen", attention_varlen, "q"_a, "k"_a, "v"_a, "cu_seqlens_q"_a.none(),
             "cu_seqlens_kv"_a.none(), "options"_a,
             nb::sig("def attention_varlen(q: Array, k: Array, v: Array, cu_seqlens_q: Array | "
                     "None, cu_seqlens_kv: Array | None, *, " RAPT_OPTIONS
                     ", return_lse: bool = False, out: Array | None = None, layout: str = "
                     "'bshd', threads: int | None = None) -> typing.Any"),
             attention_varlen_text);
  module.def("salience_map", salience_map, "q"_a, "k"_a, "options"_a,
             nb::sig("def salience_map(q: Array, k: Array, *, " RAPT_OPTIONS
                     ", activation: collections.abc.Callable[[typing.Any], typing.Any] | None = "
                     "None, layout: str = 'bhsd') -> typing.Any"),
             salience_map_text);

  nb::class_<Explanation> explanation(module, "Explanation", explanation_text);
  nb::class_<Explanation::Refusal>(explanation, "Refusal", "An algorithm that was not taken.")
      .def_ro("algorithm", &Explanation::Refusal::algorithm)
      .def_ro("reason", &Explanation::Refusal::reason);
  nb::class_<Explanation::Cut>(explanation, "Cut", "How some elements of the batch are cut.")
      .def_ro("elements", &Explanation::Cut::elements)
      .def_ro("seq_q", &Explanation::Cut::seq_q)
      .def_ro("seq_kv", &Explanation::Cut::seq_kv)
      .def_ro("algorithm", &Explanation::Cut::algorithm)
      .def_ro("refused", &Explanation::Cut::refused)
      .def_ro("block_q", &Explanation::Cut::block_q)
      .def_ro("block_kv", &Explanation::Cut::block_kv)
      .def_ro("units", &Explanation::Cut::units)
      .def_ro("parts", &Explanation::Cut::parts)
      .def_ro("part_kv", &Explanation::Cut::part_kv)
      .def_ro("part_rows", &Explanation::Cut::part_rows);
  explanation.def_ro("bench_case", &Explanation::bench_case)
      .def_ro("target", &Explanation::target)
      .def_ro("config_row", &Explanation::config_row)
      .def_ro("tuned", &Explanation::tuned)
      .def_ro("config_source", &Explanation::config_source)
      .def_ro("config_refused", &Explanation::config_refused)
      .def_ro("tile_rows", &Explanation::tile_rows)
      .def_ro("tile_columns", &Explanation::tile_columns)
      .def_ro("cuts", &Explanation::cuts)
      .def_ro("tasks", &Explanation::tasks)
      .def_ro("waves", &Explanation::waves)
      .def_ro("shared_tasks", &Explanation::shared_tasks)
      .def_ro("workspace_bytes", &Explanation::workspace_bytes)
      .def_ro("worker_bytes", &Explanation::worker_bytes)
      .def_ro("tiles", &Explanation::tiles)
      .def_ro("skipped_tiles", &Explanation::skipped_tiles)
      .def_ro("masked_tiles", &Explanation::masked_tiles)
      .def_ro("flops", &Explanation::flops)
      .def_ro("bytes", &Explanation::bytes)
      .def_ro("sum_tasks", &Explanation::sum_tasks)
      .def("__str__", &Explanation::text);
  module.def("explain", explain, "q"_a, "k"_a, "v"_a, "options"_a,
             nb::sig("def explain(q: Array, k: Array, v: Array, *, " RAPT_OPTIONS
                     ", cu_seqlens_q: Array | None = None, cu_seqlens_kv: Array | None = None, "
                     "return_lse: bool = False, out: Array | None = None, " RAPT_COMMON
                     ") -> Explanation"),
             explain_text);
}

}  // namespace rapt::python
