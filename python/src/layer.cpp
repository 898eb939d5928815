// MultiHeadAttention.
#include <algorithm>

#include "module.hpp"
#include "signatures.hpp"

namespace rapt::python {
namespace {

using namespace nb::literals;  // NOLINT(google-build-using-namespace)

std::string shape_text(const std::vector<std::int64_t>& extents) {
  std::string text;
  for (const std::int64_t extent : extents)
    text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

// C++ takes parameters flat, so that their shapes are to be compared here.
std::vector<double> parameter(const char* name, const Array& array,
                              const std::vector<std::int64_t>& wanted) {
  if (extents_of(array) != wanted) {
    throw Error(ErrorCode::extent_mismatch,
                std::string("parameter ") + name + " has shape " + shape_text(extents_of(array)) +
                    ", but the other parameters give " + shape_text(wanted));
  }
  return doubles(array);
}

MultiHeadAttention make_layer(const nb::kwargs& given) {
  Keywords keywords("MultiHeadAttention", given);
  const auto array = [&](const char* name, int rank) -> std::optional<Array> {
    const nb::object object = keywords.object(name);
    if (object.is_none()) return std::nullopt;
    const Array a = keywords.objects.read(name, object);
    if (a.rank != rank) {
      throw Error(ErrorCode::wrong_rank, std::string("parameter ") + name + " has shape " +
                                             shape_text(extents_of(a)) + ", but must have " +
                                             std::to_string(rank) + " axes");
    }
    return a;
  };
  const auto needed = [&](const char* name) {
    const std::optional<Array> a = array(name, 3);
    if (!a) throw TypeError(std::string("parameter ") + name + " is missing");
    return *a;
  };
  const std::optional<Array> qkv = array("qkv", 3);
  const Array w_q = needed("w_q"), w_k = needed("w_k"), w_v = needed("w_v"),
              output = needed("output");
  const std::optional<Array> b_q = array("b_q", 2), b_k = array("b_k", 2), b_v = array("b_v", 2),
                             b_output = array("b_output", 1);
  keywords.finish();

  LayerShape s;
  s.embedding = output.extent(-1);
  s.d_model = qkv ? qkv->extent(-1) : 0;
  s.heads = w_q.extent(0);
  s.d_k = w_q.extent(-1);
  s.d_v = w_v.extent(-1);
  const std::int64_t width = qkv ? s.d_model : s.embedding;
  LayerParameters p;
  if (qkv) p.qkv = parameter("qkv", *qkv, {3, s.embedding, s.d_model});
  p.w_q = parameter("w_q", w_q, {s.heads, width, s.d_k});
  p.w_k = parameter("w_k", w_k, {s.heads, width, s.d_k});
  p.w_v = parameter("w_v", w_v, {s.heads, width, s.d_v});
  p.output = parameter("output", output, {s.heads, s.d_v, s.embedding});
  if (b_q) p.b_q = parameter("b_q", *b_q, {s.heads, s.d_k});
  if (b_k) p.b_k = parameter("b_k", *b_k, {s.heads, s.d_k});
  if (b_v) p.b_v = parameter("b_v", *b_v, {s.heads, s.d_v});
  if (b_output) p.b_output = parameter("b_output", *b_output, {s.embedding});
  return {s, std::move(p)};
}

nb::object call(const MultiHeadAttention& layer, nb::handle q_tokens, nb::handle k_tokens,
                nb::handle v_tokens, bool causal, const nb::kwargs& given) {
  Keywords keywords("MultiHeadAttention", given);
  AttentionOptions options;
  read_options(keywords, options);
  options.causal = causal;
  const nb::object out = keywords.object("out");
  const AtMost threads = Common::read_threads(keywords);
  keywords.finish();
  options.executor = threads.get();
  const auto tokens = [&](const char* name, nb::handle object) {
    return floats(keywords.objects.read(name, object), keywords.pool);
  };
  const Array q_array = tokens("q_tokens", q_tokens);
  const auto q = view_of<TokensView>(q_array);
  const auto k = view_of<KvTokensView>(tokens("k_tokens", k_tokens));
  const auto v = view_of<KvTokensView>(tokens("v_tokens", v_tokens));
  const Output result(keywords, out, library_of(q_tokens), kF32, extents_of(q_array));
  const auto to = written_floats<OutTokensView>(result.array());
  compute([&] { layer(q, k, v, to, options); });
  return result.object();
}

}  // namespace

void add_layer(nb::module_& module) {
  nb::class_<MultiHeadAttention>(module, "MultiHeadAttention", layer_text)
      .def(
          "__init__",
          [](MultiHeadAttention* self, const nb::kwargs& given) {
            new (self) MultiHeadAttention(make_layer(given));
          },
          "parameters"_a,
          nb::sig("def __init__(self, *, qkv: Array | None = None, w_q: Array, w_k: Array, w_v: "
                  "Array, output: Array, b_q: Array | None = None, b_k: Array | None = None, b_v: "
                  "Array | None = None, b_output: Array | None = None) -> None"))
      .def("__call__", call, "q_tokens"_a, "k_tokens"_a, "v_tokens"_a, "causal"_a = false,
           "options"_a,
           nb::sig("def __call__(self, q_tokens: Array, k_tokens: Array, v_tokens: Array, causal: "
                   "bool = False, *, " RAPT_LAYER_OPTIONS
                   ", out: Array | None = None, threads: int | None = None) -> typing.Any"),
           layer_call_text);
}

}  // namespace rapt::python
