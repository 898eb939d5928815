#include "plan/case.hpp"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <optional>
#include <vector>

namespace rapt::plan {
namespace {

using tiles::Index;

const char* name(Type type) {
  constexpr const char* kNames[] = {"f32", "bf16", "f16", "int8", "int4"};
  return kNames[static_cast<int>(type)];
}

// What q and out are where k has this type and nothing else is said.
Type plain(Type type) { return type == Type::bf16 || type == Type::f16 ? type : Type::f32; }

class Line {
 public:
  explicit Line(const char* operation) : text_(operation) {}
  void sizes(std::initializer_list<Index> numbers) {
    char separator = '/';
    for (const Index n : numbers) {
      text_ += separator + std::to_string(n);
      separator = ',';
    }
  }
  void word(bool given, const std::string& modifier) {
    if (given) text_ += "/" + modifier;
  }
  void number(bool given, const char* modifier, Index n) {
    word(given, modifier + std::to_string(n));
  }
  // One number where all are the same.
  void numbers(const char* modifier, const std::vector<Index>& each, bool one_for_all) {
    text_ += std::string("/") + modifier;
    for (std::size_t i = 0; i < (one_for_all ? 1 : each.size()); ++i)
      text_ += (i > 0 ? "+" : "") + std::to_string(each[i]);
  }
  std::string text() const { return text_; }

 private:
  std::string text_;
};

bool all_equal(const std::vector<Index>& numbers) {
  return std::adjacent_find(numbers.begin(), numbers.end(), std::not_equal_to<>()) == numbers.end();
}

// Of each batch element, as the plan has cut it; one that has no rows counts nothing.
struct Lengths {
  std::vector<Index> q, kv, offset;

