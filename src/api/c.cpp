// The C ABI: each function calls the C++ function of its name.
#include "rapt/rapt.h"

#include <memory>
#include <mutex>
#include <vector>

#include "api/c_arguments.hpp"
#include "problem/check.hpp"

namespace rapt::c {
namespace {

AttentionOptions options_of(const rapt_attention_options& given, const Callbacks& executor) {
  AttentionOptions o;
  if (given.scale != nullptr) o.scale = *given.scale;
  o.softcap = given.softcap;
  optional(o.alibi_slopes, "alibi_slopes", given.alibi_slopes);
  optional(o.sinks, "sinks", given.sinks);
  if (given.q_offset != nullptr) o.q_offset = *given.q_offset;
  optional(o.q_offsets, "q_offsets", given.q_offsets);
  o.causal = given.causal != 0;
  if (given.window_left != nullptr) o.window_left = *given.window_left;
  if (given.window_right != nullptr) o.window_right = *given.window_right;
  o.chunk = given.chunk;
  o.prefix = given.prefix;
  optional(o.q_segments, "q_segments", given.q_segments);
  optional(o.kv_segments, "kv_segments", given.kv_segments);
  optional(o.tree, "tree", given.tree);
  o.tree_keys = given.tree_keys;
  optional(o.mask, "mask", given.mask);
  optional(o.bias, "bias", given.bias);
  optional(o.kv_lengths, "kv_lengths", given.kv_lengths);
  optional(o.block_table, "block_table", given.block_table);
  optional(o.cu_seqlens_q, "cu_seqlens_q", given.cu_seqlens_q);
  optional(o.cu_seqlens_kv, "cu_seqlens_kv", given.cu_seqlens_kv);
  optional(o.k_scales, "k_scales", given.k_scales);
  optional(o.v_scales, "v_scales", given.v_scales);
  optional(o.lse, "lse", given.lse);
  o.executor = executor.get();
  o.dropout = {given.dropout_probability, given.dropout_seed, given.dropout_offset};
  o.round_weights = static_cast<RoundWeights>(
      std::clamp<int64_t>(given.round_weights, -1, RAPT_ROUND_ALWAYS + 1));
  return o;
}

Rope rope_of(const rapt_rotation& given) {
  Rope r;
  r.dims = given.dims;
  if (given.base != nullptr) r.base = *given.base;
  r.pairing = static_cast<Pairing>(given.pairing);
  if (given.position_scale != nullptr) r.position_scale = *given.position_scale;
  optional(r.frequency_factors, "rope.frequency_factors", given.frequency_factors);
  if (given.magnitude != nullptr) r.magnitude = *given.magnitude;
  return r;
}

LayerShape shape_of(const rapt_layer_shape& given) {
  return {given.embedding, given.d_model, given.heads, given.d_k, given.d_v};
}

BackwardOptions backward_of(const rapt_backward_options& given) {
  BackwardOptions b;
  optional(b.grad_lse, "grad_lse", given.grad_lse);
  optional(b.grad_bias, "grad_bias", given.grad_bias);
  optional(b.grad_alibi_slopes, "grad_alibi_slopes", given.grad_alibi_slopes);
  optional(b.grad_sinks, "grad_sinks", given.grad_sinks);
  return b;
}

static_assert(RAPT_ROUND_ALWAYS == static_cast<int>(RoundWeights::always));
static_assert(RAPT_HALF == static_cast<int>(Pairing::half));
static_assert(RAPT_RELU == static_cast<int>(Activation::relu));
static_assert(RAPT_GELU == static_cast<int>(Activation::gelu));

// Calls call(q, k, v, out, options), as attention() has them.
template <class Call>
void with_attention(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                    const rapt_array* out, const rapt_attention_options& options,
                    const Callbacks& executor, const Call& call) {
  call(required<AnyQ>("q", q), required<AnyK>("k", k), required<AnyV>("v", v),
       required<AnyOut>("out", out), options_of(options, executor));
}

[[noreturn]] void wrong_pass(const char* of, const char* runs_it) {
  problem::fail(ErrorCode::bad_value,
                {"plan", std::string("of ") + of, std::string("must be run by ") + runs_it});
}

// The arrays of a backward pass, in the order of attention_backward().
struct BackwardArrays {
  const rapt_array *q, *k, *v, *out, *lse, *grad_out, *grad_q, *grad_k, *grad_v;
};

// And so for the backward pass.
template <class Call>
void with_backward(const BackwardArrays& of, const rapt_attention_options& options,
                   const rapt_backward_options* backward, const Callbacks& executor,
                   const Call& call) {
  const BackwardOptions b = backward_of(known("backward", backward));
  call(required<AnyQ>("q", of.q), required<AnyK>("k", of.k), required<AnyV>("v", of.v),
       required<AnyOutIn>("out", of.out), required<LseIn>("lse", of.lse),
       required<AnyOutIn>("grad_out", of.grad_out), required<AnyGradQ>("grad_q", of.grad_q),
       required<AnyGradK>("grad_k", of.grad_k), required<AnyGradV>("grad_v", of.grad_v),
       options_of(options, executor), b);
}

}  // namespace
}  // namespace rapt::c

