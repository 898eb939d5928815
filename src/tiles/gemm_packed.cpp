// gemm_packed: the general product, blocked after Goto. b is packed into panels [k, NR]. A large
// one comes from afar: a slice [block_k, block_n] of it stays in L2, and a is packed, too, into
// panels [k, MR], one of which passes over the slice while the next one is asked for. Of a smaller
// b that does not pay: a block of a, in place, stays in L2, and panels of b pass. gemm_pairs is the
// latter of pairs of bf16, with half as many steps of k.
//
//   pack:  panels of a for each batch element of the wave, or all of b if several blocks read it
//   run:   for each slice of k:  pack b[slice, block_n], unless that is done
//            for each panel of a:  for each panel of b:  c[MR, NR] += a[MR, slice] b[slice, NR]
#include <algorithm>

#include "tiles/gemm.hpp"
#include "tiles/stored.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {
namespace {

constexpr Index kWaveFloats = Index{16} << 20;  // 64 MiB of packed operands at most, or one unit

// Columns of b that are packed at a time: b's rows may lie in a page each, so a visit should be
// long. But all must stay in L2.
Index group_columns(const GemmPlan& plan) {
  constexpr Index kPanels = 8, kColumns = 256;
  const Index columns = plan.tile->columns;
  const Index most =
      plan.packs_a ? plan.block_n : std::clamp<Index>(kColumns / columns, 1, kPanels) * columns;
  return std::min(most, (plan.block_n + columns - 1) / columns * columns);
}
constexpr Index kPad = 16;  // floats between them, so that they do not meet in one cache set

// Floats from panel to panel of those that are packed at a time, for one slice.
Index panel_floats(const GemmPlan& plan) { return plan.block_k * plan.tile->columns + kPad; }

// Whether b is packed for the whole wave, before its products.
bool packs_b_ahead(const GemmPlan& plan) { return !plan.packs_a && plan.row_blocks > 1; }

// Rows of a panel of a: of a register tile.
Index panel_rows(const GemmPlan& plan) {
  return plan.kernels->paired_rows ? plan.tile->rows * plan.tile->vectors / 2 * 2 : plan.tile->rows;
}
Index padded_rows(const GemmPlan& plan) {
  const Index rows = panel_rows(plan);
  return (plan.problem.m + rows - 1) / rows * rows;
}

// Whether a is packed: not where its rows are adjacent, since then it lies as if it were. What has
// to be copied anyway is.
bool packs_a(const GemmPlan& plan, Index packed_kib) {
  const GemmProblem& p = plan.problem;
  if (p.a.row_stride == bytes_of(Type::f32)) return false;
  if (packed_kib == 0 || !a_in_place(plan)) return true;
  constexpr Index kColumns = 256, kFloatsOfKib = 256;
  const Index columns = packed_kib * kFloatsOfKib / std::max<Index>(plan.steps, 1);
  return p.n >= std::max(columns, kColumns) && padded_rows(plan) * plan.steps <= kWaveFloats;
}
// Whether the shared workspace has a, in panels or in rows.
bool shares_a(const GemmPlan& plan) { return plan.packs_a || !a_in_place(plan); }

// The shared workspace: packed b [wave_units, unit_floats], then of each batch element a:
// [slices, padded_rows, block_k] in panels, or copied [m, copy_row(k)].
Index unit_floats(const GemmPlan& plan) {
  const Index columns = plan.tile->columns;
  return packs_b_ahead(plan) ? (plan.block_n + columns - 1) / columns * columns * plan.steps : 0;
}
Index a_floats(const GemmPlan& plan) {
  return plan.packs_a     ? padded_rows(plan) * plan.steps
         : shares_a(plan) ? plan.problem.m * copy_row(plan.steps)
                          : 0;
}
Index shared_a(const GemmPlan& plan, Wave wave, Index batch) {
  return plan.wave_units * unit_floats(plan) +
         (batch - wave.first / plan.column_blocks) * a_floats(plan);
}
// Batch elements that a wave touches, the first and the last perhaps in part.
Index wave_elements(const GemmPlan& plan, Wave wave) {
  return (wave.first + wave.count - 1) / plan.column_blocks - wave.first / plan.column_blocks + 1;
}

// What one worker needs.
struct Buffers {
  float* beta;    // [NR]
  float* panels;  // [group, block_k, NR]
  float* a_copy;  // [MR, block_k], of what is not packed as it lies
  Buffers(const GemmPlan& plan, Workspace& workspace) {
    const Index columns = plan.tile->columns;
    const Index panels_of_b = (group_columns(plan) + columns - 1) / columns;
    beta = workspace.floats(columns);
    panels = workspace.floats(packs_b_ahead(plan) ? 0 : panels_of_b * panel_floats(plan));
    a_copy = workspace.floats(
        plan.packs_a && !is_plain(plan) ? panel_rows(plan) * copy_row(plan.block_k) : 0);
  }

