// Wrong inputs of the backward pass: each has its sentence, and nothing is written.
#include <gtest/gtest.h>

#include <vector>

#include "rapt/rapt.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

// 2 heads, 1 KV head, 3 queries, 5 keys, d_k 4, d_v 6: all in one memory.
struct Call {
  std::vector<float> memory = std::vector<float>(400, 7.0f), written = memory;
  QView q{memory.data(), {2, 3, 4}};
  KView k{memory.data(), {1, 5, 4}};
  VView v{memory.data(), {1, 5, 6}};
  View<const float, Head, Query, DepthV> out{memory.data(), {2, 3, 6}}, dout = out;
  LseIn lse{memory.data(), {2, 3}};
  View<float, Head, Query, DepthK> dq{written.data(), {2, 3, 4}};
  View<float, KvHead, Key, DepthK> dk{written.data() + 100, {1, 5, 4}};
  View<float, KvHead, Key, DepthV> dv{written.data() + 200, {1, 5, 6}};
  AttentionOptions options;
  BackwardOptions backward;

  void expect(ErrorCode code, const std::string& sentence) {
    try {
      attention_backward(q, k, v, out, lse, dout, dq, dk, dv, options, backward);
      ADD_FAILURE() << "no error, but expected: " << sentence;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_EQ(error.what(), sentence);
    }
    EXPECT_EQ(written, memory);
  }
};

TEST(BackwardErrors, NameTheAxisAndBothValues) {
  Call right;
  EXPECT_NO_THROW(attention_backward(right.q, right.k, right.v, right.out, right.lse, right.dout,
                                     right.dq, right.dk, right.dv));
  Call a;
  a.dq = {a.written.data(), {2, 4, 4}};
  a.expect(ErrorCode::extent_mismatch, "axis seq_q: q has 3, but grad_q has 4");
  Call b;
  b.dk = {b.written.data(), {1, 5, 3}};
  b.expect(ErrorCode::extent_mismatch, "axis d_k: k has 4, but grad_k has 3");
  Call c;
  c.dv = {c.written.data(), {2, 5, 6}};
  c.expect(ErrorCode::extent_mismatch, "axis kv_heads: v has 1, but grad_v has 2");
  Call d;
  d.dout = {d.memory.data(), {2, 3, 5}};
  d.expect(ErrorCode::extent_mismatch, "axis d_v: v has 6, but grad_out has 5");
  Call e;
  e.lse = {e.memory.data(), {1, 3}};
  e.expect(ErrorCode::extent_mismatch, "axis heads: q has 2, but lse has 1");
  Call f;
  f.lse = {nullptr, {2, 3}};
  f.expect(ErrorCode::null_data, "lse has 6 elements but its data is null");
  Call g;
  g.backward.grad_lse = {g.memory.data(), {2, 2}};
  g.expect(ErrorCode::extent_mismatch, "axis seq_q: q has 3, but grad_lse has 2");
  Call h;
  h.dk = {h.written.data(), {1, 5, 4}, {0, 0, 1}};
  h.expect(ErrorCode::bad_value,
           "the stride of axis seq_kv of grad_k is 0, but an output's elements must lie apart: "
           "extent 5");
}

TEST(BackwardErrors, OfOptions) {
  Call a;
  a.backward.grad_bias = {a.written.data(), {2, 3, 5}};
  a.expect(ErrorCode::bad_value, "grad_bias is given, but bias is not");
  Call b;
  b.options.bias = {b.memory.data(), {1, 3, 5}};
  b.backward.grad_bias = {b.written.data(), {2, 3, 5}};
  b.expect(ErrorCode::extent_mismatch, "axis heads: bias has 1, but grad_bias has 2");
  Call c;
  c.backward.grad_sinks = {c.written.data(), {2}};
  c.expect(ErrorCode::bad_value, "grad_sinks is given, but sinks is not");
  Call d;
  d.options.alibi_slopes = {d.memory.data(), {2}};
  d.backward.grad_alibi_slopes = {d.written.data(), {3}};
  d.expect(ErrorCode::extent_mismatch,
           "axis heads: alibi_slopes has 2, but grad_alibi_slopes has 3");
  Call e;
  const std::int32_t page = 0;
  e.options.block_table = {&page, {1, 1}};
  e.expect(ErrorCode::bad_value, "block_table is given, but a paged cache has no gradients");
}

TEST(BackwardErrors, WhatIsQuantizedHasNoGradients) {
  Call a;
  std::vector<std::int8_t> bytes(100);
  const View<const std::int8_t, KvHead, Key, DepthK> k(bytes.data(), {1, 5, 4});
  try {
    attention_backward(a.q, k, a.v, a.out, a.lse, a.dout, a.dq, a.dk, a.dv);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the type of k is int8, but must be f32, bf16 or f16");
  }
}

}  // namespace
}  // namespace rapt::tests
