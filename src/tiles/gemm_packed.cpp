// gemm_packed: the general product, blocked after Goto. b is packed into panels [k, NR] that the
// register tile streams through; a is read in place, or copied once where its rows would evict each
// other or are not floats; a panel's slice [block_k, NR] stays in L1 while block_m rows of a pass
// by. gemm_pairs is the same of pairs of bf16, with half as many steps of k.
//
//   pack:  panels of b for each unit of the wave, where several blocks of rows will use them;
//          rows of a for each batch element of the wave
//   run:   for each slice of k:  for each panel:  c[block_m, NR] += a[block_m, slice] panel[slice,
//   NR]
//          where there is one block of rows, a panel's slice is packed just before its only use
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/stored.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kWaveFloats = Index{16} << 20;  // 64 MiB of packed operands at most, or one unit

// Panels that are packed at a time: b's rows may lie in a page each, so a visit should be long. But
// all must stay in L2.
Index group(const GemmPlan& plan) {
  constexpr Index kPanels = 8, kColumns = 256;
  return std::clamp<Index>(kColumns / plan.tile->columns, 1, kPanels);
}
constexpr Index kPad = 16;  // floats between them, so that they do not meet in one cache set

// Floats from panel to panel of those that are packed at a time, for one slice.
Index panel_floats(const GemmPlan& plan) { return plan.block_k * plan.tile->columns + kPad; }

// Whether panels are packed for the whole wave, before its products.
bool packs_ahead(const GemmPlan& plan) { return plan.row_blocks > 1; }

// The shared workspace: packed b [wave_units, unit_floats], then copies of a [batch elements, m,
// copy_row(k)].
Index unit_floats(const GemmPlan& plan) {
  const Index columns = plan.tile->columns;
  return packs_ahead(plan) ? (plan.block_n + columns - 1) / columns * columns * plan.steps : 0;
}
Index copied_a_floats(const GemmPlan& plan) {
  return a_in_place(plan) ? 0 : plan.problem.m * copy_row(plan.steps);
}
Index copied_a(const GemmPlan& plan, Wave wave, const GemmBlock& block) {
  return plan.wave_units * unit_floats(plan) +
         (block.batch - wave.first / plan.column_blocks) * copied_a_floats(plan) +
         block.row * copy_row(plan.steps);
}
// Batch elements that a wave touches, the first and the last perhaps in part.
Index wave_elements(const GemmPlan& plan, Wave wave) {
  return (wave.first + wave.count - 1) / plan.column_blocks - wave.first / plan.column_blocks + 1;
}

// What one worker needs.
struct Buffers {
  float* beta;    // [NR]
  float* panels;  // [group, block_k, NR]
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    beta = workspace.floats(plan.tile->columns);
    panels = workspace.floats(packs_ahead(plan) ? 0 : group(plan) * panel_floats(plan));
  }
};

const char* refuse(const GemmProblem&, const GemmBlocks&) { return nullptr; }

const char* refuse_pairs(const GemmProblem& p, const GemmBlocks& blocks) {
  if (!all_bf16(p)) return "a and b are not both bf16";
  if (!blocks.native_pairs) return "this CPU does not multiply pairs of bf16, or floats faster";
  if (p.element_rows <= kFewRows) return "c has few rows: to pack b costs more than to widen it";
  return nullptr;
}

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  cut_blocks(plan, blocks.block_m, blocks.block_n, plan.tile->rows, plan.tile->columns);
  // Of few rows most of the time goes to what is packed: short slices stay in L2 with what they are
  // packed from and what is asked for. More rows lose more by reading c for each slice. (Floats
  // have the slices of other algorithms, since a row has the same bits by each of them.)
  constexpr Index kRows = 128, kSlice = 256;
  const bool few = plan.pairs && plan.problem.element_rows <= kRows;
  cut_slices(plan, few ? std::min(blocks.block_k, kSlice) : blocks.block_k);
  const Index each = unit_floats(plan) + copied_a_floats(plan) / plan.column_blocks;
  plan.wave_units =
      std::clamp<Index>(kWaveFloats / std::max<Index>(each, 1), 1, std::max<Index>(plan.units, 1));
  const Index elements = std::min(
      plan.problem.batch.size, (plan.wave_units + plan.column_blocks - 2) / plan.column_blocks + 1);
  plan.shared_workspace =
      (plan.wave_units * unit_floats(plan) + elements * copied_a_floats(plan) + 15) / 16 * 16;
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

