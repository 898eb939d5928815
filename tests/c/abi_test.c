// The C ABI from C99: every function once, against the same computed plainly in double.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rapt/rapt.h"

static int failures = 0;
#define CHECK(condition) check((condition), #condition, __LINE__)
static void check(int holds, const char* condition, int line) {
  if (holds) return;
  ++failures;
  printf("line %d: %s does not hold; last error: %s\n", line, condition, rapt_last_error());
}

// The last call failed with a sentence that has all these words.
static void check_error(rapt_status is, rapt_status wanted, const char* const* words, int line) {
  check(is == wanted, "the status is the wanted one", line);
  for (; *words != NULL; ++words) check(strstr(rapt_last_error(), *words) != NULL, *words, line);
}
#define WORDS(...) \
  (const char* const[]) { __VA_ARGS__, NULL }
#define CHECK_ERROR(call, status, words) check_error((call), (status), (words), __LINE__)

// ------------------------------------------------------------------------------ plain arithmetic

enum { HEADS = 4, KV_HEADS = 2, SEQ_Q = 5, SEQ_KV = 9, D_K = 16, D_V = 8 };

// Multiples of 1/8 from -2 to 2: exact in every storage type but int4.
static float drawn(void) {
  static unsigned state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 16 & 31) / 8.0f - 2.0f;
}
static void draw(float* to, int n) {
  for (int i = 0; i < n; ++i) to[i] = drawn();
}

static uint16_t to_bf16(float x) {  // of numbers that bf16 can hold
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(bits >> 16);
}

// out and lse of q [HEADS, seq_q, D_K], k [KV_HEADS, seq_kv, D_K], v [KV_HEADS, seq_kv, D_V].
static void plain_attention(const float* q, const float* k, const float* v, int seq_q, int seq_kv,
                            int causal, double* out, double* lse) {
  for (int h = 0; h < HEADS; ++h) {
    const int g = h / (HEADS / KV_HEADS);
    for (int i = 0; i < seq_q; ++i) {
      double* row = out + (h * seq_q + i) * D_V;
      double sum = 0;
      for (int d = 0; d < D_V; ++d) row[d] = 0;
      for (int j = 0; j < seq_kv; ++j) {
        if (causal && j > i + seq_kv - seq_q) continue;
        double s = 0;
        for (int d = 0; d < D_K; ++d)
          s += (double)q[(h * seq_q + i) * D_K + d] * (double)k[(g * seq_kv + j) * D_K + d];
        const double p = exp(s / sqrt(D_K));
        sum += p;
        for (int d = 0; d < D_V; ++d) row[d] += p * (double)v[(g * seq_kv + j) * D_V + d];
      }
      for (int d = 0; d < D_V; ++d) row[d] = sum > 0 ? row[d] / sum : 0;
      lse[h * seq_q + i] = log(sum);
    }
  }
}

static int near(const float* is, const double* wanted, int n, double error) {
  for (int i = 0; i < n; ++i) {
    if (!(fabs((double)is[i] - wanted[i]) <= error)) {
      printf("element %d is %.9g, not %.9g\n", i, (double)is[i], wanted[i]);
      return 0;
    }
  }
  return 1;
}

// ------------------------------------------------------------------------------------ a problem

static float q_data[HEADS * SEQ_Q * D_K], k_data[KV_HEADS * SEQ_KV * D_K],
    v_data[KV_HEADS * SEQ_KV * D_V], out_data[HEADS * SEQ_Q * D_V], lse_data[HEADS * SEQ_Q];
static double out_wanted[HEADS * SEQ_Q * D_V], lse_wanted[HEADS * SEQ_Q];
static const int64_t q_shape[] = {HEADS, SEQ_Q, D_K}, k_shape[] = {KV_HEADS, SEQ_KV, D_K},
                     v_shape[] = {KV_HEADS, SEQ_KV, D_V}, out_shape[] = {HEADS, SEQ_Q, D_V};
static rapt_array q, k, v, out, lse;

static void set_up(void) {
  draw(q_data, HEADS * SEQ_Q * D_K);
  draw(k_data, KV_HEADS * SEQ_KV * D_K);
  draw(v_data, KV_HEADS * SEQ_KV * D_V);
  q = rapt_dense(q_data, RAPT_F32, 3, q_shape);
  k = rapt_dense(k_data, RAPT_F32, 3, k_shape);
  v = rapt_dense(v_data, RAPT_F32, 3, v_shape);
  out = rapt_dense(out_data, RAPT_F32, 3, out_shape);
  lse = rapt_dense(lse_data, RAPT_F32, 2, out_shape);
  memset(out_data, 255, sizeof out_data);  // NaN
  memset(lse_data, 255, sizeof lse_data);
}
static void want(int causal) {
  plain_attention(q_data, k_data, v_data, SEQ_Q, SEQ_KV, causal, out_wanted, lse_wanted);
}
static int as_wanted(void) { return near(out_data, out_wanted, HEADS * SEQ_Q * D_V, 1e-5); }

// ----------------------------------------------------------------------------------- attention

static void test_attention(void) {
  set_up();
  want(0);
  CHECK(rapt_attention(&q, &k, &v, &out, NULL) == RAPT_OK);
  CHECK(as_wanted());

  set_up();
  want(1);
  const rapt_attention_options causal = {.size = sizeof causal, .causal = 1, .lse = &lse};
  CHECK(rapt_attention(&q, &k, &v, &out, &causal) == RAPT_OK);
  CHECK(as_wanted());
  CHECK(near(lse_data, lse_wanted, HEADS * SEQ_Q, 1e-5));

  // The same keys in memory as [seq, kv_heads, depth].
  float turned[SEQ_KV * KV_HEADS * D_K];
  for (int g = 0; g < KV_HEADS; ++g)
    for (int j = 0; j < SEQ_KV; ++j)
      memcpy(turned + (j * KV_HEADS + g) * D_K, k_data + (g * SEQ_KV + j) * D_K,
             D_K * sizeof(float));
  rapt_array k_turned = k;
  k_turned.data = turned;
  k_turned.strides[0] = D_K;
  k_turned.strides[1] = KV_HEADS * D_K;
  memset(out_data, 255, sizeof out_data);
  CHECK(rapt_attention(&q, &k_turned, &v, &out, &causal) == RAPT_OK);
  CHECK(as_wanted());
}

