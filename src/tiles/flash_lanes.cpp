// flash_lanes: attention for many rows. The lanes of a vector are rows (queries), so the softmax
// runs down the registers with nothing to do across lanes, and K and V are read where they lie:
// neither is packed. (But K is transposed for kernels that multiply paired rows.)
//
//   panel   NR rows side by side (NR = columns of the register tile), as columns of
//   qt      [d_k, NR]       q, transposed once per task
//   s       [keys, NR]      scores of one block of keys, then their p
//   ot      [d_v, NR]       the output so far, transposed back at the end
//
//   for each block of keys:   for each panel:
//     s  = K qt               step 1, K broadcast
//     s  = p = softmax step   steps 3 to 5
//     ot = ot * rescale + V^T s   step 6, V^T broadcast
//
// Where one block has all keys, and few, transposing ot would take as long as some of its products:
// then out = p^T V at once, of weights that are divided by their sum before.
//
// flash_pairs is the same on pairs of bf16, for CPUs that multiply them: where flash_lanes has a
// float, it has two neighbours along the axis that a product sums over. Those of q and K lie side
// by side; those of p and V, of two keys, are packed.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "tiles/dropout.hpp"
#include "tiles/lane_bias.hpp"
#include "tiles/pairs_down.hpp"
#include "tiles/scores.hpp"
#include "tiles/task.hpp"
#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

Index round_up(Index n, Index step) { return (n + step - 1) / step * step; }

// K or V of a block of keys, as a product reads it, and as it is stored: without rows where those
// are not at equal distances, or not read by each panel.
struct Operand {
  KeyBlock block;
  StoredRows stored = {};
  bool transposed =
      false;  // block.row is from element to element, and keys, or pairs, are adjacent
};

// What the products of a block of keys read: floats.
class Floats {
 public:
  static constexpr Index kNumbers = 1;  // in an element
  static auto product(const AttentionPlan& plan) { return plan.tile->product; }

  Floats(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut, Workspace& workspace)
      : k_in_place_(KeyReader::in_place(p, p.k)),
        v_in_place_(KeyReader::in_place_down(p, p.v, p.d_v)),
        k_copy_(workspace.floats(k_in_place_ ? 0 : cut.block_kv * p.d_k)),
        v_copy_(workspace.floats(v_in_place_ ? 0 : cut.block_kv * p.d_v)),
        v_zeroed_(workspace.floats(may_mask(p) ? cut.block_kv * p.d_v : 0)),
        k_row_(transposes(plan, cut) ? round_up(cut.block_kv, kLine) + kLine : 0),
        k_transposed_(workspace.floats(k_row_ * p.d_k)),
        k_rows_(workspace.pointers<const float>(k_row_)) {}

  // A row of q: where it lies, at q_stride, or in `copy` [d_k].
  static const float* q_row(const AttentionProblem& p, const kernels::Kernels& kernel,
                            const std::byte* row, float* copy) {
    if (p.q.type == Type::f32) return reinterpret_cast<const float*>(row);
    read_row(kernel, p.q, row, p.d_k, copy);
    return copy;
  }
  static Index q_stride(const AttentionProblem& p) {
    return p.q.type == Type::f32 ? p.q.column_stride / bytes_of(Type::f32) : 1;
  }

  Operand k(const kernels::Kernels& kernel, const KeyReader& reader, Keys keys) const {
    Operand k = operand(reader.floats(keys, k_in_place_, k_copy_), k_in_place_);
    if (k_row_ == 0) return k;
    for (Index j = 0; j < keys.count(); ++j) k_rows_[j] = k.block.data + j * k.block.row;
    kernel.pack_rows({.source = k_rows_,
                      .stride = 1,
                      .rows = keys.count(),
                      .length = reader.depth(),
                      .panel = k_transposed_,
                      .panel_row = k_row_,
                      .columns = round_up(keys.count(), kernel.lanes)});
    k.block = {k_transposed_, k_row_};
    k.transposed = true;
    return k;
  }
  Operand v(const kernels::Kernels& kernel, const KeyReader& reader, Keys keys) {
    const Operand v = operand(reader.floats(keys, v_in_place_, v_copy_), v_in_place_);
    not_finite_.emplace(kernel, stored_rows(v.block), keys.count(), reader.depth(), v_zeroed_);
    return v;
  }
  // Values with NaN or infinity, of the last v().
  NotFinite& not_finite() { return *not_finite_; }
  KeyBlock finite_v() const {
    const StoredRows rows = not_finite_->zeroed();
    return {reinterpret_cast<const float*>(rows.first), rows.stride / bytes_of(Type::f32)};
  }
  // p [n, NR] as floats, in place.
  static void unpack_weights(float*, Index, Index) {}

