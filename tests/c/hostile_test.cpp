// Hostile descriptors: calls of the C ABI that are right, with some of their numbers replaced by
// such as a bug or an attacker would pass. Each is refused with a sentence, or computed.
#include <gtest/gtest.h>

#include <climits>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "rapt/rapt.h"
#include "support/random.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

__extension__ using Wide = __int128;  // the keyword is for -Wpedantic
constexpr Wide kAddressSpace = Wide{1} << 60;

Wide bytes_of(std::int32_t type) {
  switch (type) {
    case RAPT_BF16:
    case RAPT_F16:
      return 2;
    case RAPT_INT8:
    case RAPT_BOOL:
      return 1;
    case RAPT_INT4:
      return sizeof(rapt_int4_group);
    case RAPT_UINT64:
      return 8;
    default:
      return 4;
  }
}

// What an array says, by arithmetic that cannot overflow.
struct Claim {
  bool no_rank = false, negative = false, beyond = false;  // each is refused
  bool inside = false;                                     // its memory holds it
  Wide elements = 1;                                       // as if no extent were 0
};
Claim claim_of(const rapt_array& array, const std::vector<char>& memory) {
  Claim claim;
  if (array.rank < 0 || array.rank > RAPT_MAX_AXES) return claim.no_rank = true, claim;
  const Wide bytes = bytes_of(array.type);
  Wide low = 0, high = 0, reach = 0;
  bool empty = false;
  for (int i = 0; i < array.rank; ++i) {
    const Wide extent = array.extents[i], stride = array.strides[i];
    claim.negative |= extent < 0;
    empty |= extent == 0;
    if (extent > 0) claim.elements = std::min(claim.elements * extent, Wide{1} << 63);
    if (extent <= 1) continue;
    constexpr Wide kFar = Wide{1} << 100;
    const Wide step = std::clamp((extent - 1) * stride, -kFar, kFar) * bytes;
    (step < 0 ? low : high) += step;
    reach += step < 0 ? -step : step;
  }
  claim.beyond = claim.elements * bytes > kAddressSpace || reach > kAddressSpace;
  claim.inside = empty || (low >= 0 && high + bytes <= static_cast<Wide>(memory.size()));
  return claim;
}

// A call that is right, with the memory of each array exactly as large as it must be.
class Call {
 public:
  std::string name;
  std::function<rapt_status()> run;
  std::vector<std::int64_t*> numbers;  // options