using namespace rapt;     // NOLINT(google-build-using-namespace)
using namespace rapt::c;  // NOLINT(google-build-using-namespace)

// What an array of texts in C points to.
std::vector<const char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  return pointers;
}

// What text and arrays of rapt_explanation and rapt_cut point to.
struct Explained {
  explicit Explained(Explanation all) : fields(std::move(all)) {
    for (const Explanation::Cut& cut : fields.cuts) {
      refused.emplace_back();
      for (const Explanation::Refusal& refusal : cut.refused)
        refused.back().push_back({refusal.algorithm.c_str(), refusal.reason.c_str()});
    }
  }
  const Explanation fields;
  std::vector<std::vector<rapt_refusal>> refused;  // of each cut
  const std::vector<const char*> config_refused = pointers_to(fields.config_refused);
};

// And those of rapt_config_fields.
struct Reported {
  ConfigReport report;
  std::vector<const char*> refused;
};

struct rapt_plan {
  explicit rapt_plan(const rapt_executor* given) : executor(given) {}

  Explanation explain() const { return backward ? backward->explain() : forward->explain(); }
  std::size_t workspace_bytes() const {
    return backward ? backward->workspace_bytes() : forward->workspace_bytes();
  }
  // Made when it is first asked for.
  const Explained& explained() const {
    const std::lock_guard lock(mutex);
    if (explanation == nullptr) explanation = std::make_unique<const Explained>(explain());
    return *explanation;
  }

  const Callbacks executor;                      // at one address: the plan points to it
  std::unique_ptr<const AttentionPlan> forward;  // one of the two
  std::unique_ptr<const AttentionBackwardPlan> backward;

 private:
  mutable std::mutex mutex;  // of explanation
  mutable std::unique_ptr<const Explained> explanation;
};

struct rapt_layer {
  MultiHeadAttention layer;
};

struct rapt_layer_activations {
  LayerActivations kept;
};

#define RAPT_TEXT_OF(x) #x
#define RAPT_DOTTED(major, minor, patch) \
  RAPT_TEXT_OF(major) "." RAPT_TEXT_OF(minor) "." RAPT_TEXT_OF(patch)

const char* rapt_version(void) {
  return RAPT_DOTTED(RAPT_VERSION_MAJOR, RAPT_VERSION_MINOR, RAPT_VERSION_PATCH);
}

const char* rapt_last_error(void) { return last_error; }

rapt_array rapt_dense(const void* data, int32_t type, int rank, const int64_t* extents) {
  rapt_array array{};
  array.data = const_cast<void*>(data);
  array.type = type;
  array.rank = rank;
  if (rank < 0 || rank > RAPT_MAX_AXES) return array;
  std::copy_n(extents, rank, array.extents);
  detail::dense_strides(extents, rank, array.strides);
  return array;
}

const rapt_executor* rapt_serial_executor(void) {
  static const rapt_executor serial = {
      sizeof(rapt_executor), nullptr, [](void*) { return serial_executor().workers(); },
      [](void*, int64_t tasks, rapt_task task, const void* task_context) {
        serial_executor().parallel_for(tasks, task, task_context);
      }};
  return &serial;
}