 private:
  static Operand operand(KeyBlock block, bool in_place) {
    return {block, in_place ? stored_rows(block) : StoredRows{}};
  }

  // What it costs to transpose a block of keys is less than what it saves in three panels.
  static bool transposes(const AttentionPlan& plan, const Cut& cut) {
    return plan.kernels->paired_rows && cut.block_q > 2 * plan.tile->columns;
  }

  bool k_in_place_, v_in_place_;
  float *k_copy_, *v_copy_, *v_zeroed_;  // [block_kv, d_k], [block_kv, d_v] twice
  // A line more than a block's keys, so that the rows do not share sets of L1; or 0.
  static constexpr Index kLine = 16;
  Index k_row_;
  float* k_transposed_;   // [d_k, k_row_]
  const float** k_rows_;  // [block_kv]
  std::optional<NotFinite> not_finite_;
};

// Pairs of bf16.
class Pairs {
 public:
  static constexpr Index kNumbers = 2;
  static auto product(const AttentionPlan& plan) { return plan.tile->pair_product; }

  Pairs(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut, Workspace& workspace)
      : k_in_place_(KeyReader::pairs_in_place(p, p.k, p.d_k)),
        k_copy_(workspace.floats(k_in_place_ ? 0 : cut.block_kv * pairs(p.d_k))),
        v_down_(cut.block_kv, p.d_v, plan.tile->columns, workspace),
        v_pairs_(workspace.floats(v_down_.floats())),
        v_finite_(workspace.floats(may_mask(p) ? v_down_.floats() : 0)) {}

  static const float* q_row(const AttentionProblem& p, const kernels::Kernels&,
                            const std::byte* row, float* copy) {
    copy_pairs(row, p.q.column_stride, p.d_k, copy);
    return copy;
  }
  static Index q_stride(const AttentionProblem&) { return 1; }

  Operand k(const kernels::Kernels&, const KeyReader& reader, Keys keys) const {
    const KeyBlock block = reader.pairs(keys, k_in_place_, k_copy_);
    return {block, k_in_place_ ? stored_rows(block) : StoredRows{}};
  }
  Operand v(const kernels::Kernels& kernel, const KeyReader& reader, Keys keys) {
    kernel_ = &kernel;
    v_ = reader.rows(keys, nullptr);
    keys_ = keys.count();
    not_finite_.emplace(kernel, v_, keys_, reader.depth(), nullptr);
    return {transposed(false, v_pairs_), v_, true};
  }
  NotFinite& not_finite() { return *not_finite_; }
  KeyBlock finite_v() const { return transposed(true, v_finite_); }
  static void unpack_weights(float* p, Index n, Index columns) {
    for (Index i = pairs(n) - 1; i >= 0; --i) {
      for (Index r = 0; r < columns; ++r) {
        BFloat16 pair[2];
        std::memcpy(pair, p + i * columns + r, sizeof(pair));
        if (2 * i + 1 < n) p[(2 * i + 1) * columns + r] = to_float(pair[1]);
        p[2 * i * columns + r] = to_float(pair[0]);
      }
    }
  }

 private:
  static Index pairs(Index n) { return round_up(n, kNumbers) / kNumbers; }

  KeyBlock transposed(bool finite, float* to) const {
    return v_down_.transpose(*kernel_, v_, keys_, finite, to);
  }

  bool k_in_place_;
  float* k_copy_;  // [block_kv, d_k / 2]
  PairsDown v_down_;
  float *v_pairs_, *v_finite_;
  StoredRows v_{};  // the last v()
  Index keys_ = 0;
  const kernels::Kernels* kernel_ = nullptr;
  std::optional<NotFinite> not_finite_;
};

