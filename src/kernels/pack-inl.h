// Panels: transposes of rows into them (q) and out of them, and copies of columns (b of a product).
// Per-target header: see kernels.cc.
#include "kernels/load-inl.h"

#if defined(RAPT_KERNELS_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_PACK_INL_H_
#undef RAPT_KERNELS_PACK_INL_H_
#else
#define RAPT_KERNELS_PACK_INL_H_
#endif

#include "kernels/features.hpp"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
// Vectors of known length are made of blocks of four floats. A vector of a panel holds one column
// of as many rows as it has lanes: block i holds rows 4i to 4i + 3. So: load block i from row 4i +
// r, and transpose 4 x 4 inside the blocks.
#define RAPT_BLOCK_TRANSPOSE 1

template <class D>
HWY_INLINE hn::Vec<D> LoadBlocks(D d, const float* const* rows, Index x) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, rows[0] + x);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, LoadBlocks(half, rows + hn::MaxLanes(half), x),
                       LoadBlocks(half, rows, x));
  }
}

template <class D>
HWY_INLINE void StoreBlocks(D d, hn::Vec<D> v, float* const* rows, Index x) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    hn::StoreU(v, d, rows[0] + x);
  } else {
    const hn::Half<D> half;
    StoreBlocks(half, hn::LowerHalf(half, v), rows, x);
    StoreBlocks(half, hn::UpperHalf(half, v), rows + hn::MaxLanes(half), x);
  }
}

// In every block: the 4 x 4 matrix whose rows are the blocks of v0 to v3, transposed.
HWY_INLINE void TransposeInBlocks(V32& v0, V32& v1, V32& v2, V32& v3) {
  const F32 d;
  const hn::RepartitionToWide<F32> dw;
  const auto a = hn::BitCast(dw, hn::InterleaveLower(d, v0, v1)),
             b = hn::BitCast(dw, hn::InterleaveUpper(d, v0, v1));
  const auto e = hn::BitCast(dw, hn::InterleaveLower(d, v2, v3)),
             f = hn::BitCast(dw, hn::InterleaveUpper(d, v2, v3));
  v0 = hn::BitCast(d, hn::InterleaveLower(dw, a, e));
  v1 = hn::BitCast(d, hn::InterleaveUpper(dw, a, e));
  v2 = hn::BitCast(d, hn::InterleaveLower(dw, b, f));
  v3 = hn::BitCast(d, hn::InterleaveUpper(dw, b, f));
}

// Block i at to + i * apart.
template <class D>
HWY_INLINE void StoreBlocksApart(D d, hn::Vec<D> v, float* to, Index apart) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    hn::StoreU(v, d, to);
  } else {
    const hn::Half<D> half;
    StoreBlocksApart(half, hn::LowerHalf(half, v), to, apart);
    StoreBlocksApart(half, hn::UpperHalf(half, v), to + hn::MaxLanes(half) / 4 * apart, apart);
  }
}

// Panels that are no whole vectors, of four rows at least: lanes hold x, and a block is the same
// column of four rows, of which the last ones may be stored twice. Returns the first column that is
// left.
inline Index PackNarrow(const PackRows& p) {
  const F32 d;
  constexpr Index n = hn::MaxLanes(F32());
  const Index row = p.panel_row;
  Index x = 0;
  for (; x + n <= p.length; x += n) {
    for (Index four = 0; four < p.rows; four += 4) {
      const Index r = HWY_MIN(four, p.rows - 4);
      const float* const* source = p.source + r;
      V32 v0 = hn::LoadU(d, source[0] + x), v1 = hn::LoadU(d, source[1] + x);
      V32 v2 = hn::LoadU(d, source[2] + x), v3 = hn::LoadU(d, source[3] + x);
      TransposeInBlocks(v0, v1, v2, v3);
      float* to = p.panel + x * row + r;
      StoreBlocksApart(d, v0, to, 4 * row);
      StoreBlocksApart(d, v1, to + row, 4 * row);
      StoreBlocksApart(d, v2, to + 2 * row, 4 * row);
      StoreBlocksApart(d, v3, to + 3 * row, 4 * row);
    }
  }
  return x;
}
#endif

