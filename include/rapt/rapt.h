// rapt: attention for CPUs, for C99 and for every language that calls C. Also compiles as C++.
//
//     const int64_t shape[] = {heads, seq, depth};
//     rapt_array q = rapt_dense(q_data, RAPT_F32, 3, shape), k = ..., v = ..., out = ...;
//     rapt_attention_options options = {.size = sizeof options, .causal = 1};
//     if (rapt_attention(&q, &k, &v, &out, &options) != RAPT_OK) puts(rapt_last_error());
//
// These are the functions of the C++ API: the same checks, the same sentences, the same bits. What
// is computed, with which errors and from which sources, is said in the header of the same name:
// attention.hpp, cache.hpp, config.hpp, executor.hpp, gemm.hpp, layer.hpp, memory.hpp, merge.hpp,
// plan.hpp, quantize.hpp, rope.hpp.
//
// Rules that hold everywhere:
// - What may be left out is a pointer, and null where it is left out: arrays, structs, and numbers
//   whose default is not 0. The default of every other field is 0. So a struct of zeros with its
//   size asks for nothing special.
// - A struct that begins with `size` may get more fields in later versions. The caller sets it to
//   the sizeof that it was compiled with; fields that it does not know have their defaults. Fields
//   that the library does not know are refused unless they are 0. Of a struct that the library
//   fills, the caller sets `size` too: as many fields as both know are filled, others become 0.
// - Pointers in arguments and options are used during the call and not kept, unless it is said.
// - No function aborts or lets an exception out. Where one fails, nothing was written to any array,
//   except by RAPT_OUT_OF_MEMORY and RAPT_UNKNOWN_ERROR, after which outputs hold anything.
// - Every function may be called from many threads at once, and what is written must not overlap
//   anything else, unless it is said.
// - Text is written to `text`, at most `capacity` bytes, always ended by a 0 (unless capacity is
//   0); *length, where length is not null, is how many bytes all of it has without that 0.
#ifndef RAPT_RAPT_H
#define RAPT_RAPT_H

#include <stddef.h>
#include <stdint.h>

#include "rapt/export.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RAPT_VERSION_MAJOR 0
#define RAPT_VERSION_MINOR 1
#define RAPT_VERSION_PATCH 0

// The version of the library that runs, as "major.minor.patch". Never fails.
RAPT_API const char* rapt_version(void);

// Positive: an input is wrong, and how (rapt/error.hpp). Negative: rapt could not do it.
typedef enum rapt_status {
  RAPT_UNKNOWN_ERROR = -2,  // a callback or the system threw something else
  RAPT_OUT_OF_MEMORY = -1,
  RAPT_OK = 0,
  RAPT_NULL_DATA = 1,           // an array has elements but no memory
  RAPT_WRONG_RANK = 2,          // fewer extents than the named axes, or too many batch axes
  RAPT_EXTENT_MISMATCH = 3,     // two arrays disagree about an axis
  RAPT_EXTENT_RANGE = 4,        // an extent is negative, or beyond what rapt computes
  RAPT_HEADS_NOT_MULTIPLE = 5,  // heads is not a multiple of kv_heads
  RAPT_TOO_LARGE = 6,           // a product of sizes does not fit the address space
  RAPT_BAD_VALUE = 7,           // an option's value has no meaning, or an argument is null
  RAPT_UNKNOWN_TARGET = 8,      // no such ISA target, or this CPU does not run it
  RAPT_BAD_CONFIG = 9           // a config header has a bad row
} rapt_status;

// Why the last call that failed on this thread did, a full sentence that names the axis or option
// and both values; "" before any has. Valid until the next call that fails on this thread.
RAPT_API const char* rapt_last_error(void);

// ------------------------------------------------------------------------------------- arrays

typedef enum rapt_type {
  RAPT_F32 = 0,
  RAPT_BF16 = 1,  // the upper half of a float
  RAPT_F16 = 2,   // IEEE 754 binary16
  RAPT_INT8 = 3,
  RAPT_INT4 = 4,     // groups of 32 along the depth: rapt_int4_group
  RAPT_INT32 = 32,   // lengths, positions, pages, documents
  RAPT_UINT64 = 33,  // the words of a tree
  RAPT_BOOL = 34     // masks: bytes, each 0 or 1
} rapt_type;

