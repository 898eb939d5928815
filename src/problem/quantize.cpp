// The checks of conversions between storage types.
#include "problem/arrays.hpp"
#include "problem/check.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

void quantized_type(const char* name, Type type) {
  if (type == Type::int8 || type == Type::int4) return;
  const char* is = type == Type::f32 ? "f32" : type == Type::f16 ? "f16" : "bf16";
  fail(ErrorCode::bad_value, {std::string("the type of ") + name, is,
                              "must be int8 or int4: convert() is for the others"});
}

// Scales belong to int8, and to nothing else. Without elements none are needed.
void expect_scales(bool given, const char* array, const AnyRows& of) {
  const bool needed = of.type() == Type::int8;
  if (given != needed && (given || of.data() != nullptr)) {
    fail(ErrorCode::bad_value,
         {"scales", given ? "given" : "missing",
          std::string(array) + (given ? " is not int8" : " is int8, and needs them")});
  }
}

tiles::ConvertProblem check_pair(const AnyRows& from, const AnyRowsOut& to) {
  check_memory("from", from, tiles::bytes_of(from.type()));
  check_output("to", to, tiles::bytes_of(to.type()));
  agree_batch("from", from, "to", to);
  agree(Head::name, "from", from.extent<Head>(), "to", to.extent<Head>());
  agree(Position::name, "from", from.extent<Position>(), "to", to.extent<Position>());
  tiles::ConvertProblem p;
  p.depth = depth_of<Depth>(from);
  within(Depth::name, "from", p.depth, 1, kMaxDepth);
  agree(Depth::name, "from", p.depth, "to", depth_of<Depth>(to));
  p.batch = flatten_batch(from);
  p.heads = from.extent<Head>();
  p.seq = from.extent<Position>();
  p.from = stored(from);
  p.to = stored(to);
  return p;
}

}  // namespace

tiles::ConvertProblem check_quantize(const AnyRows& from, const AnyRowsOut& to,
                                     const View<float, KvHead, Key>& scales) {
  plain_type("from", from.type());
  quantized_type("to", to.type());
  expect_scales(static_cast<bool>(scales), "to", to);
  tiles::ConvertProblem p = check_pair(from, to);
  if (!scales) return p;
  check_output("scales", scales);
  agree_batch("to", to, "scales", scales);
  agree(Head::name, "to", p.heads, "scales", scales.extent<KvHead>());
  p.shared_scale = scales.extent<Key>() == 1;
  if (!p.shared_scale) agree(Position::name, "to", p.seq, "scales", scales.extent<Key>());
  p.to_scales = array_of(scales);
  return p;
}

tiles::ConvertProblem check_dequantize(const AnyRows& from, const ScalesView& scales,
                                       const AnyRowsOut& to) {
  quantized_type("from", from.type());
  plain_type("to", to.type());
  expect_scales(static_cast<bool>(scales), "from", from);
  tiles::ConvertProblem p = check_pair(from, to);
  if (!scales) return p;
  check_memory("scales", scales);
  p.from_scales.data = scales.data();
  broadcast_batch("scales", scales, "from", p.batch, p.from_scales.batch_stride);
  p.from_scales.head_stride = broadcast_axis(Head::name, "scales", scales.extent<KvHead>(),
                                             scales.stride<KvHead>(), "from", p.heads);
  p.from_scales.row_stride = broadcast_axis(Position::name, "scales", scales.extent<Key>(),
                                            scales.stride<Key>(), "from", p.seq);
  return p;
}

tiles::ConvertProblem check_convert(const AnyRows& from, const AnyRowsOut& to) {
  plain_type("from", from.type());
  plain_type("to", to.type());
  return check_pair(from, to);
}

}  // namespace rapt::problem