  const rapt_array* array(std::int32_t type, std::initializer_list<std::int64_t> extents,
                          bool optional = false) {
    Wide elements = 1;
    for (const std::int64_t extent : extents) elements *= extent;
    memory_.emplace_back(static_cast<std::size_t>(elements * bytes_of(type)));
    arrays_.push_back(
        rapt_dense(memory_.back().data(), type, static_cast<int>(extents.size()), extents.begin()));
    optional_.push_back(optional);
    return &arrays_.back();
  }
  const rapt_array* option(std::int32_t type, std::initializer_list<std::int64_t> extents) {
    return array(type, extents, true);
  }
  const rapt_array* ints(std::initializer_list<std::int32_t> values,
                         std::initializer_list<std::int64_t> extents) {
    const rapt_array* const made = option(RAPT_INT32, extents);
    std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(made->data));
    return made;
  }
  template <class Struct>
  Struct& options() {
    const auto made = std::make_shared<Struct>();
    std::memset(made.get(), 0, sizeof(Struct));
    made->size = sizeof(Struct);
    if constexpr (requires { made->executor; }) made->executor = rapt_serial_executor();
    structs_.push_back(made);
    return *made;
  }
  std::int64_t* number(std::int64_t value) {
    values_.push_back(value);
    numbers.push_back(&values_.back());
    return &values_.back();
  }

  void change(Random& random) {
    constexpr std::int64_t kMost = INT64_MAX, kLeast = INT64_MIN;
    const auto hostile = [&](std::int64_t now) {
      const auto wide = static_cast<std::uint64_t>(now);
      return random.pick<std::int64_t>({0,
                                        1,
                                        -1,
                                        2,
                                        3,
                                        31,
                                        33,
                                        INT_MAX,
                                        INT_MIN,
                                        std::int64_t{1} << 31,
                                        std::int64_t{1} << 32,
                                        std::int64_t{1} << 58,
                                        std::int64_t{1} << 61,
                                        std::int64_t{1} << 62,
                                        kMost,
                                        kLeast,
                                        kMost - 15,
                                        kMost / 4,
                                        static_cast<std::int64_t>(wide + 1),
                                        static_cast<std::int64_t>(wide - 1),
                                        static_cast<std::int64_t>(0 - wide),
                                        static_cast<std::int64_t>(wide * 2)});
    };
    if (!numbers.empty() && random.percent(20)) {
      std::int64_t& value = *numbers[static_cast<std::size_t>(
          random.between(0, static_cast<std::int64_t>(numbers.size()) - 1))];
      if (const std::int64_t other = hostile(value); other != 0) value = other;  // 0: not given
      return;
    }
    const auto which =
        static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(arrays_.size()) - 1));
    rapt_array& array = arrays_[which];
    const auto axis = static_cast<std::size_t>(random.between(0, std::max(array.rank % 8, 1) - 1));
    const std::int64_t kind = random.between(0, 99);
    if (kind < 35) {
      array.extents[axis] = hostile(array.extents[axis]);
    } else if (kind < 65) {
      array.strides[axis] = hostile(array.strides[axis]);
    } else if (kind < 75) {
      array.rank = static_cast<std::int32_t>(hostile(array.rank));
    } else if (kind < 83) {
      array.type = random.pick<std::int32_t>({-1, 0, 1, 2, 3, 4, 5, 32, 33, 34, INT_MAX});
    } else if (kind < 88) {
      array.data = nullptr;
    } else {  // what the array holds: lengths, positions, pages, scales
      std::vector<char>& memory = memory_[which];
      const std::size_t n = memory.size() / sizeof(std::int32_t);
      if (n == 0) return;
      const auto at = static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(n) - 1));
      const auto value = static_cast<std::int32_t>(hostile(5));
      std::memcpy(memory.data() + at * sizeof(value), &value, sizeof(value));
    }
  }

  enum class Verdict { unknown, must_refuse, may_run };
  Verdict verdict() const {
    bool refused = false, small = true;
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      const rapt_array& array = arrays_[i];
      if (array.data == nullptr && optional_[i]) continue;  // not given
      const Claim claim = claim_of(array, memory_[i]);
      const bool refuse = claim.no_rank || claim.negative || claim.beyond;
      if (!refuse && array.data != nullptr && !claim.inside) return Verdict::unknown;
      refused |= refuse;
      small &= claim.elements < 100000;
    }
    if (refused) return Verdict::must_refuse;
    return small ? Verdict::may_run : Verdict::unknown;
  }

  std::vector<char> bytes() const {
    std::vector<char> all;
    for (const std::vector<char>& memory : memory_)
      all.insert(all.end(), memory.begin(), memory.end());
    return all;
  }

 private:
  std::deque<rapt_array> arrays_;
  std::deque<std::vector<char>> memory_;
  std::vector<bool> optional_;
  std::deque<std::int64_t> values_;
  std::vector<std::shared_ptr<void>> structs_;
};

constexpr std::int64_t kBatch = 2, kHeads = 4, kKvHeads = 2, kSeqQ = 3, kSeqKv = 5, kDk = 32,
                       kDv = 32, kPages = 4, kPage = 2;