// Element i is scale * (n - 8), n the low half of nibbles[i] for i < 16, the high half of
// nibbles[i - 16] for the rest.
typedef struct rapt_int4_group {
  uint16_t scale;  // f16
  uint8_t nibbles[16];
} rapt_int4_group;

#define RAPT_MAX_AXES 8

// Memory of the caller's with axes: those that an argument names, after 0 to 4 batch axes. Where
// this header says [batch..., heads, seq_q, d_k], the axes stand in this order in extents and
// strides, and in any order in memory, as the strides say: [batch, seq, heads, depth] is the same
// call. Strides count elements, those of RAPT_INT4 groups, whose d_k and d_v are the depth / 32
// then. What is only read may have strides of 0 and below. This struct stays as it is.
typedef struct rapt_array {
  void* data;    // the first element; of what is only read, never written. null: not given
  int32_t type;  // a rapt_type
  int32_t rank;  // how many axes
  int64_t extents[RAPT_MAX_AXES];
  int64_t strides[RAPT_MAX_AXES];
} rapt_array;

// A dense array, the last axis contiguous. Reads `rank` extents. Never fails: a wrong rank is
// refused by the call that gets the array.
RAPT_API rapt_array rapt_dense(const void* data, int32_t type, int rank, const int64_t* extents);

// ----------------------------------------------------------------------------------- executors

// Who runs the tasks of a call: oneTBB where an executor is null and rapt was built with it.
// Results do not depend on it. See rapt/executor.hpp.
typedef void (*rapt_task)(const void* task_context, int64_t task, int worker);
typedef struct rapt_executor {
  size_t size;
  void* context;
  // How many tasks may run at the same time, as seen from the calling thread. At least 1.
  int (*workers)(void* context);
  // Calls task(task_context, i, worker) once for every i in [0, tasks), in any order, and returns
  // when all have returned; what they wrote is visible then. Two tasks of one call that run at the
  // same time have different workers, each in [0, workers()).
  void (*parallel_for)(void* context, int64_t tasks, rapt_task task, const void* task_context);
} rapt_executor;

// Runs the tasks in order on the calling thread. Never fails; the struct is the library's.
RAPT_API const rapt_executor* rapt_serial_executor(void);

// For the tests of whoever writes an executor: whether it keeps the contract above, called as rapt
// calls it, for some tenths of a second. RAPT_BAD_VALUE where not: the first breach is the last
// error's sentence. See rapt/executor.hpp.
RAPT_API rapt_status rapt_test_executor(const rapt_executor* executor);

// -------------------------------------------------------------------------------------- memory

// Where the workspaces of calls come from: see rapt/memory.hpp.
typedef struct rapt_allocator {
  size_t size;
  void* context;
  // bytes > 0; the memory begins at a multiple of 64. Null: there is none, and the call fails with
  // RAPT_OUT_OF_MEMORY. Called by many threads at once.
  void* (*allocate)(void* context, size_t bytes);
  // What allocate returned, with its bytes.
  void (*deallocate)(void* context, void* memory, size_t bytes);
} rapt_allocator;

// Of the whole process, for calls that start afterwards. Keeps the functions and the context, which
// must outlive these calls. Null: the library's own again.
RAPT_API rapt_status rapt_set_allocator(const rapt_allocator* allocator);

// ----------------------------------------------------------------------------------- attention

// Who attends whom, and all else that attention takes: see AttentionOptions in rapt/attention.hpp.
// Whether weights may be rounded to bf16: see RoundWeights in rapt/attention.hpp.
typedef enum rapt_round_weights {
  RAPT_ROUND_WHERE_NATIVE = 0,
  RAPT_ROUND_NEVER = 1,
  RAPT_ROUND_ALWAYS = 2
} rapt_round_weights;

