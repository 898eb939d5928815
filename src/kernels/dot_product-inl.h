// Products whose two operands both lie along k: lanes hold k. Per-target header: see kernels.cc.
//
// For few rows (decode, x W^T): each row of b is read once, in its own order and its own storage
// type, for all rows of a tile. Two to four rows are read at once that lie a half to a quarter of b
// apart: few streams, each in order, is what the CPU's prefetchers follow to memory. With
// neighbours side by side they bring half as much.
#include "kernels/digit_dot-inl.h"
#include "kernels/load-inl.h"
#include "kernels/sums-inl.h"

#if defined(RAPT_KERNELS_DOT_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_DOT_PRODUCT_INL_H_
#undef RAPT_KERNELS_DOT_PRODUCT_INL_H_
#else
#define RAPT_KERNELS_DOT_PRODUCT_INL_H_
#endif

#include <array>
#include <utility>

#include "kernels/features.hpp"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

// Rows of b at once: few rows of a have four. 4 x 3 accumulators, three vectors of b and one of a
// fill 16 registers; where there are 32, 8 x 2 read and widen a row of b once for eight.
inline constexpr Index kTallColumns = RAPT_MANY_REGISTERS ? 2 : 3;
inline constexpr Index MaxDotRows(Index columns) {
  if (columns == kTallColumns) return RAPT_MANY_REGISTERS ? 8 : 4;
  return RAPT_MANY_REGISTERS ? 4 : 2;
}
// Rows of a stream from asking to use; into L2, and into L1.
inline constexpr Index kDotAhead = 8, kDotNear = 3;
inline constexpr Index kDotSteps = 4;  // rows of a stream whose sums are written together

// Of pairs, T is float, the size of one, and Number says what they are; of Digit, a is DigitRows.
template <class T, class Number, int kRows, Index kColumns>
struct DotTile {
  static constexpr size_t kC = kColumns, kUsed = kRows * kC;

  // Accumulators are summed across lanes by fours, which may be of several rows. Of each four: the
  // sums of every step.
  static constexpr size_t kFours = (kUsed + 3) / 4;
  static constexpr Index kSums = kDotSteps * 4;
  // What is not widened is soon needed.
  static constexpr bool kMayBeNear = std::is_same_v<T, float> && std::is_same_v<Number, float>;

  // Columns [col, end), and those that lie apart, 2 apart, ... after each. Those that do not exist
  // are computed of the last one, and not stored.
  static void Run(const DotProduct& p, Index row, Index col, Index end, Index apart) {
    RunStreams(p, row, col, end, apart, std::make_index_sequence<kC>());
  }

  template <size_t... C>
  static HWY_INLINE void RunStreams(const DotProduct& p, Index row, Index col, Index end,
                                    Index apart, std::index_sequence<C...>) {
    const auto stream = [&](size_t c, Index first) HWY_ATTR {
      return RowCursor<T>(p.b, first + static_cast<Index>(c) * apart, p.columns - 1);
    };
    // Asked for once, where arithmetic or jumps from page to page hold the CPU's prefetchers up.
    const bool ask = row == 0 && (kRows > 1 || p.b.pages.table != nullptr);
    const bool near = kMayBeNear && is_intel();
    RowCursor<T> b[] = {stream(C, col)...},
                 next[] = {stream(C, col + (near ? kDotNear : kDotAhead))...};
    HWY_ALIGN float sums[kFours * kSums];
#if RAPT_BYTE_PRODUCTS
    using Digits = DigitTile<T, kRows>;
    constexpr bool kDigits = std::is_same_v<Number, Digit>;
    HWY_ALIGN float digits[kDigits ? kDotSteps * Digits::kStep : 1] = {};
#endif
    for (; col < end; col += kDotSteps) {
      const Index steps = HWY_MIN(kDotSteps, end - col);
      for (Index step = 0; step < steps; ++step) {
#if RAPT_BYTE_PRODUCTS
        if constexpr (kDigits) {
          if (ask) (AskForRow(next[C].Row(), p.inner), ...);
          Digits::Step(p, row, {b[C].Row()...}, digits + step * Digits::kStep);
        } else
#endif
          Start(p, row, b, ask ? next : nullptr, near, sums + step * 4,
                std::make_index_sequence<kFours * 4>());
        ((b[C].Next(), b[C].Leave()), ...);
        if (ask) ((next[C].Next(), next[C].Leave()), ...);
      }
#if RAPT_BYTE_PRODUCTS
      if constexpr (kDigits) Digits::Add(p, row, digits, sums);
#endif
      Write(p, row, col, apart, steps, sums);
    }
  }

