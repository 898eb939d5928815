#include "api/verbose.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace rapt::verbose {
namespace {

const char* name(Type type) {
  constexpr const char* kNames[] = {"f32", "bf16", "f16", "int8", "int4"};
  return kNames[static_cast<int>(type)];
}

std::string number(tiles::Index n) { return std::to_string(n); }

// Sizes, storage types and options.
std::string problem_of(const tiles::AttentionProblem& p, Type out) {
  std::string text = ",batch " + number(p.batch.size) + " heads " + number(p.heads) + "/" +
                     number(p.kv_heads) + " seq " + number(p.longest.seq_q) + "/" +
                     number(p.longest.seq_kv) + " d " + number(p.d_k) + "/" + number(p.d_v) + ",";
  text += std::string(name(p.q.type)) + ":" + name(p.k.type) + ":" + name(p.v.type) + ":" +
          name(out) + ",";
  const std::pair<bool, const char*> options[] = {
      {p.causal, "causal "},
      {p.window_left >= 0 || p.window_right >= 0, "window "},
      {p.chunk > 0, "chunk "},
      {static_cast<bool>(p.q_segments), "segments "},
      {static_cast<bool>(p.tree), "tree "},
      {static_cast<bool>(p.mask), "mask "},
      {static_cast<bool>(p.bias), "bias "},
      {static_cast<bool>(p.slopes), "alibi "},
      {static_cast<bool>(p.sinks), "sinks "},
      {p.softcap > 0, "softcap "},
      {static_cast<bool>(p.pages.table), "paged "},
      {p.dropout.probability > 0, "dropout "}};
  for (const auto& [given, word] : options) {
    if (given) text += word;
  }
  if (text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace

bool on() {
  static const bool on = [] {
    const char* variable = std::getenv("RAPT_VERBOSE");
    return variable != nullptr && std::strcmp(variable, "1") == 0;
  }();
  return on;
}

std::string line(const tiles::AttentionProblem& p, const tiles::AttentionPlan& plan) {
  std::string text = std::string("attention,") + plan.kernels->target + ",";
  // Batch elements may differ: the path of the first stands for them, a + says that there are more.
  text += plan.cuts.empty() ? "nothing" : plan.cuts.front().algorithm->name;
  if (plan.cuts.size() > 1) text += "+";
  return text + problem_of(p, p.out.type) + ",tasks " + number(plan.tasks);
}

std::string line(const tiles::BackwardProblem& p, const tiles::BackwardPlan& plan) {
  std::string text = std::string("attention_backward,") + plan.kernels->target + ",";
  text += plan.cuts.empty() ? "nothing" : plan.name();
  if (plan.cuts.size() > 1) text += "+";
  return text + problem_of(p.forward, p.out.type) + ",tasks " + number(plan.tasks);
}

std::string line(const tiles::GemmPlan& plan) {
  const tiles::GemmProblem& p = plan.problem;
  return std::string("gemm,") + plan.kernels->target + "," + plan.algorithm->name + ",batch " +
         number(p.batch.size) + " m " + number(p.m) + " n " + number(p.n) + " k " + number(p.k) +
         (p.transposed ? " transposed" : "") + ",tasks " + number(plan.units * plan.row_blocks);
}

void print(const std::string& line, std::chrono::steady_clock::duration time) {
  // One call, so that lines of several threads do not mix.
  std::fprintf(stderr, "rapt,%s,%.4f ms\n", line.c_str(),
               std::chrono::duration<double, std::milli>(time).count());
}

}  // namespace rapt::verbose