// Every mask and addition, on k and v of that type; kind 0: lengths, 1: pages, 2: packed.
void attention_of(Call& c, std::int32_t type, int kind) {
  c.name = "attention " + std::to_string(type) + " " + std::to_string(kind);
  const std::int64_t dk = type == RAPT_INT4 ? kDk / 32 : kDk, dv = type == RAPT_INT4 ? 1 : kDv;
  auto& o = c.options<rapt_attention_options>();
  const rapt_array *q, *k, *v, *out;
  if (kind == 2) {
    q = c.array(RAPT_F32, {kHeads, kSeqQ, kDk});
    k = c.array(type, {kKvHeads, kSeqKv, dk});
    v = c.array(type, {kKvHeads, kSeqKv, dv});
    out = c.array(RAPT_F32, {kHeads, kSeqQ, kDv});
    o.cu_seqlens_q = c.ints({0, 1, 3}, {3});
    o.cu_seqlens_kv = c.ints({0, 4, 5}, {3});
    o.lse = c.option(RAPT_F32, {kHeads, kSeqQ});
  } else {
    q = c.array(RAPT_F32, {kBatch, kHeads, kSeqQ, kDk});
    out = c.array(RAPT_F32, {kBatch, kHeads, kSeqQ, kDv});
    const std::int64_t rows = kind == 1 ? kPage : kSeqKv, of = kind == 1 ? kPages : kBatch;
    k = c.array(type, {of, kKvHeads, rows, dk});
    v = c.array(type, {of, kKvHeads, rows, dv});
    const std::int64_t keys = kind == 1 ? 2 * kPage : kSeqKv;
    o.kv_lengths = c.ints({3, 2}, {kBatch});
    if (kind == 1) o.block_table = c.ints({3, 0, 1, 2}, {kBatch, 2});
    o.lse = c.option(RAPT_F32, {kBatch, kHeads, kSeqQ});
    o.mask = c.option(RAPT_BOOL, {1, kSeqQ, keys});
    o.bias = c.option(RAPT_F32, {kBatch, kHeads, kSeqQ, keys});
    o.q_segments = c.ints({0, 0, 0, 0, 0, 0}, {kBatch, kSeqQ});
    o.kv_segments = c.option(RAPT_INT32, {kBatch, keys});
    o.q_offsets = c.ints({1, 2}, {kBatch});
  }
  if (type == RAPT_INT8) {
    o.k_scales = c.option(RAPT_F32, {kKvHeads, 1});
    o.v_scales = c.option(RAPT_F32, {1, 1});
  }
  o.alibi_slopes = c.option(RAPT_F32, {kHeads});
  o.sinks = c.option(RAPT_F32, {kHeads});
  o.window_left = c.number(4);
  o.window_right = c.number(-1);
  c.numbers.insert(c.numbers.end(), {&o.chunk, &o.prefix, &o.tree_keys});
  c.run = [=, &o] {
    rapt_plan* plan = nullptr;
    rapt_status status = rapt_plan_create(&plan, q, k, v, out, &o);
    const rapt_status planned = status;
    if (status == RAPT_OK) status = rapt_plan_run(plan, nullptr, nullptr, 0);
    rapt_plan_destroy(plan);
    EXPECT_EQ(planned, rapt_attention(q, k, v, out, &o));
    return status;
  };
}