static void test_storage_types(void) {
  set_up();
  want(1);
  uint16_t k_bf16[KV_HEADS * SEQ_KV * D_K], v_bf16[KV_HEADS * SEQ_KV * D_V];
  for (int i = 0; i < KV_HEADS * SEQ_KV * D_K; ++i) k_bf16[i] = to_bf16(k_data[i]);
  for (int i = 0; i < KV_HEADS * SEQ_KV * D_V; ++i) v_bf16[i] = to_bf16(v_data[i]);
  const rapt_array k16 = rapt_dense(k_bf16, RAPT_BF16, 3, k_shape),
                   v16 = rapt_dense(v_bf16, RAPT_BF16, 3, v_shape);
  rapt_attention_options options = {.size = sizeof options, .causal = 1};
  CHECK(rapt_attention(&q, &k16, &v16, &out, &options) == RAPT_OK);
  CHECK(as_wanted());

  int8_t k_int8[KV_HEADS * SEQ_KV * D_K], v_int8[KV_HEADS * SEQ_KV * D_V];
  for (int i = 0; i < KV_HEADS * SEQ_KV * D_K; ++i) k_int8[i] = (int8_t)(k_data[i] * 8);
  for (int i = 0; i < KV_HEADS * SEQ_KV * D_V; ++i) v_int8[i] = (int8_t)(v_data[i] * 8);
  const float eighth = 0.125f;  // one for all: extents of 1 are broadcast
  const rapt_array k8 = rapt_dense(k_int8, RAPT_INT8, 3, k_shape),
                   v8 = rapt_dense(v_int8, RAPT_INT8, 3, v_shape),
                   scales = rapt_dense(&eighth, RAPT_F32, 2, (const int64_t[]){1, 1});
  options.k_scales = options.v_scales = &scales;
  memset(out_data, 255, sizeof out_data);
  CHECK(rapt_attention(&q, &k8, &v8, &out, &options) == RAPT_OK);
  CHECK(as_wanted());
}

static void test_pages(void) {
  enum { PAGE = 4, POOL = 5 };
  set_up();
  want(1);
  // Key n lies in page table[n / PAGE]; what no key has is NaN.
  const int32_t table[] = {3, 0, 4}, length = SEQ_KV;
  float k_pool[POOL * KV_HEADS * PAGE * D_K], v_pool[POOL * KV_HEADS * PAGE * D_V];
  memset(k_pool, 255, sizeof k_pool);
  memset(v_pool, 255, sizeof v_pool);
  for (int g = 0; g < KV_HEADS; ++g) {
    for (int j = 0; j < SEQ_KV; ++j) {
      const int row = (table[j / PAGE] * KV_HEADS + g) * PAGE + j % PAGE;
      memcpy(k_pool + row * D_K, k_data + (g * SEQ_KV + j) * D_K, D_K * sizeof(float));
      memcpy(v_pool + row * D_V, v_data + (g * SEQ_KV + j) * D_V, D_V * sizeof(float));
    }
  }
  const rapt_array q1 = rapt_dense(q_data, RAPT_F32, 4, (const int64_t[]){1, HEADS, SEQ_Q, D_K}),
                   out1 =
                       rapt_dense(out_data, RAPT_F32, 4, (const int64_t[]){1, HEADS, SEQ_Q, D_V}),
                   k_pages = rapt_dense(k_pool, RAPT_F32, 4,
                                        (const int64_t[]){POOL, KV_HEADS, PAGE, D_K}),
                   v_pages = rapt_dense(v_pool, RAPT_F32, 4,
                                        (const int64_t[]){POOL, KV_HEADS, PAGE, D_V}),
                   block_table = rapt_dense(table, RAPT_INT32, 2, (const int64_t[]){1, 3}),
                   kv_lengths = rapt_dense(&length, RAPT_INT32, 1, (const int64_t[]){1});
  const rapt_attention_options options = {
      .size = sizeof options, .causal = 1, .block_table = &block_table, .kv_lengths = &kv_lengths};
  CHECK(rapt_attention(&q1, &k_pages, &v_pages, &out1, &options) == RAPT_OK);
  CHECK(as_wanted());
}

static void test_packed(void) {
  // Two sequences, of 2 and 3 queries and of 4 and 5 keys.
  set_up();
  const int32_t first_q[] = {0, 2, SEQ_Q}, first_kv[] = {0, 4, SEQ_KV};
  const rapt_array cu_seqlens_q = rapt_dense(first_q, RAPT_INT32, 1, (const int64_t[]){3}),
                   cu_seqlens_kv = rapt_dense(first_kv, RAPT_INT32, 1, (const int64_t[]){3});
  const rapt_attention_options options = {.size = sizeof options,
                                          .causal = 1,
                                          .cu_seqlens_q = &cu_seqlens_q,
                                          .cu_seqlens_kv = &cu_seqlens_kv};
  CHECK(rapt_attention(&q, &k, &v, &out, &options) == RAPT_OK);
  for (int s = 0; s < 2; ++s) {
    const int i0 = first_q[s], j0 = first_kv[s];
    const int n_q = first_q[s + 1] - i0, n_kv = first_kv[s + 1] - j0;
    float qs[HEADS * SEQ_Q * D_K], ks[KV_HEADS * SEQ_KV * D_K], vs[KV_HEADS * SEQ_KV * D_V];
    for (int h = 0; h < HEADS; ++h)
      memcpy(qs + h * n_q * D_K, q_data + (h * SEQ_Q + i0) * D_K,
             (size_t)(n_q * D_K) * sizeof(float));
    for (int g = 0; g < KV_HEADS; ++g) {
      memcpy(ks + g * n_kv * D_K, k_data + (g * SEQ_KV + j0) * D_K,
             (size_t)(n_kv * D_K) * sizeof(float));
      memcpy(vs + g * n_kv * D_V, v_data + (g * SEQ_KV + j0) * D_V,
             (size_t)(n_kv * D_V) * sizeof(float));
    }
    plain_attention(qs, ks, vs, n_q, n_kv, 1, out_wanted, lse_wanted);
    for (int h = 0; h < HEADS; ++h)
      CHECK(near(out_data + (h * SEQ_Q + i0) * D_V, out_wanted + h * n_q * D_V, n_q * D_V, 1e-5));
  }
}

// A part of the weight by hand: every score is 0, so the weights are equal.
static void equal_weights(void* context, double* scores, int64_t n) {
  ++*(int*)context;
  for (int64_t j = 0; j < n; ++j) scores[j] = 1.0 / (double)n;
}

static void test_salience_map(void) {
  set_up();
  float salience_data[HEADS * SEQ_Q * SEQ_KV];
  const rapt_array salience =
      rapt_dense(salience_data, RAPT_F32, 3, (const int64_t[]){HEADS, SEQ_Q, SEQ_KV});
  CHECK(rapt_salience_map(&q, &k, &salience, NULL, NULL, NULL) == RAPT_OK);
  for (int row = 0; row < HEADS * SEQ_Q; ++row) {
    double sum = 0;
    for (int j = 0; j < SEQ_KV; ++j) sum += (double)salience_data[row * SEQ_KV + j];
    CHECK(fabs(sum - 1) < 1e-6);
  }
  int rows = 0;
  CHECK(rapt_salience_map(&q, &k, &salience, NULL, equal_weights, &rows) == RAPT_OK);
  CHECK(rows == HEADS * SEQ_Q);
  CHECK(salience_data[0] == 1.0f / SEQ_KV);
}

// The sum of all of out, whose gradient by out is 1.
static double sum_of_out(void) {
  want(1);
  double sum = 0;
  for (int i = 0; i < HEADS * SEQ_Q * D_V; ++i) sum += out_wanted[i];
  return sum;
}

