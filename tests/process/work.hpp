// Attention and a product that are several tasks each.
#pragma once

#include <vector>

#include "support/attention_case.hpp"
#include "support/gemm_case.hpp"

namespace rapt::tests {

struct Work {
  Work()
      : attention([] {
          AttentionCase c = AttentionCase::random(9);
          c.batch = {2};
          c.seq_q = 150;
          c.seq_kv = 60;
          c.causal = true;
          return c;
        }()),
        product([] {
          GemmCase g;
          g.m = g.n = g.k = 130;
          return g;
        }()) {}
  void run(const Executor* executor = nullptr) {
    attention.run(executor);
    product.run(executor);
  }
  std::vector<float> bits() const {
    std::vector<float> all = attention.out.values();
    const std::vector<float> c = product.c.values();
    all.insert(all.end(), c.begin(), c.end());
    return all;
  }
  AttentionData attention;
  GemmData product;
};

}  // namespace rapt::tests