// The gradients of all that has some; kind 0: lengths, 1: packed.
void backward_of(Call& c, std::int32_t type, int kind) {
  c.name = "backward " + std::to_string(type) + " " + std::to_string(kind);
  auto& o = c.options<rapt_attention_options>();
  auto& b = c.options<rapt_backward_options>();
  const bool packed = kind == 1;
  const auto array = [&](std::int32_t of, std::int64_t heads, std::int64_t seq,
                         std::int64_t depth) {
    return packed ? c.array(of, {heads, seq, depth}) : c.array(of, {kBatch, heads, seq, depth});
  };
  const auto numbers = [&](bool optional) {
    return packed ? c.array(RAPT_F32, {kHeads, kSeqQ}, optional)
                  : c.array(RAPT_F32, {kBatch, kHeads, kSeqQ}, optional);
  };
  const rapt_array *q = array(type, kHeads, kSeqQ, kDk), *k = array(type, kKvHeads, kSeqKv, kDk),
                   *v = array(type, kKvHeads, kSeqKv, kDv), *out = array(type, kHeads, kSeqQ, kDv),
                   *lse = numbers(false), *dout = array(type, kHeads, kSeqQ, kDv),
                   *dq = array(RAPT_F32, kHeads, kSeqQ, kDk),
                   *dk = array(type, kKvHeads, kSeqKv, kDk),
                   *dv = array(RAPT_F32, kKvHeads, kSeqKv, kDv);
  const std::int64_t longest = packed ? 4 : kSeqKv;
  if (packed) {
    o.cu_seqlens_q = c.ints({0, 1, 3}, {3});
    o.cu_seqlens_kv = c.ints({0, 4, 5}, {3});
  } else {
    o.kv_lengths = c.ints({3, 2}, {kBatch});
    o.mask = c.option(RAPT_BOOL, {1, kSeqQ, longest});
  }
  o.bias = c.option(RAPT_F32, {kHeads, kSeqQ, longest});
  o.alibi_slopes = c.option(RAPT_F32, {kHeads});
  o.sinks = c.option(RAPT_F32, {kHeads});
  b.grad_lse = numbers(true);
  b.grad_bias = c.option(RAPT_F32, {kHeads, kSeqQ, longest});
  b.grad_alibi_slopes = c.option(RAPT_F32, {kHeads});
  b.grad_sinks = c.option(RAPT_F32, {kHeads});
  o.window_left = c.number(4);
  o.window_right = c.number(-1);
  c.numbers.insert(c.numbers.end(), {&o.chunk, &o.prefix});
  c.run = [=, &o, &b] {
    rapt_plan* plan = nullptr;
    rapt_status status =
        rapt_plan_create_backward(&plan, q, k, v, out, lse, dout, dq, dk, dv, &o, &b);
    const rapt_status planned = status;
    if (status == RAPT_OK) status = rapt_plan_run_backward(plan, nullptr, nullptr, 0);
    rapt_plan_destroy(plan);
    EXPECT_EQ(planned, rapt_attention_backward(q, k, v, out, lse, dout, dq, dk, dv, &o, &b));
    return status;
  };
}

void append_of(Call& c, std::int32_t type, bool paged) {
  c.name = "append_kv " + std::to_string(type) + (paged ? " paged" : "");
  const std::int64_t depth = type == RAPT_INT4 ? 1 : kDk, of = paged ? kPages : kBatch,
                     rows = paged ? kPage : kSeqKv;
  auto& o = c.options<rapt_append_options>();
  auto& rotation = c.options<rapt_rotation>();
  const rapt_array *k = c.array(RAPT_F32, {kBatch, kKvHeads, 1, kDk}),
                   *v = c.array(RAPT_BF16, {kBatch, kKvHeads, 1, kDv}),
                   *k_cache = c.array(type, {of, kKvHeads, rows, depth}),
                   *v_cache = c.array(type, {of, kKvHeads, rows, depth});
  o.kv_lengths = c.ints({3, 2}, {kBatch});
  if (paged) o.block_table = c.ints({3, 0, 1, 2}, {kBatch, 2});
  if (type == RAPT_INT8) {
    o.k_scales = c.option(RAPT_F32, {of, kKvHeads, rows});
    o.v_scales = c.option(RAPT_F32, {of, kKvHeads, rows});
  }
  o.positions = c.ints({7, 8}, {kBatch, 1});
  rotation.dims = 16;
  rotation.frequency_factors = c.option(RAPT_F32, {8});
  std::fill_n(static_cast<float*>(rotation.frequency_factors->data), 8, 1.0f);
  o.rope = &rotation;
  c.numbers.push_back(&rotation.dims);
  c.run = [=, &o] { return rapt_append_kv(k, v, k_cache, v_cache, &o); };
}