static void test_backward(void) {
  set_up();
  const rapt_attention_options options = {.size = sizeof options, .causal = 1, .lse = &lse};
  CHECK(rapt_attention(&q, &k, &v, &out, &options) == RAPT_OK);
  float ones_data[HEADS * SEQ_Q * D_V], dq_data[HEADS * SEQ_Q * D_K],
      dk_data[KV_HEADS * SEQ_KV * D_K], dv_data[KV_HEADS * SEQ_KV * D_V];
  for (int i = 0; i < HEADS * SEQ_Q * D_V; ++i) ones_data[i] = 1;
  const rapt_array ones = rapt_dense(ones_data, RAPT_F32, 3, out_shape),
                   dq = rapt_dense(dq_data, RAPT_F32, 3, q_shape),
                   dk = rapt_dense(dk_data, RAPT_F32, 3, k_shape),
                   dv = rapt_dense(dv_data, RAPT_F32, 3, v_shape);
  CHECK(rapt_attention_backward(&q, &k, &v, &out, &lse, &ones, &dq, &dk, &dv, &options, NULL) ==
        RAPT_OK);
  // Central differences of some elements; the step is exact.
  const float step = 1.0f / 64;
  float* data[] = {q_data, k_data, v_data};
  const float* gradients[] = {dq_data, dk_data, dv_data};
  const int sizes[] = {HEADS * SEQ_Q * D_K, KV_HEADS * SEQ_KV * D_K, KV_HEADS * SEQ_KV * D_V};
  for (int a = 0; a < 3; ++a) {
    for (int i = 0; i < sizes[a]; i += 7) {
      const float was = data[a][i];
      data[a][i] = was + step;
      const double more = sum_of_out();
      data[a][i] = was - step;
      const double wanted = (more - sum_of_out()) / (2 * (double)step);
      data[a][i] = was;
      CHECK(near(gradients[a] + i, &wanted, 1, 1e-3 * (1 + fabs(wanted))));
    }
  }
  // The same bits of a plan, which is run as what it is.
  rapt_plan* plan = NULL;
  CHECK(rapt_plan_create_backward(&plan, &q, &k, &v, &out, &lse, &ones, &dq, &dk, &dv, &options,
                                  NULL) == RAPT_OK);
  float dq_other[HEADS * SEQ_Q * D_K], dk_other[KV_HEADS * SEQ_KV * D_K];
  const rapt_backward_pointers pointers = {
      .size = sizeof pointers, .grad_q = dq_other, .grad_k = dk_other};
  size_t bytes = 0;
  CHECK(rapt_plan_workspace_bytes(plan, &bytes) == RAPT_OK && bytes > 0);
  char* memory = malloc(bytes + 64);
  void* workspace = memory + (64 - (uintptr_t)memory % 64) % 64;
  CHECK(rapt_plan_run_backward(plan, &pointers, workspace, bytes) == RAPT_OK);
  CHECK(memcmp(dq_other, dq_data, sizeof dq_data) == 0);
  CHECK(memcmp(dk_other, dk_data, sizeof dk_data) == 0);
  CHECK_ERROR(rapt_plan_run_backward(plan, NULL, workspace, bytes - 1), RAPT_BAD_VALUE,
              WORDS("workspace", "bytes"));
  free(memory);
  char text[2048];
  CHECK(rapt_plan_explain(plan, text, sizeof text, NULL) == RAPT_OK);
  CHECK(strstr(text, "flash_backward") != NULL && strstr(text, "/backward'") != NULL);
  CHECK_ERROR(rapt_plan_run(plan, NULL, NULL, 0), RAPT_BAD_VALUE,
              WORDS("plan is of the backward pass", "rapt_plan_run_backward"));
  rapt_plan_destroy(plan);
  CHECK(rapt_plan_create(&plan, &q, &k, &v, &out, &options) == RAPT_OK);
  CHECK_ERROR(rapt_plan_run_backward(plan, NULL, NULL, 0), RAPT_BAD_VALUE,
              WORDS("plan is of attention", "rapt_plan_run"));
  rapt_plan_destroy(plan);
  CHECK_ERROR(
      rapt_plan_create_backward(&plan, &q, &k, &v, &out, &lse, NULL, &dq, &dk, &dv, NULL, NULL),
      RAPT_BAD_VALUE, WORDS("grad_out", "null"));
  CHECK(plan == NULL);
  // Of what is not there.
  const rapt_backward_options sinks = {.size = sizeof sinks, .grad_sinks = &lse};
  CHECK_ERROR(
      rapt_attention_backward(&q, &k, &v, &out, &lse, &ones, &dq, &dk, &dv, &options, &sinks),
      RAPT_BAD_VALUE, WORDS("grad_sinks", "sinks is not"));
  CHECK_ERROR(rapt_attention_backward(&q, &k, &v, &out, NULL, &ones, &dq, &dk, &dv, NULL, NULL),
              RAPT_BAD_VALUE, WORDS("lse", "null"));
}

// --------------------------------------------------------------------------- plans, executors

typedef struct {
  int calls;
  int64_t tasks;
} Counter;
static int count_workers(void* context) {
  (void)context;
  return 3;
}
static void count_tasks(void* context, int64_t tasks, rapt_task task, const void* task_context) {
  Counter* counter = context;
  ++counter->calls;
  counter->tasks += tasks;
  for (int64_t i = tasks; i-- > 0;) task(task_context, i, (int)(i % 3));
}

static void every_task(void* context, int64_t tasks, rapt_task task, const void* task_context) {
  (void)context;
  for (int64_t i = 0; i < tasks; ++i) task(task_context, i, 0);
}
static void all_but_the_last(void* context, int64_t tasks, rapt_task task,
                             const void* task_context) {
  every_task(context, tasks - 1, task, task_context);
}