// What one worker needs.
template <class Numbers>
struct Buffers {
  Numbers numbers;
  float *qt, *ot;            // [panels, d_k, NR], [panels, d_v, NR]
  float *row_max, *row_sum;  // [panels, NR]
  float* rescale;            // [NR]
  const float** beta;        // [panels] of ot: rescale, or null while nothing is there
  float *s, *bias;           // [block_kv, NR]
  float* row_copy;           // [NR, d_k] or [NR, d_v], of q or out
  const float** q_rows;      // [NR]
  float** out_rows;          // [NR]
  DropoutRows dropout;       // [panels, NR]
  LaneBias lane_bias;

  Buffers(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut,
          Workspace& workspace)
      : numbers(p, plan, cut, workspace),
        dropout(p, round_up(cut.block_q, plan.tile->columns), workspace),
        lane_bias(plan.tile->columns, workspace) {
    const Index columns = plan.tile->columns;
    const Index panels = (cut.block_q + columns - 1) / columns;
    qt = workspace.floats(panels * p.d_k * columns);
    ot = workspace.floats(panels * p.d_v * columns);
    row_max = workspace.floats(panels * columns);
    row_sum = workspace.floats(panels * columns);
    rescale = workspace.floats(columns);
    beta = workspace.pointers<const float>(panels);
    s = workspace.floats(cut.block_kv * columns);
    bias = workspace.floats(cut.block_kv * columns);
    const bool copies = p.q.type != Type::f32 || p.out.type != Type::f32;
    row_copy = workspace.floats(copies ? columns * std::max(p.d_k, p.d_v) : 0);
    q_rows = workspace.pointers<const float>(columns);
    out_rows = workspace.pointers<float>(columns);
  }
};

const char* refuse(const AttentionProblem& p, const Sequence& sequence,
                   const AttentionBlocks& blocks) {
  if (p.dropout.probability > 0) return nullptr;  // flash_rows has none
  // Of fewer keys flash_rows loses more with each block of rows that it begins.
  constexpr Index kFewKeys = 64;
  const Index few_rows = sequence.seq_kv < kFewKeys ? blocks.short_rows * 3 / 4 : blocks.short_rows;
  if (sequence.seq_q * p.group <= few_rows)
    return "the problem has few rows (group x seq_q at most short_rows): lanes would be idle";
  return nullptr;
}

template <class Numbers>
void cut(const AttentionProblem&, const AttentionPlan& plan, const AttentionBlocks& blocks,
         Cut& cut) {
  const Index columns = plan.tile->columns;
  // Blocks of equal height, in whole panels. Pairs are multiplied so fast that to pack V for each
  // block shows: where there are many rows, twice as many of them do it once (6 % with matrix
  // tiles, d 128).
  constexpr Index kMany = 2048;
  const Index block_q = cut.rows >= kMany ? blocks.block_q * Numbers::kNumbers : blocks.block_q;
  const Index wanted = std::max(round_up(block_q, columns), columns);
  const Index n_blocks = std::max<Index>((cut.rows + wanted - 1) / wanted, 1);
  cut.block_q = std::max(round_up((cut.rows + n_blocks - 1) / n_blocks, columns), columns);
  // As many elements, whatever they hold: pairs are 192 in place of 182 GFLOP/s so, d 128 on Zen 4.
  const Index block_kv = blocks.block_kv * Numbers::kNumbers;
  cut.block_kv = std::max<Index>(std::min(block_kv, cut.sequence.seq_kv), 1);
  cut.row_blocks = (cut.rows + cut.block_q - 1) / cut.block_q;
  // Where one unit holds all rows of a KV head, its keys make the tasks, or there would be none for
  // other threads.
  cut.part_kv = cut.row_blocks == 1 ? round_up(blocks.split_kv, block_kv)
                                    : std::max<Index>(cut.sequence.seq_kv, 1);
}

const char* refuse_of_pairs(const AttentionProblem& p, const Sequence& sequence,
                            const AttentionBlocks& blocks) {
  if (const char* reason = refuse_pairs(p, p.out.type, blocks)) return reason;
  return refuse(p, sequence, blocks);
}