rapt_status rapt_test_executor(const rapt_executor* executor) {
  return guarded([&] {
    const Callbacks callbacks(executor);
    const Executor* const given = callbacks.get();
    const std::string breach = test_executor(given == nullptr ? default_executor() : *given);
    if (!breach.empty()) throw Error(ErrorCode::bad_value, breach);
  });
}

rapt_status rapt_set_allocator(const rapt_allocator* allocator) {
  return guarded([&] {
    const auto given = known("allocator", allocator);
    set_allocator({given.allocate, given.deallocate, given.context});
  });
}

rapt_status rapt_attention(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                           const rapt_array* out, const rapt_attention_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    with_attention(q, k, v, out, given, Callbacks(given.executor),
                   [](const auto&... arguments) { attention(arguments...); });
  });
}

rapt_status rapt_attention_backward(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                                    const rapt_array* out, const rapt_array* lse,
                                    const rapt_array* grad_out, const rapt_array* grad_q,
                                    const rapt_array* grad_k, const rapt_array* grad_v,
                                    const rapt_attention_options* options,
                                    const rapt_backward_options* backward) {
  return guarded([&] {
    const auto given = known("options", options);
    with_backward({q, k, v, out, lse, grad_out, grad_q, grad_k, grad_v}, given, backward,
                  Callbacks(given.executor),
                  [](const auto&... arguments) { attention_backward(arguments...); });
  });
}

rapt_status rapt_salience_map(const rapt_array* q, const rapt_array* k, const rapt_array* salience,
                              const rapt_attention_options* options, rapt_row_activation activation,
                              void* context) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    RowActivation row;
    if (activation != nullptr)
      row = [=](double* scores, int64_t n) { activation(context, scores, n); };
    salience_map(required<QView>("q", q), required<KView>("k", k),
                 required<View<float, axis::Head, axis::Query, axis::Key>>("salience", salience),
                 options_of(given, executor), row);
  });
}

rapt_status rapt_explain(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                         const rapt_array* out, const rapt_attention_options* options, char* text,
                         size_t capacity, size_t* length) {
  return guarded([&] {
    const auto given = known("options", options);
    with_attention(q, k, v, out, given, Callbacks(given.executor), [&](const auto&... arguments) {
      write_text(explain(arguments...).text(), text, capacity, length);
    });
  });
}

rapt_status rapt_explain_backward(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                                  const rapt_array* out, const rapt_array* lse,
                                  const rapt_array* grad_out, const rapt_array* grad_q,
                                  const rapt_array* grad_k, const rapt_array* grad_v,
                                  const rapt_attention_options* options,
                                  const rapt_backward_options* backward, char* text,
                                  size_t capacity, size_t* length) {
  return guarded([&] {
    const auto given = known("options", options);
    with_backward({q, k, v, out, lse, grad_out, grad_q, grad_k, grad_v}, given, backward,
                  Callbacks(given.executor), [&](const auto&... arguments) {
                    write_text(explain_backward(arguments...).text(), text, capacity, length);
                  });
  });
}

rapt_status rapt_plan_create(rapt_plan** plan, const rapt_array* q, const rapt_array* k,
                             const rapt_array* v, const rapt_array* out,
                             const rapt_attention_options* options) {
  return guarded([&] {
    must("plan", plan) = nullptr;
    const auto given = known("options", options);
    auto made = std::make_unique<rapt_plan>(given.executor);
    with_attention(q, k, v, out, given, made->executor, [&](const auto&... arguments) {
      made->forward = std::make_unique<const AttentionPlan>(arguments...);
    });
    *plan = made.release();
  });
}

rapt_status rapt_plan_create_backward(rapt_plan** plan, const rapt_array* q, const rapt_array* k,
                                      const rapt_array* v, const rapt_array* out,
                                      const rapt_array* lse, const rapt_array* grad_out,
                                      const rapt_array* grad_q, const rapt_array* grad_k,
                                      const rapt_array* grad_v,
                                      const rapt_attention_options* options,
                                      const rapt_backward_options* backward) {
  return guarded([&] {
    must("plan", plan) = nullptr;
    const auto given = known("options", options);
    auto made = std::make_unique<rapt_plan>(given.executor);
    with_backward({q, k, v, out, lse, grad_out, grad_q, grad_k, grad_v}, given, backward,
                  made->executor, [&](const auto&... arguments) {
                    made->backward = std::make_unique<const AttentionBackwardPlan>(arguments...);
                  });
    *plan = made.release();
  });
}