static void test_plan(void) {
  set_up();
  want(1);
  Counter counter = {0, 0};
  rapt_plan* plan = NULL;
  {
    // The plan outlives the structs that it was made from.
    const rapt_executor executor = {sizeof executor, &counter, count_workers, count_tasks};
    const rapt_attention_options options = {
        .size = sizeof options, .causal = 1, .lse = &lse, .executor = &executor};
    CHECK(rapt_plan_create(&plan, &q, &k, &v, &out, &options) == RAPT_OK);
  }
  CHECK(rapt_plan_run(plan, NULL, NULL, 0) == RAPT_OK);
  CHECK(as_wanted());
  CHECK(counter.calls > 0 && counter.tasks > 0);

  size_t bytes = 0;
  CHECK(rapt_plan_workspace_bytes(plan, &bytes) == RAPT_OK);
  CHECK(bytes > 0);
  char* memory = malloc(bytes + 64);
  void* workspace = memory + (64 - (uintptr_t)memory % 64) % 64;
  float q_other[HEADS * SEQ_Q * D_K], out_other[HEADS * SEQ_Q * D_V];
  draw(q_other, HEADS * SEQ_Q * D_K);
  plain_attention(q_other, k_data, v_data, SEQ_Q, SEQ_KV, 1, out_wanted, lse_wanted);
  const rapt_attention_pointers pointers = {
      .size = sizeof pointers, .q = q_other, .out = out_other};
  CHECK(rapt_plan_run(plan, &pointers, workspace, bytes) == RAPT_OK);
  CHECK(near(out_other, out_wanted, HEADS * SEQ_Q * D_V, 1e-5));
  CHECK(near(lse_data, lse_wanted, HEADS * SEQ_Q, 1e-5));
  CHECK_ERROR(rapt_plan_run(plan, NULL, workspace, bytes - 1), RAPT_BAD_VALUE,
              WORDS("workspace", "bytes"));
  free(memory);

  // The text of a plan is that of the call; it is cut where there is no room.
  size_t length = 0, same = 0;
  CHECK(rapt_plan_explain(plan, NULL, 0, &length) == RAPT_OK);
  char* text = malloc(length + 1);
  CHECK(rapt_plan_explain(plan, text, length + 1, NULL) == RAPT_OK);
  CHECK(strlen(text) == length && strstr(text, "algorithm") != NULL);
  char begin[8];
  CHECK(rapt_plan_explain(plan, begin, sizeof begin, &same) == RAPT_OK);
  CHECK(same == length && strlen(begin) == 7 && memcmp(begin, text, 7) == 0);
  free(text);
  CHECK_ERROR(rapt_plan_explain(plan, NULL, 8, NULL), RAPT_BAD_VALUE, WORDS("text", "null"));

  // And in fields: of how little a caller of an older version knows, and of all.
  rapt_explanation explanation = {.size = sizeof explanation};
  CHECK(rapt_plan_explanation(plan, &explanation) == RAPT_OK);
  char target[64];
  CHECK(rapt_target(target, sizeof target, NULL) == RAPT_OK);
  CHECK(strcmp(explanation.target, target) == 0);
  CHECK(explanation.size == sizeof explanation && explanation.cuts == 1 && explanation.tasks > 0);
  CHECK(explanation.bytes == sizeof q_data + sizeof k_data + sizeof v_data + sizeof out_data);
  rapt_explanation older = {.size = offsetof(rapt_explanation, config_row)};
  older.tasks = -7;
  CHECK(rapt_plan_explanation(plan, &older) == RAPT_OK);
  CHECK(strcmp(older.target, target) == 0 && older.config_row == NULL && older.tasks == -7);
  rapt_cut cut = {.size = sizeof cut};
  CHECK(rapt_plan_cut(plan, 0, &cut) == RAPT_OK);
  CHECK(cut.elements == 1 && cut.seq_q == SEQ_Q && cut.seq_kv == SEQ_KV);
  CHECK(cut.units * cut.parts == explanation.tasks && strstr(cut.algorithm, "flash") != NULL);
  CHECK(cut.n_refused == 0 || strlen(cut.refused[0].reason) > 0);
  CHECK_ERROR(rapt_plan_cut(plan, 1, &cut), RAPT_BAD_VALUE, WORDS("number is 1", "1 cuts"));
  CHECK_ERROR(rapt_plan_cut(plan, -1, &cut), RAPT_BAD_VALUE, WORDS("number is -1"));
  CHECK_ERROR(rapt_plan_explanation(plan, NULL), RAPT_BAD_VALUE, WORDS("explanation", "null"));
  explanation.size = 0;
  CHECK_ERROR(rapt_plan_explanation(plan, &explanation), RAPT_BAD_VALUE,
              WORDS("explanation.size is 0", "sizeof"));
  struct {
    rapt_cut known;
    int64_t added;
  } newer = {{.size = sizeof newer}, 5};
  CHECK(rapt_plan_cut(plan, 0, &newer.known) == RAPT_OK);
  CHECK(newer.known.size == sizeof newer && newer.known.parts == cut.parts && newer.added == 0);

  rapt_plan_destroy(plan);
  rapt_plan_destroy(NULL);

  plan = (rapt_plan*)&counter;
  CHECK_ERROR(rapt_plan_create(&plan, &q, &k, &v, NULL, NULL), RAPT_BAD_VALUE,
              WORDS("out", "null"));
  CHECK(plan == NULL);
  CHECK_ERROR(rapt_plan_run(NULL, NULL, NULL, 0), RAPT_BAD_VALUE, WORDS("plan", "null"));
}

static void test_executors(void) {
  set_up();
  want(0);
  const rapt_attention_options options = {.size = sizeof options,
                                          .executor = rapt_serial_executor()};
  CHECK(rapt_attention(&q, &k, &v, &out, &options) == RAPT_OK);
  CHECK(as_wanted());
  rapt_executor executor = {sizeof executor, NULL, count_workers, every_task};
  CHECK(rapt_test_executor(NULL) == RAPT_OK);
  CHECK(rapt_test_executor(&executor) == RAPT_OK);
  executor.parallel_for = all_but_the_last;
  CHECK_ERROR(rapt_test_executor(&executor), RAPT_BAD_VALUE, WORDS("task 0 of 1", "never called"));

  const rapt_executor broken = {.size = sizeof broken, .workers = count_workers};
  const rapt_attention_options wrong = {.size = sizeof wrong, .executor = &broken};
  CHECK_ERROR(rapt_attention(&q, &k, &v, &out, &wrong), RAPT_BAD_VALUE,
              WORDS("executor.parallel_for", "null"));
}

// ------------------------------------------------------------------------ what surrounds attention

static void test_merge(void) {
  // Some keys, and the others, are all keys.
  set_up();
  want(0);
  enum { FIRST = 4 };
  float outs[2][HEADS * SEQ_Q * D_V], lses[2][HEADS * SEQ_Q];
  rapt_array part_out[2], part_lse[2];
  rapt_attention_part parts[2];
  for (int n = 0; n < 2; ++n) {
    rapt_array keys = k, values = v;
    keys.extents[1] = values.extents[1] = n == 0 ? FIRST : SEQ_KV - FIRST;
    if (n == 1) keys.data = k_data + FIRST * D_K, values.data = v_data + FIRST * D_V;
    part_out[n] = rapt_dense(outs[n], RAPT_F32, 3, out_shape);
    part_lse[n] = rapt_dense(lses[n], RAPT_F32, 2, out_shape);
    const rapt_attention_options options = {.size = sizeof options, .lse = &part_lse[n]};
    CHECK(rapt_attention(&q, &keys, &values, &part_out[n], &options) == RAPT_OK);
    parts[n].out = &part_out[n];
    parts[n].lse = &part_lse[n];
  }
  CHECK(rapt_merge(parts, 2, &out, &lse, NULL) == RAPT_OK);
  CHECK(as_wanted());
  CHECK(near(lse_data, lse_wanted, HEADS * SEQ_Q, 1e-5));
  parts[1].lse = NULL;
  CHECK_ERROR(rapt_merge(parts, 2, &out, NULL, NULL), RAPT_BAD_VALUE, WORDS("parts[1].lse"));
  CHECK_ERROR(rapt_merge(NULL, 2, &out, NULL, NULL), RAPT_BAD_VALUE, WORDS("parts", "null"));
}

// One row of a rotation by halves of all D_K numbers, with base 100.
static void plain_rope(const float* x, int position, double* to) {
  for (int i = 0; i < D_K / 2; ++i) {
    const double angle = position * pow(100, -2.0 * i / D_K), a = (double)x[i],
                 b = (double)x[i + D_K / 2];
    to[i] = a * cos(angle) - b * sin(angle);
    to[i + D_K / 2] = a * sin(angle) + b * cos(angle);
  }
}