inline void PackRowsOf(const PackRows& p) {
  const Index n = Lanes();
#ifdef RAPT_BLOCK_TRANSPOSE
  if (p.stride == 1 && p.columns == p.rows && p.columns % n != 0 && p.rows >= 4) {
    for (Index x = PackNarrow(p); x < p.length; ++x) {
      for (Index r = 0; r < p.rows; ++r) p.panel[x * p.panel_row + r] = p.source[r][x];
    }
    return;
  }
#endif
  for (Index r = 0; r < p.columns; r += n) {
    Index x = 0;
#ifdef RAPT_BLOCK_TRANSPOSE
    if (p.stride == 1 && r + n <= p.rows) {
      const F32 d;
      const float* const* rows = p.source + r;
      for (; x + 4 <= p.length; x += 4) {
        V32 v0 = LoadBlocks(d, rows, x), v1 = LoadBlocks(d, rows + 1, x);
        V32 v2 = LoadBlocks(d, rows + 2, x), v3 = LoadBlocks(d, rows + 3, x);
        TransposeInBlocks(v0, v1, v2, v3);
        float* to = p.panel + x * p.panel_row + r;
        hn::StoreU(v0, d, to);
        hn::StoreU(v1, d, to + p.panel_row);
        hn::StoreU(v2, d, to + 2 * p.panel_row);
        hn::StoreU(v3, d, to + 3 * p.panel_row);
      }
    }
#endif
    for (; x < p.length; ++x) {
      float* to = p.panel + x * p.panel_row;
      for (Index lane = r; lane < HWY_MIN(r + n, p.columns); ++lane)
        to[lane] = lane < p.rows ? p.source[lane][x * p.stride] : 0.0f;
    }
  }
}

// A row is read in one piece for all panels, because the rows may lie in a page each.
inline void PackColumnsOf(const PackColumns& p) {
  ForType(p.b.type, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    const F32 d;
    const Index n = Lanes();
    // Rows from asking to use: few, since rows 4096 bytes apart all fall into one set of L1.
    constexpr Index kAhead = 8, kLine = 64;
    for (Index x = 0; x < p.rows; ++x) {
      const T* row = RowAt<T>(p.b, x);
      if (x + kAhead < p.rows) {
        const char* ahead = reinterpret_cast<const char*>(RowAt<T>(p.b, x + kAhead));
        for (Index byte = 0; byte < BytesOf<T>(p.columns); byte += kLine)
          PrefetchToL2(ahead + byte);
      }
      float* to = p.panels + x * p.panel_columns;
      for (Index begin = 0; begin < p.columns; begin += p.panel_columns, to += p.apart) {
        for (Index at = 0; at < p.panel_columns; at += n) {
          const Index left = p.columns - begin - at;
          const V32 v = left >= n  ? LoadWide(row, begin + at)
                        : left > 0 ? LoadWideTail(row, begin + at, left)
                                   : hn::Zero(d);
          hn::StoreU(v, d, to + at);
        }
      }
    }
  });
}