// Packing b ahead: a task is a slice of a group of panels.
Index unit_groups(const GemmPlan& plan) {
  const Index columns = group(plan) * plan.tile->columns;
  return (plan.block_n + columns - 1) / columns;
}
void cut_pairs(GemmPlan& plan, const GemmBlocks& blocks) {
  plan.pairs = true;
  plan.steps = (plan.problem.k + 1) / 2;
  plan.tile = &plan.kernels->tiles[0];  // that which has pairs
  cut(plan, blocks);
}

Index b_tasks(const GemmPlan& plan, Wave wave) {
  return packs_ahead(plan) ? wave.count * unit_groups(plan) * slices(plan) : 0;
}

Index pack_tasks(const GemmPlan& plan, Wave wave) {
  return b_tasks(plan, wave) + (a_in_place(plan) ? 0 : wave_elements(plan, wave) * plan.row_blocks);
}

// From step to step of a column of b, in bytes.
Index step_of_b(const GemmPlan& plan) { return plan.problem.b.row_stride * (plan.pairs ? 2 : 1); }

// A panel of b whose columns are not adjacent: b[x .. x + slice, column .. column + n].
void pack_strided_panel(const GemmPlan& plan, Index batch, Index column, Index n, Index x,
                        Index slice, float* panel) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns, bytes = bytes_of(p.b.type);
  const std::byte* from =
      p.batch.element(p.b, batch) + column * p.b.column_stride + x * step_of_b(plan);
  const float* rows[kernels::kMaxColumns];
  if (p.b.type == Type::f32) {
    for (Index r = 0; r < n; ++r)
      rows[r] = reinterpret_cast<const float*>(from + r * p.b.column_stride);
    plan.kernels->pack_rows({.source = rows,
                             .stride = p.b.row_stride / bytes,
                             .rows = n,
                             .length = slice,
                             .panel = panel,
                             .panel_row = columns,
                             .columns = columns});
    return;
  }
  // A little of each row at a time, as floats or pairs.
  constexpr Index kLength = 16;
  float wide[kernels::kMaxColumns * kLength];
  for (Index r = 0; r < n; ++r) rows[r] = wide + r * kLength;
  for (Index begin = 0; begin < slice; begin += kLength) {
    const Index length = std::min(kLength, slice - begin);
    for (Index r = 0; r < n; ++r) {
      const std::byte* row = from + r * p.b.column_stride + begin * step_of_b(plan);
      float* to = wide + r * kLength;
      if (plan.pairs) {
        copy_pairs(row, p.b.row_stride, std::min(2 * length, p.k - 2 * (x + begin)), to);
      } else if (p.b.row_stride == bytes) {
        plan.kernels->widen(p.b.type, row, length, to);
      } else {
        for (Index i = 0; i < length; ++i) to[i] = read_element(p.b.type, row + i * p.b.row_stride);
      }
    }
    plan.kernels->pack_rows({.source = rows,
                             .stride = 1,
                             .rows = n,
                             .length = length,
                             .panel = panel + begin * columns,
                             .panel_row = columns,
                             .columns = columns});
  }
}

// Panels of b[x .. x + slice, column .. column + n], each `apart` floats after the one before it.
void pack_panels(const GemmPlan& plan, Index batch, Index column, Index n, Index x, Index slice,
                 float* panels, Index apart) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns;
  if (p.b.contiguous()) {
    const kernels::StoredRows b{
        .first = p.batch.element(p.b, batch) + column * p.b.column_stride + x * step_of_b(plan),
        .stride = p.b.row_stride,
        .type = p.b.type};
    if (plan.pairs) {
      plan.kernels->pack_pairs({.b = b,
                                .rows = std::min(2 * slice, p.k - 2 * x),
                                .columns = n,
                                .finite = false,
                                .panels = panels,
                                .apart = apart,
                                .panel_columns = columns});
    } else {
      plan.kernels->pack_columns({.b = b,
                                  .rows = slice,
                                  .columns = n,
                                  .panels = panels,
                                  .apart = apart,
                                  .panel_columns = columns});
    }
  } else {
    for (Index at = 0; at < n; at += columns)
      pack_strided_panel(plan, batch, column + at, std::min(columns, n - at), x, slice,
                         panels + at / columns * apart);
  }
  if (p.b_scale == nullptr) return;
  float scale[kernels::kMaxColumns];
  for (Index at = 0; at < n; at += columns) {
    const Index count = std::min(columns, n - at);
    for (Index i = 0; i < count; ++i) scale[i] = p.b_scale[(column + at + i) * p.b_scale_stride];
    float* row = panels + at / columns * apart;
    for (Index step = 0; step < slice; ++step, row += columns) {
      for (Index i = 0; i < count; ++i) row[i] *= scale[i];
    }
  }
}

