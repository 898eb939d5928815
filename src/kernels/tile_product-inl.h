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
#include <cstring>
#include <type_traits>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// How a's rows lie: side by side (a_row = 1: packed, or v^T), or each along k (anything else). And
// how they are read: paired are adjacent, and read two at a time.
enum class Rows { kAdjacent, kStrided, kPaired };

// The rare case: fewer columns than a tile [rows, columns] has, or columns that are not adjacent.
inline HWY_NOINLINE void Scatter(const TileProduct& p, const float* tile, Index rows, Index columns,
                                 float* c) {
  for (Index r = 0; r < rows; ++r) {
    for (Index col = 0; col < p.columns; ++col) {
      float& to = c[r * p.c_row + col * p.c_column];
      to = p.beta == nullptr ? tile[r * columns + col] : p.beta[col] * to + tile[r * columns + col];
    }
  }
}

// What a tile does for b beside reading it: it asks for rows to come (and for p.soon, where a is
// packed, too), and leaves the vectors that it has in registers in p.b_copy.
enum class ForB { kNothing, kAsks, kAsksAndCopies };

template <int kRows, int kVectors, Rows kLayout, class Element, ForB kForB = ForB::kNothing>
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
    Multiply(p, a, p.b, p.b_copy, c, indices, (static_cast<void>(I), hn::Zero(F32()))...);
  }

  template <size_t... I, class... V>
  static HWY_INLINE void Multiply(const TileProduct& p, const float* HWY_RESTRICT a,
                                  const float* HWY_RESTRICT b, float* HWY_RESTRICT b_copy, float* c,
                                  std::index_sequence<I...> indices, V... acc) {
    const F32 d;
    const size_t n = hn::Lanes(d);
    const Index a_row = kLayout == Rows::kAdjacent ? 1 : p.a_row;
    const Index a_inner = kPacked ? kRows : kLayout == Rows::kAdjacent ? p.a_inner : 1;
    const Index b_inner = kPacked ? static_cast<Index>(kV * n) : p.b_inner, inner = p.inner;
    const auto step = [&]() HWY_ATTR __attribute__((always_inline)) {
      if constexpr (kForB != ForB::kNothing) Ask(b + kRowsAhead * b_inner);
      if constexpr (kForB == ForB::kAsksAndCopies) {
        for (size_t v = 0; v < kV; ++v) hn::StoreU(hn::LoadU(d, b + v * n), d, b_copy + v * n);
        b_copy += kV * n;
      }
      // The compiler reads each of a's elements and each of b's vectors once.
      ((acc = Number::MulAdd(Number::Broadcast(a + static_cast<Index>(I / kV) * a_row),
                             hn::LoadU(d, b + (I % kV) * n), acc)),
       ...);
      a += a_inner;
      b += b_inner;
    };
    Index x = 0;
    if constexpr (kPacked) {
      const std::byte* soon = p.soon;
      for (; x + kSoonSteps <= inner; x += kSoonSteps) {
        PrefetchToL2(soon);
        soon += p.soon_step;
        for (Index i = 0; i < kSoonSteps; ++i) {
          step();
          asm("" : "+r"(a), "+r"(b));  // or loads of all steps come first, and registers are short
        }
      }
    }
    for (; x < inner; ++x) step();
    Finish(p, c, indices, acc...);
  }

  // Both packed: b's rows begin with a line.
  static constexpr bool kPacked = kLayout == Rows::kAdjacent && kForB == ForB::kAsks;

  // Few rows ahead, as those of a matrix may share a set of L1; with the line in which the last
  // vector may end. A prefetch of what is not there does nothing.
  static constexpr Index kRowsAhead = 6;
  static HWY_INLINE void Ask(const float* row) {
    constexpr size_t kLine = 64 / sizeof(float);
    const size_t end = kV * hn::Lanes(F32()) + !kPacked;
    for (size_t i = 0; i < end; i += kLine) PrefetchToRead(row + i);
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
      Scatter(p, tile, kRows, static_cast<Index>(kV * n), c);
    }
  }

  static HWY_INLINE void Update(V32 acc, const float* beta, float* c) {
    const F32 d;
    hn::StoreU(hn::MulAdd(hn::LoadU(d, beta), hn::LoadU(d, c), acc), d, c);
  }
};

inline HWY_NOINLINE void AskFor(const NextRows& next, Index first, Index rows) {
  constexpr Index kLine = 64;
  const Index end = HWY_MIN(next.rows, first + rows);
  for (Index i = first; i < end; ++i) {
    for (Index byte = 0; byte < next.row_bytes; byte += kLine)
      PrefetchToL2(next.first + i * next.stride + byte);
  }
}

