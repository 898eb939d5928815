// The checks of attention.
#include <algorithm>
#include <cmath>

#include "problem/axes.hpp"
#include "problem/check.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

constexpr std::int64_t kMaxDepth = 512;

// Element [head, position, depth] of an array with all the problem's batch axes.
template <class HeadAxis, class RowAxis, class ColumnAxis, class T>
tiles::Array<T> array_of(const View<T, HeadAxis, RowAxis, ColumnAxis>& view) {
  tiles::Array<T> array;
  array.data = view.data();
  if (array.data == nullptr) return array;  // no elements, and no offsets from a null pointer
  for (int i = 0; i < view.batch_axes(); ++i) array.batch_stride[i] = view.batch_stride(i);
  array.head_stride = view.template stride<HeadAxis>();
  array.row_stride = view.template stride<RowAxis>();
  array.column_stride = view.template stride<ColumnAxis>();
  return array;
}

// A mask or a bias: broadcast to [batch..., heads, seq_q, seq_kv].
template <class T>
tiles::Array<T> pair_array(const char* name, const View<T, Head, Query, Key>& view, const QView& q,
                           std::int64_t seq_kv) {
  if (!view) return {};
  check_memory(name, view);
  tiles::Array<T> array;
  array.data = view.data();
  broadcast_batch(name, view, "q", q, array.batch_stride);
  array.head_stride = broadcast_axis(Head::name, name, view.template extent<Head>(),
                                     view.template stride<Head>(), "q", q.extent<Head>());
  array.row_stride = broadcast_axis(Query::name, name, view.template extent<Query>(),
                                    view.template stride<Query>(), "q", q.extent<Query>());
  array.column_stride = broadcast_axis(Key::name, name, view.template extent<Key>(),
                                       view.template stride<Key>(), "k", seq_kv);
  return array;
}

// Everything that q, k and the options say.
tiles::AttentionProblem check_scores(const QView& q, const KView& k,
                                     const AttentionOptions& options) {
  check_memory("q", q);
  check_memory("k", k);
  agree_batch("q", q, "k", k);
  within(DepthK::name, "q", q.extent<DepthK>(), 1, kMaxDepth);
  agree(DepthK::name, "q", q.extent<DepthK>(), "k", k.extent<DepthK>());
  const std::int64_t heads = q.extent<Head>(), kv_heads = k.extent<KvHead>();
  if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0)
    fail(ErrorCode::heads_not_multiple, {heads, kv_heads});

  tiles::AttentionProblem p;
  p.batch = flatten_batch(q);
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.group = kv_heads == 0 ? 1 : heads / kv_heads;
  p.seq_q = q.extent<Query>();
  p.seq_kv = k.extent<Key>();
  p.d_k = q.extent<DepthK>();
  p.scale = options.scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.d_k))));
  if (!std::isfinite(p.scale))
    fail(ErrorCode::bad_value, {"scale", std::to_string(p.scale), "must be finite"});
  p.causal = options.causal;
  // Beyond these ends nothing changes, and sums with it cannot overflow.
  p.q_offset = std::clamp(options.q_offset.value_or(p.seq_kv - p.seq_q), -p.seq_q, p.seq_kv);
  p.q = array_of(q);
  p.k = array_of(k);
  p.mask = pair_array("mask", options.mask, q, p.seq_kv);
  p.bias = pair_array("bias", options.bias, q, p.seq_kv);
  return p;
}

}  // namespace

tiles::AttentionProblem check_attention(const QView& q, const KView& k, const VView& v,
                                        const OutView& out, const AttentionOptions& options) {
  tiles::AttentionProblem p = check_scores(q, k, options);
  check_memory("v", v);
  check_output("out", out);
  agree_batch("q", q, "v", v);
  agree_batch("q", q, "out", out);
  agree(KvHead::name, "k", k.extent<KvHead>(), "v", v.extent<KvHead>());
  agree(Key::name, "k", k.extent<Key>(), "v", v.extent<Key>());
  within(DepthV::name, "v", v.extent<DepthV>(), 1, kMaxDepth);
  agree(DepthV::name, "v", v.extent<DepthV>(), "out", out.extent<DepthV>());
  agree(Head::name, "q", q.extent<Head>(), "out", out.extent<Head>());
  agree(Query::name, "q", q.extent<Query>(), "out", out.extent<Query>());
  p.d_v = v.extent<DepthV>();
  p.v = array_of(v);
  p.out = array_of(out);
  if (options.lse) {
    const LseView& lse = options.lse;
    check_output("lse", lse);
    agree_batch("q", q, "lse", lse);
    agree(Head::name, "q", q.extent<Head>(), "lse", lse.extent<Head>());
    agree(Query::name, "q", q.extent<Query>(), "lse", lse.extent<Query>());
    p.lse.data = lse.data();
    for (int i = 0; i < lse.batch_axes(); ++i) p.lse.batch_stride[i] = lse.batch_stride(i);
    p.lse.head_stride = lse.stride<Head>();
    p.lse.row_stride = lse.stride<Query>();
  }
  return p;
}

void check_salience(const QView& q, const KView& k, const View<float, Head, Query, Key>& salience,
                    const AttentionOptions& options) {
  check_scores(q, k, options);
  check_output("salience", salience);
  agree_batch("q", q, "salience", salience);
  agree(Head::name, "q", q.extent<Head>(), "salience", salience.extent<Head>());
  agree(Query::name, "q", q.extent<Query>(), "salience", salience.extent<Query>());
  agree(Key::name, "k", k.extent<Key>(), "salience", salience.extent<Key>());
}

}  // namespace rapt::problem
