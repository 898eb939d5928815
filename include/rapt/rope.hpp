// Rotary position embedding (RoPE): pairs of a row's numbers turn by an angle that grows with the
// row's position, so that a query's product with a key depends on the distance of the two.
//
//   angle_i = position * position_scale * base^(-2 i / dims) / frequency_factors[i]
//   (x_a, x_b)  becomes  magnitude * (x_a cos - x_b sin, x_b cos + x_a sin)      of angle_i
// for pair i of dims / 2; numbers beyond the first dims stay as they are.
//
// Error: angles are f64, and reduced as f64; the rest is f32. While |angle| <= 2^20, a rotated
// number is within 2^-22 |magnitude| (|x_a| + |x_b|) of the formula, before it is rounded to its
// storage type. Beyond, the angle's own error of 2^-50 |angle| is added. NaN and infinities reach
// the two numbers of their pair and no others.
// Sources: Su et al. 2021, section 3.2; Chen et al. 2023 (position_scale); Peng et al. 2023, YaRN
// (magnitude); Ding et al. 2024, LongRoPE (frequency_factors).
#pragma once

#include <cstdint>

#include "rapt/attention.hpp"
#include "rapt/export.h"
#include "rapt/executor.hpp"
#include "rapt/rows.hpp"

namespace rapt {

// Which two numbers of a row are pair i.
enum class Pairing {
  interleaved,  // 2i and 2i + 1: GPT-J, Llama's own weights
  half,         // i and i + dims / 2: GPT-NeoX, Llama in Hugging Face's layout
};

struct Rope {
  std::int64_t dims = 0;  // how many leading numbers of a row turn: even, at most d_k; 0: none
  float base = 10000;
  Pairing pairing = Pairing::interleaved;
  float position_scale = 1;  // 1 / s: positions s times as far apart fit the trained range
  View<const float, axis::Pair> frequency_factors{};  // [dims / 2], positive; 1 when not given
  float magnitude = 1;
};

// [batch..., positions]; batch axes missing or of extent 1 are broadcast.
using PositionsView = View<const std::int32_t, axis::Position>;

struct RopeOptions {
  // The position of row n of batch element b is first_positions[b] + n, or positions[b, n]; n where
  // neither is given.
  LengthsView first_positions{};
  PositionsView positions{};
  const Executor* executor = nullptr;  // default_executor() when null
};

// out = x, rotated. Shapes: x and out [batch..., heads, positions, depth], depth from 1 to 1024,
// each f32, bf16 or f16. out may be x's own memory, element for element; otherwise they must not
// overlap. Throws Error before anything is written. Thread-safe. The same bits on any executor.
RAPT_API void rope(const AnyRows& x, const AnyRowsOut& out, const Rope& rope,
                   const RopeOptions& options = {});

}  // namespace rapt
