#include "tiles/quantize.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tiles/stored.hpp"

namespace rapt::tiles {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr std::int32_t kInfinityBits = 0x7f800000;

// x * inverse, to the nearest integer, ties to even: adding 1.5 * 2^52 leaves no bits for the
// fraction. In f64, so that what is nearest is decided by x and not by a rounding before.
std::int32_t nearest(float x, double inverse, std::int32_t most) {
  constexpr double kNoFraction = 0x1.8p52;
  const auto n = static_cast<std::int32_t>(
      static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(x * inverse + kNoFraction)));
  return std::clamp(n, -most, most);
}

// Where the scale says that nothing can be held (0: only zeros; NaN), every q is 0.
double inverse_of(float scale) { return scale > 0 ? 1.0 / static_cast<double>(scale) : 0.0; }

Int4Group group_of(const float* x) {
  Int4Group group;
  const float largest = largest_magnitude(x, Int4Group::kSize);
  group.scale = to_f16(largest / 7);
  // Nearest may be far below, where f16 is denormal.
  if (largest > 7.5f * to_float(group.scale)) ++group.scale.bits;
  const bool held = to_float(group.scale) <= 65504.0f;
  if (!held) group.scale = to_f16(kNaN);
  const double inverse = held ? inverse_of(to_float(group.scale)) : 0.0;
  const auto nibble = [&](float number) {
    return static_cast<unsigned>(8 + (held ? nearest(number, inverse, 7) : 0));
  };
  for (int i = 0; i < 16; ++i)
    group.nibbles[i] = static_cast<std::uint8_t>(nibble(x[i]) | nibble(x[i + 16]) << 4);
  return group;
}

}  // namespace

float largest_magnitude(const float* x, Index n, float least) {
  // As integers magnitudes are ordered like the floats, with infinity and NaN above all.
  auto most = std::bit_cast<std::int32_t>(least);
  for (Index i = 0; i < n; ++i)
    most = std::max(most, std::bit_cast<std::int32_t>(x[i]) & std::numeric_limits<int>::max());
  return most >= kInfinityBits ? kNaN : std::bit_cast<float>(most);
}

float int8_scale(float largest) {
  if (!(largest > 0)) return largest;  // 0 or NaN
  // A denormal scale has too few bits of its own to be near largest / 127.
  const float scale = std::max(largest / 127, std::numeric_limits<float>::min());
  // Rounded up, 127 times the scale of the largest floats would be infinite.
  return std::isinf(scale * 127) ? std::nextafter(scale, 0.0f) : scale;
}

void store_row(const kernels::Kernels& kernels, const Stored<std::byte>& array, const float* x,
               Index n, float scale, std::byte* to) {
  if (array.type == Type::int4) {
    for (Index i = 0; i < n; i += Int4Group::kSize, to += array.column_stride)
      *reinterpret_cast<Int4Group*>(to) = group_of(x + i);
  } else if (array.type == Type::int8) {
    const double inverse = inverse_of(scale);
    const Index step = array.column_stride;
    for (Index i = 0; i < n; ++i) {
      const std::int32_t q = inverse == 0 ? 0 : nearest(x[i], inverse, 127);
      *reinterpret_cast<std::int8_t*>(to + i * step) = static_cast<std::int8_t>(q);
    }
  } else {
    write_row(kernels, array, x, n, to);
  }
}

void run_row(const ConvertProblem& p, const kernels::Kernels& kernels, Index row) {
  const Index n = p.positions_of_row(), blocks = p.shared_scale ? 1 : p.seq;
  const Index first = row % blocks * n, head = row / blocks % p.heads,
              element = row / blocks / p.heads;
  const auto at = [&](const auto& array, Index position) {
    return p.batch.element(array, element) + head * array.head_stride + position * array.row_stride;
  };
  float x[kMaxDepth];
  const auto read = [&](Index position) {
    read_row(kernels, p.from, at(p.from, position), p.depth, x);
    if (!p.from_scales) return;
    const float scale = *at(p.from_scales, position);
    for (Index i = 0; i < p.depth; ++i) x[i] *= scale;
  };
  float scale = 0;
  if (p.to_scales) {
    float largest = 0;
    for (Index i = first; i < first + n; ++i) {
      read(i);
      largest = largest_magnitude(x, p.depth, largest);
    }
    scale = int8_scale(largest);
    *at(p.to_scales, first) = scale;
  }
  for (Index i = first; i < first + n; ++i) {
    read(i);
    store_row(kernels, p.to, x, p.depth, scale, at(p.to, i));
  }
}

}  // namespace rapt::tiles
