// From one storage type to another, whole views at a time.
//
// int8: x is stored as q with scale * q near it; scale = max |x| / 127 over the numbers that share
// it, and not below 2^-126 unless all are 0. The number scale * q is within scale / 2 (1 + 2^-20)
// of x; reading it as f32 rounds once more.
// 4-bit groups: likewise with scale = max |x| / 7 as an f16, over 32 neighbours along the depth;
// where the f16 nearest to it is below max |x| / 7.5 (denormals), the next larger one.
// NaN or infinity among the numbers that share a scale makes the scale NaN, and q 0: they are all
// read as NaN, and nothing wrong passes for a number. The same for a 4-bit group whose max |x| is
// 458640 or more, whose scale f16 cannot hold.
#pragma once

#include "rapt/attention.hpp"
#include "rapt/export.h"
#include "rapt/executor.hpp"
#include "rapt/rows.hpp"

namespace rapt {

// Everywhere: from and to are [batch..., heads, positions, depth], depth from 1 to 1024 (of 4-bit
// groups: depth / 32 of them), and must not overlap. Throws Error before anything is written.
// Thread-safe. The same bits on any executor; executor null: default_executor().

// from f32, bf16 or f16; to int8 or 4-bit groups. scales [batch..., heads, positions] belongs to
// int8 and is written: one for each row, or one for all positions of a head (of a page, say) where
// its positions are 1.
RAPT_API void quantize(const AnyRows& from, const AnyRowsOut& to,
                       const View<float, axis::KvHead, axis::Key>& scales = {},
                       const Executor* executor = nullptr);

// from int8 or 4-bit groups; to f32, bf16 or f16. scales belongs to int8: axes of extent 1 (batch
// axes too, which may be missing) are broadcast.
RAPT_API void dequantize(const AnyRows& from, const ScalesView& scales, const AnyRowsOut& to,
                         const Executor* executor = nullptr);

// Between f32, bf16 and f16: the nearest, ties to even; NaN stays NaN, what is too large becomes
// infinite.
RAPT_API void convert(const AnyRows& from, const AnyRowsOut& to,
                      const Executor* executor = nullptr);

}  // namespace rapt
