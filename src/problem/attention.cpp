// The checks of attention.
#include <algorithm>
#include <cmath>

#include "problem/check.hpp"
#include "problem/elements.hpp"

namespace rapt::problem {
namespace {

using namespace rapt::axis;  // NOLINT(google-build-using-namespace)

std::int64_t near(std::int64_t position) { return std::clamp(position, -kFar, kFar); }

// The scales of an int8 array: one for each key, broadcast.
template <class AnyKeys>
tiles::Array<const float> scales_of(const char* name, const ScalesView& scales, const char* keys,
                                    const AnyKeys& of) {
  if (static_cast<bool>(scales) != (of.type() == Type::int8) && of.data() != nullptr) {
    fail(ErrorCode::bad_value,
         {name, scales ? "given" : "missing",
          std::string(keys) +
              (scales ? " is not int8" : " is int8, and needs a scale for each key")});
  }
  tiles::Array<const float> array;
  if (!scales) return array;
  check_memory(name, scales);
  array.data = scales.data();
  tiles::Batch batch;
  batch.axes = of.batch_axes();
  for (int i = 0; i < batch.axes; ++i) batch.extent[i] = of.batch_extent(i);
  broadcast_batch(name, scales, keys, batch, array.batch_stride);
  array.head_stride = broadcast_axis(KvHead::name, name, scales.extent<KvHead>(),
                                     scales.stride<KvHead>(), keys, of.template extent<KvHead>());
  array.row_stride = broadcast_axis(Key::name, name, scales.extent<Key>(), scales.stride<Key>(),
                                    keys, of.template extent<Key>());
  return array;
}

// One number for each batch element.
tiles::Array<const std::int32_t> per_element(const char* name, const LengthsView& view,
                                             const Elements& elements) {
  if (!view) return {};
  check_memory(name, view);
  tiles::Array<const std::int32_t> array;
  array.data = view.data();
  broadcast_to(name, view, elements, false, array);
  return array;
}

// The page of every key that a sequence has must be one of the pool.
void check_block_table(const View<const std::int32_t, Page>& table, std::int64_t pool,
                       const tiles::AttentionProblem& p) {
  const std::int64_t size = p.pages.size;
  for (std::int64_t b = 0; b < p.batch.size; ++b) {
    const std::int64_t length = *p.batch.element(p.kv_lengths, b);
    const std::int32_t* pages = p.batch.element(p.pages.table, b);
    for (std::int64_t n = 0; n < (length + size - 1) / size; ++n) {
      const std::int64_t page = pages[n * table.stride<Page>()];
      if (page < 0 || page >= pool)
        fail(ErrorCode::bad_value,
             {"block_table[" + std::to_string(b) + ", " + std::to_string(n) + "]", page,
              "k has " + std::to_string(pool) + " pages"});
    }
  }
}

void check_masks(const AnyQ& q, const AttentionOptions& options, const Elements& elements,
                 tiles::AttentionProblem& p) {
  const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      fail(ErrorCode::bad_value, {name, value, "must be at least " + std::to_string(least)});
  };
  at_least("window_left", options.window_left, -1);
  at_least("window_right", options.window_right, -1);
  at_least("chunk", options.chunk, 0);
  at_least("prefix", options.prefix, 0);
  at_least("tree_keys", options.tree_keys, 0);
  p.causal = options.causal;
  p.window_left = near(options.window_left);
  p.window_right = near(options.window_right);
  p.chunk = near(options.chunk);
  p.prefix = near(options.prefix);
  if (options.q_offset && options.q_offsets)
    fail(ErrorCode::bad_value, {"q_offset", *options.q_offset, "q_offsets is given too"});
  if (options.q_offset) p.q_offset = near(*options.q_offset);
  p.q_offsets = per_element("q_offsets", options.q_offsets, elements);

  if (static_cast<bool>(options.q_segments) != static_cast<bool>(options.kv_segments)) {
    fail(ErrorCode::bad_value, {options.q_segments ? "q_segments" : "kv_segments", "given",
                                options.q_segments ? "kv_segments is not" : "q_segments is not"});
  }
  if (options.q_segments) {
    check_memory("q_segments", options.q_segments);
    check_memory("kv_segments", options.kv_segments);
    p.q_segments.data = options.q_segments.data();
    p.kv_segments.data = options.kv_segments.data();
    broadcast_to("q_segments", options.q_segments, elements, elements.packed_q, p.q_segments);
    broadcast_to("kv_segments", options.kv_segments, elements, elements.packed_kv, p.kv_segments);
    agree(Query::name, "q_segments", options.q_segments.extent<Query>(), "q", q.extent<Query>());
    agree(Key::name, "kv_segments", options.kv_segments.extent<Key>(),
          elements.packed_kv ? "k" : elements.keys_named_by(),
          elements.packed_kv ? options.cu_seqlens_kv.data()[p.batch.size] : p.longest.seq_kv);
    p.q_segments.row_stride = options.q_segments.stride<Query>();
    p.kv_segments.row_stride = options.kv_segments.stride<Key>();
  }