void rapt_plan_destroy(rapt_plan* plan) { delete plan; }

rapt_status rapt_plan_workspace_bytes(const rapt_plan* plan, size_t* bytes) {
  return guarded([&] { must("bytes", bytes) = must("plan", plan).workspace_bytes(); });
}

rapt_status rapt_plan_run(const rapt_plan* plan, const rapt_attention_pointers* pointers,
                          void* workspace, size_t bytes) {
  return guarded([&] {
    const auto given = known("pointers", pointers);
    AttentionPointers p;
    p.q = given.q;
    p.k = given.k;
    p.v = given.v;
    p.out = given.out;
    p.lse = given.lse;
    p.k_scales = given.k_scales;
    p.v_scales = given.v_scales;
    p.mask = static_cast<const bool*>(given.mask);
    p.bias = given.bias;
    p.dropout_offset = given.dropout_offset;
    const AttentionPlan* const forward = must("plan", plan).forward.get();
    if (forward == nullptr) wrong_pass("the backward pass", "rapt_plan_run_backward");
    forward->run(p, workspace, bytes);
  });
}

rapt_status rapt_plan_run_backward(const rapt_plan* plan, const rapt_backward_pointers* pointers,
                                   void* workspace, size_t bytes) {
  return guarded([&] {
    const auto given = known("pointers", pointers);
    BackwardPointers p;
    p.q = given.q;
    p.k = given.k;
    p.v = given.v;
    p.out = given.out;
    p.lse = given.lse;
    p.grad_out = given.grad_out;
    p.grad_q = given.grad_q;
    p.grad_k = given.grad_k;
    p.grad_v = given.grad_v;
    p.mask = static_cast<const bool*>(given.mask);
    p.bias = given.bias;
    p.dropout_offset = given.dropout_offset;
    p.grad_lse = given.grad_lse;
    p.grad_bias = given.grad_bias;
    p.grad_alibi_slopes = given.grad_alibi_slopes;
    p.grad_sinks = given.grad_sinks;
    const AttentionBackwardPlan* const backward = must("plan", plan).backward.get();
    if (backward == nullptr) wrong_pass("attention", "rapt_plan_run");
    backward->run(p, workspace, bytes);
  });
}

rapt_status rapt_plan_explain(const rapt_plan* plan, char* text, size_t capacity, size_t* length) {
  return guarded([&] { write_text(must("plan", plan).explain().text(), text, capacity, length); });
}

rapt_status rapt_plan_explanation(const rapt_plan* plan, rapt_explanation* explanation) {
  return guarded([&] {
    const Explained& all = must("plan", plan).explained();
    const Explanation& e = all.fields;
    rapt_explanation c{};
    c.target = e.target.c_str();
    c.config_row = e.config_row.c_str();
    c.tuned = e.tuned;
    c.tile_rows = e.tile_rows;
    c.tile_columns = e.tile_columns;
    c.cuts = static_cast<int64_t>(e.cuts.size());
    c.tasks = e.tasks;
    c.waves = e.waves;
    c.shared_tasks = e.shared_tasks;
    c.workspace_bytes = e.workspace_bytes;
    c.worker_bytes = e.worker_bytes;
    c.tiles = e.tiles;
    c.skipped_tiles = e.skipped_tiles;
    c.masked_tiles = e.masked_tiles;
    c.flops = e.flops;
    c.bytes = e.bytes;
    c.bench_case = e.bench_case.c_str();
    c.config_source = e.config_source.c_str();
    c.sum_tasks = e.sum_tasks;
    c.config_refused = all.config_refused.data();
    c.n_config_refused = static_cast<int64_t>(all.config_refused.size());
    fill("explanation", explanation, c);
  });
}