// Below, x is the position of a query and j a key. f32 where no type is named; [batch...] axes that
// are missing or of extent 1 are broadcast, in lse not.
typedef struct rapt_attention_options {
  size_t size;
  const float* scale;              // default 1 / sqrt(d_k)
  const rapt_array* alibi_slopes;  // [batch..., heads]
  const rapt_array* sinks;         // [batch..., heads]
  float softcap;                   // > 0: scores stay within (-softcap, softcap)
  int32_t causal;                  // not 0: j <= x

  // Position of query 0; default: the last query sees the last key. One for all, or one each.
  const int64_t* q_offset;
  const rapt_array* q_offsets;  // int32 [batch...]

  const int64_t* window_left;   // x - left <= j; default, and -1: no end
  const int64_t* window_right;  // j <= x + right
  int64_t chunk;                // > 0: x and j in the same chunk of this many
  int64_t prefix;               // keys j < prefix are attended whatever the three above say

  const rapt_array* q_segments;   // int32 [batch..., seq_q]
  const rapt_array* kv_segments;  // int32 [batch..., seq_kv]

  const rapt_array* tree;  // uint64 [batch..., seq_q, words]
  int64_t tree_keys;

  // [batch..., heads, seq_q, seq_kv], broadcast where an extent is 1.
  const rapt_array* mask;  // bool, 1 = attend
  const rapt_array* bias;  // added to the score; -inf = not attended

  const rapt_array* kv_lengths;     // int32 [batch...]
  const rapt_array* block_table;    // int32 [batch, pages]; k and v are [pages, kv_heads, ...] then
  const rapt_array* cu_seqlens_q;   // int32 [sequences + 1]; q, out, lse have no batch axes then
  const rapt_array* cu_seqlens_kv;  // int32 [sequences + 1]; k, v have no batch axes then

  const rapt_array* k_scales;  // [batch..., kv_heads, seq_kv], of an int8 k; 1: broadcast
  const rapt_array* v_scales;  // of an int8 v

  const rapt_array* lse;          // [batch..., heads, seq_q]: written when given
  const rapt_executor* executor;  // null: the default

  // Dropout of the weights: see Dropout in rapt/attention.hpp.
  float dropout_probability;  // 0: none
  uint32_t dropout_offset;
  uint64_t dropout_seed;

  int64_t round_weights;  // a rapt_round_weights
} rapt_attention_options;

// q [batch..., heads, seq_q, d_k], k [batch..., kv_heads, seq_kv, d_k],
// v [batch..., kv_heads, seq_kv, d_v], out [batch..., heads, seq_q, d_v]: each f32, bf16 or f16,
// k and v also int8 with scales, or int4. options may be null.
RAPT_API rapt_status rapt_attention(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                                    const rapt_array* out, const rapt_attention_options* options);

// The weights that attention gives, salience [batch..., heads, seq_q, seq_kv]; f32 everywhere. For
// looking and learning, not for speed. activation, where it is not null, replaces softmax: it
// overwrites the scores of one row (of n attended keys) with the weights.
typedef void (*rapt_row_activation)(void* context, double* scores, int64_t n);
RAPT_API rapt_status rapt_salience_map(const rapt_array* q, const rapt_array* k,
                                       const rapt_array* salience,
                                       const rapt_attention_options* options,
                                       rapt_row_activation activation, void* context);

// Beside the gradient of out: what else is given, and what else is wanted.
typedef struct rapt_backward_options {
  size_t size;
  const rapt_array* grad_lse;  // [batch..., heads, seq_q]; default 0
  // Written when given, with the extents of what they are of.
  const rapt_array* grad_bias;
  const rapt_array* grad_alibi_slopes;
  const rapt_array* grad_sinks;
} rapt_backward_options;

// The gradients of q, k and v from that of out: see rapt/backward.hpp. out and lse are those of
// rapt_attention with the same q, k, v and options. Each array is f32, bf16 or f16, lse f32.
// options and backward may be null.
RAPT_API rapt_status rapt_attention_backward(const rapt_array* q, const rapt_array* k,
                                             const rapt_array* v, const rapt_array* out,
                                             const rapt_array* lse, const rapt_array* grad_out,
                                             const rapt_array* grad_q, const rapt_array* grad_k,
                                             const rapt_array* grad_v,
                                             const rapt_attention_options* options,
                                             const rapt_backward_options* backward);

// How rapt_attention would compute this, in lines of text, without running it.
RAPT_API rapt_status rapt_explain(const rapt_array* q, const rapt_array* k, const rapt_array* v,
                                  const rapt_array* out, const rapt_attention_options* options,
                                  char* text, size_t capacity, size_t* length);
// And rapt_attention_backward.
RAPT_API rapt_status rapt_explain_backward(
    const rapt_array* q, const rapt_array* k, const rapt_array* v, const rapt_array* out,
    const rapt_array* lse, const rapt_array* grad_out, const rapt_array* grad_q,
    const rapt_array* grad_k, const rapt_array* grad_v, const rapt_attention_options* options,
    const rapt_backward_options* backward, char* text, size_t capacity, size_t* length);

