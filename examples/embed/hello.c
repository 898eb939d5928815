// Attention in ten lines of C. All keys are alike, so a query gets the mean of the values that it
// may see: with a causal mask 0, 0.5, 1 and 1.5.
#include <rapt/rapt.h>

#include <stdio.h>

enum { HEADS = 1, SEQ = 4, DEPTH = 8 };

int main(void) {
  float keys[HEADS * SEQ * DEPTH] = {0}, values[HEADS * SEQ] = {0, 1, 2, 3}, result[HEADS * SEQ];
  const int64_t shape[] = {HEADS, SEQ, DEPTH}, value_shape[] = {HEADS, SEQ, 1};

  const rapt_array q = rapt_dense(keys, RAPT_F32, 3, shape), k = q;
  const rapt_array v = rapt_dense(values, RAPT_F32, 3, value_shape);
  const rapt_array out = rapt_dense(result, RAPT_F32, 3, value_shape);
  const rapt_attention_options options = {.size = sizeof options, .causal = 1};
  if (rapt_attention(&q, &k, &v, &out, &options) != RAPT_OK) {
    fprintf(stderr, "%s\n", rapt_last_error());
    return 1;
  }
  for (int i = 0; i < HEADS * SEQ; ++i) printf("%g\n", (double)result[i]);
  return 0;
}
