// The lists of algorithms, best first: a plan takes the first that does not refuse. The last one
// never does.
#include "plan/plan.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "config/config.hpp"
#include "plan/runs.hpp"
#include "plan/target.hpp"
#include "rapt/error.hpp"

namespace rapt::plan {
namespace {

const tiles::AttentionAlgorithm* const kAttention[] = {&tiles::kFlashPairs, &tiles::kFlashLanes,
                                                       &tiles::kFlashRowsPairs, &tiles::kFlashRows};
const tiles::GemmAlgorithm* const kGemm[] = {&tiles::kGemmDot,       &tiles::kGemmPairs,
                                             &tiles::kGemmRowsPairs, &tiles::kGemmRows,
                                             &tiles::kGemmDirect,    &tiles::kGemmPacked};

// The compiled tile that a config row names; the target's default where the row is of another
// build.
const kernels::TileKernel* find_tile(const kernels::Kernels& kernels, config::Tile wanted) {
  for (int i = 0; i < kernels.n_tiles; ++i) {
    if (kernels.tiles[i].rows == wanted.rows && kernels.tiles[i].vectors == wanted.vectors)
      return &kernels.tiles[i];
  }
  return &kernels.tiles[0];
}

config::Registers registers_of(const kernels::Kernels& kernels) {
  return {kernels.lanes, kernels.registers, kernels.paired_rows};
}

template <class List, class Problem, class Blocks>
auto first_that_takes(const List& list, const Problem& problem, const Blocks& blocks) {
  return *std::find_if(std::begin(list), std::end(list) - 1, [&](const auto* algorithm) {
    return algorithm->refuse(problem, blocks) == nullptr;
  });
}

// c^T = b^T a^T: the same product, with the roles of rows and columns exchanged.
void transpose(tiles::GemmProblem& p) {
  std::swap(p.m, p.n);
  std::swap(p.a, p.b);
  std::swap(p.a.row_stride, p.a.column_stride);
  std::swap(p.b.row_stride, p.b.column_stride);
  std::swap(p.c.row_stride, p.c.column_stride);
  p.transposed = !p.transposed;
}

// Batch elements that share b and lie one below the other are rows of one product.
void stack_batch(tiles::GemmProblem& p) {
  while (p.batch.axes > 0) {
    const int last = p.batch.axes - 1;
    const tiles::Index extent = p.batch.extent[last];
    const bool stacked = p.b.batch_stride[last] == 0 &&
                         p.a.batch_stride[last] == p.m * p.a.row_stride &&
                         p.c.batch_stride[last] == p.m * p.c.row_stride;
    if (!stacked && extent != 1) return;
    p.m *= extent;
    --p.batch.axes;
    p.batch.size = 1;
    for (int i = 0; i < last; ++i) p.batch.size *= p.batch.extent[i];
  }
}

config::AttentionRow config_row(const tiles::AttentionProblem& problem,
                                const kernels::Kernels& kernels) {
  return config::current_attention_row(kernels.target, registers_of(kernels),
                                       std::max(problem.d_k, problem.d_v));
}

tiles::AttentionBlocks blocks_of(const config::AttentionRow& row, const kernels::Kernels& kernels) {
  return {find_tile(kernels, row.tile),
          kernels.native_pairs,
          row.block_q,
          row.block_kv,
          row.short_rows,
          row.split_kv};
}

// Whether all batch elements have the lengths of the first, and begin where it begins.
bool lengths_are_alike(const tiles::AttentionProblem& p) {
  return !p.kv_lengths && !p.q_offsets && p.first_query == nullptr && p.first_key == nullptr;
}

tiles::Sequence sequence_at(const tiles::AttentionProblem& p, tiles::Index number) {
  tiles::Sequence sequence{number, p.longest.seq_q, p.longest.seq_kv, 0, 0, 0};
  if (p.first_query != nullptr) {
    sequence.first_query = p.first_query[number];
    sequence.seq_q = p.first_query[number + 1] - sequence.first_query;
  }
  if (p.first_key != nullptr) {
    sequence.first_key = p.first_key[number];
    sequence.seq_kv = p.first_key[number + 1] - sequence.first_key;
  }
  if (p.kv_lengths) sequence.seq_kv = *p.batch.element(p.kv_lengths, number);
  sequence.q_offset = p.q_offsets ? *p.batch.element(p.q_offsets, number)
                                  : p.q_offset.value_or(sequence.seq_kv - sequence.seq_q);
  return sequence;
}

bool same_lengths(const tiles::Sequence& first, const tiles::Sequence& sequence) {
  return first.seq_q == sequence.seq_q && first.seq_kv == sequence.seq_kv &&
         first.q_offset == sequence.q_offset && first.first_query == sequence.first_query &&
         first.first_key == sequence.first_key;
}

// How many first keys two batch elements share.
tiles::Index shared_keys(const tiles::AttentionProblem& p, const tiles::Sequence& one,
                         const tiles::Sequence& other) {
  const tiles::Index keys = std::min(one.seq_kv, other.seq_kv);
  if (!p.pages.table) {
    const auto shared = [&](const auto& array) {
      return p.batch.element(array, one.number) + one.first_key * array.row_stride ==
             p.batch.element(array, other.number) + other.first_key * array.row_stride;
    };
    return shared(p.k) && shared(p.v) && shared(p.k_scales) && shared(p.v_scales) ? keys : 0;
  }
  const std::int32_t* pages = p.batch.element(p.pages.table, one.number);
  const std::int32_t* others = p.batch.element(p.pages.table, other.number);
  tiles::Index n = 0;
  while (n * p.pages.size < keys &&
         pages[n * p.pages.table.row_stride] == others[n * p.pages.table.row_stride])
    ++n;
  return std::min(n * p.pages.size, keys);
}

// plan.joined.
std::vector<tiles::Index> joined_parts(const tiles::AttentionProblem& problem,
                                       const tiles::AttentionPlan& plan) {
  std::vector<tiles::Index> joined(static_cast<std::size_t>(problem.batch.size));
  bool any = false;
  const tiles::Cut* before = nullptr;
  for (const tiles::Cut& cut : plan.cuts) {
    for (tiles::Index i = 0; i < cut.count; ++i, before = &cut) {
      tiles::Sequence own = cut.sequence;
      own.number += i;
      if (before == nullptr || cut.parts == 1 || before->parts == 1 || cut.rows != before->rows ||
          cut.algorithm != before->algorithm)
        continue;
      tiles::Sequence other = before->sequence;
      other.number = own.number - 1;
      if (other.number >= before->sequence.number + before->count) continue;  // it has no rows
      tiles::Index& parts = joined[static_cast<std::size_t>(own.number)];
      parts = shared_keys(problem, other, own) / cut.part_kv;
      any |= parts > 0;
    }
  }
  return any ? joined : std::vector<tiles::Index>();
}

}  // namespace

void check_size(const char* what, Wide n) {
  constexpr tiles::Index kMost = tiles::Index{1} << 56;
  if (n > kMost)
    throw Error(ErrorCode::too_large,
                std::string("attention is too large: it would be more than ") +
                    std::to_string(kMost) + " " + what);
}

std::vector<Run> runs_of(const tiles::AttentionProblem& problem) {
  std::vector<Run> runs;
  if (lengths_are_alike(problem)) {
    if (problem.batch.size > 0) runs.push_back({sequence_at(problem, 0), problem.batch.size});
    return runs;
  }
  for (tiles::Index number = 0; number < problem.batch.size; ++number) {
    const tiles::Sequence sequence = sequence_at(problem, number);
    if (!runs.empty() && same_lengths(runs.back().first, sequence)) {
      ++runs.back().count;
    } else {
      runs.push_back({sequence, 1});
    }
  }
  return runs;
}

InUse in_use(const tiles::AttentionProblem& problem) {
  const kernels::Kernels& kernels = current_kernels();
  const config::AttentionRow row = config_row(problem, kernels);
  return {&kernels, blocks_of(row, kernels)};
}

tiles::AttentionPlan plan_attention(const tiles::AttentionProblem& problem) {
  tiles::AttentionPlan plan;
  const auto [kernels, blocks] = in_use(problem);
  plan.kernels = kernels;
  plan.tile = blocks.tile;
  // A row's tile is that of floats.
  if (tiles::refuse_pairs(problem, problem.out.type, blocks) == nullptr)
    plan.tile = &kernels->tiles[0];

  const bool no_rows = problem.kv_heads == 0 || problem.longest.seq_q == 0;
  for (const Run& run : no_rows ? std::vector<Run>() : runs_of(problem)) {
    tiles::Cut cut;
    cut.sequence = run.first;
    cut.count = run.count;
    cut.rows = cut.sequence.seq_q * problem.group;
    plan.cuts.push_back(cut);
  }

  // The same for every element of a run of equal ones. Sizes that are sound each have products that
  // are not, which no memory holds.
  Wide tasks = 0, partial_floats = 0;
  for (tiles::Cut& cut : plan.cuts) {
    cut.algorithm =
        *std::find_if(std::begin(kAttention), std::end(kAttention) - 1, [&](const auto* algorithm) {
          return algorithm->refuse(problem, cut.sequence, blocks) == nullptr;
        });
    cut.algorithm->cut(problem, plan, blocks, cut);
    cut.parts = std::max<tiles::Index>((cut.sequence.seq_kv + cut.part_kv - 1) / cut.part_kv, 1);
    cut.first_unit = plan.units;
    cut.first_task = plan.tasks;
    const tiles::Index units = cut.count * problem.kv_heads * cut.row_blocks;
    plan.units += units;
    tasks += Wide{units} * cut.parts;
    if (cut.parts > 1 && units > 0) {
      partial_floats = std::max(partial_floats, Wide{cut.parts} * cut.block_q * (problem.d_v + 2));
    }
    check_size("tasks", tasks);
    check_size("floats for what the parts of its keys leave", partial_floats);
    plan.tasks = static_cast<tiles::Index>(tasks);
  }
  // Elements without rows have no units, and must not be found.
  std::erase_if(plan.cuts, [](const tiles::Cut& cut) { return cut.row_blocks == 0; });

  plan.joined = joined_parts(problem, plan);
  for (const tiles::Cut& cut : plan.cuts)
    plan.workspace = std::max(plan.workspace, cut.algorithm->workspace(problem, plan, cut));

  constexpr tiles::Index kWaveFloats = tiles::Index{8} << 20;  // 32 MiB, or one unit
  plan.unit_floats = (static_cast<tiles::Index>(partial_floats) + 15) / 16 * 16;
  plan.wave_units = plan.unit_floats == 0
                        ? plan.units
                        : std::clamp<tiles::Index>(kWaveFloats / plan.unit_floats, 1, plan.units);
  return plan;
}

RowInUse row_in_use(const tiles::AttentionProblem& problem, const kernels::Kernels& kernels) {
  const config::AttentionRow row = config_row(problem, kernels);
  std::string text = config::format({{{kernels.target, {row}, std::nullopt}}});
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const config::AttentionRow formulas =
      config::default_attention_row(config::machine_caches(), registers_of(kernels), row.head_size);
  return {text, !(row == formulas)};
}

std::vector<Refusal> refusals(const tiles::AttentionProblem& problem,
                              const kernels::Kernels& kernels, const tiles::Sequence& sequence) {
  const config::AttentionRow row = config_row(problem, kernels);
  const tiles::AttentionBlocks blocks = blocks_of(row, kernels);
  std::vector<Refusal> result;
  for (const tiles::AttentionAlgorithm* algorithm : kAttention)
    result.push_back({algorithm->name, algorithm->refuse(problem, sequence, blocks)});
  return result;
}

void plan_gemm(tiles::GemmPlan& plan) {
  plan.kernels = &current_kernels();
  const config::GemmRow row =
      config::current_gemm_row(plan.kernels->target, registers_of(*plan.kernels));
  plan.tile = find_tile(*plan.kernels, row.tile);

  tiles::GemmProblem& p = plan.problem;
  p.element_rows = p.m;
  stack_batch(p);
  // Lanes run along c's adjacent elements; and a thin c whose a is contiguous along k is a product
  // of few rows.
  const bool columns_adjacent = p.c.row_stride == 1 && p.c.column_stride != 1;
  const bool thin =
      p.n <= 4 && p.m > p.n && p.a.contiguous() && p.b.row_stride == tiles::bytes_of(p.b.type);
  // The scales of int8 are those of b's columns.
  if (p.b.type != Type::int8 && (columns_adjacent || thin)) {
    transpose(p);
    p.element_rows = p.m;
  }

  plan.steps = p.k;
  tiles::GemmBlocks blocks{plan.tile,
                           plan.kernels->native_pairs,
                           plan.kernels->matrix_tiles,
                           row.block_m,
                           row.block_n,
                           row.block_k,
                           row.direct_rows,
                           row.packed_kib};
  // Few rows are one block, past which b's panels go once and must leave room in L2 for the next;
  // of many, every slice of k would read and write c once more. The rows of one element decide,
  // since slices are the order of sums.
  constexpr tiles::Index kFewRows = 128, kFewRowsDepth = 384;
  if (p.element_rows <= kFewRows) {
    blocks.block_m = std::max(blocks.block_m, kFewRows);
    blocks.block_k = std::min(blocks.block_k, kFewRowsDepth);
  }
  plan.algorithm = first_that_takes(kGemm, p, blocks);
  plan.algorithm->cut(plan, blocks);
}

}  // namespace rapt::plan