rapt_status rapt_plan_cut(const rapt_plan* plan, int64_t number, rapt_cut* cut) {
  return guarded([&] {
    const Explained& all = must("plan", plan).explained();
    const auto n = static_cast<int64_t>(all.fields.cuts.size());
    if (number < 0 || number >= n) {
      problem::fail(
          ErrorCode::bad_value,
          {"number", number, "the plan has " + std::to_string(n) + " cuts, numbered from 0"});
    }
    const auto at = static_cast<std::size_t>(number);
    const Explanation::Cut& of = all.fields.cuts[at];
    rapt_cut c{};
    c.elements = of.elements;
    c.seq_q = of.seq_q;
    c.seq_kv = of.seq_kv;
    c.algorithm = of.algorithm.c_str();
    c.refused = all.refused[at].data();
    c.n_refused = static_cast<int64_t>(all.refused[at].size());
    c.block_q = of.block_q;
    c.block_kv = of.block_kv;
    c.units = of.units;
    c.parts = of.parts;
    c.part_kv = of.part_kv;
    c.part_rows = of.part_rows;
    fill("cut", cut, c);
  });
}

rapt_status rapt_merge(const rapt_attention_part* parts, size_t n, const rapt_array* out,
                       const rapt_array* lse, const rapt_executor* executor) {
  return guarded([&] {
    std::vector<AttentionPart> all;
    for (size_t i = 0; i < n; ++i) {
      const std::string name = "parts[" + std::to_string(i) + "]";
      const rapt_attention_part& part = (&must("parts", parts))[i];
      all.push_back({required<AnyOutRead>((name + ".out").c_str(), part.out),
                     required<LseRead>((name + ".lse").c_str(), part.lse)});
    }
    LseView lse_view;
    optional(lse_view, "lse", lse);
    const Callbacks callbacks(executor);
    merge(all, required<AnyOut>("out", out), lse_view, {callbacks.get()});
  });
}

rapt_status rapt_rope(const rapt_array* x, const rapt_array* out, const rapt_rotation* rope,
                      const rapt_rope_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    RopeOptions o;
    optional(o.first_positions, "first_positions", given.first_positions);
    optional(o.positions, "positions", given.positions);
    o.executor = executor.get();
    rapt::rope(required<AnyRows>("x", x), required<AnyRowsOut>("out", out),
               rope_of(known("rope", &must("rope", rope))), o);
  });
}

rapt_status rapt_append_kv(const rapt_array* k_new, const rapt_array* v_new,
                           const rapt_array* k_cache, const rapt_array* v_cache,
                           const rapt_append_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    AppendOptions o;
    optional(o.kv_lengths, "kv_lengths", given.kv_lengths);
    optional(o.cu_seqlens_new, "cu_seqlens_new", given.cu_seqlens_new);
    optional(o.block_table, "block_table", given.block_table);
    optional(o.k_scales, "k_scales", given.k_scales);
    optional(o.v_scales, "v_scales", given.v_scales);
    o.rope = rope_of(known("rope", given.rope));
    optional(o.positions, "positions", given.positions);
    o.executor = executor.get();
    append_kv(required<AnyK>("k_new", k_new), required<AnyV>("v_new", v_new),
              required<AnyKCache>("k_cache", k_cache), required<AnyVCache>("v_cache", v_cache), o);
  });
}

rapt_status rapt_quantize(const rapt_array* from, const rapt_array* to, const rapt_array* scales,
                          const rapt_executor* executor) {
  return guarded([&] {
    CacheScales scales_view;
    optional(scales_view, "scales", scales);
    quantize(required<AnyRows>("from", from), required<AnyRowsOut>("to", to), scales_view,
             Callbacks(executor).get());
  });
}

rapt_status rapt_dequantize(const rapt_array* from, const rapt_array* scales, const rapt_array* to,
                            const rapt_executor* executor) {
  return guarded([&] {
    ScalesView scales_view;
    optional(scales_view, "scales", scales);
    dequantize(required<AnyRows>("from", from), scales_view, required<AnyRowsOut>("to", to),
               Callbacks(executor).get());
  });
}

rapt_status rapt_convert(const rapt_array* from, const rapt_array* to,
                         const rapt_executor* executor) {
  return guarded([&] {
    convert(required<AnyRows>("from", from), required<AnyRowsOut>("to", to),
            Callbacks(executor).get());
  });
}