  if (!options.tree && options.tree_keys > 0)
    fail(ErrorCode::bad_value, {"tree_keys", options.tree_keys, "tree is not given"});
  if (options.tree) {
    check_memory("tree", options.tree);
    broadcast_to("tree", options.tree, elements, elements.packed_q, p.tree);
    agree(Query::name, "tree", options.tree.extent<Query>(), "q", q.extent<Query>());
    const std::int64_t given = options.tree.extent<axis::Word>(),
                       wanted = options.tree_keys / 64 + (options.tree_keys % 64 != 0);
    if (given != wanted)
      fail(ErrorCode::extent_mismatch,
           {axis::Word::name, "tree", given,
            "a row of " + std::to_string(options.tree_keys) + " tree_keys", wanted});
    p.tree.data = options.tree_keys > 0 ? options.tree.data() : nullptr;
    p.tree.row_stride = options.tree.stride<Query>();
    p.tree.column_stride = options.tree.stride<axis::Word>();
    p.tree_keys = options.tree_keys;
  }
  p.mask = pair_array("mask", options.mask, q, p.longest.seq_kv, elements);
  p.bias = pair_array("bias", options.bias, q, p.longest.seq_kv, elements);
}

}  // namespace

Elements elements_of(const AnyQ& q, const AttentionOptions& options) {
  Elements e;
  e.packed_q = static_cast<bool>(options.cu_seqlens_q);
  e.packed_kv = static_cast<bool>(options.cu_seqlens_kv);
  e.paged = static_cast<bool>(options.block_table);
  if (e.packed_kv && (e.paged || options.kv_lengths)) {
    fail(ErrorCode::bad_value, {"cu_seqlens_kv", "given",
                                e.paged ? "a paged cache is not packed: block_table is given too"
                                        : "packed sequences have no kv_lengths of their own"});
  }
  if (e.paged && !options.kv_lengths)
    fail(ErrorCode::bad_value, {"block_table", "given", "needs kv_lengths"});
  if (!e.packed_q && !e.packed_kv) {
    e.batch = flatten_batch(q);
    if (e.paged && e.batch.axes != 1)
      fail(ErrorCode::wrong_rank,
           {"q", std::int64_t{e.batch.axes}, "the paged problem", std::int64_t{1}});
    return e;
  }
  e.named_by = e.packed_q ? "cu_seqlens_q" : "cu_seqlens_kv";
  const BoundariesView& boundaries = e.packed_q ? options.cu_seqlens_q : options.cu_seqlens_kv;
  within(Boundary::name, e.named_by, boundaries.extent<Boundary>(), 1, kFar);
  e.batch.axes = 1;
  e.batch.size = e.batch.extent[0] = boundaries.extent<Boundary>() - 1;
  return e;
}