void pack(const GemmPlan& plan, Wave wave, Index task, float* shared, float*) {
  const Index for_a = task - b_tasks(plan, wave);
  if (for_a < 0) {
    const Index columns = plan.tile->columns, steps = plan.steps;
    const Index x = task % slices(plan) * plan.block_k;
    const Index unit = task / slices(plan) / unit_groups(plan);
    const Index column = task / slices(plan) % unit_groups(plan) * group(plan) * columns;
    const GemmBlock block = block_of(plan, wave.first + unit, 0);
    if (column >= block.columns) return;  // the last block may be narrower
    pack_panels(plan, block.batch, block.column + column,
                std::min(group(plan) * columns, block.columns - column), x,
                std::min(plan.block_k, steps - x),
                shared + unit * unit_floats(plan) + column * steps + x * columns, steps * columns);
  } else {
    const Index element = wave.first / plan.column_blocks + for_a / plan.row_blocks;
    const GemmBlock block = block_of(plan, element * plan.column_blocks, for_a % plan.row_blocks);
    copy_a(plan, block, 0, plan.steps, shared + copied_a(plan, wave, block));
  }
}

// The share of panel `number` of a group in asking for what is packed next: columns from `column`
// on of the same slice of b, or its first columns of the next.
kernels::NextRows next_of_b(const GemmPlan& plan, const GemmBlock& block, Index column,
                            Index number, Index x, Index slice) {
  const GemmProblem& p = plan.problem;
  if (!p.b.contiguous()) return {};
  if (column >= block.columns) {
    column = 0;
    x += slice;
    slice = std::min(plan.block_k, plan.steps - x);
    if (slice <= 0) return {};
  }
  const Index first = slice * number / group(plan), end = slice * (number + 1) / group(plan);
  const Index columns = std::min(group(plan) * plan.tile->columns, block.columns - column);
  return {.first = p.batch.element(p.b, block.batch) + (block.column + column) * p.b.column_stride +
                   (x + first) * step_of_b(plan),
          .stride = p.b.row_stride,
          .rows = end - first,
          .row_bytes = columns * p.b.column_stride};
}

void run(const GemmPlan& plan, Wave wave, Index unit, Index row_block, const float* shared,
         float* memory) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns;
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, unit, row_block);
  const float* packed = shared + (unit - wave.first) * unit_floats(plan);
  const Operand a = a_in_place(plan)
                        ? place_a(plan, block, 0)
                        : Operand{shared + copied_a(plan, wave, block), copy_row(plan.steps), 1};
  float* c = place_c(p, block);
  const auto product = plan.pairs ? plan.tile->pair_product : plan.tile->product;
  std::fill_n(buffers.beta, columns, p.beta);

  Index x = 0;
  do {
    const Index slice = std::min(plan.block_k, plan.steps - x);
    for (Index column = 0; column < block.columns; column += columns) {
      const Index n = std::min(columns, block.columns - column);
      const float* panel = packed + column * plan.steps + x * columns;
      kernels::NextRows next;
      if (!packs_ahead(plan)) {
        const Index number = column / columns % group(plan);
        if (number == 0) {
          pack_panels(plan, block.batch, block.column + column,
                      std::min(group(plan) * columns, block.columns - column), x, slice,
                      buffers.panels, panel_floats(plan));
        }
        panel = buffers.panels + number * panel_floats(plan);
        next = next_of_b(plan, block, column + (group(plan) - number) * columns, number, x, slice);
      }
      product({.a = a.data + x * a.inner,
               .a_row = a.row,
               .a_inner = a.inner,
               .b = panel,
               .b_inner = columns,
               .c = c + column * p.c.column_stride,
               .c_row = p.c.row_stride,
               .c_column = p.c.column_stride,
               .rows = block.rows,
               .inner = slice,
               .columns = n,
               .alpha = p.alpha,
               .beta = x == 0 && p.beta == 0.0f ? nullptr : buffers.beta,
               .next = {next}});
    }
    if (x == 0) std::fill_n(buffers.beta, columns, 1.0f);
    x += plan.block_k;
  } while (x < plan.steps);
  finish_block(plan, block);
}

}  // namespace

const GemmAlgorithm kGemmPairs = {"gemm_pairs", refuse_pairs, cut_pairs, pack_tasks, pack, run};
const GemmAlgorithm kGemmPacked = {"gemm_packed", refuse, cut, pack_tasks, pack, run};

}  // namespace rapt::tiles
