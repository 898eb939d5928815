// Attention in ten lines. All keys are alike, so a query gets the mean of the values that it may
// see: with a causal mask 0, 0.5, 1 and 1.5.
#include <rapt/rapt.hpp>

#include <cstdio>
#include <vector>

int main() {
  const std::int64_t heads = 1, seq = 4, d_k = 8, d_v = 1;
  std::vector<float> q(heads * seq * d_k, 0.5f), k(heads * seq * d_k, 0.25f),
      out(heads * seq * d_v);
  std::vector<float> v = {0, 1, 2, 3};

  rapt::AttentionOptions options;
  options.causal = true;
  rapt::attention(rapt::QView(q.data(), {heads, seq, d_k}),
                  rapt::KView(k.data(), {heads, seq, d_k}),
                  rapt::VView(v.data(), {heads, seq, d_v}),
                  rapt::OutView(out.data(), {heads, seq, d_v}), options);

  for (const float value : out) std::printf("%g\n", value);
}