// Rows read in one piece, as above.
inline void PackPairsOf(const PackPairs& p) {
  const auto row_at = [&](Index row) HWY_ATTR {
    return reinterpret_cast<const std::uint16_t*>(RowAt<BFloat16>(p.b, row));
  };
  const auto keep_finite = [&](auto d16, auto v) HWY_ATTR {
    const auto exponent = hn::Set(d16, std::uint16_t{0x7f80});
    return p.finite ? hn::IfThenZeroElse(hn::Eq(hn::And(v, exponent), exponent), v) : v;
  };
  const hn::Rebind<std::uint16_t, F32> half;
  const auto load = [&](Index row, Index x, Index left) HWY_ATTR {
    if (row >= p.rows || left <= 0) return hn::Zero(half);
    return keep_finite(half, left >= Lanes()
                                 ? hn::LoadU(half, row_at(row) + x)
                                 : hn::LoadN(half, row_at(row) + x, static_cast<size_t>(left)));
  };
  const hn::RebindToUnsigned<F32> d;
  const Index n = Lanes();
  constexpr Index kAhead = 8, kLine = 64, kFirstLines = 4;
  // Intel's prefetchers follow a row whose first lines are asked for, and hold more requests.
  Index asked = BytesOf<BFloat16>(p.columns);
  if (is_intel()) asked = HWY_MIN(asked, kFirstLines * kLine);
  for (Index i = 0; i < p.rows; i += 2) {
    for (Index row = i + kAhead; row < HWY_MIN(i + kAhead + 2, p.rows); ++row) {
      const char* ahead = reinterpret_cast<const char*>(row_at(row));
      for (Index byte = 0; byte < asked; byte += kLine) PrefetchToL2(ahead + byte);
    }
    float* to = p.panels + i / 2 * p.panel_columns;
    for (Index begin = 0; begin < p.columns; begin += p.panel_columns, to += p.apart) {
      const Index columns = HWY_MIN(p.panel_columns, p.columns - begin);
      Index at = 0;
#if HWY_TARGET != HWY_SCALAR
      const hn::Repartition<std::uint16_t, F32> d16;
      for (; i + 1 < p.rows && at + 2 * n <= columns; at += 2 * n) {
        const auto first = keep_finite(d16, hn::LoadU(d16, row_at(i) + begin + at));
        const auto second = keep_finite(d16, hn::LoadU(d16, row_at(i + 1) + begin + at));
        hn::StoreU(hn::BitCast(F32(), hn::InterleaveWholeLower(d16, first, second)), F32(),
                   to + at);
        hn::StoreU(hn::BitCast(F32(), hn::InterleaveWholeUpper(d16, first, second)), F32(),
                   to + at + n);
      }
#endif
      for (; at < p.panel_columns; at += n) {
        const Index x = begin + at, left = columns - at;
        const V32 pair =
            hn::BitCast(F32(), hn::Or(hn::PromoteTo(d, load(i, x, left)),
                                      hn::ShiftLeft<16>(hn::PromoteTo(d, load(i + 1, x, left)))));
        if (at + n <= p.panel_columns) {
          hn::StoreU(pair, F32(), to + at);
        } else {
          StoreTail(pair, to + at, p.panel_columns - at);
        }
      }
    }
  }
}

inline void UnpackRowsOf(const UnpackRows& p) {
  const Index n = Lanes();
  for (Index r = 0; r < p.rows; r += n) {
    Index x = 0;
#ifdef RAPT_BLOCK_TRANSPOSE
    if (p.stride == 1 && r + n <= p.rows) {
      const F32 d;
      const V32 divisor = hn::LoadU(d, p.divisor + r);
      const auto empty = hn::Eq(divisor, hn::Zero(d));
      const auto load = [&](Index at) HWY_ATTR {
        // Adding 0 turns -0, which depends on how many zeros were added, into +0.
        return hn::IfThenZeroElse(
            empty,
            hn::Add(hn::Div(hn::LoadU(d, p.panel + at * p.columns + r), divisor), hn::Zero(d)));
      };
      float* const* rows = p.destination + r;
      for (; x + 4 <= p.length; x += 4) {
        V32 v0 = load(x), v1 = load(x + 1), v2 = load(x + 2), v3 = load(x + 3);
        TransposeInBlocks(v0, v1, v2, v3);
        StoreBlocks(d, v0, rows, x);
        StoreBlocks(d, v1, rows + 1, x);
        StoreBlocks(d, v2, rows + 2, x);
        StoreBlocks(d, v3, rows + 3, x);
      }
    }
#endif
    const Index last = HWY_MIN(r + n, p.rows);
    for (Index lane = r; lane < last; ++lane) {
      const float divisor = p.divisor[lane];
      for (Index at = x; at < p.length; ++at) {
        p.destination[lane][at * p.stride] =
            divisor == 0.0f ? 0.0f : p.panel[at * p.columns + lane] / divisor + 0.0f;
      }
    }
  }
}

#undef RAPT_BLOCK_TRANSPOSE

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
