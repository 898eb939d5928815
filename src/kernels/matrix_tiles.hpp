// Matrix tiles: eight registers of up to 16 rows of up to 64 bytes, and an instruction that adds
// the product of two of them, of pairs of bf16, to a third, of floats. Intel's AMX
// (https://www.intel.com/sdm, volume 1, chapter 18), for which Highway has no operations; and the
// same on arrays in memory, so that what is written for it runs on every machine in the tests.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "rapt/types.hpp"

#if defined(__x86_64__) && defined(__linux__)
#define RAPT_AMX 1
#else
#define RAPT_AMX 0
#endif

namespace rapt::kernels {

// Whether the CPU has them, and the system lets this process use them, for which it is asked.
bool has_matrix_tiles();

inline constexpr int kMatrixTiles = 8;
inline constexpr int kMatrixRows = 16;

struct MatrixShape {
  int rows, bytes;  // of a row; both 0: not in use
};
using MatrixShapes = std::array<MatrixShape, kMatrixTiles>;

// Of c += a b: a [rows, k] pairs, b [k, columns] pairs, c [rows, columns] floats.
class EmulatedMatrixTiles {
 public:
  explicit EmulatedMatrixTiles(const MatrixShapes& shapes) : shapes_(shapes) {}

  template <int kTile>
  void zero() {
    tiles_[kTile] = {};
  }
  // Rows `stride` bytes apart.
  template <int kTile>
  void load(const void* from, std::int64_t stride) {
    for (int r = 0; r < shapes_[kTile].rows; ++r) {
      std::memcpy(tiles_[kTile][static_cast<std::size_t>(r)].data(),
                  static_cast<const char*>(from) + r * stride,
                  static_cast<std::size_t>(shapes_[kTile].bytes));
    }
  }
  template <int kTile>
  void store(void* to, std::int64_t stride) const {
    for (int r = 0; r < shapes_[kTile].rows; ++r) {
      std::memcpy(static_cast<char*>(to) + r * stride,
                  tiles_[kTile][static_cast<std::size_t>(r)].data(),
                  static_cast<std::size_t>(shapes_[kTile].bytes));
    }
  }
  // The CPU refuses tiles that do not fit; here the result shows it.
  template <int kC, int kA, int kB>
  void multiply_add() {
    const MatrixShape a = shapes_[kA], b = shapes_[kB], c = shapes_[kC];
    const bool fit = c.rows > 0 && c.bytes > 0 && a.rows == c.rows && a.bytes == 4 * b.rows &&
                     b.bytes == c.bytes;
    for (std::size_t r = 0; r < static_cast<std::size_t>(c.rows); ++r) {
      for (std::size_t column = 0; column < static_cast<std::size_t>(c.bytes / 4); ++column) {
        float sum;
        std::memcpy(&sum, &tiles_[kC][r][column], sizeof sum);
        for (std::size_t k = 0; k < static_cast<std::size_t>(b.rows); ++k) {
          const std::uint32_t x = tiles_[kA][r][k], y = tiles_[kB][k][column];
          sum += number(x) * number(y) + number(x >> 16) * number(y >> 16);
        }
        if (!fit) sum = number(0x7fc0);  // NaN
        std::memcpy(&tiles_[kC][r][column], &sum, sizeof sum);
      }
    }
  }

 private:
  static float number(std::uint32_t bits) {
    return to_float(BFloat16{static_cast<std::uint16_t>(bits)});
  }
  MatrixShapes shapes_;
  std::array<std::array<std::uint32_t, 16>, kMatrixRows> tiles_[kMatrixTiles]{};
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
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      configuration.bytes[i] = static_cast<std::uint16_t>(shapes[i].bytes);
      configuration.rows[i] = static_cast<std::uint8_t>(shapes[i].rows);
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
};
#endif

}  // namespace rapt::kernels
