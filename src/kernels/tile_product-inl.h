// The register tile: kRows x kVectors accumulators of c stay in registers while k runs.
// Per-target header: see kernels.cc.
//
// One body serves q k^T, p v and the matrix product. An element of a is broadcast, a vector of b is
// multiplied by it. Per step of k: kRows broadcasts and kVectors loads feed kRows * kVectors FMAs.
// Of pairs, an "element" of a or b is two of bf16, a step two steps of k.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_TILE_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_TILE_PRODUCT_INL_H_
#undef RAPT_KERNELS_TILE_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_TILE_PRODUCT_INL_H_
#endif

#include <array>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// How a's rows lie: side by side (a_row = 1: packed, or v^T), or each along k (anything else).
enum class Rows { kAdjacent, kStrided };

template <int kRows, int kVectors, Rows kLayout, class Element>
struct RegisterTile {
  using Number = Arithmetic<Element>;
  // Accumulator i is row i / kVectors, vector i % kVectors. They travel as a parameter pack because
  // vectors of unknown length (SVE, RVV) may not stand in arrays or structs.
  using Accumulators = std::make_index_sequence<kRows * kVectors>;
  static constexpr size_t kV = kVectors;

  static void Run(const TileProduct& p, const float* a, float* c) {
    Start(p, a, c, Accumulators());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const TileProduct& p, const float* a, float* c,
                               std::index_sequence<I...> indices) {
    Multiply(p, a, c, indices, (static_cast<void>(I), hn::Zero(F32()))...);
  }

  template <size_t... I, class... V>
  static HWY_INLINE void Multiply(const TileProduct& p, const float* HWY_RESTRICT a, float* c,
                                  std::index_sequence<I...> indices, V... acc) {
    const F32 d;
    const size_t n = hn::Lanes(d);
    const Index a_row = kLayout == Rows::kAdjacent ? 1 : p.a_row;
    const Index a_inner = kLayout == Rows::kAdjacent ? p.a_inner : 1;
    const float* HWY_RESTRICT b = p.b;
    for (Index x = 0; x < p.inner; ++x) {
      // The compiler reads each of a's elements and each of b's vectors once.
      ((acc = Number::MulAdd(Number::Broadcast(a + static_cast<Index>(I / kV) * a_row),
                             hn::LoadU(d, b + (I % kV) * n), acc)),
       ...);
      a += a_inner;
      b += p.b_inner;
    }
    Finish(p, c, indices, acc...);
  }

  // c = alpha * acc + beta * c
  template <size_t... I, class... V>
  static HWY_INLINE void Finish(const TileProduct& p, float* c, std::index_sequence<I...>,
                                V... acc) {
    const F32 d;
    const size_t n = hn::Lanes(d);
    if (p.alpha != 1.0f) {
      const auto alpha = hn::Set(d, p.alpha);
      ((acc = hn::Mul(acc, alpha)), ...);
    }
    const bool whole = p.c_column == 1 && p.columns == static_cast<Index>(kV * n);
    const Index c_row = p.c_row;
    const float* const beta = p.beta;
    if (whole && beta == nullptr) {
      (hn::StoreU(acc, d, c + static_cast<Index>(I / kV) * c_row + (I % kV) * n), ...);
    } else if (whole) {
      (Update(acc, beta + (I % kV) * n, c + static_cast<Index>(I / kV) * c_row + (I % kV) * n),
       ...);
    } else {
      HWY_ALIGN float tile[kRows * kV * hn::MaxLanes(d)];  // [kRows, NR]
      (hn::Store(acc, d, tile + I * n), ...);
      Scatter(p, tile, c);
    }
  }

  static HWY_INLINE void Update(V32 acc, const float* beta, float* c) {
    const F32 d;
    hn::StoreU(hn::MulAdd(hn::LoadU(d, beta), hn::LoadU(d, c), acc), d, c);
  }

  // The rare case: fewer columns than the tile has, or columns that are not adjacent.
  static HWY_NOINLINE void Scatter(const TileProduct& p, const float* tile, float* c) {
    const Index columns = static_cast<Index>(kV) * Lanes();
    for (Index r = 0; r < kRows; ++r) {
      for (Index col = 0; col < p.columns; ++col) {
        float& to = c[r * p.c_row + col * p.c_column];
        to = p.beta == nullptr ? tile[r * columns + col]
                               : p.beta[col] * to + tile[r * columns + col];
      }
    }
  }
};

// The part of the rows to come that is asked for beside the tile that begins at `first` of them: a
// few lines, since many at once would hold up its loads.
inline HWY_NOINLINE void AskFor(const NextRows& next, Index first, Index rows) {
  constexpr Index kLine = 64;
  const Index end = HWY_MIN(next.rows, first + rows);
  for (Index i = first; i < end; ++i) {
    for (Index byte = 0; byte < next.row_bytes; byte += kLine)
      PrefetchToL2(next.first + i * next.stride + byte);
  }
}

// Tiles of nearly equal height, because a low tile has too few accumulators to hide the latency of
// an FMA: 16 rows by 14 are 8 + 8, not 14 + 2.
template <int kMaxRows, int kVectors, Rows kLayout, class Element>
HWY_INLINE void AllRows(const TileProduct& p) {
  using Function = void (*)(const TileProduct&, const float*, float*);
  static constexpr auto kTiles = []<size_t... R>(std::index_sequence<R...>) {
    return std::array<Function, kMaxRows>{
        &RegisterTile<static_cast<int>(R) + 1, kVectors, kLayout, Element>::Run...};
  }(std::make_index_sequence<kMaxRows>());
  const Index columns = kVectors * Lanes();
  // One tile holds up to kMaxRows, but where there are more rows several are lower: the more
  // vectors a tile stores at its end, the longer the next one waits. On Zen 4 that is 60 cycles for
  // 26, 25 for 20.
  constexpr Index kManyRows = kVectors > 2 ? kMaxRows : HWY_MIN(kMaxRows, 10);
  const Index tiles = p.rows <= kMaxRows ? p.rows > 0 : (p.rows + kManyRows - 1) / kManyRows;
  if (tiles == 0) return;
  const Index low = p.rows / tiles, higher = p.rows % tiles;
  Index ask[2] = {};
  for (int w = 0; w < 2; ++w) {
    if (p.next[w].rows > 0) ask[w] = (p.next[w].rows + tiles - 1) / tiles;
  }
  const float* a = p.a;
  float* c = p.c;
  for (Index tile = 0; tile < tiles; ++tile) {
    const Index rows = low + (tile < higher);
    for (int w = 0; w < 2; ++w) {
      if (ask[w] > 0) AskFor(p.next[w], tile * ask[w], ask[w]);
    }
    // c's rows are touched when the tile is finished, and all at once: its panel where they are
    // adjacent, else each a line of its own, perhaps of its own page.
    if (p.c_row > columns) {
      for (Index r = 0; r < rows; ++r) {
        PrefetchToWrite(c + r * p.c_row);
        PrefetchToWrite(c + r * p.c_row + (p.columns - 1) * p.c_column);
      }
    }
    kTiles[static_cast<size_t>(rows - 1)](p, a, c);
    a += rows * p.a_row;
    c += rows * p.c_row;
  }
}

template <int kMaxRows, int kVectors, class Element>
void TileProductOf(const TileProduct& p) {
  if (p.a_row == 1) {
    AllRows<kMaxRows, kVectors, Rows::kAdjacent, Element>(p);
  } else {
    HWY_DASSERT(p.a_inner == 1);
    AllRows<kMaxRows, kVectors, Rows::kStrided, Element>(p);
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
