// What the CPU and the system have that Highway does not say.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#define RAPT_AMX 1
#else
#define RAPT_AMX 0
#endif

namespace rapt::kernels {

// Whether the CPU has matrix tiles (matrix_tiles-inl.h), and the system lets this process use them,
// for which it is asked.
bool has_matrix_tiles();

// Whether the CPU is one of Intel's, of which is measured what Highway does not say:
// - The product of two vectors of pairs (vdpbf16ps) takes two cycles, where two of floats take one;
//   on AMD's as long as one of them.
// - A vector as long as a line that lies in two takes a register tile a fourth more time; on AMD's
//   nothing.
// - Rows that a loop of arithmetic reads in order come late unless it asks for them; on AMD's what
//   is asked for comes later than what their prefetchers see coming.
bool is_intel();

}  // namespace rapt::kernels