// ---------------------------------------------------------------------------------------- plans

// A checked, planned call of rapt_attention, or of rapt_attention_backward, to be run many times on
// other data of the same shapes. It keeps lengths, offsets, the block table and the executor's
// struct as they were. All other arrays' memory, and the executor's context, must live as long as
// the plan is run on them. Many threads may run one plan at once, each with its own workspace and
// outputs.
typedef struct rapt_plan rapt_plan;

// *plan is the new plan, or null where this fails. To be destroyed by rapt_plan_destroy.
RAPT_API rapt_status rapt_plan_create(rapt_plan** plan, const rapt_array* q, const rapt_array* k,
                                      const rapt_array* v, const rapt_array* out,
                                      const rapt_attention_options* options);
// A plan of rapt_attention_backward: run by rapt_plan_run_backward, and else like any other.
RAPT_API rapt_status rapt_plan_create_backward(rapt_plan** plan, const rapt_array* q,
                                               const rapt_array* k, const rapt_array* v,
                                               const rapt_array* out, const rapt_array* lse,
                                               const rapt_array* grad_out, const rapt_array* grad_q,
                                               const rapt_array* grad_k, const rapt_array* grad_v,
                                               const rapt_attention_options* options,
                                               const rapt_backward_options* backward);
// plan may be null, and no thread runs it any more.
RAPT_API void rapt_plan_destroy(rapt_plan* plan);

// Bytes for a run with the plan's executor, as many workers as it has now.
RAPT_API rapt_status rapt_plan_workspace_bytes(const rapt_plan* plan, size_t* bytes);

// Memory to run on in place of that which was planned with, laid out alike. Null: as planned.
typedef struct rapt_attention_pointers {
  size_t size;
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;
  const float* k_scales;
  const float* v_scales;
  const void* mask;  // bytes, each 0 or 1
  const float* bias;
  const uint32_t* dropout_offset;  // of this run
} rapt_attention_pointers;

// workspace: at least rapt_plan_workspace_bytes, on a multiple of 64, and nothing is allocated;
// null: the library's own. pointers may be null.
RAPT_API rapt_status rapt_plan_run(const rapt_plan* plan, const rapt_attention_pointers* pointers,
                                   void* workspace, size_t bytes);

// The same for plans of rapt_attention_backward.
typedef struct rapt_backward_pointers {
  size_t size;
  const void* q;
  const void* k;
  const void* v;
  const void* out;
  const float* lse;
  const void* grad_out;
  void* grad_q;
  void* grad_k;
  void* grad_v;
  const void* mask;  // bytes, each 0 or 1
  const float* bias;
  const uint32_t* dropout_offset;  // of this run
  const float* grad_lse;
  float* grad_bias;
  float* grad_alibi_slopes;
  float* grad_sinks;
} rapt_backward_pointers;
RAPT_API rapt_status rapt_plan_run_backward(const rapt_plan* plan,
                                            const rapt_backward_pointers* pointers, void* workspace,
                                            size_t bytes);

// How the plan computes: in lines of text, and in fields. See Explanation in rapt/plan.hpp.
RAPT_API rapt_status rapt_plan_explain(const rapt_plan* plan, char* text, size_t capacity,
                                       size_t* length);

// Text and array in it are the plan's, and live as long as that.
typedef struct rapt_explanation {
  size_t size;
  const char* target;      // ISA
  const char* config_row;  // the numbers in use, as the config format spells them
  int64_t tuned;           // 1: the row is from a config, 0: from the formulas
  int64_t tile_rows;       // register tile
  int64_t tile_columns;
  int64_t cuts;  // see rapt_plan_cut
  int64_t tasks;
  int64_t waves;
  int64_t shared_tasks;     // whose keys are those of the batch element before, and read with them
  int64_t workspace_bytes;  // for one worker
  int64_t worker_bytes;     // for each more
  int64_t tiles;            // of rows x keys
  int64_t skipped_tiles;    // that nobody attends
  int64_t masked_tiles;     // that take the path with mask work
  double flops;             // of the products over the tiles that are not skipped
  double bytes;             // q, k, v and out (and their gradients), each once
  const char* bench_case;   // rapt-bench --case computes the like; "": there is nothing to compute
  const char* config_source;  // of the config in use: see rapt_config_report
  int64_t sum_tasks;  // backward: after the others, for gradients that heads and batch share
  const char* const* config_refused;  // [n_config_refused]: files, each with the reason
  int64_t n_config_refused;
} rapt_explanation;
RAPT_API rapt_status rapt_plan_explanation(const rapt_plan* plan, rapt_explanation* explanation);