  // Whether rows of a are floats along k.
  static bool is_plain(const GemmPlan& plan) {
    return plan.problem.a.type == Type::f32 && plan.problem.a.contiguous();
  }
};

const char* refuse(const GemmProblem&, const GemmBlocks&) { return nullptr; }

const char* refuse_pairs(const GemmProblem& p, const GemmBlocks& blocks) {
  if (!all_bf16(p)) return "a and b are not both bf16";
  if (!blocks.native_pairs) return "this CPU does not multiply pairs of bf16, or floats faster";
  if (p.element_rows <= kFewRows) return "c has few rows: to pack b costs more than to widen it";
  return nullptr;
}

void book(GemmPlan& plan) {
  const Index each = unit_floats(plan) + a_floats(plan) / plan.column_blocks;
  plan.wave_units =
      std::clamp<Index>(kWaveFloats / std::max<Index>(each, 1), 1, std::max<Index>(plan.units, 1));
  const Index elements = std::min(
      plan.problem.batch.size, (plan.wave_units + plan.column_blocks - 2) / plan.column_blocks + 1);
  plan.shared_workspace =
      (plan.wave_units * unit_floats(plan) + elements * a_floats(plan) + 15) / 16 * 16;
  Workspace count(nullptr);
  Buffers(plan, count);
  plan.workspace = count.used();
}

// Columns of a task where panels of b pass.
constexpr Index kTaskColumns = 1024;

void cut(GemmPlan& plan, const GemmBlocks& blocks) {
  plan.packs_a = packs_a(plan, blocks.packed_kib);
  if (plan.packs_a) {
    // Packing b, once for each block of rows, takes about 2 % of the time of kManyRows.
    constexpr Index kManyRows = 2048, kMostRows = 4096;
    const Index rows = panel_rows(plan);
    cut_blocks(plan, kMostRows / rows * rows, blocks.block_n, rows, plan.tile->columns, kManyRows);
  } else {
    cut_blocks(plan, blocks.block_m, kTaskColumns, plan.tile->rows, plan.tile->columns);
  }
  cut_slices(plan, blocks.block_k);
  book(plan);
}

void cut_pairs(GemmPlan& plan, const GemmBlocks& blocks) {
  plan.pairs = true;
  plan.steps = (plan.problem.k + 1) / 2;
  plan.tile = &plan.kernels->tiles[0];  // that which has pairs
  // Of few rows most of the time goes to what is packed: short slices stay in L2 with what they are
  // packed from and what is asked for. More rows lose more by reading c for each slice. (Floats
  // have the slices of other algorithms, since a row has the same bits by each of them.)
  constexpr Index kRows = 128, kSlice = 256;
  // As many rows of a stay in L2 as columns of b would.
  cut_blocks(plan, std::max(blocks.block_n, kRows), kTaskColumns, plan.tile->rows,
             plan.tile->columns);
  const bool few = plan.problem.element_rows <= kRows;
  cut_slices(plan, few ? std::min(blocks.block_k, kSlice) : blocks.block_k);
  book(plan);
}

// Packing: a task is a slice of a group of panels of b, or a few panels of a.
Index unit_groups(const GemmPlan& plan) {
  const Index columns = group_columns(plan);
  return (plan.block_n + columns - 1) / columns;
}
Index b_tasks(const GemmPlan& plan, Wave wave) {
  return packs_b_ahead(plan) ? wave.count * unit_groups(plan) * slices(plan) : 0;
}
Index rows_of_task(const GemmPlan& plan) {
  constexpr Index kPanels = 8;
  return kPanels * panel_rows(plan);
}
Index element_tasks(const GemmPlan& plan) {
  const Index rows = rows_of_task(plan);
  return (plan.problem.m + rows - 1) / rows;
}
Index pack_tasks(const GemmPlan& plan, Wave wave) {
  return b_tasks(plan, wave) +
         (shares_a(plan) ? wave_elements(plan, wave) * element_tasks(plan) : 0);
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

// Panels of rows of a, all slices: a[block.row ...] into `packed`, the batch element's.
void pack_a(const GemmPlan& plan, const GemmBlock& block, const Buffers& buffers, float* packed) {
  const Index rows = panel_rows(plan);
  const float* source[kernels::kMaxRows];
  for (Index row = block.row; row < block.row + block.rows; row += rows) {
    GemmBlock some = block;
    some.row = row;
    some.rows = std::min(rows, block.row + block.rows - row);
    for (Index x = 0; x < plan.steps; x += plan.block_k) {
      const Index slice = std::min(plan.block_k, plan.steps - x);
      const Operand a = Buffers::is_plain(plan) ? place_a(plan, some, x)
                                                : copy_a(plan, some, x, slice, buffers.a_copy);
      for (Index r = 0; r < some.rows; ++r) source[r] = a.data + r * a.row;
      plan.kernels->pack_rows({.source = source,
                               .stride = 1,
                               .rows = some.rows,
                               .length = slice,
                               .panel = packed + x * padded_rows(plan) + row * slice,
                               .panel_row = rows,
                               .columns = some.rows});
    }
  }
}

void pack(const GemmPlan& plan, Wave wave, Index task, float* shared, float* memory) {
  const Index for_a = task - b_tasks(plan, wave);
  if (for_a < 0) {
    const Index columns = plan.tile->columns, steps = plan.steps;
    const Index x = task % slices(plan) * plan.block_k;
    const Index unit = task / slices(plan) / unit_groups(plan);
    const Index column = task / slices(plan) % unit_groups(plan) * group_columns(plan);
    const GemmBlock block = block_of(plan, wave.first + unit, 0);
    if (column >= block.columns) return;  // the last block may be narrower
    pack_panels(plan, block.batch, block.column + column,
                std::min(group_columns(plan), block.columns - column), x,
                std::min(plan.block_k, steps - x),
                shared + unit * unit_floats(plan) + column * steps + x * columns, steps * columns);
    return;
  }
  const Index batch = wave.first / plan.column_blocks + for_a / element_tasks(plan);
  const Index row = for_a % element_tasks(plan) * rows_of_task(plan);
  const GemmBlock block{batch, row, std::min(rows_of_task(plan), plan.problem.m - row), 0, 0};
  float* a = shared + shared_a(plan, wave, batch);
  if (plan.packs_a) {
    Workspace workspace(memory);
    pack_a(plan, block, Buffers(plan, workspace), a);
  } else {
    copy_a(plan, block, 0, plan.steps, a + row * copy_row(plan.steps));
  }
}

// What is packed next: columns of the block from `column` on in this slice, or its first ones in
// the next slice, or those beyond it.
kernels::NextRows next_of_b(const GemmPlan& plan, const GemmBlock& block, Index column, Index x,
                            Index slice) {
  const GemmProblem& p = plan.problem;
  if (!p.b.contiguous()) return {};
  Index end = block.columns;
  if (column >= end) {
    column = 0;
    x += slice;
    slice = std::min(plan.block_k, plan.steps - x);
    if (slice <= 0) {
      column = end;
      end = std::min(end + plan.block_n, p.n - block.column);
      x = 0;
      slice = std::min(plan.block_k, plan.steps);
    }
  }
  const Index columns = std::min(group_columns(plan), end - column);
  if (columns <= 0) return {};
  return {.first = p.batch.element(p.b, block.batch) + (block.column + column) * p.b.column_stride +
                   x * step_of_b(plan),
          .stride = p.b.row_stride,
          .rows = slice,
          .row_bytes = columns * p.b.column_stride};
}

// a where it is not in panels, of a block from row `row` and step x on: as it lies, or a copy of
// the batch element's.
Operand rows_of_a(const GemmPlan& plan, const GemmBlock& block, Index row, Index x,
                  const float* copy) {
  GemmBlock some = block;
  some.row += row;
  if (!shares_a(plan)) return place_a(plan, some, x);
  const Index apart = copy_row(plan.steps);
  return {copy + some.row * apart + x, apart, 1};
}

void run(const GemmPlan& plan, Wave wave, Index unit, Index row_block, const float* shared,
         float* memory) {
  const GemmProblem& p = plan.problem;
  const Index columns = plan.tile->columns, group = group_columns(plan);
  Workspace workspace(memory);
  const Buffers buffers(plan, workspace);
  const GemmBlock block = block_of(plan, unit, row_block);
  const float* packed_b = shared + (unit - wave.first) * unit_floats(plan);
  const float* a_of_element = shared + shared_a(plan, wave, block.batch);
  const bool panels_of_a = plan.packs_a;
  const Index rows = panels_of_a ? panel_rows(plan) : block.rows;
  float* c = place_c(p, block);
  const auto product = plan.pairs ? plan.tile->pair_product : plan.tile->product;
  std::fill_n(buffers.beta, columns, p.beta);

  Index x = 0;
  do {
    const Index slice = std::min(plan.block_k, plan.steps - x);
    for (Index first = 0; first < block.columns; first += group) {
      const Index group_end = std::min(first + group, block.columns);
      const Index panels = (group_end - first + columns - 1) / columns;
      const float* b = packed_b + first * plan.steps + x * columns;
      Index b_apart = plan.steps * columns;
      kernels::NextRows next;
      if (!packs_b_ahead(plan)) {
        b = buffers.panels;
        b_apart = panel_floats(plan);
        pack_panels(plan, block.batch, block.column + first, group_end - first, x, slice,
                    buffers.panels, b_apart);
        if (!panels_of_a) next = next_of_b(plan, block, group_end, x, slice);
      }
      // Columns of a call, and how many calls there are.
      const Index step = panels_of_a ? group : columns;
      const Index calls = (block.rows + rows - 1) / rows * ((group_end - first + step - 1) / step);
      Index call = 0;
      for (Index row = 0; row < block.rows; row += rows) {
        const Operand a =
            panels_of_a
                ? Operand{a_of_element + x * padded_rows(plan) + (block.row + row) * slice, 1, rows}
                : rows_of_a(plan, block, row, x, a_of_element);
        for (Index column = first; column < group_end; column += step, ++call) {
          product({.a = a.data,
                   .a_row = a.row,
                   .a_inner = a.inner,
                   .b = b + (column - first) / columns * b_apart,
                   .b_inner = columns,
                   .c = c + row * p.c.row_stride + column * p.c.column_stride,
                   .c_row = p.c.row_stride,
                   .c_column = p.c.column_stride,
                   .rows = std::min(rows, block.rows - row),
                   .inner = slice,
                   .columns = std::min(step, group_end - column),
                   .alpha = p.alpha,
                   .beta = x == 0 && p.beta == 0.0f ? nullptr : buffers.beta,
                   .next = {share_of(next, call, calls)},
                   .soon = panels_of_a ? reinterpret_cast<const std::byte*>(a.data + rows * slice)
                                       : nullptr,
                   .soon_step = rows * kernels::kSoonSteps * bytes_of(Type::f32) / panels,
                   .b_apart = b_apart});
        }
      }
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