static const float base = 100;
static const rapt_rotation rope = {
    .size = sizeof rope, .dims = D_K, .base = &base, .pairing = RAPT_HALF};

static void test_rope(void) {
  set_up();
  const int32_t first = 7;
  const rapt_array first_positions = rapt_dense(&first, RAPT_INT32, 0, NULL);
  const rapt_rope_options options = {.size = sizeof options, .first_positions = &first_positions};
  float turned[HEADS * SEQ_Q * D_K];
  const rapt_array to = rapt_dense(turned, RAPT_F32, 3, q_shape);
  CHECK(rapt_rope(&q, &to, &rope, &options) == RAPT_OK);
  for (int row = 0; row < HEADS * SEQ_Q; ++row) {
    double wanted[D_K];
    plain_rope(q_data + row * D_K, first + row % SEQ_Q, wanted);
    CHECK(near(turned + row * D_K, wanted, D_K, 1e-6));
  }
  rapt_rotation odd = rope;
  odd.dims = 3;
  CHECK_ERROR(rapt_rope(&q, &to, &odd, NULL), RAPT_BAD_VALUE, WORDS("rope.dims", "3"));
  CHECK_ERROR(rapt_rope(&q, &to, NULL, NULL), RAPT_BAD_VALUE, WORDS("rope", "null"));
}

static void test_append(void) {
  enum { CAPACITY = 12, LENGTH = 2 };
  set_up();
  float k_cache_data[KV_HEADS * CAPACITY * D_K], v_cache_data[KV_HEADS * CAPACITY * D_V];
  memset(k_cache_data, 255, sizeof k_cache_data);
  memset(v_cache_data, 255, sizeof v_cache_data);
  const int32_t length = LENGTH;
  const rapt_array k_cache = rapt_dense(k_cache_data, RAPT_F32, 3,
                                        (const int64_t[]){KV_HEADS, CAPACITY, D_K}),
                   v_cache = rapt_dense(v_cache_data, RAPT_F32, 3,
                                        (const int64_t[]){KV_HEADS, CAPACITY, D_V}),
                   kv_lengths = rapt_dense(&length, RAPT_INT32, 0, NULL);
  const rapt_append_options options = {
      .size = sizeof options, .kv_lengths = &kv_lengths, .rope = &rope};
  CHECK(rapt_append_kv(&k, &v, &k_cache, &v_cache, &options) == RAPT_OK);
  for (int g = 0; g < KV_HEADS; ++g) {
    for (int j = 0; j < CAPACITY; ++j) {
      const float *key = k_cache_data + (g * CAPACITY + j) * D_K,
                  *value = v_cache_data + (g * CAPACITY + j) * D_V;
      if (j < LENGTH || j >= LENGTH + SEQ_KV) {
        CHECK(isnan(key[0]) && isnan(value[0]));
        continue;
      }
      const int row = g * SEQ_KV + j - LENGTH;
      double wanted[D_K];
      plain_rope(k_data + row * D_K, j, wanted);
      CHECK(near(key, wanted, D_K, 1e-6));
      CHECK(memcmp(value, v_data + row * D_V, D_V * sizeof(float)) == 0);
    }
  }
  CHECK_ERROR(rapt_append_kv(&k, &v, &k_cache, &v_cache, NULL), RAPT_BAD_VALUE,
              WORDS("kv_lengths", "missing"));
}

static void test_conversions(void) {
  enum { ROWS = 3, DEPTH = 64 };
  const int64_t shape[] = {1, ROWS, DEPTH};
  float from_data[ROWS * DEPTH], back_data[ROWS * DEPTH], scales_data[ROWS];
  int8_t int8_data[ROWS * DEPTH];
  uint16_t bf16_data[ROWS * DEPTH];
  rapt_int4_group int4_data[ROWS * DEPTH / 32];
  draw(from_data, ROWS * DEPTH);
  const rapt_array from = rapt_dense(from_data, RAPT_F32, 3, shape),
                   back = rapt_dense(back_data, RAPT_F32, 3, shape),
                   bf16 = rapt_dense(bf16_data, RAPT_BF16, 3, shape),
                   int8 = rapt_dense(int8_data, RAPT_INT8, 3, shape),
                   int4 =
                       rapt_dense(int4_data, RAPT_INT4, 3, (const int64_t[]){1, ROWS, DEPTH / 32}),
                   scales = rapt_dense(scales_data, RAPT_F32, 2, shape);
  CHECK(rapt_convert(&from, &bf16, NULL) == RAPT_OK);
  for (int i = 0; i < ROWS * DEPTH; ++i) CHECK(bf16_data[i] == to_bf16(from_data[i]));

  CHECK(rapt_quantize(&from, &int8, &scales, NULL) == RAPT_OK);
  CHECK(rapt_dequantize(&int8, &scales, &back, NULL) == RAPT_OK);
  for (int i = 0; i < ROWS * DEPTH; ++i) {
    const float scale = scales_data[i / DEPTH];
    CHECK(back_data[i] == scale * (float)int8_data[i]);
    CHECK(fabsf(back_data[i] - from_data[i]) <= 0.501f * scale);
  }

  CHECK(rapt_quantize(&from, &int4, NULL, NULL) == RAPT_OK);
  CHECK(rapt_dequantize(&int4, NULL, &back, NULL) == RAPT_OK);
  for (int i = 0; i < ROWS * DEPTH; ++i) CHECK(fabsf(back_data[i] - from_data[i]) <= 0.15f);
  CHECK_ERROR(rapt_quantize(&from, &int8, NULL, NULL), RAPT_BAD_VALUE, WORDS("scales", "missing"));
}