// An algorithm that was not taken, and the sentence that says why. This struct stays as it is.
typedef struct rapt_refusal {
  const char* algorithm;
  const char* reason;
} rapt_refusal;

// Batch elements of unequal length may be cut in different ways. Text and array are the plan's.
typedef struct rapt_cut {
  size_t size;
  int64_t elements;  // of the batch, that are cut like this
  int64_t seq_q;
  int64_t seq_kv;
  const char* algorithm;
  const rapt_refusal* refused;  // [n_refused]
  int64_t n_refused;
  int64_t block_q;    // rows (positions x group) of a unit
  int64_t block_kv;   // keys of a step
  int64_t units;      // blocks of rows, of all these elements
  int64_t parts;      // into which the keys of a unit are split
  int64_t part_kv;    // keys of a part
  int64_t part_rows;  // backward: rows of a part
} rapt_cut;
// Number from 0 to rapt_explanation's cuts - 1.
RAPT_API rapt_status rapt_plan_cut(const rapt_plan* plan, int64_t number, rapt_cut* cut);

// ----------------------------------------------------------------------- what surrounds attention

// What attention wrote for some of the keys. This struct stays as it is.
typedef struct rapt_attention_part {
  const rapt_array* out;  // [batch..., heads, seq_q, d_v]: f32, bf16 or f16
  const rapt_array* lse;  // [batch..., heads, seq_q]
} rapt_attention_part;

// Attention over some keys and attention over others become attention over all of them. lse may be
// null. See rapt/merge.hpp.
RAPT_API rapt_status rapt_merge(const rapt_attention_part* parts, size_t n, const rapt_array* out,
                                const rapt_array* lse, const rapt_executor* executor);

typedef enum rapt_pairing {
  RAPT_INTERLEAVED = 0,  // 2i and 2i + 1
  RAPT_HALF = 1          // i and i + dims / 2
} rapt_pairing;

// A rotary position embedding: see rapt/rope.hpp.
typedef struct rapt_rotation {
  size_t size;
  int64_t dims;                         // how many leading numbers of a row turn: even; 0: none
  const float* base;                    // default 10000
  const float* position_scale;          // default 1
  const float* magnitude;               // default 1
  int32_t pairing;                      // a rapt_pairing
  const rapt_array* frequency_factors;  // [dims / 2]
} rapt_rotation;

typedef struct rapt_rope_options {
  size_t size;
  const rapt_array* first_positions;  // int32 [batch...]
  const rapt_array* positions;        // int32 [batch..., positions]
  const rapt_executor* executor;
} rapt_rope_options;

// x and out [batch..., heads, positions, depth]: each f32, bf16 or f16. out may be x's own memory.
RAPT_API rapt_status rapt_rope(const rapt_array* x, const rapt_array* out,
                               const rapt_rotation* rope, const rapt_rope_options* options);

typedef struct rapt_append_options {
  size_t size;
  const rapt_array* kv_lengths;      // int32 [batch...], needed: how many keys there are already
  const rapt_array* cu_seqlens_new;  // int32 [sequences + 1]; k_new, v_new have no batch axes then
  const rapt_array* block_table;     // int32 [batch, pages]; caches are [pages, kv_heads, ...] then
  const rapt_array* k_scales;        // [batch..., kv_heads, capacity]: written, of an int8 k_cache
  const rapt_array* v_scales;
  const rapt_rotation* rope;    // of the new keys; null: none
  const rapt_array* positions;  // int32 [batch..., seq_new]; default kv_lengths + 0, 1, 2, ...
  const rapt_executor* executor;
} rapt_append_options;

// k_new [batch..., kv_heads, seq_new, d_k], v_new [batch..., kv_heads, seq_new, d_v];
// k_cache [batch..., kv_heads, capacity, d_k], v_cache [batch..., kv_heads, capacity, d_v] of any
// storage type. Writes the new keys and values behind those that are there. See rapt/cache.hpp.
RAPT_API rapt_status rapt_append_kv(const rapt_array* k_new, const rapt_array* v_new,
                                    const rapt_array* k_cache, const rapt_array* v_cache,
                                    const rapt_append_options* options);

