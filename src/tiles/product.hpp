// A matrix product whose b is read in place: for few rows, where packing b would cost as much as
// using it.
#pragma once

#include <algorithm>

#include "tiles/gemm.hpp"

namespace rapt::tiles {

// The tile for the next columns of n, or null when even the narrowest is too wide. Of a few rows
// the widest that holds them all, since a lower one reads b several times; of more `usual`, or the
// first. But none that leaves columns which the narrowest cannot fill: an odd number of vectors
// only where two such panels fit, or one is left over anyway.
inline const kernels::TileKernel* next_tile(const kernels::Kernels& kernels,
                                            const kernels::TileKernel& usual, Index n, Index rows) {
  const Index narrow = kernels.tiles[0].columns;
  const auto fits = [&](const kernels::TileKernel& tile) {
    return tile.columns <= n &&
           (n % narrow != 0 || tile.columns % narrow == 0 || n >= 2 * tile.columns);
  };
  if (n < narrow) return nullptr;
  const kernels::TileKernel* best = fits(usual) ? &usual : &kernels.tiles[0];
  if (rows > kFewRows) return best;
  for (int i = 0; i < kernels.n_tiles; ++i) {
    const kernels::TileKernel& tile = kernels.tiles[i];
    if (tile.rows < rows || !fits(tile)) continue;
    if (best->rows < rows || tile.columns > best->columns) best = &tile;
  }
  return best;
}

// p for `columns` columns, any number: panels in place, and the last columns that fill no panel
// from a zero-padded copy in `scratch` [inner, columns of the first tile]. With `copies`, each
// panel's first tile copies it for the others, to scratch [inner, columns of the usual tile]. A
// product that does neither needs no scratch. p.beta: [kMaxColumns] equal values, or null.
inline void product_in_place(const kernels::Kernels& kernels, const kernels::TileKernel& usual,
                             kernels::TileProduct&& p, Index columns, bool copies, float* scratch) {
  while (columns > 0) {
    const kernels::TileKernel* tile = next_tile(kernels, usual, columns, p.rows);
    p.columns = tile == nullptr ? columns : tile->columns;
    p.b_copy = copies && tile == &usual ? scratch : nullptr;
    if (tile == nullptr) {
      tile = &kernels.tiles[0];
      for (Index x = 0; x < p.inner; ++x) {
        float* row = scratch + x * tile->columns;
        std::copy_n(p.b + x * p.b_inner, columns, row);
        std::fill(row + columns, row + tile->columns, 0.0f);
      }
      p.b = scratch;
      p.b_inner = tile->columns;
    }
    tile->product(p);
    columns -= p.columns;
    p.b += p.columns;
    p.c += p.columns * p.c_column;
  }
}

}  // namespace rapt::tiles