static void test_gemm(void) {
  enum { M = 3, N = 7, K = 5 };
  float a_data[M * K], b_data[N * K], c_data[M * N], bias_data[N];
  double wanted[M * N];
  draw(a_data, M * K);
  draw(b_data, N * K);
  draw(c_data, M * N);
  draw(bias_data, N);
  const float alpha = 0.5f;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      double sum = 0;
      for (int i = 0; i < K; ++i) sum += (double)a_data[m * K + i] * (double)b_data[n * K + i];
      sum = 0.5 * sum + 2 * (double)c_data[m * N + n] + (double)bias_data[n];
      wanted[m * N + n] = sum > 0 ? sum : 0;
    }
  }
  const rapt_array a = rapt_dense(a_data, RAPT_F32, 2, (const int64_t[]){M, K}),
                   c = rapt_dense(c_data, RAPT_F32, 2, (const int64_t[]){M, N}),
                   bias = rapt_dense(bias_data, RAPT_F32, 1, (const int64_t[]){N});
  // b [k, n] lies in memory as [n, k]: transposed by its strides.
  const rapt_array b = {b_data, RAPT_F32, 2, {K, N}, {1, K}};
  const rapt_gemm_options options = {
      .size = sizeof options, .alpha = &alpha, .beta = 2, .bias = &bias, .activation = RAPT_RELU};
  CHECK(rapt_gemm(&a, &b, &c, &options) == RAPT_OK);
  CHECK(near(c_data, wanted, M * N, 1e-5));
  CHECK_ERROR(rapt_gemm(&b, &a, &c, NULL), RAPT_EXTENT_MISMATCH, WORDS("axis k", "7", "3"));

  // The gradients of sum(c * bias), for c = 2 a b + bias.
  double of_a[M * K], of_b[K * N], of_bias[N];
  const float two = 2;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) c_data[m * N + n] = bias_data[n];
    for (int i = 0; i < K; ++i) {
      of_a[m * K + i] = 0;
      for (int n = 0; n < N; ++n)
        of_a[m * K + i] += 2 * (double)b_data[n * K + i] * (double)bias_data[n];
    }
  }
  for (int n = 0; n < N; ++n) {
    of_bias[n] = M * (double)bias_data[n];
    for (int i = 0; i < K; ++i) {
      of_b[i * N + n] = 0;
      for (int m = 0; m < M; ++m)
        of_b[i * N + n] += 2 * (double)a_data[m * K + i] * (double)bias_data[n];
    }
  }
  float grad_a_data[M * K], grad_b_data[K * N], grad_bias_data[N];
  const rapt_array grad_a = rapt_dense(grad_a_data, RAPT_F32, 2, (const int64_t[]){M, K}),
                   grad_b = rapt_dense(grad_b_data, RAPT_F32, 2, (const int64_t[]){K, N}),
                   grad_bias = rapt_dense(grad_bias_data, RAPT_F32, 1, (const int64_t[]){N});
  const rapt_gemm_backward_options backward = {
      .size = sizeof backward, .alpha = &two, .grad_bias = &grad_bias};
  CHECK(rapt_gemm_backward(&a, &b, &c, &grad_a, NULL, &backward) == RAPT_OK);
  CHECK(rapt_gemm_backward(&a, &b, &c, NULL, &grad_b, &backward) == RAPT_OK);
  CHECK(near(grad_a_data, of_a, M * K, 1e-5));
  CHECK(near(grad_b_data, of_b, K * N, 1e-5));
  CHECK(near(grad_bias_data, of_bias, N, 1e-5));
  CHECK_ERROR(rapt_gemm_backward(&a, &b, &c, &grad_b, NULL, NULL), RAPT_EXTENT_MISMATCH,
              WORDS("axis m", "grad_a has 5", "a has 3"));
}

// ------------------------------------------------------------------------------------- the layer

static void test_layer(void) {
  // One head that passes tokens on: q = k = v = token, of embedding D; and biases of v and output.
  enum { D = 4, TOKENS = 3 };
  set_up();
  double one[D * D] = {0}, b_v[D], b_output[D];
  for (int d = 0; d < D; ++d) {
    one[d * D + d] = 1;
    b_v[d] = d;
    b_output[d] = 10;
  }
  const rapt_layer_shape shape = {.size = sizeof shape, .embedding = D, .heads = 1, .d_k = D, D};
  rapt_layer_parameters parameters = {.size = sizeof parameters,
                                      .w_q = one,
                                      .w_k = one,
                                      .w_v = one,
                                      .output = one,
                                      .b_v = b_v,
                                      .b_output = b_output};
  rapt_layer* layer = NULL;
  CHECK(rapt_layer_create(&layer, &shape, &parameters) == RAPT_OK);
  float tokens_data[TOKENS * D], result_data[TOKENS * D];
  draw(tokens_data, TOKENS * D);
  const rapt_array tokens = rapt_dense(tokens_data, RAPT_F32, 2, (const int64_t[]){TOKENS, D}),
                   result = rapt_dense(result_data, RAPT_F32, 2, (const int64_t[]){TOKENS, D});
  const rapt_attention_options options = {.size = sizeof options, .causal = 1};
  CHECK(rapt_layer_run(layer, &tokens, &tokens, &tokens, &result, &options) == RAPT_OK);
  double wanted[TOKENS * D];
  for (int i = 0; i < TOKENS; ++i) {
    double sum = 0, *row = wanted + i * D;
    for (int d = 0; d < D; ++d) row[d] = 0;
    for (int j = 0; j <= i; ++j) {
      double s = 0;
      for (int d = 0; d < D; ++d)
        s += (double)tokens_data[i * D + d] * (double)tokens_data[j * D + d];
      const double p = exp(s / sqrt(D));
      sum += p;
      for (int d = 0; d < D; ++d) row[d] += p * (double)tokens_data[j * D + d];
    }
    for (int d = 0; d < D; ++d) row[d] = row[d] / sum + d + 10;
  }
  CHECK(near(result_data, wanted, TOKENS * D, 1e-5));
  rapt_layer_parameters own = {.size = sizeof own};
  CHECK(rapt_layer_get_parameters(layer, &own) == RAPT_OK);
  CHECK(own.w_q != one && memcmp(own.w_q, one, sizeof one) == 0);
  CHECK(own.qkv == NULL && own.b_q == NULL && memcmp(own.b_v, b_v, sizeof b_v) == 0);

  // The gradients of the sum of the result: every token passes its value on with weights that sum
  // to 1 over the keys.
  float kept_data[TOKENS * D], ones_data[TOKENS * D], v_data[TOKENS * D];
  for (int i = 0; i < TOKENS * D; ++i) ones_data[i] = 1;
  const rapt_array again = rapt_dense(kept_data, RAPT_F32, 2, (const int64_t[]){TOKENS, D}),
                   ones = rapt_dense(ones_data, RAPT_F32, 2, (const int64_t[]){TOKENS, D}),
                   of_v = rapt_dense(v_data, RAPT_F32, 2, (const int64_t[]){TOKENS, D});
  double of_b_v[D], of_b_output[D], of_b_q[D] = {7, 7, 7, 7};
  const rapt_layer_gradients gradients = {.size = sizeof gradients,
                                          .b_q = of_b_q,  // which this layer does not have
                                          .b_v = of_b_v,
                                          .b_output = of_b_output,
                                          .v_tokens = &of_v};
  rapt_layer_activations* kept = NULL;
  CHECK(rapt_layer_activations_create(&kept) == RAPT_OK);
  CHECK_ERROR(rapt_layer_backward(layer, &tokens, &tokens, &tokens, kept, &ones, &gradients,
                                  &options, NULL),
              RAPT_EXTENT_MISMATCH, WORDS("kept.q has 0", "12"));
  CHECK(rapt_layer_forward(layer, &tokens, &tokens, &tokens, &again, kept, &options) == RAPT_OK);
  CHECK(memcmp(kept_data, result_data, sizeof kept_data) == 0);
  CHECK(rapt_layer_backward(layer, &tokens, &tokens, &tokens, kept, &ones, &gradients, &options,
                            NULL) == RAPT_OK);
  for (int d = 0; d < D; ++d) {
    double sum = 0;
    for (int j = 0; j < TOKENS; ++j) sum += (double)v_data[j * D + d];
    CHECK(fabs(sum - TOKENS) < 1e-5 && fabs(of_b_v[d] - TOKENS) < 1e-5);
    CHECK(of_b_output[d] == TOKENS && of_b_q[d] == 7);
  }
  CHECK_ERROR(rapt_layer_backward(layer, &tokens, &tokens, &tokens, kept, &ones, NULL, NULL, NULL),
              RAPT_BAD_VALUE, WORDS("gradients", "null"));
  CHECK_ERROR(rapt_layer_forward(layer, &tokens, &tokens, &tokens, &again, NULL, NULL),
              RAPT_BAD_VALUE, WORDS("kept", "null"));
  rapt_layer_activations_destroy(kept);
  rapt_layer_activations_destroy(NULL);

  CHECK_ERROR(rapt_layer_run(layer, &q, &tokens, &tokens, &result, NULL), RAPT_WRONG_RANK,
              WORDS("q_tokens"));
  rapt_layer_destroy(layer);
  rapt_layer_destroy(NULL);

  parameters.w_k = NULL;
  CHECK_ERROR(rapt_layer_create(&layer, &shape, &parameters), RAPT_EXTENT_MISMATCH,
              WORDS("w_k", "[1, 4, 4]"));
  CHECK(layer == NULL);
  rapt_layer_shape wrong = shape;
  wrong.d_v = -1;
  CHECK_ERROR(rapt_layer_create(&layer, &wrong, &parameters), RAPT_EXTENT_RANGE,
              WORDS("d_v of the layer is -1"));
  wrong.d_v = wrong.heads = wrong.embedding = 1 << 20;
  CHECK_ERROR(rapt_layer_create(&layer, &wrong, &parameters), RAPT_TOO_LARGE,
              WORDS("w_v", "heads"));
  CHECK_ERROR(rapt_layer_create(&layer, NULL, &parameters), RAPT_BAD_VALUE, WORDS("shape", "null"));
  CHECK_ERROR(rapt_layer_create(&layer, &shape, NULL), RAPT_BAD_VALUE, WORDS("parameters", "null"));
  CHECK_ERROR(rapt_layer_run(NULL, &q, &q, &q, &q, NULL), RAPT_BAD_VALUE, WORDS("layer", "null"));

  wrong = (rapt_layer_shape){.size = sizeof wrong, .embedding = 5, 7, 2, 3, 4};
  CHECK(rapt_layer_create_random(&layer, &wrong, 3) == RAPT_OK);
  CHECK(rapt_layer_get_parameters(layer, &own) == RAPT_OK);
  CHECK(own.qkv != NULL && own.qkv[3 * 5 * 7 - 1] != 0 && own.b_output == NULL);
  rapt_layer_shape drawn = {.size = sizeof drawn};
  CHECK(rapt_layer_get_shape(layer, &drawn) == RAPT_OK);
  CHECK(drawn.size == sizeof drawn && memcmp(&drawn, &wrong, sizeof drawn) == 0);
  rapt_layer_destroy(layer);
}

