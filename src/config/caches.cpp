// The cache sizes of this machine, for the formulas of defaults.cpp.
//
// Highway's contrib/thread_pool/topology reads the same files, but visits every CPU of the machine
// and prints a warning where something is missing; three sizes need neither.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string>

#include "config/config.hpp"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace rapt::config {
namespace {

// What nearly every core of the last ten years has at least. Used where nothing is known (in an
// emulator, in a sandbox without /sys), so that results are the same on all such machines.
constexpr Caches kTypical = {.l1 = 32 << 10, .l2 = 512 << 10, .l3 = 4 << 20};

// A size below or above these is a misreading (qemu-user shows the host's file system).
constexpr std::int64_t kLeast = 4 << 10, kMost = std::int64_t{4} << 30;

// C's stdio, because a C++ stream would bring in the caller's locale. "" when there is no such
// file.
std::string first_word(const std::string& path) {
  std::FILE* const file =
      std::fopen(path.c_str(), "re");  // e: not inherited by programs started meanwhile
  if (file == nullptr) return "";
  char word[256] = "";
  if (std::fscanf(file, "%255s", word) != 1) word[0] = '\0';
  std::fclose(file);
  return word;
}

// "48K", "2M", "32768K" -> bytes; 0 when it is none of these.
std::int64_t bytes(const std::string& word) {
  std::int64_t value = 0;
  std::size_t i = 0;
  for (; i < word.size() && i < 9 && word[i] >= '0' && word[i] <= '9'; ++i) {
    value = value * 10 + (word[i] - '0');
  }
  if (i < word.size() && word[i] == 'K') return value << 10;
  if (i < word.size() && word[i] == 'M') return value << 20;
  return i == word.size() ? value : 0;
}

// How many CPUs a list such as "0-3,8" names; at least 1.
std::int64_t cpus(const std::string& list) {
  std::int64_t count = 0;
  for (std::size_t at = 0; at < list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    const std::string range = list.substr(at, end - at);
    const std::size_t dash = range.find('-');
    const std::int64_t first = bytes(range.substr(0, dash));
    const std::int64_t last = dash == std::string::npos ? first : bytes(range.substr(dash + 1));
    count += last >= first ? last - first + 1 : 1;
    at = end + 1;
  }
  return count > 0 ? count : 1;
}

// Level 1 to 3 as CPU 0 has it: always the same CPU, so that the numbers do not depend on where the
// first call happens to run. https://docs.kernel.org/ABI/testing/sysfs-devices-system-cpu
Caches from_sysfs() {
  Caches caches;
  const std::string cpu0 = "/sys/devices/system/cpu/cpu0/";
  const std::int64_t threads = cpus(first_word(cpu0 + "topology/thread_siblings_list"));
  for (int i = 0; i < 8; ++i) {
    const std::string index = cpu0 + "cache/index" + std::to_string(i) + "/";
    const std::string type = first_word(index + "type"), level = first_word(index + "level");
    if (type.empty()) break;
    if (type != "Data" && type != "Unified") continue;
    const std::int64_t size = bytes(first_word(index + "size"));
    // Cores, not hardware threads: one task runs on a core at a time.
    const std::int64_t cores =
        std::max<std::int64_t>(1, cpus(first_word(index + "shared_cpu_list")) / threads);
    if (level == "1") caches.l1 = size;
    if (level == "2")
      caches.l2 = size / cores;  // a few cores share it on some (Apple, Atom, RISC-V)
    if (level == "3") caches.l3 = size;
  }
  return caches;
}

Caches from_sysconf() {
  Caches caches;
#ifdef _SC_LEVEL1_DCACHE_SIZE
  caches.l1 = ::sysconf(_SC_LEVEL1_DCACHE_SIZE);
  caches.l2 = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  caches.l3 = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return caches;
}

Caches measure() {
  const int caller_errno = errno;
  const Caches files = from_sysfs(), libc = from_sysconf();
  errno = caller_errno;
  const auto sane = [](std::int64_t size) { return size >= kLeast && size <= kMost; };
  const auto pick = [&](std::int64_t Caches::* level) {
    if (sane(files.*level)) return files.*level;
    if (sane(libc.*level)) return libc.*level;
    return kTypical.*level;
  };
  Caches caches{pick(&Caches::l1), pick(&Caches::l2), pick(&Caches::l3)};
  caches.l2 = std::max(caches.l2, caches.l1);
  caches.l3 = std::max(caches.l3, caches.l2);
  return caches;
}

}  // namespace

const Caches& machine_caches() {
  static const Caches caches = measure();
  return caches;
}

}  // namespace rapt::config
