// What surrounds attention: gemm, merge, append_kv, quantize_kv, dequantize_kv, rope.
#include "module.hpp"
#include "signatures.hpp"

namespace rapt::python {
namespace {

using namespace nb::literals;  // NOLINT(google-build-using-namespace)

// The value that a name stands for.
template <class T>
T one_of(const char* argument, const std::string& name,
         std::initializer_list<std::pair<const char*, T>> choices) {
  std::string all;
  for (const auto& [choice, value] : choices) {
    if (name == choice) return value;
    all += (all.empty() ? "" : " or ") + std::string(choice);
  }
  throw Error(ErrorCode::bad_value, std::string(argument) + " is " + name + ", but must be " + all);
}

nb::object gemm(nb::handle a, nb::handle b, const nb::kwargs& given) {
  Keywords keywords("gemm", given);
  GemmOptions options;
  std::string activation = "none";
  keywords.value("alpha", options.alpha);
  keywords.value("beta", options.beta);
  keywords.array("bias", options.bias);
  keywords.array("b_scales", options.b_scales);
  keywords.value("activation", activation);
  const nb::object out = keywords.object("out");
  const AtMost threads = Common::read_threads(keywords);
  keywords.finish();
  options.activation = one_of<Activation>(
      "activation", activation,
      {{"none", Activation::none}, {"relu", Activation::relu}, {"gelu", Activation::gelu}});
  options.executor = threads.get();
  if (options.beta != 0 && out.is_none()) {
    throw Error(ErrorCode::bad_value, "beta is " + std::to_string(options.beta) +
                                          ", but out, which it multiplies, is not given");
  }

  const Array a_array = keywords.objects.read("a", a), b_array = keywords.objects.read("b", b);
  const auto a_view =
      stored_view<AnyView<const std::byte, axis::Row, axis::Inner>>(a_array, Layout::bhsd);
  const auto b_view =
      stored_view<AnyView<const std::byte, axis::Inner, axis::Column>>(b_array, Layout::bhsd);
  // Batch axes align from the right; whether they fit is for gemm() to say.
  const Array &more = a_array.rank >= b_array.rank ? a_array : b_array,
              &less = a_array.rank >= b_array.rank ? b_array : a_array;
  std::vector<std::int64_t> extents = extents_of(more);
  for (int i = 3; i <= less.rank; ++i) {
    std::int64_t& extent = extents[static_cast<std::size_t>(more.rank - i)];
    if (extent == 1) extent = less.extent(-i);
  }
  extents[extents.size() - 2] = a_array.extent(-2);
  extents[extents.size() - 1] = b_array.extent(-1);
  const Output c(keywords, out, library_of(a), kF32, extents);
  const auto c_view = written_floats<View<float, axis::Row, axis::Column>>(c.array());
  compute([&] { rapt::gemm(a_view, b_view, c_view, options); });
  return c.object();
}

nb::object merge(const nb::object& parts, const nb::kwargs& given) {
  Keywords keywords("merge", given);
  const Common common(keywords);
  keywords.finish();
  std::vector<AttentionPart> all;
  std::vector<std::int64_t> out_extents, lse_extents;
  std::vector<std::string> names;  // at their addresses as long as arrays name them
  names.reserve(2 * nb::len(parts));
  Element element = kF32;
  Library library;
  for (nb::handle part : parts) {
    nb::object part_out, part_lse;
    try {
      part_out = part[0];
      part_lse = part[1];
    } catch (const nb::python_error&) {
      throw TypeError("parts[" + std::to_string(all.size()) + "] must be (out, lse)");
    }
    const std::string name = "parts[" + std::to_string(all.size()) + "]";
    const Array out = keywords.objects.read(names.emplace_back(name + ".out").c_str(), part_out);
    const Array lse = keywords.objects.read(names.emplace_back(name + ".lse").c_str(), part_lse);
    if (lse.element != kF32)
      throw TypeError("the type of " + name + ".lse is " + name_of(lse.element) +
                      ", but must be float32");
    if (all.empty()) {
      out_extents = extents_of(out);
      lse_extents = extents_of(lse);
      element = result_element(out);
      library = library_of(part_out);
    }
    all.push_back({stored_view<AnyOutRead>(out, common.layout), view_of<LseRead>(lse)});
  }
  if (all.empty()) throw Error(ErrorCode::bad_value, "parts is empty, but must have one at least");
  const Output out(keywords, common.out, library, element, out_extents);
  const Result lse("lse", kF32, lse_extents);
  const auto out_view = stored_view<AnyOut>(out.array(), common.layout);
  const auto lse_view = view_of<LseView>(lse.array());
  compute([&] { rapt::merge(all, out_view, lse_view, {common.threads.get()}); });
  return nb::make_tuple(out.object(), lse.as(library));
}

void read_rope(Keywords& keywords, Rope& rope) {
  std::string pairing = "interleaved";
  keywords.value("dims", rope.dims);
  keywords.value("base", rope.base);
  keywords.value("pairing", pairing);
  keywords.value("position_scale", rope.position_scale);
  keywords.array("frequency_factors", rope.frequency_factors);
  keywords.value("magnitude", rope.magnitude);
  rope.pairing = one_of<Pairing>("pairing", pairing,
                                 {{"interleaved", Pairing::interleaved}, {"half", Pairing::half}});
}

nb::object rope(nb::handle x, const nb::kwargs& given) {
  Keywords keywords("rope", given);
  const Common common(keywords);
  const Array x_array = keywords.objects.read("x", x);
  const auto x_view = stored_view<AnyK>(x_array, common.layout);
  Rope turn;
  turn.dims = x_array.extent(-1);
  read_rope(keywords, turn);
  RopeOptions options;
  keywords.array("first_positions", options.first_positions);
  keywords.array("positions", options.positions);
  keywords.finish();
  options.executor = common.threads.get();
  const Output out(keywords, common.out, library_of(x), result_element(x_array),
                   extents_of(x_array));
  const auto out_view = stored_view<AnyKCache>(out.array(), common.layout);
  compute([&] { rapt::rope(x_view, out_view, turn, options); });
  return out.object();
}

void append_kv(nb::handle k_new, nb::handle v_new, nb::handle k_cache, nb::handle v_cache,
               nb::handle kv_lengths, const nb::kwargs& given) {
  Keywords keywords("append_kv", given);
  const Layout layout = Common::read_layout(keywords, "bhsd");
  const AtMost threads = Common::read_threads(keywords);
  AppendOptions options;
  options.executor = threads.get();
  options.kv_lengths = typed(static_cast<LengthsView*>(nullptr),
                             keywords.read("kv_lengths", kv_lengths), keywords.pool);
  keywords.array("cu_seqlens_new", options.cu_seqlens_new);
  keywords.array("block_table", options.block_table);
  keywords.array("positions", options.positions);
  const auto scales = [&](const char* name, CacheScales& view) {
    const nb::object array = keywords.object(name);
    if (!array.is_none()) view = written_floats<CacheScales>(keywords.objects.write(name, array));
  };
  scales("k_scales", options.k_scales);
  scales("v_scales", options.v_scales);
  const nb::object turn = keywords.object("rope");
  keywords.finish();
  if (!turn.is_none() && !nb::isinstance<nb::dict>(turn))
    throw TypeError(std::string("rope is ") + nb::repr(turn).c_str() +
                    ", but must be a dict of the arguments of rope()");
  const nb::dict rope_given = turn.is_none() ? nb::dict() : nb::borrow<nb::dict>(turn);
  Keywords rope_keywords("rope", rope_given);

  const auto k_view = stored_view<AnyK>(keywords.objects.read("k_new", k_new), layout);
  const auto v_view = stored_view<AnyV>(keywords.objects.read("v_new", v_new), layout);
  if (!turn.is_none()) {
    options.rope.dims =
        static_cast<const View<const std::byte, axis::KvHead, axis::Key, axis::DepthK>&>(k_view)
            .extent<axis::DepthK>();
    read_rope(rope_keywords, options.rope);
    rope_keywords.finish();
  }
  const auto k_cache_view =
      stored_view<AnyKCache>(keywords.objects.write("k_cache", k_cache), layout);
  const auto v_cache_view =
      stored_view<AnyVCache>(keywords.objects.write("v_cache", v_cache), layout);
  compute([&] { rapt::append_kv(k_view, v_view, k_cache_view, v_cache_view, options); });
}

nb::object quantize_kv(nb::handle x, const nb::kwargs& given) {
  Keywords keywords("quantize_kv", given);
  const Layout layout = Common::read_layout(keywords, "bhsd");
  const AtMost threads = Common::read_threads(keywords);
  std::string type_name = "int8", per = "key";
  keywords.value("type", type_name);
  keywords.value("scale_per", per);
  keywords.finish();
  const Type type = one_of<Type>("type", type_name, {{"int8", Type::int8}, {"int4", Type::int4}});
  const bool per_head = one_of<bool>("scale_per", per, {{"key", false}, {"head", true}});

  const Array from = keywords.objects.read("x", x);
  const auto from_view = stored_view<AnyK>(from, layout);
  const Library library = library_of(x);
  std::vector<std::int64_t> extents = extents_of(from);
  std::vector<std::int64_t> scale_extents = extents_of(in_order(from, layout));
  scale_extents.pop_back();
  if (per_head) scale_extents.back() = 1;
  if (type == Type::int4)
    extents.back() = extents.back() / Int4Group::kSize * static_cast<int>(sizeof(Int4Group));
  const Result to("stored", type == Type::int4 ? kUint8 : kInt8, extents);
  const auto to_view = stored_view<AnyKCache>(to.array(), layout);
  std::optional<Result> scales;
  CacheScales scales_view;
  if (type == Type::int8)
    scales_view = view_of<CacheScales>(scales.emplace("scales", kF32, scale_extents).array());
  compute([&] { rapt::quantize(from_view, to_view, scales_view, threads.get()); });
  return nb::make_tuple(to.as(library), scales ? scales->as(library) : nb::none());
}

nb::object dequantize_kv(nb::handle stored, const nb::object& scales, const nb::kwargs& given) {
  Keywords keywords("dequantize_kv", given);
  const Common common(keywords);
  keywords.finish();
  const Array from = keywords.objects.read("stored", stored);
  const auto from_view = stored_view<AnyK>(from, common.layout);
  ScalesView scales_view;
  if (!scales.is_none())
    scales_view =
        typed(static_cast<ScalesView*>(nullptr), keywords.read("scales", scales), keywords.pool);
  std::vector<std::int64_t> extents = extents_of(from);
  if (from_view.type() == Type::int4)
    extents.back() = extents.back() / static_cast<int>(sizeof(Int4Group)) * Int4Group::kSize;
  const Output to(keywords, common.out, library_of(stored), kF32, extents);
  const auto to_view = stored_view<AnyKCache>(to.array(), common.layout);
  compute([&] { rapt::dequantize(from_view, scales_view, to_view, common.threads.get()); });
  return to.object();
}

}  // namespace

void add_surroundings(nb::module_& module) {
  module.def("gemm", gemm, "a"_a, "b"_a, "options"_a,
             nb::sig("def gemm(a: Array, b: Array, *, alpha: float = 1.0, beta: float = 0.0, bias: "
                     "Array | None = None, b_scales: Array | None = None, activation: str = "
                     "'none', out: Array | None = None, threads: int | None = None) -> typing.Any"),
             gemm_text);
  module.def("merge", merge, "parts"_a, "options"_a,
             nb::sig("def merge(parts: collections.abc.Sequence[tuple[Array, Array]], *, out: "
                     "Array | None = None, " RAPT_COMMON ") -> typing.Any"),
             merge_text);
  module.def("append_kv", append_kv, "k_new"_a, "v_new"_a, "k_cache"_a, "v_cache"_a, "kv_lengths"_a,
             "options"_a,
             nb::sig("def append_kv(k_new: Array, v_new: Array, k_cache: Array, v_cache: Array, "
                     "kv_lengths: int | Array, *, cu_seqlens_new: Array | None = None, "
                     "block_table: Array | None = None, k_scales: Array | None = None, v_scales: "
                     "Array | None = None, rope: dict[str, typing.Any] | None = None, positions: "
                     "Array | None = None, " RAPT_COMMON ") -> None"),
             append_kv_text);
  module.def(
      "quantize_kv", quantize_kv, "x"_a, "options"_a,
      nb::sig(
          "def quantize_kv(x: Array, *, type: str = 'int8', scale_per: str = 'key', " RAPT_COMMON
          ") -> typing.Any"),
      quantize_kv_text);
  module.def("dequantize_kv", dequantize_kv, "stored"_a, "scales"_a = nb::none(), "options"_a,
             nb::sig("def dequantize_kv(stored: Array, scales: Array | None = None, *, out: Array "
                     "| None = None, " RAPT_COMMON ") -> typing.Any"),
             dequantize_kv_text);
  module.def("rope", rope, "x"_a, "options"_a,
             nb::sig("def rope(x: Array, *, dims: int | None = None, base: float = 10000.0, "
                     "pairing: str = 'interleaved', position_scale: float = 1.0, "
                     "frequency_factors: Array | None = None, magnitude: float = 1.0, "
                     "first_positions: int | Array | None = None, positions: Array | None = None, "
                     "out: Array | None = None, " RAPT_COMMON ") -> typing.Any"),
             rope_text);
}

}  // namespace rapt::python