  template <size_t... I>
  static HWY_INLINE void Start(const DotProduct& p, Index row, const RowCursor<T>* b,
                               const RowCursor<T>* next, bool near, float* to,
                               std::index_sequence<I...> indices) {
    Multiply(p, row, b, next, near, to, indices, std::make_index_sequence<kC>(),
             std::make_index_sequence<kTogether<T>>(), (static_cast<void>(I), hn::Zero(F32()))...);
  }

  // Accumulator i is row i / kC of a, row i % kC of b.
  template <size_t... I, size_t... C, size_t... Nth, class... V>
  static HWY_INLINE void Multiply(const DotProduct& p, Index row, const RowCursor<T>* rows,
                                  const RowCursor<T>* rows_ahead, bool near, float* to,
                                  std::index_sequence<I...>, std::index_sequence<C...>,
                                  std::index_sequence<Nth...>, V... acc) {
    const F32 d;
    const Index n = Lanes();
    const float* HWY_RESTRICT a = p.a + row * p.a_row;
    const T* const b[] = {rows[C].Row()...};
    const bool ask = rows_ahead != nullptr;
    const T* const next[] = {(ask ? rows_ahead : rows)[C].Row()...};
    const auto multiply = [&](auto load_a, auto load_b,
                              Index x) HWY_ATTR __attribute__((always_inline)) {
      const V32 k0 = load_b(0), k1 = load_b(1);
      V32 k2 = k1, k3 = k1;
      if constexpr (kC > 2) k2 = load_b(2);
      if constexpr (kC > 3) k3 = load_b(3);
      ((acc = I >= kUsed
                  ? acc
                  : Arithmetic<Number>::MulAdd(load_a(a + static_cast<Index>(I / kC) * p.a_row + x),
                                               I % kC == 0   ? k0
                                               : I % kC == 1 ? k1
                                               : I % kC == 2 ? k2
                                                             : k3,
                                               acc)),
       ...);
    };
    const Index together = kTogether<T> * n;
    const auto multiply_together = [&](Index x) HWY_ATTR __attribute__((always_inline)) {
      if (ask) {
        if (kMayBeNear && near) {
          (PrefetchToRead(next[C] + x), ...);
        } else {
          (PrefetchToL2(next[C], x), ...);
        }
      }
      const Together<T> vectors[] = {{b[C], x}...};
      (multiply([&](const float* from) HWY_ATTR { return hn::LoadU(d, from); },
                [&](size_t c) HWY_ATTR { return vectors[c].template Nth<Nth>(); },
                x + static_cast<Index>(Nth) * n),
       ...);
    };
    Index x = 0;
    for (; x + together <= p.inner; x += together) multiply_together(x);
    if (x < p.inner) {
      const Index tail = p.inner - x;
      const auto tail_of_b = [&](size_t c) HWY_ATTR {
        if constexpr (std::is_same_v<Number, Pair>)
          return Arithmetic<Pair>::LoadTail(b[c] + x, tail);
        else
          return LoadWideTail(b[c], x, tail);
      };
      multiply([&](const float* from) HWY_ATTR { return LoadTail(from, tail); }, tail_of_b, x);
    }
    StoreSums(to, acc...);
  }

  template <class... V>
  static HWY_INLINE void StoreSums(float* to, V32 v0, V32 v1, V32 v2, V32 v3, V... rest) {
#if RAPT_BLOCKS_OF_FOUR
    hn::Store(SumsOfFour(v0, v1, v2, v3), Four(), to);
#else
    const F32 d;
    to[0] = hn::ReduceSum(d, v0);
    to[1] = hn::ReduceSum(d, v1);
    to[2] = hn::ReduceSum(d, v2);
    to[3] = hn::ReduceSum(d, v3);
#endif
    if constexpr (sizeof...(V) > 0) StoreSums(to + kSums, rest...);
  }

