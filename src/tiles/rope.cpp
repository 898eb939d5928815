#include "tiles/rope.hpp"

#include <cmath>

#include "tiles/stored.hpp"

namespace rapt::tiles {

void fill_rotation(const Rope& rope, double position, Rotation& rotation) {
  for (Index i = 0; i < rope.dims / 2; ++i) {
    const double angle = position * rope.frequency[i];
    rotation.cos[i] = static_cast<float>(rope.magnitude * std::cos(angle));
    rotation.sin[i] = static_cast<float>(rope.magnitude * std::sin(angle));
  }
}

void rotate(const Rope& rope, const Rotation& rotation, float* x) {
  const Index pairs = rope.dims / 2;
  const auto turn = [&](Index i, float& a, float& b) {
    const float turned = a * rotation.cos[i] - b * rotation.sin[i];
    b = b * rotation.cos[i] + a * rotation.sin[i];
    a = turned;
  };
  if (rope.interleaved) {
    for (Index i = 0; i < pairs; ++i) turn(i, x[2 * i], x[2 * i + 1]);
  } else {
    for (Index i = 0; i < pairs; ++i) turn(i, x[i], x[i + pairs]);
  }
}

void run_row(const RopeProblem& p, const kernels::Kernels& kernels, Index row) {
  const Index element = row / p.seq, n = row % p.seq;
  double position = static_cast<double>(n);
  if (p.first_positions) position += *p.batch.element(p.first_positions, element);
  if (p.positions) position = p.batch.element(p.positions, element)[n * p.positions.row_stride];
  Rotation rotation;
  fill_rotation(p.rope, position, rotation);
  const std::byte* from = p.batch.element(p.x, element) + n * p.x.row_stride;
  std::byte* to = p.batch.element(p.out, element) + n * p.out.row_stride;
  float x[kMaxDepth];
  for (Index head = 0; head < p.heads; ++head) {
    read_row(kernels, p.x, from + head * p.x.head_stride, p.depth, x);
    rotate(p.rope, rotation, x);
    write_row(kernels, p.out, x, p.depth, to + head * p.out.head_stride);
  }
}

}  // namespace rapt::tiles
