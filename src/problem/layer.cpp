// The layer's shape and the sizes of its parameters.
#include "problem/axes.hpp"
#include "problem/check.hpp"

namespace rapt::problem {

std::int64_t layer_width(const LayerShape& s) { return s.d_model > 0 ? s.d_model : s.embedding; }

std::array<LayerParameter, 9> layer_parameters(const LayerShape& s) {
  const std::int64_t width = layer_width(s);
  using P = LayerParameters;
  return {{{"qkv", &P::qkv, false, {3, s.embedding, s.d_model}},
           {"w_q", &P::w_q, false, {s.heads, width, s.d_k}},
           {"w_k", &P::w_k, false, {s.heads, width, s.d_k}},
           {"w_v", &P::w_v, false, {s.heads, width, s.d_v}},
           {"output", &P::output, false, {s.heads, s.d_v, s.embedding}},
           {"b_q", &P::b_q, true, {s.heads, s.d_k}},
           {"b_k", &P::b_k, true, {s.heads, s.d_k}},
           {"b_v", &P::b_v, true, {s.heads, s.d_v}},
           {"b_output", &P::b_output, true, {s.embedding}}}};
}

std::int64_t LayerParameter::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents) product *= extent;
  return product;
}

void check_layer(const LayerShape& s) {
  const auto positive = [](const char* axis, std::int64_t extent, std::int64_t low) {
    within(axis, "the layer", extent, low, std::int64_t{1} << 20);
  };
  positive(axis::Embedding::name, s.embedding, 1);
  positive(axis::Model::name, s.d_model, 0);
  positive(axis::Head::name, s.heads, 1);
  positive(axis::DepthK::name, s.d_k, 1);
  positive(axis::DepthV::name, s.d_v, 1);
  // The largest parameters, of [2^20, 2^20, 2^20] at most.
  const auto fits = [&](const char* parameter, std::int64_t width, std::int64_t depth) {
    Range range(parameter, sizeof(double));
    range.axis("depth", depth, 1);
    range.axis("width", width, depth);
    range.axis(axis::Head::name, s.heads, width * depth);
  };
  fits("w_q", layer_width(s), s.d_k);
  fits("w_v", layer_width(s), s.d_v);
  fits("output", s.embedding, s.d_v);
}

void check_layer(const LayerShape& s, const LayerParameters& p) {
  for (const LayerParameter& parameter : layer_parameters(s)) {
    const std::vector<double>& values = p.*parameter.values;
    const std::int64_t wanted = parameter.elements();
    if (parameter.optional && values.empty()) continue;
    if (static_cast<std::int64_t>(values.size()) == wanted) continue;
    std::string shape;
    for (const std::int64_t extent : parameter.extents)
      shape += (shape.empty() ? "[" : ", ") + std::to_string(extent);
    throw Error(ErrorCode::extent_mismatch, std::string("parameter ") + parameter.name +
                                                " has shape [" + std::to_string(values.size()) +
                                                "] (flat), but the layer's shape gives " + shape +
                                                "] = " + std::to_string(wanted) + " elements");
  }
}

}  // namespace rapt::problem