  // Stores them, in the common case as vectors: a step at a time would be four stores for each row.
  static HWY_INLINE void Write(const DotProduct& p, Index row, Index col, Index apart, Index steps,
                               const float* HWY_RESTRICT sums) {
    float* c = p.c + row * p.c_row + col * p.c_column;
#if RAPT_BLOCKS_OF_FOUR
    if (steps == kDotSteps && col + (kColumns - 1) * apart + kDotSteps <= p.columns &&
        p.c_column == 1 && p.beta == nullptr) {
      const Four d4;
      const auto factors = [&](Index stream) HWY_ATTR {
        const auto alpha = hn::Set(d4, p.alpha);
        return p.b_scale == nullptr
                   ? alpha
                   : hn::Mul(alpha, hn::LoadU(d4, p.b_scale + col + stream * apart));
      };
      // Not an array: vectors of unknown length may not stand in one.
      const auto f0 = factors(0), f1 = factors(1), f2 = factors(kC > 2 ? 2 : 1),
                 f3 = factors(kC > 3 ? 3 : 1);
      const auto store = [&](size_t i, hn::Vec<Four> v) HWY_ATTR {
        if (i >= kUsed) return;
        const size_t stream = i % kC;
        const auto factor = stream == 0 ? f0 : stream == 1 ? f1 : stream == 2 ? f2 : f3;
        hn::StoreU(hn::Mul(v, factor), d4,
                   c + static_cast<Index>(i / kC) * p.c_row + static_cast<Index>(stream) * apart);
      };
      for (size_t i = 0; i < kUsed; i += 4, sums += kSums) {
        hn::Vec<Four> v0, v1, v2, v3;
        hn::LoadInterleaved4(d4, sums, v0, v1, v2, v3);
        store(i, v0);
        store(i + 1, v1);
        store(i + 2, v2);
        store(i + 3, v3);
      }
      return;
    }
#endif
    for (size_t i = 0; i < kUsed; ++i) {
      float* row_of_c = c + static_cast<Index>(i / kC) * p.c_row;
      for (Index step = 0, j = static_cast<Index>(i % kC) * apart;
           step < steps && col + j < p.columns; ++step, ++j) {
        const float sum =
            sums[static_cast<Index>(i / 4) * kSums + step * 4 + static_cast<Index>(i % 4)];
        const float scaled = sum * (p.b_scale == nullptr ? p.alpha : p.alpha * p.b_scale[col + j]);
        float& to = row_of_c[j * p.c_column];
        to = p.beta == nullptr ? scaled : scaled + *p.beta * to;
      }
    }
  }
};

// All rows of a, in tiles of nearly equal height, for the same few rows of b, so that b passes
// once.
template <class T, class Number, Index kColumns>
void DotTiles(const DotProduct& p) {
  using Function = void (*)(const DotProduct&, Index, Index, Index, Index);
  constexpr Index kMaxRows = MaxDotRows(kColumns);
  // The lowest tile of several, or of as many rows as are too many for four columns.
  constexpr Index kMinRows = kColumns == 4 ? 1 : (kMaxRows + 1) / 2;
  static constexpr auto kTiles = []<size_t... R>(std::index_sequence<R...>) {
    return std::array<Function, sizeof...(R)>{
        &DotTile<T, Number, static_cast<int>(kMinRows + R), kColumns>::Run...};
  }(std::make_index_sequence<kMaxRows - kMinRows + 1>());
  const Index apart = (p.columns + kColumns - 1) / kColumns;
  const Index tiles = (p.rows + kMaxRows - 1) / kMaxRows;
  // Several tiles read the same columns, from L1.
  const Index step = tiles == 1 ? HWY_MAX(apart, Index{1}) : kDotSteps;
  for (Index col = 0; col < apart; col += step) {
    for (Index tile = 0, row = 0; tile < tiles; ++tile) {
      const Index rows = (p.rows - row + tiles - tile - 1) / (tiles - tile);
      kTiles[static_cast<size_t>(rows - kMinRows)](p, row, col, HWY_MIN(col + step, apart), apart);
      row += rows;
    }
  }
}

template <class T, class Number>
void DotColumnsOf(const DotProduct& p) {
  if constexpr (!kLowTiles<Number>) {
    if (p.rows > MaxDotRows(4)) return DotTiles<T, Number, kTallColumns>(p);
  }
  DotTiles<T, Number, 4>(p);
}

#if RAPT_BYTE_PRODUCTS
// Rows that digits cannot say are multiplied as floats, each by itself.
template <class T>
void DotDigits(const DotProduct& p) {
  using Rows = DigitRows<T>;
  for (Index row = 0; row < p.rows; row += Rows::kRows) {
    const DotProduct some = p.part(row, HWY_MIN(p.rows - row, Rows::kRows));
    const Rows rows(some);
    Index held = 0;
    for (Index r = 0; r < some.rows; ++r) held += rows.holds(r);
    if (held > 0) {
      DotProduct digits = some;
      digits.a = rows.rows();
      digits.a_row = Rows::kRow;
      DotTiles<T, Digit, 4>(digits);
    }
    for (Index r = 0; r < some.rows; ++r) {
      if (!rows.holds(r)) DotColumnsOf<T, float>(some.part(r, 1));
    }
  }
}
#endif

inline void DotProductOf(const DotProduct& p) {
  if (p.pairs) return DotColumnsOf<float, Pair>(p);
#if RAPT_BYTE_PRODUCTS
  if (p.few && p.beta == nullptr && p.inner % kPieceDepth == 0 &&
      p.inner <= DigitRows<float>::kDepth) {
    if (p.b.type == Type::int8) return DotDigits<std::int8_t>(p);
    if (p.b.type == Type::int4) return DotDigits<Int4Group>(p);
  }
#endif
  ForType(p.b.type, [&](auto t) HWY_ATTR { DotColumnsOf<decltype(t), float>(p); });
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