// ------------------------------------------------------------------------------------- memory

static int blocks = 0;
static void* give(void* context, size_t bytes) {
  ++*(int*)context;
  ++blocks;
  // C99 has no aligned memory: what malloc gave stands before the block.
  char* const all = malloc(bytes + 128);
  char* const block = all + (128 - (uintptr_t)all % 64);
  memcpy(block - sizeof all, &all, sizeof all);
  return block;
}
static void take(void* context, void* memory, size_t bytes) {
  (void)context;
  (void)bytes;
  --blocks;
  void* all;
  memcpy(&all, (char*)memory - sizeof all, sizeof all);
  free(all);
}

static void test_allocator(void) {
  set_up();
  want(0);
  int given = 0;
  const rapt_allocator allocator = {sizeof allocator, &given, give, take};
  CHECK(rapt_set_allocator(&allocator) == RAPT_OK);
  CHECK(rapt_attention(&q, &k, &v, &out, NULL) == RAPT_OK);
  CHECK(as_wanted());
  CHECK(given > 0 && blocks == 0);
  CHECK(rapt_set_allocator(NULL) == RAPT_OK);
  given = 0;
  CHECK(rapt_attention(&q, &k, &v, &out, NULL) == RAPT_OK);
  CHECK(given == 0);
}

// ------------------------------------------------------------------------------- what goes wrong

static void test_errors(void) {
  set_up();
  rapt_array wrong = k;
  wrong.extents[2] = 13;
  CHECK_ERROR(rapt_attention(&q, &wrong, &v, &out, NULL), RAPT_EXTENT_MISMATCH,
              WORDS("axis d_k", "q has 16", "k has 13"));
  CHECK(isnan(out_data[0]));  // nothing was written
  // The message stays while calls succeed.
  CHECK(rapt_attention(&q, &k, &v, &out, NULL) == RAPT_OK);
  CHECK(strstr(rapt_last_error(), "axis d_k") != NULL);

  CHECK_ERROR(rapt_attention(NULL, &k, &v, &out, NULL), RAPT_BAD_VALUE, WORDS("q is null"));
  wrong = k;
  wrong.data = NULL;
  CHECK_ERROR(rapt_attention(&q, &wrong, &v, &out, NULL), RAPT_NULL_DATA, WORDS("k", "288"));
  wrong = rapt_dense(k_data, RAPT_F32, -1, NULL);
  CHECK_ERROR(rapt_attention(&q, &wrong, &v, &out, NULL), RAPT_BAD_VALUE,
              WORDS("the rank of k is -1", "3 to 7"));
  for (int rank = 0; rank <= RAPT_MAX_AXES + 1; ++rank) {
    if (rank >= 3 && rank <= 7) continue;
    wrong = rapt_dense(k_data, RAPT_F32, rank, (const int64_t[8]){2, 9, 16, 1, 1, 1, 1, 1});
    CHECK_ERROR(rapt_attention(&q, &wrong, &v, &out, NULL), RAPT_WRONG_RANK,
                WORDS("k: ", "kv_heads, seq_kv, d_k", "3 to 7"));
  }
  const int32_t types[] = {-1, 5, RAPT_INT32, RAPT_BOOL, INT32_MAX};
  for (int i = 0; i < 5; ++i) {
    wrong = k;
    wrong.type = types[i];
    CHECK_ERROR(rapt_attention(&q, &wrong, &v, &out, NULL), RAPT_BAD_VALUE,
                WORDS("the type of k", "int8"));
  }
  rapt_attention_options options = {.size = sizeof options, .mask = &q};
  CHECK_ERROR(rapt_attention(&q, &k, &v, &out, &options), RAPT_BAD_VALUE,
              WORDS("the type of mask is f32", "bool"));
  const rapt_array nothing = {0};  // an option that is an array without data is not given
  options.mask = &nothing;
  CHECK(rapt_attention(&q, &k, &v, &out, &options) == RAPT_OK);
}

// A caller of an older version has fewer fields; of a newer, more.
static void test_sizes(void) {
  set_up();
  want(1);
  rapt_attention_options options = {.size = offsetof(rapt_attention_options, q_offset),
                                    .causal = 1};
  // In memory of its own, so that nothing behind it may be read.
  rapt_attention_options* older = malloc(options.size);
  memcpy(older, &options, options.size);
  CHECK(rapt_attention(&q, &k, &v, &out, older) == RAPT_OK);
  CHECK(as_wanted());
  free(older);

  struct {
    rapt_attention_options known;
    int64_t added;
  } newer = {{.size = sizeof newer, .causal = 1}, 0};
  memset(out_data, 255, sizeof out_data);
  CHECK(rapt_attention(&q, &k, &v, &out, &newer.known) == RAPT_OK);
  CHECK(as_wanted());
  newer.added = 1;
  CHECK_ERROR(rapt_attention(&q, &k, &v, &out, &newer.known), RAPT_BAD_VALUE,
              WORDS("options.size", "is set"));
  const size_t wrong[] = {0, 1, 4097, SIZE_MAX};
  for (int i = 0; i < 4; ++i) {
    options.size = wrong[i];
    CHECK_ERROR(rapt_attention(&q, &k, &v, &out, &options), RAPT_BAD_VALUE,
                WORDS("options.size", "sizeof"));
  }
}