void gemm_of(Call& c, std::int32_t type) {
  c.name = "gemm " + std::to_string(type);
  auto& o = c.options<rapt_gemm_options>();
  const rapt_array *a = c.array(RAPT_F32, {kBatch, 3, 5}), *b = c.array(type, {5, 7}),
                   *to = c.array(RAPT_F32, {kBatch, 3, 7});
  o.bias = c.option(RAPT_F32, {7});
  if (type == RAPT_INT8) o.b_scales = c.option(RAPT_F32, {7});
  c.run = [=, &o] { return rapt_gemm(a, b, to, &o); };
}

void rest(Call& c, int which) {
  const std::int64_t rows = 3;
  switch (which) {
    case 0: {
      c.name = "merge";
      const rapt_array *out = c.array(RAPT_F32, {kBatch, kHeads, rows, kDv}),
                       *lse = c.option(RAPT_F32, {kBatch, kHeads, rows}),
                       *part = c.array(RAPT_BF16, {kBatch, kHeads, rows, kDv}),
                       *part_lse = c.array(RAPT_F32, {kBatch, kHeads, rows});
      c.run = [=] {
        const rapt_attention_part parts[] = {{part, part_lse}, {part, part_lse}};
        return rapt_merge(parts, 2, out, lse, rapt_serial_executor());
      };
      return;
    }
    case 1: {
      c.name = "rope";
      auto& o = c.options<rapt_rope_options>();
      auto& rotation = c.options<rapt_rotation>();
      const rapt_array *x = c.array(RAPT_F32, {kBatch, kHeads, rows, kDk}),
                       *to = c.array(RAPT_F16, {kBatch, kHeads, rows, kDk});
      rotation.dims = kDk;
      c.numbers.push_back(&rotation.dims);
      o.first_positions = c.ints({1, 2}, {kBatch});
      c.run = [=, &o, &rotation] { return rapt_rope(x, to, &rotation, &o); };
      return;
    }
    case 2: {
      c.name = "quantize";
      const rapt_array *x = c.array(RAPT_F32, {kHeads, rows, kDk}),
                       *to = c.array(RAPT_INT8, {kHeads, rows, kDk}),
                       *scales = c.option(RAPT_F32, {kHeads, rows}),
                       *back = c.array(RAPT_BF16, {kHeads, rows, kDk});
      c.run = [=] {
        const rapt_status there = rapt_quantize(x, to, scales, rapt_serial_executor());
        const rapt_status again = rapt_dequantize(to, scales, back, rapt_serial_executor());
        return there == RAPT_OK ? again : there;
      };
      return;
    }
    case 3: {
      c.name = "salience_map";
      auto& o = c.options<rapt_attention_options>();
      const rapt_array *q = c.array(RAPT_F32, {kHeads, kSeqQ, kDk}),
                       *k = c.array(RAPT_F32, {kKvHeads, kSeqKv, kDk}),
                       *map = c.array(RAPT_F32, {kHeads, kSeqQ, kSeqKv});
      o.bias = c.option(RAPT_F32, {1, kSeqQ, kSeqKv});
      o.tree = c.option(RAPT_UINT64, {kSeqQ, 1});
      o.tree_keys = 3;
      c.numbers.insert(c.numbers.end(), {&o.chunk, &o.prefix, &o.tree_keys});
      c.run = [=, &o] { return rapt_salience_map(q, k, map, &o, nullptr, nullptr); };
      return;
    }
    default: {
      c.name = "layer";
      auto& shape = c.options<rapt_layer_shape>();
      const rapt_layer_shape right = {sizeof(right), 8, 4, 2, 3, 5};
      shape = right;
      c.numbers.insert(c.numbers.end(),
                       {&shape.embedding, &shape.d_model, &shape.heads, &shape.d_k, &shape.d_v});
      const rapt_array *tokens = c.array(RAPT_F32, {kBatch, rows, 8}),
                       *to = c.array(RAPT_F32, {kBatch, rows, 8});
      c.run = [=, &shape] {
        rapt_layer* layer = nullptr;
        // A layer that is right for an address space but not for this test is not made.
        for (const std::int64_t* n :
             {&shape.embedding, &shape.d_model, &shape.heads, &shape.d_k, &shape.d_v})
          if (*n > 64 && *n <= 1 << 20) return RAPT_BAD_VALUE;
        rapt_status status = rapt_layer_create_random(&layer, &shape, 1);
        if (status == RAPT_OK) status = rapt_layer_run(layer, tokens, tokens, tokens, to, nullptr);
        rapt_layer_activations* kept = nullptr;
        if (status == RAPT_OK) status = rapt_layer_activations_create(&kept);
        if (status == RAPT_OK)
          status = rapt_layer_forward(layer, tokens, tokens, tokens, to, kept, nullptr);
        rapt_layer_gradients gradients{};
        gradients.size = sizeof(gradients);
        gradients.k_tokens = to;
        if (status == RAPT_OK)
          status = rapt_layer_backward(layer, tokens, tokens, tokens, kept, tokens, &gradients,
                                       nullptr, nullptr);
        rapt_layer_activations_destroy(kept);
        rapt_layer_destroy(layer);
        return status;
      };
    }
  }
}

