// What every C block of the docs may use without saying where it comes from.
#include <rapt/rapt.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { batch = 2, heads = 4, kv_heads = 2, seq_q = 5, seq_kv = 7, d_k = 8, d_v = 16 };
static float q_data[batch * heads * seq_q * d_k], k_data[batch * kv_heads * seq_kv * d_k],
    v_data[batch * kv_heads * seq_kv * d_v], out_data[batch * heads * seq_q * d_v];

// Numbers of which no two rows are alike.
static void fill_data(void) {
  float* arrays[] = {q_data, k_data, v_data};
  const size_t sizes[] = {sizeof q_data, sizeof k_data, sizeof v_data};
  unsigned state = 1;
  for (int a = 0; a < 3; ++a)
    for (size_t i = 0; i < sizes[a] / sizeof(float); ++i) {
      state = state * 1664525u + 1013904223u;
      arrays[a][i] = (float)(state >> 8) / 16777216.0f - 0.5f;
    }
}