template <class Numbers>
Index workspace(const AttentionProblem& p, const AttentionPlan& plan, const Cut& cut) {
  Workspace count(nullptr);
  Buffers<Numbers>(p, plan, cut, count);
  return count.used();
}

// Whether the product itself may write the rows of a task: of all its keys at once, to where they
// lie at equal distances, in whole panels. The sequence decides, not what of it is masked, since
// bits differ. With vectors of 8 floats there is nothing to gain.
template <class Numbers>
bool writes_out(const AttentionPlan& plan, const Task& task) {
  constexpr int kLanes = 16;
  constexpr Index kFewKeys = 128;  // of more, to transpose ot is little of the work
  const AttentionProblem& p = *task.rows.problem;
  return plan.kernels->lanes >= kLanes && Numbers::kNumbers == 1 && task.partial.out == nullptr &&
         p.group == 1 && task.cut->sequence.seq_kv <= std::min(task.cut->block_kv, kFewKeys) &&
         p.out.type == Type::f32 && p.out.contiguous() && p.d_v % plan.tile->columns == 0;
}

// What the next task begins with.
struct Ahead {
  kernels::NextRows q{}, k{}, v{}, out{};

  Ahead(const AttentionPlan& plan, const Task* next) {
    if (next == nullptr) return;
    const Rows& rows = next->rows;
    const AttentionProblem& p = *rows.problem;
    const Keys keys{next->keys.begin,
                    std::min(next->keys.end, next->keys.begin + next->cut->block_kv)};
    k = KeyReader(*plan.kernels, rows, p.k, p.k_scales, p.d_k).next(keys);
    v = KeyReader(*plan.kernels, rows, p.v, p.v_scales, p.d_v).next(keys);
    if (p.group > 1) return;  // its rows are not at equal distances
    q = all(rows, p.q, p.d_k);
    out = all(rows, p.out, p.d_v);
  }

 private:
  template <class Byte>
  static kernels::NextRows all(const Rows& rows, const Stored<Byte>& array, Index depth) {
    if (!array.contiguous()) return {};
    return {.first = rows.at(array, 0),
            .stride = array.row_stride,
            .rows = rows.count,
            .row_bytes = bytes_of_row(array.type, depth)};
  }
};