rapt_status rapt_gemm(const rapt_array* a, const rapt_array* b, const rapt_array* c,
                      const rapt_gemm_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    GemmOptions o;
    if (given.alpha != nullptr) o.alpha = *given.alpha;
    o.beta = given.beta;
    optional(o.bias, "bias", given.bias);
    optional(o.b_scales, "b_scales", given.b_scales);
    o.activation = static_cast<Activation>(given.activation);
    o.executor = executor.get();
    gemm(required<AnyView<const std::byte, axis::Row, axis::Inner>>("a", a),
         required<AnyView<const std::byte, axis::Inner, axis::Column>>("b", b),
         required<View<float, axis::Row, axis::Column>>("c", c), o);
  });
}

rapt_status rapt_gemm_backward(const rapt_array* a, const rapt_array* b, const rapt_array* grad_c,
                               const rapt_array* grad_a, const rapt_array* grad_b,
                               const rapt_gemm_backward_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    GemmBackwardOptions o;
    if (given.alpha != nullptr) o.alpha = *given.alpha;
    optional(o.grad_bias, "grad_bias", given.grad_bias);
    o.executor = executor.get();
    View<float, axis::Row, axis::Inner> to_a;
    View<float, axis::Inner, axis::Column> to_b;
    optional(to_a, "grad_a", grad_a);
    optional(to_b, "grad_b", grad_b);
    gemm_backward(required<View<const float, axis::Row, axis::Inner>>("a", a),
                  required<View<const float, axis::Inner, axis::Column>>("b", b),
                  required<View<const float, axis::Row, axis::Column>>("grad_c", grad_c), to_a,
                  to_b, o);
  });
}

rapt_status rapt_layer_create(rapt_layer** layer, const rapt_layer_shape* shape,
                              const rapt_layer_parameters* parameters) {
  return guarded([&] {
    must("layer", layer) = nullptr;
    const LayerShape s = shape_of(known("shape", &must("shape", shape)));
    const auto given = known("parameters", &must("parameters", parameters));
    problem::check_layer(s);  // before so many numbers are read
    const double* const arrays[] = {given.qkv, given.w_q, given.w_k, given.w_v,     given.output,
                                    given.b_q, given.b_k, given.b_v, given.b_output};
    LayerParameters p;
    const double* const* from = arrays;
    for (const problem::LayerParameter& parameter : problem::layer_parameters(s)) {
      if (*from != nullptr) (p.*parameter.values).assign(*from, *from + parameter.elements());
      ++from;
    }
    *layer = new rapt_layer{MultiHeadAttention(s, std::move(p))};
  });
}

rapt_status rapt_layer_create_random(rapt_layer** layer, const rapt_layer_shape* shape,
                                     uint64_t seed) {
  return guarded([&] {
    must("layer", layer) = nullptr;
    *layer =
        new rapt_layer{MultiHeadAttention(shape_of(known("shape", &must("shape", shape))), seed)};
  });
}

void rapt_layer_destroy(rapt_layer* layer) { delete layer; }

rapt_status rapt_layer_get_shape(const rapt_layer* layer, rapt_layer_shape* shape) {
  return guarded([&] {
    const LayerShape& s = must("layer", layer).layer.shape();
    fill("shape", shape, {0, s.embedding, s.d_model, s.heads, s.d_k, s.d_v});
  });
}

rapt_status rapt_layer_get_parameters(const rapt_layer* layer, rapt_layer_parameters* parameters) {
  return guarded([&] {
    const LayerParameters& p = must("layer", layer).layer.parameters();
    const auto data = [](const std::vector<double>& of) {
      return of.empty() ? nullptr : of.data();
    };
    fill("parameters", parameters,
         {0, data(p.qkv), data(p.w_q), data(p.w_k), data(p.w_v), data(p.output), data(p.b_q),
          data(p.b_k), data(p.b_v), data(p.b_output)});
  });
}

rapt_status rapt_layer_run(const rapt_layer* layer, const rapt_array* q_tokens,
                           const rapt_array* k_tokens, const rapt_array* v_tokens,
                           const rapt_array* result, const rapt_attention_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    must("layer", layer)
        .layer(required<TokensView>("q_tokens", q_tokens),
               required<KvTokensView>("k_tokens", k_tokens),
               required<KvTokensView>("v_tokens", v_tokens),
               required<OutTokensView>("result", result), options_of(given, executor));
  });
}

