// Asking the CPU (cpuid) and the system.
#include "kernels/features.hpp"

#if RAPT_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rapt::kernels {

bool has_matrix_tiles() {
#if RAPT_AMX
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kXsave =
      1u << 27;  // of ecx, leaf 1: the system manages the state of registers
  constexpr unsigned kNeeded = 1u << 22 | 1u << 24 | 1u << 25;  // of edx, leaf 7: bf16, tiles, int8
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kNeeded) != kNeeded) return false;
  // The state of the tiles is large, so Linux manages it only for processes that ask:
  // arch_prctl(2).
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
  constexpr unsigned kEnabled = 3u << 17;  // the configuration of tiles, and their data
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (a & kEnabled) == kEnabled;
#else
  return false;
#endif
}

bool is_intel() {
#if RAPT_AMX
  static const bool intel = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kIntel = 0x756e6547;  // "Genu" of GenuineIntel
    return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == kIntel;
  }();
  return intel;
#else
  return false;
#endif
}

}  // namespace rapt::kernels