tiles::AttentionProblem check_scores(const AnyQ& q, const AnyK& k,
                                     const AttentionOptions& options) {
  plain_type("q", q.type());
  check_memory("q", q, tiles::bytes_of(q.type()));
  check_memory("k", k, tiles::bytes_of(k.type()));
  within(DepthK::name, "q", q.extent<DepthK>(), 1, kMaxDepth);
  agree(DepthK::name, "q", q.extent<DepthK>(), "k", depth_of<DepthK>(k));
  const std::int64_t heads = q.extent<Head>(), kv_heads = k.extent<KvHead>();
  if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0)
    fail(ErrorCode::heads_not_multiple, {heads, kv_heads});

  const Elements elements = elements_of(q, options);
  tiles::AttentionProblem p;
  p.batch = elements.batch;
  expect_batch("q", q, elements, elements.packed_q);
  if (elements.paged) {
    if (k.batch_axes() != 1)
      fail(ErrorCode::wrong_rank,
           {"k", std::int64_t{k.batch_axes()}, "a pool of pages", std::int64_t{1}});
  } else {
    expect_batch("k", k, elements, elements.packed_kv);
  }
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.group = kv_heads == 0 ? 1 : heads / kv_heads;
  p.d_k = q.extent<DepthK>();
  p.q = stored(q);
  p.k = stored(k);
  p.k_scales = scales_of("k_scales", options.k_scales, "k", k);
  p.scale = options.scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.d_k))));
  if (!std::isfinite(p.scale))
    fail(ErrorCode::bad_value, {"scale", std::to_string(p.scale), "must be finite"});
  p.softcap = options.softcap;
  if (!std::isfinite(p.softcap) || p.softcap < 0)
    fail(ErrorCode::bad_value,
         {"softcap", std::to_string(p.softcap), "must be finite, and not negative"});

  p.longest = {q.extent<Query>(), k.extent<Key>()};
  if (elements.packed_q) {
    p.longest.seq_q = check_boundaries("cu_seqlens_q", options.cu_seqlens_q, p.batch.size, "q",
                                       q.extent<Query>());
    p.first_query = options.cu_seqlens_q.data();
  }
  if (elements.packed_kv) {
    p.longest.seq_kv = check_boundaries("cu_seqlens_kv", options.cu_seqlens_kv, p.batch.size, "k",
                                        k.extent<Key>());
    p.first_key = options.cu_seqlens_kv.data();
  }
  if (elements.paged) {
    const auto& table = options.block_table;
    within("page size (seq_kv)", "k", k.extent<Key>(), 1, kernels::RowPages::kMost);
    check_memory("block_table", table);
    within(Page::name, "block_table", table.extent<Page>(), 0, kFar / k.extent<Key>());
    expect_batch("block_table", table, elements, false);
    p.pages.size = k.extent<Key>();
    p.pages.table.data = table.data();
    p.pages.table.row_stride = table.stride<Page>();
    p.pages.table.batch_stride[0] = table.batch_stride(0);
    p.longest.seq_kv = table.extent<Page>() * p.pages.size;
  }
  p.kv_lengths = per_element("kv_lengths", options.kv_lengths, elements);
  if (p.kv_lengths && heads > 0 && q.extent<Query>() > 0)
    each_within("kv_lengths", p.kv_lengths, p.batch, 0, p.longest.seq_kv);
  if (elements.paged) check_block_table(options.block_table, k.batch_extent(0), p);

  p.dropout = options.dropout;
  p.round_weights = options.round_weights;
  if (p.round_weights < RoundWeights::where_native || p.round_weights > RoundWeights::always)
    fail(ErrorCode::bad_value, {"round_weights", static_cast<std::int64_t>(p.round_weights),
                                "must be where_native, never or always"});
  if (!(p.dropout.probability >= 0 && p.dropout.probability < 1)) {
    fail(ErrorCode::bad_value, {"dropout.probability", std::to_string(p.dropout.probability),
                                "must be at least 0, and below 1"});
  }
  constexpr std::int64_t kStreams = std::int64_t{1} << 32;
  if (p.dropout.probability > 0 && p.batch.size > 0 && heads > kStreams / p.batch.size)
    fail(ErrorCode::bad_value, {"dropout", "given", "batch x heads is more than 2^32"});
  p.slopes = per_head("alibi_slopes", options.alibi_slopes, heads, elements);
  p.sinks = per_head("sinks", options.sinks, heads, elements);
  check_masks(q, options, elements, p);
  return p;
}

void check_values(const AnyQ& q, const AnyK& k, const AnyV& v, const AttentionOptions& options,
                  tiles::AttentionProblem& p) {
  const Elements elements = elements_of(q, options);
  check_memory("v", v, tiles::bytes_of(v.type()));
  if (elements.paged) {
    agree_batch("k", k, "v", v);
  } else {
    expect_batch("v", v, elements, elements.packed_kv);
  }
  agree(KvHead::name, "k", k.extent<KvHead>(), "v", v.extent<KvHead>());
  agree(Key::name, "k", k.extent<Key>(), "v", v.extent<Key>());
  p.d_v = depth_of<DepthV>(v);
  within(DepthV::name, "v", p.d_v, 1, kMaxDepth);
  p.v = stored(v);
  p.v_scales = scales_of("v_scales", options.v_scales, "v", v);
}

tiles::AttentionProblem check_attention(const AnyQ& q, const AnyK& k, const AnyV& v,
                                        const AnyOut& out, const AttentionOptions& options) {
  tiles::AttentionProblem p = check_scores(q, k, options);
  const Elements elements = elements_of(q, options);
  plain_type("out", out.type());
  check_values(q, k, v, options, p);
  check_output("out", out, tiles::bytes_of(out.type()));
  like_queries("out", out, q, elements);
  agree(DepthV::name, "v", p.d_v, "out", out.extent<DepthV>());
  p.out = stored(out);
  if (options.lse) {
    check_output("lse", options.lse);
    like_queries("lse", options.lse, q, elements);
    p.lse = array_of(options.lse);
  }
  return p;
}

void check_salience(const AnyQ& q, const AnyK& k, const View<float, Head, Query, Key>& salience,
                    const AttentionOptions& options) {
  for (const auto& [name, given] :
       {std::pair{"cu_seqlens_q", static_cast<bool>(options.cu_seqlens_q)},
        {"cu_seqlens_kv", static_cast<bool>(options.cu_seqlens_kv)},
        {"block_table", static_cast<bool>(options.block_table)}}) {
    if (given)
      fail(ErrorCode::bad_value, {name, "given", "a salience map is of unpacked sequences"});
  }
  check_scores(q, k, options);
  check_output("salience", salience);
  agree_batch("q", q, "salience", salience);
  agree(Head::name, "q", q.extent<Head>(), "salience", salience.extent<Head>());
  agree(Query::name, "q", q.extent<Query>(), "salience", salience.extent<Query>());
  agree(Key::name, "k", k.extent<Key>(), "salience", salience.extent<Key>());
}

}  // namespace rapt::problem
