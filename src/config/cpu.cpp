// The model of this machine's CPU, which says for whom a config was tuned.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "config/config.hpp"

#if __has_include(<sys/utsname.h>)
#include <sys/utsname.h>
#endif

namespace rapt::config {
namespace {

// What the first CPU of /proc/cpuinfo says, "key<tabs>: value" a line.
struct CpuInfo {
  static constexpr const char* kKeys[] = {"model name",      "cpu family", "model",
                                          "CPU implementer", "CPU part",   "uarch"};
  static constexpr int kCount = sizeof kKeys / sizeof *kKeys;
  std::string values[kCount];

  CpuInfo() {
    std::FILE* const file = std::fopen("/proc/cpuinfo", "re");  // e: not inherited
    if (file == nullptr) return;
    char line[4096];  // the longest are flags
    while (std::fgets(line, sizeof line, file) != nullptr && line[0] != '\n') {
      const char* const colon = std::strchr(line, ':');
      if (colon == nullptr) continue;
      std::string key(static_cast<const char*>(line), colon);
      key.resize(key.find_last_not_of(" \t") + 1);
      for (int i = 0; i < kCount; ++i) {
        if (key == kKeys[i] && values[i].empty()) values[i] = colon + 1;
      }
    }
    std::fclose(file);
  }
  const std::string& operator[](const char* key) const {
    int i = 0;
    while (std::strcmp(kKeys[i], key) != 0) ++i;
    return values[i];
  }
};

std::string read_name() {
  const CpuInfo cpu;
  // x86. The name alone would do, if virtual machines did not call several models the same.
  if (!cpu["model name"].empty() && !cpu["model"].empty()) {
    return cpu["model name"] + ", family " + cpu["cpu family"] + ", model " + cpu["model"];
  }
  if (!cpu["model name"].empty()) return cpu["model name"];
  if (!cpu["CPU part"].empty())  // Arm: numbers only
    return "Arm, implementer " + cpu["CPU implementer"] + ", part " + cpu["CPU part"];
  if (!cpu["uarch"].empty()) return cpu["uarch"];  // RISC-V
#if __has_include(<sys/utsname.h>)
  utsname system;
  if (::uname(&system) == 0) return system.machine;
#endif
  return "unknown";
}

// One blank between words, none around commas' left and the ends; nothing that a comment or a
// terminal could take amiss.
std::string printable(const std::string& raw) {
  std::string clean;
  for (const char c : raw) {
    const bool blank = c <= ' ' || c > '~' || c == '\\';
    if (!blank && c == ',' && !clean.empty() && clean.back() == ' ') clean.pop_back();
    if (!blank) clean += c;
    if (blank && !clean.empty() && clean.back() != ' ') clean += ' ';
  }
  if (!clean.empty() && clean.back() == ' ') clean.pop_back();
  return clean;
}

}  // namespace

const std::string& cpu_name() {
  static const std::string name = [] {
    const int caller_errno = errno;
    const std::string clean = printable(read_name());
    errno = caller_errno;
    return clean;
  }();
  return name;
}

std::string cpu_key() {
  std::string key;
  for (const char c : cpu_name()) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (word) key += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (!word && !key.empty() && key.back() != '-') key += '-';
  }
  while (!key.empty() && key.back() == '-') key.pop_back();
  return key;
}

}  // namespace rapt::config