// Compiled callers know these numbers: fields are added at the end, and nothing else changes. A
// struct ends with its last field, or an older caller's padding would be taken for a newer field.
#define CHECK_LAST(type, field, offset) \
  CHECK(offsetof(type, field) == (offset) && sizeof(type) == (offset) + sizeof(void*))
static void test_layout(void) {
  if (sizeof(void*) != 8) return;
  CHECK(sizeof(rapt_array) == 144 && offsetof(rapt_array, strides) == 80);
  CHECK(sizeof(rapt_int4_group) == 18);
  CHECK(offsetof(rapt_attention_options, causal) == 36);
  CHECK(offsetof(rapt_attention_options, tree_keys) == 112);
  CHECK(offsetof(rapt_attention_options, executor) == 192);
  CHECK_LAST(rapt_attention_options, round_weights, 216);
  CHECK_LAST(rapt_backward_options, grad_sinks, 32);
  CHECK_LAST(rapt_attention_part, lse, 8);
  CHECK_LAST(rapt_attention_pointers, dropout_offset, 80);
  CHECK_LAST(rapt_backward_pointers, grad_sinks, 128);
  CHECK_LAST(rapt_rotation, frequency_factors, 48);
  CHECK_LAST(rapt_rope_options, executor, 24);
  CHECK_LAST(rapt_append_options, executor, 64);
  CHECK_LAST(rapt_gemm_options, executor, 40);
  CHECK_LAST(rapt_gemm_backward_options, executor, 24);
  CHECK_LAST(rapt_explanation, n_config_refused, 168);
  CHECK_LAST(rapt_refusal, reason, 8);
  CHECK_LAST(rapt_cut, part_rows, 96);
  CHECK_LAST(rapt_layer_shape, d_v, 40);
  CHECK_LAST(rapt_layer_parameters, b_output, 72);
  CHECK_LAST(rapt_layer_gradients, v_tokens, 96);
  CHECK_LAST(rapt_allocator, deallocate, 24);
  CHECK_LAST(rapt_config_fields, n_refused, 56);
  CHECK(offsetof(rapt_executor, parallel_for) == 24 && sizeof(rapt_executor) == 32);
}

// ----------------------------------------------------------------------------------- the machine

static void test_machine(void) {
  char names[256], name[64], best[64];
  CHECK(rapt_targets(names, sizeof names, NULL) == RAPT_OK);
  CHECK(rapt_target(best, sizeof best, NULL) == RAPT_OK);
  CHECK(strstr(names, best) != NULL);
  const char* comma = strrchr(names, ',');
  const char* last = comma == NULL ? names : comma + 1;
  CHECK(rapt_set_target(last) == RAPT_OK);
  CHECK(rapt_target(name, sizeof name, NULL) == RAPT_OK && strcmp(name, last) == 0);
  CHECK_ERROR(rapt_set_target("PDP11"), RAPT_UNKNOWN_TARGET, WORDS("PDP11", best));
  CHECK(rapt_set_target(best) == RAPT_OK);

  size_t length = 0;
  CHECK(rapt_config_text(NULL, 0, &length) == RAPT_OK);
  char* text = malloc(length + 1);
  CHECK(rapt_config_text(text, length + 1, NULL) == RAPT_OK);
  CHECK(rapt_load_config(text) == RAPT_OK);
  CHECK(rapt_load_config("") == RAPT_OK);
  CHECK_ERROR(rapt_load_config("no row\n"), RAPT_BAD_CONFIG, WORDS("1"));
  static const char kRow[] =
      "RAPT_ROW(gemm, LASX, f32, tile=6x2, block_m=96, block_n=96, block_k=96, direct_rows=6, "
      "packed_kib=96)\n";
  CHECK(rapt_load_config(kRow) == RAPT_OK);
  rapt_config_fields fields = {.size = sizeof fields};
  char report[1024];
  CHECK(rapt_config_report(&fields, report, sizeof report, &length) == RAPT_OK);
  CHECK(fields.read == 1 && fields.used + fields.ignored == 1 && fields.size == sizeof fields);
  CHECK(strcmp(fields.source, "load_config") == 0 && fields.n_refused == 0);
  CHECK(strstr(report, "load_config") != NULL && length == strlen(report));
  CHECK(fields.used == 1 || strstr(fields.reason, "LASX is not in this build") != NULL);
  CHECK(strstr(report, fields.reason) != NULL);
  struct {
    rapt_config_fields known;
    int64_t added;
  } newer_fields = {{.size = sizeof newer_fields}, 5};
  CHECK(rapt_config_report(&newer_fields.known, NULL, 0, NULL) == RAPT_OK);
  CHECK(newer_fields.known.read == 1 && newer_fields.added == 0);
  fields = (rapt_config_fields){.size = offsetof(rapt_config_fields, used), .used = 77};
  CHECK(rapt_config_report(&fields, NULL, 0, NULL) == RAPT_OK);
  CHECK(fields.read == 1 && fields.used == 77);  // an older caller's struct ends before it
  fields.size = 0;
  CHECK_ERROR(rapt_config_report(&fields, NULL, 0, NULL), RAPT_BAD_VALUE,
              WORDS("fields.size", "sizeof"));
  CHECK(rapt_load_config("") == RAPT_OK);
  CHECK_ERROR(rapt_load_config(NULL), RAPT_BAD_VALUE, WORDS("text", "null"));
  free(text);

  set_up();
  CHECK(rapt_explain(&q, &k, &v, &out, NULL, names, sizeof names, &length) == RAPT_OK);
  CHECK(length > 0 && strlen(names) <= sizeof names - 1);
}

int main(void) {
  CHECK(strcmp(rapt_last_error(), "") == 0);
  // What the preprocessor sees, what the library says, and what the build calls it.
  char version[32];
  sprintf(version, "%d.%d.%d", RAPT_VERSION_MAJOR, RAPT_VERSION_MINOR, RAPT_VERSION_PATCH);
  CHECK(strcmp(version, PROJECT_VERSION) == 0);
  CHECK(strcmp(rapt_version(), PROJECT_VERSION) == 0);
  test_attention();
  test_storage_types();
  test_pages();
  test_packed();
  test_salience_map();
  test_backward();
  test_plan();
  test_executors();
  test_merge();
  test_rope();
  test_append();
  test_conversions();
  test_gemm();
  test_layer();
  test_allocator();
  test_errors();
  test_sizes();
  test_layout();
  test_machine();
  printf("%d failures\n", failures);
  return failures != 0;
}
