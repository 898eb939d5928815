// Matrix tiles: eight registers of up to 16 rows of up to 64 bytes, and instructions that add the
// product of two of them to a third: of pairs of bf16 to floats, of int8 to int32. Intel's AMX
// (https://www.intel.com/sdm, volume 1, chapter 18), for which Highway has no operations.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#define RAPT_AMX 1
#else
#define RAPT_AMX 0
#endif

namespace rapt::kernels {

// Whether the CPU has them, and the system lets this process use them, for which it is asked.
bool has_matrix_tiles();

// Whether the CPU takes longer for the product of two vectors of pairs (vdpbf16ps) than for two of
// floats. Measured: on Intel's two cycles, where those are one; on AMD's as long as one of them.
bool has_slow_pairs();

inline constexpr int kMatrixTiles = 8;
inline constexpr int kMatrixRows = 16;

}  // namespace rapt::kernels
