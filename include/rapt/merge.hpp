// Attention over some keys and attention over others become attention over all of them.
//
//   lse = log sum_i exp(lse_i)
//   out = sum_i exp(lse_i - lse) out_i
// for each row, over the parts i, in their order. A part of weight 0 is not looked at, even where
// its out holds NaN: one whose lse_i is -infinity (it attended nothing), or so far below lse that
// its weight is 0 in f32. All parts empty, or none at all: out = 0 and lse = -infinity. One part
// that is not empty: its own bits. A lse_i of NaN makes lse and out NaN; +infinity makes lse
// +infinity and, since no weight can be given to it, out NaN.
//
// Error: weights are f64 rounded to f32, the sum over n parts is f32: out is within
// (n + 1) 2^-24 sum_i exp(lse_i - lse) |out_i| of the formula before it is rounded to its storage
// type, lse within one rounding. So merging is associative up to this rounding, applied twice.
// Sources: Milakov and Gimelshein 2018 (the online softmax, section 3.1); Dao et al. 2023,
// flash-decoding (parts along the keys).
#pragma once

#include <span>

#include "rapt/attention.hpp"
#include "rapt/export.h"
#include "rapt/executor.hpp"

namespace rapt {

using AnyOutRead = AnyView<const std::byte, axis::Head, axis::Query, axis::DepthV>;
using LseRead = View<const float, axis::Head, axis::Query>;

// What attention() wrote for some of the keys.
struct AttentionPart {
  AnyOutRead out;
  LseRead lse;
};

struct MergeOptions {
  const Executor* executor = nullptr;  // default_executor() when null
};

// Shapes: every out [batch..., heads, seq_q, d_v], d_v from 1 to 1024, each f32, bf16 or f16; every
// lse [batch..., heads, seq_q]. lse of the result is written when given. out and lse of the result
// may be the memory of a part's out and lse, element for element and of the same type; otherwise
// they must not overlap anything. Throws Error before anything is written. Thread-safe. The same
// bits on any executor.
RAPT_API void merge(std::span<const AttentionPart> parts, const AnyOut& out, const LseView& lse,
                    const MergeOptions& options = {});

RAPT_API void merge(const AnyOutRead& out_a, const LseRead& lse_a, const AnyOutRead& out_b,
                    const LseRead& lse_b, const AnyOut& out, const LseView& lse,
                    const MergeOptions& options = {});

}  // namespace rapt
