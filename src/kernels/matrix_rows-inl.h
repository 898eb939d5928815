// Rows of K and V as matrix tiles read them, 16 at a time. Per-target header: see kernels.cc.
#include "kernels/load-inl.h"
#include "kernels/matrix_tiles-inl.h"

#if defined(RAPT_KERNELS_MATRIX_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_ROWS_INL_H_
#undef RAPT_KERNELS_MATRIX_ROWS_INL_H_
#else
#define RAPT_KERNELS_MATRIX_ROWS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

inline constexpr Index kTileBytes = 64;  // of a row of a tile
inline constexpr Index kTileWords = kTileBytes / 4;

// Rows of so many bytes that lie apart: what tiles read of them, no prefetcher of the CPU follows.
HWY_INLINE bool AreApart(const StoredRows& rows, Index bytes) {
  return rows.pages.table == nullptr && rows.stride > bytes;
}

// Rows [first, first + 16) of those before `end`, for tiles of 64 bytes of each.
class SixteenRows {
 public:
  HWY_INLINE SixteenRows(const StoredRows& rows, Index first, Index end)
      : count_(HWY_MAX(HWY_MIN(end - first, Index{kMatrixRows}), Index{0})), stride_(rows.stride) {
    if (count_ == 0) return;
    first_ = RowAt<char>(rows, first);
    together_ = RowsTogether(rows, first) >= count_;
    if (together_) return;
    for (Index r = 0; r < count_; ++r) row_[r] = RowAt<char>(rows, first + r);
  }

  HWY_INLINE Index count() const { return count_; }

  // From byte `at` of each row on; of the last, n < 64. What is not there is 0.
  template <int kTile, class Tiles>
  HWY_INLINE void Load(Tiles& tiles, Index at, Index n) const {
    if (together_ && count_ == kMatrixRows && n >= kTileBytes)
      return tiles.template load<kTile>(first_ + at, stride_);
    LoadCopy<kTile>(tiles, at, HWY_MIN(n, kTileBytes));
  }

  // For bytes [at, at + n) of each, to come soon.
  HWY_INLINE void Ask(Index at, Index n) const {
    constexpr Index kLine = 64;
    for (Index r = 0; r < count_; ++r) {
      const char* row = (together_ ? first_ + r * stride_ : row_[r]) + at;
      for (Index byte = 0; byte < n; byte += kLine) PrefetchToL2(row + byte);
    }
  }

 private:
  template <int kTile, class Tiles>
  HWY_NOINLINE void LoadCopy(Tiles& tiles, Index at, Index n) const {
    alignas(64) char copy[kMatrixRows * kTileBytes] = {};
    for (Index r = 0; r < count_; ++r) {
      const char* row = together_ ? first_ + r * stride_ : row_[r];
      if (n == kTileBytes) {
        std::memcpy(copy + r * kTileBytes, row + at, kTileBytes);
      } else {
        std::memcpy(copy + r * kTileBytes, row + at, static_cast<size_t>(n));
      }
    }
    tiles.template load<kTile>(copy, kTileBytes);
  }

  Index count_, stride_;
  bool together_ = true;
  const char* first_ = nullptr;
  const char* row_[kMatrixRows];  // where they are not together
};

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