// From one storage type to another: from and to [batch..., heads, positions, depth]. See
// rapt/quantize.hpp.
// f32, bf16 or f16 to int8 with scales [batch..., heads, positions] (written) or int4 without.
RAPT_API rapt_status rapt_quantize(const rapt_array* from, const rapt_array* to,
                                   const rapt_array* scales, const rapt_executor* executor);
// And back; scales are broadcast where an extent is 1.
RAPT_API rapt_status rapt_dequantize(const rapt_array* from, const rapt_array* scales,
                                     const rapt_array* to, const rapt_executor* executor);
// Between f32, bf16 and f16.
RAPT_API rapt_status rapt_convert(const rapt_array* from, const rapt_array* to,
                                  const rapt_executor* executor);

// ------------------------------------------------------------------------------- matrix product

typedef enum rapt_activation { RAPT_NONE = 0, RAPT_RELU = 1, RAPT_GELU = 2 } rapt_activation;

typedef struct rapt_gemm_options {
  size_t size;
  const float* alpha;          // default 1
  const rapt_array* bias;      // [n]
  const rapt_array* b_scales;  // [n], of int8 columns of b
  float beta;                  // 0: c is not read
  int32_t activation;          // a rapt_activation
  const rapt_executor* executor;
} rapt_gemm_options;

// c = activation(alpha a b + beta c + bias), a [batch..., m, k], b [batch..., k, n],
// c [batch..., m, n]; f32, a also bf16 or f16, b also bf16, f16 or int8. Strides transpose. See
// rapt/gemm.hpp.
RAPT_API rapt_status rapt_gemm(const rapt_array* a, const rapt_array* b, const rapt_array* c,
                               const rapt_gemm_options* options);

typedef struct rapt_gemm_backward_options {
  size_t size;
  const float* alpha;           // default 1
  const rapt_array* grad_bias;  // [n], written when given
  const rapt_executor* executor;
} rapt_gemm_backward_options;

// The gradients of a and b, and of a bias, from that of c, all f32: see gemm_backward in
// rapt/gemm.hpp. grad_a and grad_b may be null where they are not wanted; options may be null.
RAPT_API rapt_status rapt_gemm_backward(const rapt_array* a, const rapt_array* b,
                                        const rapt_array* grad_c, const rapt_array* grad_a,
                                        const rapt_array* grad_b,
                                        const rapt_gemm_backward_options* options);

// ------------------------------------------------------------------------------------ the layer

// The multi-head attention layer of "Attention Is All You Need": see rapt/layer.hpp. Many threads
// may run one layer at once.
typedef struct rapt_layer rapt_layer;

typedef struct rapt_layer_shape {
  size_t size;
  int64_t embedding;
  int64_t d_model;  // 0: no first projection, and d_model below is embedding
  int64_t heads;
  int64_t d_k;
  int64_t d_v;
} rapt_layer_shape;

// Dense arrays. Biases may be null, and so is qkv where d_model is 0; the others must be given.
typedef struct rapt_layer_parameters {
  size_t size;
  const double* qkv;       // [3, embedding, d_model]
  const double* w_q;       // [heads, d_model, d_k]
  const double* w_k;       // [heads, d_model, d_k]
  const double* w_v;       // [heads, d_model, d_v]
  const double* output;    // [heads, d_v, embedding]
  const double* b_q;       // [heads, d_k]
  const double* b_k;       // [heads, d_k]
  const double* b_v;       // [heads, d_v]
  const double* b_output;  // [embedding]
} rapt_layer_parameters;

// *layer is the new layer, or null where this fails. To be destroyed by rapt_layer_destroy.
// Parameters are copied. Or drawn, He-normal: the same seed gives the same ones on every machine.
RAPT_API rapt_status rapt_layer_create(rapt_layer** layer, const rapt_layer_shape* shape,
                                       const rapt_layer_parameters* parameters);
RAPT_API rapt_status rapt_layer_create_random(rapt_layer** layer, const rapt_layer_shape* shape,
                                              uint64_t seed);
// layer may be null, and no thread runs it any more.
RAPT_API void rapt_layer_destroy(rapt_layer* layer);

