// Matrix tiles: eight registers of up to 16 rows of up to 64 bytes, and instructions that add the
// product of two of them to a third: of pairs of bf16 to floats, of int8 to int32. Intel's AMX
// (https://www.intel.com/sdm, volume 1, chapter 18), for which Highway has no operations; and the
// same on arrays in memory, so that what is written for them runs on every machine in the tests.
// Per-target header: see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_MATRIX_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_MATRIX_TILES_INL_H_
#undef RAPT_KERNELS_MATRIX_TILES_INL_H_
#else
#define RAPT_KERNELS_MATRIX_TILES_INL_H_
#endif

#include "kernels/features.hpp"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

inline constexpr int kMatrixTiles = 8;
inline constexpr int kMatrixRows = 16;

struct MatrixShape {
  int rows, bytes;  // of a row; both 0: not in use
};
struct MatrixShapes {
  MatrixShape of[kMatrixTiles];
};

// Of c += a b: a [rows, k] pairs, b [k, columns] pairs, c [rows, columns] floats; or fours of int8
// in place of pairs, and c of int32.
class EmulatedMatrixTiles {
 public:
  explicit EmulatedMatrixTiles(const MatrixShapes& shapes) : shapes_(shapes) {}

  template <int kTile>
  void zero() {
    std::memset(tiles_[kTile], 0, sizeof tiles_[kTile]);
  }
  // Rows `stride` bytes apart.
  template <int kTile>
  void load(const void* from, std::int64_t stride) {
    const MatrixShape shape = shapes_.of[kTile];
    for (int r = 0; r < shape.rows; ++r) {
      std::memcpy(tiles_[kTile][r], static_cast<const char*>(from) + r * stride,
                  static_cast<size_t>(shape.bytes));
    }
  }
  template <int kTile>
  void store(void* to, std::int64_t stride) const {
    const MatrixShape shape = shapes_.of[kTile];
    for (int r = 0; r < shape.rows; ++r) {
      std::memcpy(static_cast<char*>(to) + r * stride, tiles_[kTile][r],
                  static_cast<size_t>(shape.bytes));
    }
  }
  template <int kC, int kA, int kB>
  void multiply_add() {
    each_of_c<kC, kA, kB>([&](std::uint32_t c, int r, int column, int steps) {
      float sum = number(c);
      for (int k = 0; k < steps; ++k) {
        const std::uint32_t x = tiles_[kA][r][k], y = tiles_[kB][k][column];
        constexpr std::uint32_t kSecond = 0xffff0000u;
        sum += number(x << 16) * number(y << 16) + number(x & kSecond) * number(y & kSecond);
      }
      std::uint32_t bits;
      std::memcpy(&bits, &sum, sizeof bits);
      return bits;
    });
  }
  template <int kC, int kA, int kB>
  void multiply_add_bytes() {
    each_of_c<kC, kA, kB>([&](std::uint32_t sum, int r, int column, int steps) {
      for (int k = 0; k < steps; ++k) {
        const std::uint32_t x = tiles_[kA][r][k], y = tiles_[kB][k][column];
        for (int i = 0; i < 32; i += 8) {
          sum += static_cast<std::uint32_t>(static_cast<std::int8_t>(x >> i) *
                                            static_cast<std::int8_t>(y >> i));
        }
      }
      return sum;
    });
  }

 private:
  // c = f(c, its row, its column, steps of k). The CPU refuses tiles that do not fit; here the
  // result shows it.
  template <int kC, int kA, int kB, class F>
  void each_of_c(const F& f) {
    const MatrixShape a = shapes_.of[kA], b = shapes_.of[kB], c = shapes_.of[kC];
    const bool fit = c.rows > 0 && c.bytes > 0 && a.rows == c.rows && a.bytes == 4 * b.rows &&
                     b.bytes == c.bytes;
    for (int r = 0; r < c.rows; ++r) {
      for (int column = 0; column < c.bytes / 4; ++column) {
        std::uint32_t& number_of_c = tiles_[kC][r][column];
        number_of_c = fit ? f(number_of_c, r, column, b.rows) : 0x7fc00000u;  // NaN
      }
    }
  }
  static float number(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
  MatrixShapes shapes_;
  std::uint32_t tiles_[kMatrixTiles][kMatrixRows][16] = {};
};

#if RAPT_AMX
// The registers. Nothing else may run on them between constructor and destructor, which leaves them
// as the system expects them of code that has none: not in use.
class AmxTiles {
 public:
  explicit AmxTiles(const MatrixShapes& shapes) {
    struct Configuration {
      std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
      std::uint16_t bytes[16] = {};
      std::uint8_t rows[16] = {};
    } configuration;
    static_assert(sizeof configuration == 64);
    for (int i = 0; i < kMatrixTiles; ++i) {
      configuration.bytes[i] = static_cast<std::uint16_t>(shapes.of[i].bytes);
      configuration.rows[i] = static_cast<std::uint8_t>(shapes.of[i].rows);
    }
    asm volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
  }
  ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int kTile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  void load(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
  }
  template <int kTile>
  void store(void* to, std::int64_t stride) const {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
  }
  template <int kC, int kA, int kB>
  void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
  template <int kC, int kA, int kB>
  void multiply_add_bytes() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
};
#endif

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