  template <class Plan>
  Lengths(const tiles::AttentionProblem& p, const Plan& plan)
      : q(static_cast<std::size_t>(p.batch.size)), kv(q.size()), offset(q.size()) {
    for (const auto& cut : plan.cuts) {
      for (Index i = 0; i < cut.count; ++i) {
        const auto b = static_cast<std::size_t>(cut.sequence.number + i);
        q[b] = cut.sequence.seq_q;
        kv[b] = cut.sequence.seq_kv;
        offset[b] = cut.sequence.q_offset;
      }
    }
  }
  bool offsets_are_usual() const {
    for (std::size_t b = 0; b < q.size(); ++b) {
      if (q[b] > 0 && offset[b] != kv[b] - q[b]) return false;
    }
    return true;
  }
};

// How many first keys all sequences have in the same pages.
Index common_keys(const tiles::AttentionPlan& plan) {
  Index least = 0;
  for (const tiles::Cut& cut : plan.cuts) {
    for (Index i = 0; i < cut.count && !plan.joined.empty(); ++i) {
      const Index number = cut.sequence.number + i;
      const Index keys = plan.joined[static_cast<std::size_t>(number)] * cut.part_kv;
      if (number == 1) least = keys;
      if (number > 1) least = std::min(least, keys);
    }
  }
  return least;
}

template <class T>
bool heads_inside(const tiles::Array<T>& array, Index heads, Index positions) {
  return heads > 1 && positions > 1 && array.head_stride < array.row_stride;
}

// All but where the keys of a paged cache are shared. Empty where there is nothing to compute.
template <class Plan>
std::optional<Line> attention_line(const tiles::AttentionProblem& p, Type out, const Plan& plan,
                                   Index common) {
  if (plan.cuts.empty()) return {};
  const Lengths each(p, plan);
  const Index seq_q = *std::max_element(each.q.begin(), each.q.end());
  const Index seq_kv = *std::max_element(each.kv.begin(), each.kv.end());
  if (seq_q == 0 || seq_kv == 0) return {};
  // Of one sequence alone it makes no difference.
  const auto packed = [&](Index tiles::Sequence::* first) {
    return std::any_of(plan.cuts.begin(), plan.cuts.end(),
                       [&](const auto& cut) { return cut.sequence.*first > 0; });
  };
  const bool packed_q = packed(&tiles::Sequence::first_query) || !all_equal(each.q);
  const bool packed_kv = packed(&tiles::Sequence::first_key);

  Line line("attention");
  line.sizes({p.batch.size, p.heads, p.kv_heads, seq_q, seq_kv, p.d_k, p.d_v});
  line.word(p.k.type != Type::f32, name(p.k.type));
  line.word(p.v.type != p.k.type, std::string("v") + name(p.v.type));
  line.word(p.q.type != plain(p.k.type), std::string("q") + name(p.q.type));
  line.word(out != p.q.type, std::string("out") + name(out));

  line.word(p.causal, "causal");
  line.number(p.window_left >= 0, "left", p.window_left);
  line.number(p.window_right >= 0, "right", p.window_right);
  line.number(p.chunk > 0, "chunk", p.chunk);
  line.number(p.prefix > 0, "prefix", p.prefix);
  if (!each.offsets_are_usual()) line.numbers("offset", each.offset, all_equal(each.offset));
  line.word(static_cast<bool>(p.q_segments), "segments");
  line.number(static_cast<bool>(p.tree), "tree", std::min(p.tree_keys, seq_kv));
  line.word(static_cast<bool>(p.mask), p.mask.head_stride == 0 ? "mask" : "headmask");
  line.word(static_cast<bool>(p.bias), p.bias.head_stride == 0 ? "bias" : "headbias");
  line.word(static_cast<bool>(p.slopes), "alibi");
  line.word(static_cast<bool>(p.sinks), "sinks");
  line.word(p.softcap > 0, "softcap");
  line.word(p.dropout.probability > 0, "dropout");
  line.word(static_cast<bool>(p.lse), "lse");

  if (!all_equal(each.kv)) line.numbers("lengths", each.kv, false);
  if (!all_equal(each.q)) line.numbers("queries", each.q, false);
  line.number(static_cast<bool>(p.pages.table), "page", p.pages.size);
  line.word(packed_q, "packedq");
  line.word(packed_kv, "packedkv");
  line.number(common > 0, "common", common);
  line.word(
      p.kv_heads > 1 ? heads_inside(p.k, p.kv_heads, seq_kv) : heads_inside(p.q, p.heads, seq_q),
      "bshd");
  return line;
}

}  // namespace

std::string case_of(const tiles::AttentionProblem& p, const tiles::AttentionPlan& plan) {
  const std::optional<Line> line =
      attention_line(p, p.out.type, plan, p.pages.table ? common_keys(plan) : 0);
  return line ? line->text() : "";
}

std::string case_of(const tiles::BackwardProblem& p, const tiles::BackwardPlan& plan) {
  std::optional<Line> line = attention_line(p.forward, p.out.type, plan, 0);
  if (!line) return "";
  line->word(true, "backward");
  const auto type = [&](const char* what, Type type, Type of) {
    line->word(type != of, std::string(what) + name(type));
  };
  type("dout", p.grad_out.type, p.out.type);
  type("dq", p.grad_q.type, p.forward.q.type);
  type("dk", p.grad_k.type, p.forward.k.type);
  type("dv", p.grad_v.type, p.forward.v.type);
  line->word(static_cast<bool>(p.grad_lse), "dlse");
  line->word(static_cast<bool>(p.grad_bias), "dbias");
  line->word(static_cast<bool>(p.grad_slopes), "dalibi");
  line->word(static_cast<bool>(p.grad_sinks), "dsinks");
  return line->text();
}

std::string case_of(const tiles::GemmProblem& p) {
  if (p.batch.size == 0 || p.m == 0 || p.n == 0 || p.k == 0) return "";
  Line line("gemm");
  line.sizes({p.m, p.n, p.k});
  line.word(p.b.type != Type::f32, name(p.b.type));
  line.word(p.a.type != plain(p.b.type), std::string("a") + name(p.a.type));
  line.number(p.batch.size > 1, "batch", p.batch.size);
  const auto transposed = [](const auto& array, Index unit, Index rows, Index columns) {
    return rows > 1 && columns > 1 && array.row_stride == unit && array.column_stride != unit;
  };
  line.word(transposed(p.a, tiles::bytes_of(p.a.type), p.m, p.k), "ta");
  line.word(transposed(p.b, tiles::bytes_of(p.b.type), p.k, p.n), "tb");
  line.word(transposed(p.c, 1, p.m, p.n), "tc");
  line.word(p.batch.size > 1 && std::all_of(p.b.batch_stride, p.b.batch_stride + p.batch.axes,
                                            [](Index stride) { return stride == 0; }),
            "oneb");
  line.word(p.beta != 0, "beta");
  line.word(p.bias != nullptr, "bias");
  line.word(p.finish == kernels::Finish::relu, "relu");
  line.word(p.finish == kernels::Finish::gelu, "gelu");
  return line.text();
}

}  // namespace rapt::plan
