// Compiles the micro kernels for every ISA target, and lists them. Three of the products take as
// long to compile as all others, and are compiled beside them: dot_products.cc, row_products.cc.
//
// How that works: foreach_target.h includes this very file once for each target, with HWY_NAMESPACE
// and the compiler's target attributes set accordingly; the *-inl.h files have a toggling include
// guard, so that they are seen anew each time. The part under HWY_ONCE is compiled once, last.
#include "kernels/kernels.hpp"

#include "kernels/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// The bodies, for the current target.
#include "kernels/compiled-inl.h"
#include "kernels/dropout-inl.h"
#include "kernels/finish-inl.h"
#include "kernels/matrix_dot-inl.h"
#include "kernels/matrix_product-inl.h"
#include "kernels/matrix_values-inl.h"
#include "kernels/pack-inl.h"
#include "kernels/softmax-inl.h"
#include "kernels/softmax_backward-inl.h"
#include "kernels/tile_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

template <int kRows, int kVectors>
TileKernel Tile() {
  return {kRows,
          kVectors,
          static_cast<int>(kVectors * Lanes()),
          &TileProductOf<kRows, kVectors, float>,
          nullptr,
          nullptr};
}
template <int kRows, int kVectors>
TileKernel TileWithPairs() {
  TileKernel tile = Tile<kRows, kVectors>();
  tile.pair_product = &TileProductOf<kRows, kVectors, Pair>;
#if RAPT_AMX && HWY_TARGET == HWY_AVX3_ZEN4
  if (has_matrix_tiles()) tile.pair_product = &MatrixProductOf<AmxTiles, kRows, kVectors>;
#endif
  tile.emulated_pair_product = &MatrixProductOf<EmulatedMatrixTiles, kRows, kVectors>;
  return tile;
}

const Kernels& Table() {
  const bool matrix_tiles = HWY_TARGET == HWY_AVX3_ZEN4 && has_matrix_tiles();
  const bool native_pairs = HWY_NATIVE_DOT_BF16 && (!is_intel() || matrix_tiles);
  auto dot_product = CompiledDotProduct;
  auto value_product = CompiledValueProduct;
#if RAPT_AMX && HWY_TARGET == HWY_AVX3_ZEN4
  if (matrix_tiles) dot_product = MatrixDotOf<AmxTiles>, value_product = MatrixValuesOf<AmxTiles>;
#endif
  // Accumulators + kVectors of b + 1 broadcast of a fit the registers; at least 12 accumulators
  // hide the latency of two FMA pipes. The low and wide tiles are for few rows.
#if RAPT_MANY_REGISTERS
  static const Kernels table = {
    hwy::TargetName(HWY_TARGET),
    static_cast<int>(Lanes()),
    32,
    native_pairs,
    matrix_tiles,
    RAPT_PAIRED_ROWS,
    is_intel(),
    5,
    {TileWithPairs<14, 2>(), Tile<12, 2>(), Tile<8, 3>(), Tile<6, 4>(), Tile<2, 8>()},
#else
  static const Kernels table = {hwy::TargetName(HWY_TARGET), static_cast<int>(Lanes()), 16, native_pairs, matrix_tiles, RAPT_PAIRED_ROWS, is_intel(), 3,
                                {TileWithPairs<6, 2>(), Tile<3, 3>(), Tile<2, 4>(), {}, {}},
#endif
    dot_product,
    value_product,
    MatrixDotOf<EmulatedMatrixTiles>,
    MatrixValuesOf<EmulatedMatrixTiles>,
    CompiledRowProduct,
    SoftmaxLanes,
    SoftmaxRows,
    SoftmaxBackwardOf,
    DropOf,
    PackRowsOf,
    PackColumnsOf,
    PackPairsOf,
    UnpackRowsOf,
    WidenRow,
    NarrowRow,
    ExpOf,
    TanhOf,
    FinishOf
  };
  return table;
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace rapt::kernels {
namespace {

// No template of the standard library here: its functions, weak symbols of this object file, could
// stand in for the whole program's.
struct BestFirst {
  const Kernels* tables[63] = {};
  int size = 0;

  BestFirst() {
    // Highway numbers targets so that a better one has a lower bit. The static target is visited
    // twice.
    const int64_t supported = RAPT_SUPPORTED_TARGETS;
#define RAPT_VISIT(TARGET, NAMESPACE) \
  if (supported & TARGET)             \
    tables[hwy::Num0BitsBelowLS1Bit_Nonzero64(uint64_t{TARGET})] = &NAMESPACE::Table();
    HWY_VISIT_TARGETS(RAPT_VISIT)
#undef RAPT_VISIT
    for (const Kernels* table : tables) {
      if (table != nullptr) tables[size++] = table;
    }
  }
};

}  // namespace

KernelList all() {
  static const BestFirst list;
  return {list.tables, list.size};
}

}  // namespace rapt::kernels

#endif  // HWY_ONCE