rapt_status rapt_layer_activations_create(rapt_layer_activations** kept) {
  return guarded([&] {
    must("kept", kept) = nullptr;
    *kept = new rapt_layer_activations{};
  });
}

void rapt_layer_activations_destroy(rapt_layer_activations* kept) { delete kept; }

rapt_status rapt_layer_forward(const rapt_layer* layer, const rapt_array* q_tokens,
                               const rapt_array* k_tokens, const rapt_array* v_tokens,
                               const rapt_array* result, rapt_layer_activations* kept,
                               const rapt_attention_options* options) {
  return guarded([&] {
    const auto given = known("options", options);
    const Callbacks executor(given.executor);
    must("layer", layer)
        .layer.forward(required<TokensView>("q_tokens", q_tokens),
                       required<KvTokensView>("k_tokens", k_tokens),
                       required<KvTokensView>("v_tokens", v_tokens),
                       required<OutTokensView>("result", result), must("kept", kept).kept,
                       options_of(given, executor));
  });
}

rapt_status rapt_layer_backward(const rapt_layer* layer, const rapt_array* q_tokens,
                                const rapt_array* k_tokens, const rapt_array* v_tokens,
                                const rapt_layer_activations* kept, const rapt_array* grad_result,
                                const rapt_layer_gradients* gradients,
                                const rapt_attention_options* options,
                                const rapt_backward_options* attention) {
  return guarded([&] {
    const auto given = known("options", options);
    const auto wanted = known("gradients", &must("gradients", gradients));
    const Callbacks executor(given.executor);
    LayerGradients g;
    optional(g.q_tokens, "the gradient of q_tokens", wanted.q_tokens);
    optional(g.k_tokens, "the gradient of k_tokens", wanted.k_tokens);
    optional(g.v_tokens, "the gradient of v_tokens", wanted.v_tokens);
    const MultiHeadAttention& of = must("layer", layer).layer;
    of.backward(required<TokensView>("q_tokens", q_tokens),
                required<KvTokensView>("k_tokens", k_tokens),
                required<KvTokensView>("v_tokens", v_tokens), must("kept", kept).kept,
                required<TokensView>("grad_result", grad_result), g, options_of(given, executor),
                backward_of(known("attention", attention)));
    double* const arrays[] = {wanted.qkv, wanted.w_q, wanted.w_k, wanted.w_v,     wanted.output,
                              wanted.b_q, wanted.b_k, wanted.b_v, wanted.b_output};
    double* const* to = arrays;
    for (const problem::LayerParameter& parameter : problem::layer_parameters(of.shape())) {
      const std::vector<double>& from = g.parameters.*parameter.values;
      if (*to != nullptr) std::copy(from.begin(), from.end(), *to);
      ++to;
    }
  });
}

rapt_status rapt_targets(char* text, size_t capacity, size_t* length) {
  return guarded([&] {
    std::string all;
    for (const std::string& name : targets()) all += (all.empty() ? "" : ",") + name;
    write_text(all, text, capacity, length);
  });
}

rapt_status rapt_target(char* text, size_t capacity, size_t* length) {
  return guarded([&] { write_text(target(), text, capacity, length); });
}

rapt_status rapt_set_target(const char* name) {
  return guarded([&] { set_target(&must("name", name)); });
}

rapt_status rapt_load_config(const char* text) {
  return guarded([&] { load_config(&must("text", text)); });
}

rapt_status rapt_config_report(rapt_config_fields* fields, char* text, size_t capacity,
                               size_t* length) {
  return guarded([&] {
    static thread_local Reported last;
    Reported now{config_report(), {}};
    now.refused = pointers_to(now.report.refused);
    last = std::move(now);  // which moves no text of the array
    const ConfigReport& r = last.report;
    if (fields != nullptr)
      fill("fields", fields,
           {0, r.read, r.used, r.ignored, r.source.c_str(), r.reason.c_str(), last.refused.data(),
            static_cast<int64_t>(last.refused.size())});
    write_text(r.text(), text, capacity, length);
  });
}

rapt_status rapt_config_text(char* text, size_t capacity, size_t* length) {
  return guarded([&] { write_text(config_text(), text, capacity, length); });
}