// Asks for what comes next, a few lines beside each of so many tiles: many at once would hold up
// their loads.
class AskForNext {
 public:
  HWY_INLINE AskForNext(const TileProduct& p, Index tiles) : p_(p) {
    for (int w = 0; w < 2; ++w) {
      if (p.next[w].rows > 0) each_[w] = (p.next[w].rows + tiles - 1) / tiles;
    }
  }
  HWY_INLINE void Beside(Index tile) const {
    for (int w = 0; w < 2; ++w) {
      if (each_[w] > 0) AskFor(p_.next[w], tile * each_[w], each_[w]);
    }
  }

 private:
  const TileProduct& p_;
  Index each_[2] = {};
};

#if RAPT_PAIRED_ROWS
// SSE has no FMA, broadcasts in two instructions, and each overwrites an operand: their number is
// the limit. But (a0, a1, a0, a1) of two rows is one load. Times b, and times b with neighbours
// exchanged, it gives the products of both rows, in the same order of k; what they add up to is put
// in its place at the end. One vector of columns after the other, so that registers are left.
template <int kRows, int kVectors>
struct RegisterTile<kRows, kVectors, Rows::kPaired, float, ForB::kNothing> {
  // For whole vectors of columns.
  static void Run(const TileProduct& p, const float* a, float* c) {
    for (Index column = 0; column < p.columns; column += Lanes())
      Start(p, a, column, c + column, std::make_index_sequence<kRows>());
  }

  template <size_t... I>
  static HWY_INLINE void Start(const TileProduct& p, const float* a, Index column, float* c,
                               std::index_sequence<I...> indices) {
    Multiply(p, a, column, c, indices, (static_cast<void>(I), hn::Zero(F32()))...);
  }

  template <size_t... I, class... V>
  static HWY_INLINE void Multiply(const TileProduct& p, const float* HWY_RESTRICT a, Index column,
                                  float* c, std::index_sequence<I...>, V... acc) {
    const F32 d;
    const float* HWY_RESTRICT b = p.b + column;
    for (Index x = 0; x < p.inner; ++x) {
      const V32 straight = hn::LoadU(d, b), exchanged = hn::Reverse2(d, straight);
      ((acc = hn::MulAdd(TwoRows(a + I / 2 * 2), I % 2 == 0 ? straight : exchanged, acc)), ...);
      a += p.a_inner;
      b += p.b_inner;
    }
    V32 row[] = {acc...};
    for (int r = 0; r < kRows; r += 2) {
      const V32 straight = row[r], exchanged = hn::Reverse2(d, row[r + 1]);
      row[r] = hn::OddEven(exchanged, straight);
      row[r + 1] = hn::OddEven(straight, exchanged);
    }
    const V32 alpha = hn::Set(d, p.alpha);
    for (int r = 0; r < kRows; ++r, c += p.c_row) {
      const V32 sum = hn::Mul(row[r], alpha);
      hn::StoreU(
          p.beta == nullptr ? sum : hn::MulAdd(hn::LoadU(d, p.beta + column), hn::LoadU(d, c), sum),
          d, c);
    }
  }

  static HWY_INLINE V32 TwoRows(const float* a) {
    double both;
    std::memcpy(&both, a, sizeof(both));
    return hn::BitCast(F32(), hn::Set(hn::RepartitionToWide<F32>(), both));
  }
};
#endif

// Tiles of nearly equal height, because a low tile has too few accumulators to hide the latency of
// an FMA: 16 rows by 14 are 8 + 8, not 14 + 2.
template <int kMaxRows, int kVectors, Rows kLayout, class Element>
HWY_INLINE void AllRows(const TileProduct& p) {
  using Function = void (*)(const TileProduct&, const float*, float*);
  constexpr int kStep = kLayout == Rows::kPaired ? 2 : 1;
  // Of a matrix that is read in place the first tile may find b in L3 or memory, the others in L1,
  // or in L2 where a panel is wide. No prefetcher follows pieces of rows that are far apart. But
  // each request costs some, and only Intel's CPUs need those for what is in L2, or, of wide
  // panels, for c's rows.
  constexpr bool kOfProducts =
      kMaxRows <= 8 && kLayout == Rows::kStrided && std::is_same_v<Element, float>;
  constexpr ForB kFirst = kOfProducts ? ForB::kAsks : ForB::kNothing;
  constexpr ForB kLater = kVectors > 2 ? kFirst : ForB::kNothing;
  constexpr auto kTilesOf = []<ForB kForB, size_t... R>(std::index_sequence<R...>) {
    return std::array<Function, sizeof...(R)>{
        &RegisterTile<(static_cast<int>(R) + 1) * kStep, kVectors, kLayout, Element,
                      kForB>::Run...};
  };
  using Heights = std::make_index_sequence<kMaxRows / kStep>;
  static constexpr auto kFirstTiles = kTilesOf.template operator()<kFirst>(Heights());
  static constexpr auto kLaterTiles = kTilesOf.template operator()<kLater>(Heights());
  static constexpr auto kQuietTiles = kTilesOf.template operator()<ForB::kNothing>(Heights());
  const bool asks = kVectors <= 2 || is_intel();
  const auto& later = asks ? kLaterTiles : kQuietTiles;
  const Index columns = kVectors * Lanes();
  // One tile holds up to kMaxRows, but where there are more rows several are lower: the more
  // vectors a tile stores at its end, the longer the next one waits. On Zen 4 that is 60 cycles for
  // 26, 25 for 20.
  constexpr Index kManyRows =
      kVectors > 2 || kLayout == Rows::kPaired ? kMaxRows : HWY_MIN(kMaxRows, 10);
  const Index tiles = p.rows <= kMaxRows ? p.rows > 0 : (p.rows + kManyRows - 1) / kManyRows;
  if (tiles == 0) return;
  const Index low = p.rows / kStep / tiles, higher = p.rows / kStep % tiles;
  const AskForNext ask(p, tiles);
  const float* a = p.a;
  float* c = p.c;
  for (Index tile = 0; tile < tiles; ++tile) {
    const Index rows = (low + (tile < higher)) * kStep;
    ask.Beside(tile);
    // c's rows are touched when the tile is finished, and all at once: its panel where they are
    // adjacent, else each a line of its own, perhaps of its own page.
    if (asks && p.c_row > columns) {
      for (Index r = 0; r < rows; ++r) {
        PrefetchToWrite(c + r * p.c_row);
        PrefetchToWrite(c + r * p.c_row + (p.columns - 1) * p.c_column);
      }
    }
    (tile == 0 ? kFirstTiles : later)[static_cast<size_t>(rows / kStep - 1)](p, a, c);
    a += rows * p.a_row;
    c += rows * p.c_row;
  }
  if constexpr (kStep == 2) {
    if (p.rows % 2 != 0) RegisterTile<1, kVectors, Rows::kAdjacent, Element>::Run(p, a, c);
  }
}

