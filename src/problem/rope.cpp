// The checks of rotations.
#include <cmath>

#include "problem/arrays.hpp"
#include "problem/check.hpp"

namespace rapt::problem {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

tiles::Rope checked_rope(const Rope& rope, std::int64_t depth) {
  if (rope.dims < 0 || rope.dims > depth || rope.dims % 2 != 0) {
    fail(ErrorCode::bad_value, {"rope.dims", rope.dims,
                                "must be even, and from 0 to the depth " + std::to_string(depth)});
  }
  tiles::Rope checked;
  checked.dims = rope.dims;
  if (rope.dims == 0) return checked;
  const auto finite = [](const std::string& name, float value, bool positive) {
    if (!std::isfinite(value) || (positive && value <= 0))
      fail(ErrorCode::bad_value, {name, std::to_string(value),
                                  positive ? "must be finite, and positive" : "must be finite"});
  };
  finite("rope.base", rope.base, true);
  finite("rope.position_scale", rope.position_scale, false);
  finite("rope.magnitude", rope.magnitude, false);
  if (rope.pairing != Pairing::interleaved && rope.pairing != Pairing::half) {
    fail(ErrorCode::bad_value, {"rope.pairing", static_cast<std::int64_t>(rope.pairing),
                                "must be interleaved (0) or half (1)"});
  }
  checked.interleaved = rope.pairing == Pairing::interleaved;
  checked.magnitude = static_cast<double>(rope.magnitude);
  const View<const float, Pair>& factors = rope.frequency_factors;
  if (factors) {
    check_memory("rope.frequency_factors", factors);
    if (factors.batch_axes() != 0)
      fail(ErrorCode::wrong_rank, {"rope.frequency_factors", std::int64_t{factors.batch_axes()},
                                   "a rotation", std::int64_t{0}});
    agree(Pair::name, "rope.frequency_factors", factors.extent<Pair>(), "rope", rope.dims / 2);
  }
  const auto base = static_cast<double>(rope.base);
  for (std::int64_t i = 0; i < rope.dims / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(rope.dims);
    double frequency = static_cast<double>(rope.position_scale) * std::pow(base, exponent);
    if (factors) {
      const float factor = factors.data()[i * factors.stride<Pair>()];
      finite("rope.frequency_factors[" + std::to_string(i) + "]", factor, true);
      frequency /= static_cast<double>(factor);
    }
    checked.frequency[i] = frequency;
  }
  return checked;
}

tiles::RopeProblem check_rope(const AnyRows& x, const AnyRowsOut& out, const Rope& rope,
                              const RopeOptions& options) {
  plain_type("x", x.type());
  plain_type("out", out.type());
  check_memory("x", x, tiles::bytes_of(x.type()));
  check_output("out", out, tiles::bytes_of(out.type()));
  agree_batch("x", x, "out", out);
  agree(Head::name, "x", x.extent<Head>(), "out", out.extent<Head>());
  agree(Position::name, "x", x.extent<Position>(), "out", out.extent<Position>());
  agree(Depth::name, "x", x.extent<Depth>(), "out", out.extent<Depth>());
  within(Depth::name, "x", x.extent<Depth>(), 1, kMaxDepth);
  tiles::RopeProblem p;
  p.batch = flatten_batch(x);
  p.heads = x.extent<Head>();
  p.seq = x.extent<Position>();
  p.depth = x.extent<Depth>();
  p.x = stored(x);
  p.out = stored(out);
  p.rope = checked_rope(rope, p.depth);
  if (options.first_positions && options.positions) {
    fail(ErrorCode::bad_value, {"positions", "given", "first_positions is given too"});
  }
  if (options.first_positions) {
    check_memory("first_positions", options.first_positions);
    p.first_positions.data = options.first_positions.data();
    broadcast_batch("first_positions", options.first_positions, "x", p.batch,
                    p.first_positions.batch_stride);
  }
  if (options.positions) p.positions = positions_of(options.positions, "x", p.batch, p.seq);
  return p;
}

}  // namespace rapt::problem