void make(Call& call, std::int64_t which) {
  constexpr std::int32_t kTypes[] = {RAPT_F32, RAPT_BF16, RAPT_INT8, RAPT_INT4};
  if (which < 12) return attention_of(call, kTypes[which % 4], static_cast<int>(which / 4));
  if (which < 20) return append_of(call, kTypes[which % 4], which < 16);
  if (which < 23) return gemm_of(call, kTypes[which % 3]);
  if (which < 27) return backward_of(call, kTypes[which % 2], static_cast<int>(which / 25));
  rest(call, static_cast<int>(which - 27));
}
constexpr std::int64_t kCalls = 32;

TEST(Hostile, TheCallsAreRightBeforeTheyAreChanged) {
  for (std::int64_t which = 0; which < kCalls; ++which) {
    Call call;
    make(call, which);
    EXPECT_EQ(call.verdict(), Call::Verdict::may_run) << call.name;
    EXPECT_EQ(call.run(), RAPT_OK) << call.name << ": " << rapt_last_error();
  }
}

TEST(Hostile, NumbersAreRefusedOrComputed) {  // B19, B45
  std::int64_t refused = 0, computed = 0;
  Seeds(83, cases(60000)).for_each([&](std::uint64_t seed) {
    Random random(seed);
    Call call;
    make(call, random.between(0, kCalls - 1));
    for (std::int64_t n = random.between(1, 3); n > 0; --n) call.change(random);
    const Call::Verdict verdict = call.verdict();
    if (verdict == Call::Verdict::unknown) return;
    const std::vector<char> before = call.bytes();
    const rapt_status status = call.run();
    SCOPED_TRACE(call.name + ", seed " + std::to_string(seed) + ": " + rapt_last_error());
    (status == RAPT_OK ? computed : refused) += 1;
    if (status == RAPT_OK) {
      EXPECT_TRUE(verdict == Call::Verdict::may_run) << "taken, which no memory holds";
      return;
    }
    EXPECT_GT(status, 0);  // not UNKNOWN_ERROR, nor OUT_OF_MEMORY of such small calls
    EXPECT_STRNE(rapt_last_error(), "");
    if (call.name != "quantize") {
      EXPECT_EQ(before, call.bytes()) << "something was written";
    }
  });
  EXPECT_GT(refused, cases(20000));
  EXPECT_GT(computed, cases(1000));
}

}  // namespace
}  // namespace rapt::tests