template <class Numbers>
void run(const AttentionPlan& plan, const Task& task, float* memory) {
  const AttentionProblem& p = *task.rows.problem;
  const kernels::Kernels& kernel = *plan.kernels;
  const Index columns = plan.tile->columns;
  Workspace workspace(memory);
  Buffers<Numbers> buffers(p, plan, *task.cut, workspace);
  Numbers& numbers = buffers.numbers;
  const auto product = Numbers::product(plan);
  const auto elements = [](Index n) { return round_up(n, Numbers::kNumbers) / Numbers::kNumbers; };
  const Rows& rows = task.rows;
  buffers.dropout.load(rows);
  const KeyReader read_k(kernel, rows, p.k, p.k_scales, p.d_k);
  const KeyReader read_v(kernel, rows, p.v, p.v_scales, p.d_v);
  const Index block_kv = task.cut->block_kv;
  const Index panels = (rows.count + columns - 1) / columns;

  for (Index panel = 0; panel < panels; ++panel) {
    const Rows part = rows.part(panel * columns, columns);
    const auto q = part.of(p.q);
    for (Index r = 0; r < part.count; ++r)
      buffers.q_rows[r] = Numbers::q_row(p, kernel, q(r), buffers.row_copy + r * p.d_k);
    kernel.pack_rows({.source = buffers.q_rows,
                      .stride = Numbers::q_stride(p),
                      .rows = part.count,
                      .length = elements(p.d_k),
                      .panel = buffers.qt + panel * p.d_k * columns,
                      .panel_row = columns,
                      .columns = columns});
  }
  std::fill_n(buffers.row_max, panels * columns, -std::numeric_limits<float>::infinity());
  std::fill_n(buffers.row_sum, panels * columns, 0.0f);
  begin_rows(task, buffers.row_max, buffers.row_sum);
  std::fill_n(buffers.beta, panels, nullptr);
  std::fill_n(buffers.rescale, columns, 0.0f);
  const ScoreUnits units(p);
  const Ahead ahead(plan, task.next);

  const auto reach = [&](Index panel) {
    return reachable_keys(rows.part(panel * columns, columns)).end;
  };
  const bool writes = writes_out<Numbers>(plan, task);
  Index first = 0;  // panel that reaches the block: those before it do not, nor any later block
  for (Index begin = task.keys.begin; begin < task.keys.end; begin += block_kv) {
    const Keys block{begin, std::min(begin + block_kv, task.keys.end)};
    while (first < panels && reach(first) <= begin) ++first;
    const Operand k = numbers.k(kernel, read_k, block);
    const Operand v = numbers.v(kernel, read_v, block);
    // What is asked for meanwhile, each panel a share: the next block, or the next task.
    const bool last_block = block.end == task.keys.end;
    const Keys coming{block.end, std::min(block.end + block_kv, task.keys.end)};
    const kernels::NextRows next_q = last_block ? ahead.q : kernels::NextRows{},
                            next_k = last_block ? ahead.k
                                                : next_rows(k.stored, bytes_of_row(p.k.type, p.d_k),
                                                            block, coming),
                            next_v = last_block ? ahead.v
                                                : next_rows(v.stored, bytes_of_row(p.v.type, p.d_v),
                                                            block, coming),
                            next_out = last_block ? ahead.out : kernels::NextRows{};
    for (Index panel = first; panel < panels; ++panel) {
      const Rows part = rows.part(panel * columns, columns);
      const auto share = [&](const kernels::NextRows& next) {
        return share_of(next, panel - first, panels - first);
      };
      const Index reachable = reach(panel) - begin;
      // Whole elements: masked, where they are beyond reach.
      const Keys keys{begin, std::min(block.end, begin + round_up(reachable, Numbers::kNumbers))};
      const Index n = keys.count();
      const Cover covered = cover(part, keys);
      if (covered.none) continue;
      float* ot = buffers.ot + panel * p.d_v * columns;
      float* row_max = buffers.row_max + panel * columns;
      float* row_sum = buffers.row_sum + panel * columns;

      // s[j, r] = k_j . q_r
      product({.a = k.block.data,
               .a_row = k.transposed ? 1 : k.block.row,
               .a_inner = k.transposed ? k.block.row : 1,
               .b = buffers.qt + panel * p.d_k * columns,
               .b_inner = columns,
               .c = buffers.s,
               .c_row = columns,
               .c_column = 1,
               .rows = n,
               .inner = elements(p.d_k),
               .columns = columns,
               .alpha = 1.0f,
               .beta = nullptr,
               .next = {share(next_k), share(next_q)}});

      // p[j, r] = exp(s - max)
      const bool masked = covered.whole < n;
      if (masked) {
        buffers.lane_bias.fill(kernel, part, {keys.begin + covered.whole, keys.end},
                               buffers.bias + covered.whole * columns, columns);
      }
      kernel.softmax_lanes({.s = buffers.s,
                            .bias = masked ? buffers.bias : nullptr,
                            .s_row = columns,
                            .n = n,
                            .bias_begin = covered.whole,
                            .pairs = Numbers::kNumbers == 2,
                            .all = writes,
                            .rows = part.count,
                            .pre_scale = units.pre_scale,
                            .softcap = p.softcap,
                            .scale = units.exponent_scale,
                            .row_max = row_max,
                            .row_sum = row_sum,
                            .rescale = buffers.rescale});

      buffers.dropout.apply(kernel, p.dropout, keys, panel * columns, part.count, buffers.s,
                            columns);

      const bool care = masked && numbers.not_finite().any();
      const KeyBlock values = care ? numbers.finite_v() : v.block;
      if (writes) {  // out[r, x] = sum_j p[j, r] v[j, x]
        buffers.beta[panel] = buffers.rescale;
        auto* out = reinterpret_cast<float*>(part.at(p.out, 0));
        const Index out_row = p.out.row_stride / bytes_of(Type::f32);
        for (Index x = 0; x < p.d_v; x += columns) {
          product({.a = buffers.s,
                   .a_row = 1,
                   .a_inner = columns,
                   .b = values.data + x,
                   .b_inner = values.row,
                   .c = out + x,
                   .c_row = out_row,
                   .c_column = 1,
                   .rows = part.count,
                   .inner = n,
                   .columns = columns,
                   .alpha = 1.0f,
                   .beta = nullptr,
                   .next = {share_of(share(next_v), x / columns, p.d_v / columns),
                            share_of(share(next_out), x / columns, p.d_v / columns)}});
        }
        if (care) {
          numbers.not_finite().add(n, covered.whole, part.count, buffers.s, buffers.bias, 1,
                                   columns, out, out_row, 1);
        }
        continue;
      }

      // ot[x, r] = ot[x, r] * rescale[r] + sum_j v[j, x] p[j, r]
      product({.a = values.data,
               .a_row = v.transposed ? values.row : 1,
               .a_inner = v.transposed ? 1 : values.row,
               .b = buffers.s,
               .b_inner = columns,
               .c = ot,
               .c_row = columns,
               .c_column = 1,
               .rows = p.d_v,
               .inner = elements(n),
               .columns = columns,
               .alpha = 1.0f,
               .beta = std::exchange(buffers.beta[panel], buffers.rescale),
               .next = {share(next_v), share(next_out)}});
      if (care) {
        Numbers::unpack_weights(buffers.s, n, columns);
        numbers.not_finite().add(n, covered.whole, part.count, buffers.s, buffers.bias, 1, columns,
                                 ot, 1, columns);
      }
    }
  }

  const bool last = task.partial.out == nullptr;
  if (!last) {
    std::copy_n(buffers.row_max, rows.count, task.partial.row_max);
    std::copy_n(buffers.row_sum, rows.count, task.partial.row_sum);
    std::fill_n(buffers.rescale, columns, 1.0f);
  }
  const bool direct = last && p.out.type == Type::f32;
  for (Index panel = 0; panel < panels; ++panel) {
    if (writes && buffers.beta[panel] != nullptr) continue;
    const Rows part = rows.part(panel * columns, columns);
    float* ot = buffers.ot + panel * p.d_v * columns;
    if (buffers.beta[panel] == nullptr) std::fill_n(ot, p.d_v * columns, 0.0f);
    const auto out = part.of(p.out);
    for (Index r = 0; r < part.count; ++r) {
      buffers.out_rows[r] = direct ? reinterpret_cast<float*>(out(r))
                            : last ? buffers.row_copy + r * p.d_v
                                   : task.partial.out + (panel * columns + r) * p.d_v;
    }
    kernel.unpack_rows({.panel = ot,
                        .columns = columns,
                        .divisor = last ? buffers.row_sum + panel * columns : buffers.rescale,
                        .rows = part.count,
                        .length = p.d_v,
                        .destination = buffers.out_rows,
                        .stride = direct ? p.out.column_stride / bytes_of(Type::f32) : 1});
    if (!last || direct) continue;
    for (Index r = 0; r < part.count; ++r)
      write_row(kernel, p.out, buffers.row_copy + r * p.d_v, p.d_v, out(r));
  }
  if (last) write_lse(rows, buffers.row_max, buffers.row_sum);
}

}  // namespace

const char* refuse_pairs(const AttentionProblem& p, Type out, const AttentionBlocks& blocks) {
  if (!all_bf16(p, out)) return "q, k, v and out are not all bf16";
  if (p.round_weights == RoundWeights::never) return "round_weights: never";
  if (p.round_weights == RoundWeights::where_native && !blocks.native_pairs)
    return "this CPU does not multiply pairs of bf16, or floats faster";
  if (!p.k.contiguous() || !p.v.contiguous()) return "the depth of k or v is not contiguous";
  if (p.dropout.probability > 0) return "dropout is for floats";
  return nullptr;
}

const AttentionAlgorithm kFlashPairs = {"flash_pairs", refuse_of_pairs, cut<Pairs>,
                                        workspace<Pairs>, run<Pairs>};
const AttentionAlgorithm kFlashLanes = {"flash_lanes", refuse, cut<Floats>, workspace<Floats>,
                                        run<Floats>};

}  // namespace rapt::tiles
