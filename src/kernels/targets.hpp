// Which ISA targets are compiled. Include before any Highway header.
#pragma once

// The targets between and beyond these bring nothing but compile time: SSSE3 adds no f32
// instruction to SSE2, AVX3_DL none to AVX3, and what AVX3_SPR and AVX10_2 add to AVX3_ZEN4
// (AVX-512 with the product of bf16 pairs, of AMD or not) no kernel uses. Matrix tiles are none of
// Highway's: matrix_tiles-inl.h.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_AVX3_SPR | HWY_AVX10_2 | RAPT_WITHOUT_TARGETS)

// Those that this CPU runs. Highway keeps AVX3_ZEN4 for AMD; what it is here, every CPU with more
// than it runs, too.
#define RAPT_SUPPORTED_TARGETS \
  (hwy::SupportedTargets() | ((hwy::SupportedTargets() & HWY_AVX3_SPR) != 0 ? HWY_AVX3_ZEN4 : 0))

// For builds that need not have all of them.
#ifndef RAPT_WITHOUT_TARGETS
#define RAPT_WITHOUT_TARGETS 0
#endif

// Of the target being compiled: 32 vector registers, otherwise 16.
#define RAPT_MANY_REGISTERS \
  (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_ZEN4 || HWY_ARCH_ARM_A64 || HWY_ARCH_RISCV)

// Register tiles of rows that lie side by side multiply two of them at a time.
#define RAPT_PAIRED_ROWS (HWY_TARGET == HWY_SSE4)