// The first tile copies b, and the others read the copy.
template <int kMaxRows, int kVectors, Rows kLayout, class Element>
HWY_INLINE void CopyThenAllRows(TileProduct p) {
  RegisterTile<kMaxRows, kVectors, kLayout, Element, ForB::kAsksAndCopies>::Run(p, p.a, p.c);
  p.b = p.b_copy;
  p.b_inner = kVectors * Lanes();
  p.a += kMaxRows * p.a_row;
  p.c += kMaxRows * p.c_row;
  p.rows -= kMaxRows;
  AllRows<kMaxRows, kVectors, kLayout, Element>(p);
}

template <int kMost, int kVectors, class Element>
void TileProductOf(const TileProduct& p);

// One tile of a, packed, and panels of b.
template <int kMaxRows, int kVectors>
void PackedTiles(const TileProduct& p) {
  const Index n = kVectors * Lanes(), panels = (p.columns + n - 1) / n;
  constexpr Index kLine = 64 / sizeof(float);
  TileProduct one = p;
  for (Index panel = 0; panel < panels; ++panel) {
    one.columns = HWY_MIN(n, p.columns - panel * n);
    if (p.rows == kMaxRows && p.a_inner == kMaxRows) {
      for (Index r = 0; r < kMaxRows; ++r) {
        for (Index i = 0; i < n; i += kLine) PrefetchToWrite(one.c + r * p.c_row + i * p.c_column);
      }
      RegisterTile<kMaxRows, kVectors, Rows::kAdjacent, float, ForB::kAsks>::Run(one, p.a, one.c);
      one.soon += p.inner / kSoonSteps * p.soon_step;
    } else {
      one.soon = nullptr;
      TileProductOf<kMaxRows, kVectors, float>(one);
    }
    one.b += p.b_apart;
    one.c += n * p.c_column;
  }
}

template <int kMost, int kVectors, class Element>
void TileProductOf(const TileProduct& p) {
  constexpr int kMaxRows = kLowTiles<Element> ? HWY_MIN(kMost, 2) : kMost;
  if constexpr (std::is_same_v<Element, float>) {
    if (p.soon != nullptr) return PackedTiles<kMaxRows, kVectors>(p);
  }
  if constexpr (RAPT_PAIRED_ROWS && std::is_same_v<Element, float>) {
    // As many accumulators, for one vector of columns. Fewer rows would leave too few.
    constexpr int kRows = kMaxRows * kVectors / 2 * 2;
    if (p.a_row == 1 && p.rows > kMaxRows && p.c_column == 1 && p.columns == kVectors * Lanes())
      return AllRows<kRows, kVectors, Rows::kPaired, Element>(p);
  }
  if (p.a_row == 1) {
    AllRows<kMaxRows, kVectors, Rows::kAdjacent, Element>(p);
  } else {
    HWY_DASSERT(p.a_inner == 1);
    if constexpr (kMaxRows >= 6 && kVectors >= 4 && std::is_same_v<Element, float>) {
      if (p.b_copy != nullptr && p.rows > kMaxRows)
        return CopyThenAllRows<kMaxRows, kVectors, Rows::kStrided, Element>(p);
    }
    AllRows<kMaxRows, kVectors, Rows::kStrided, Element>(p);
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