// Fills in the layer's shape, and where its own parameters are, which live as long as the layer.
RAPT_API rapt_status rapt_layer_get_shape(const rapt_layer* layer, rapt_layer_shape* shape);
RAPT_API rapt_status rapt_layer_get_parameters(const rapt_layer* layer,
                                               rapt_layer_parameters* parameters);

// q_tokens and result [batch..., seq_q, embedding], k_tokens and v_tokens [batch..., seq_kv,
// embedding], f32. Self-attention where the three are the same. options may be null.
RAPT_API rapt_status rapt_layer_run(const rapt_layer* layer, const rapt_array* q_tokens,
                                    const rapt_array* k_tokens, const rapt_array* v_tokens,
                                    const rapt_array* result,
                                    const rapt_attention_options* options);

// What the forward pass keeps for the backward pass: its memory is used again by the next one.
typedef struct rapt_layer_activations rapt_layer_activations;
RAPT_API rapt_status rapt_layer_activations_create(rapt_layer_activations** kept);
RAPT_API void rapt_layer_activations_destroy(rapt_layer_activations* kept);  // may be null

// rapt_layer_run, the same bits, and what rapt_layer_backward needs.
RAPT_API rapt_status rapt_layer_forward(const rapt_layer* layer, const rapt_array* q_tokens,
                                        const rapt_array* k_tokens, const rapt_array* v_tokens,
                                        const rapt_array* result, rapt_layer_activations* kept,
                                        const rapt_attention_options* options);

// Dense arrays in memory of the caller, each with the shape of what it is of, written where it is
// not null: of parameters as in rapt_layer_parameters, of tokens arrays with strides.
typedef struct rapt_layer_gradients {
  size_t size;
  double* qkv;
  double* w_q;
  double* w_k;
  double* w_v;
  double* output;
  double* b_q;  // where the layer has this bias; likewise the others
  double* b_k;
  double* b_v;
  double* b_output;
  const rapt_array* q_tokens;
  const rapt_array* k_tokens;
  const rapt_array* v_tokens;
} rapt_layer_gradients;

// The gradients from that of the result: see rapt/layer.hpp. Tokens and options are those of
// rapt_layer_forward, which has left `kept`. options and attention may be null.
RAPT_API rapt_status rapt_layer_backward(const rapt_layer* layer, const rapt_array* q_tokens,
                                         const rapt_array* k_tokens, const rapt_array* v_tokens,
                                         const rapt_layer_activations* kept,
                                         const rapt_array* grad_result,
                                         const rapt_layer_gradients* gradients,
                                         const rapt_attention_options* options,
                                         const rapt_backward_options* attention);

// ---------------------------------------------------------------------------------- the machine

// The ISA targets that this build has and this CPU runs, best first, with commas between them.
RAPT_API rapt_status rapt_targets(char* text, size_t capacity, size_t* length);
// The target that calls use now; and another one, for calls that start afterwards, in every thread.
// "" goes back to the best.
RAPT_API rapt_status rapt_target(char* text, size_t capacity, size_t* length);
RAPT_API rapt_status rapt_set_target(const char* name);

// Replaces the tuned config of the process by the text of a config header, all or nothing; "" goes
// back to the one that was compiled in. And the config in use, as text.
RAPT_API rapt_status rapt_load_config(const char* text);
RAPT_API rapt_status rapt_config_text(char* text, size_t capacity, size_t* length);

// Where the config in use is from, and what calls on this machine make of its rows. See
// ConfigReport in rapt/config.hpp. Text and array in it are the library's, and live until the next
// rapt_config_report on this thread.
typedef struct rapt_config_fields {
  size_t size;
  int64_t read;                // rows
  int64_t used;                // for ISA targets that run here
  int64_t ignored;             // the others
  const char* source;          // "RAPT_CONFIG=FILE", a path, "load_config" or "compiled in"
  const char* reason;          // why the first row that is not used as it stands is not; or ""
  const char* const* refused;  // [n_refused]: files that were to be loaded, each with the reason
  int64_t n_refused;
} rapt_config_fields;

// Of the config in use: in fields (where they are not null: written as far as their size says), and
// in lines of text. A file that the environment names is never an error: see rapt/config.hpp.
RAPT_API rapt_status rapt_config_report(rapt_config_fields* fields, char* text, size_t capacity,
                                        size_t* length);

#ifdef __cplusplus
}
#endif

#endif
