#include "machine.hpp"

#include <sys/utsname.h>

#include <ctime>
#include <fstream>

#include "config/config.hpp"
#include "rapt/executor.hpp"

namespace rapt::tune {
namespace {

// The value of the first line "key   : value" of /proc/cpuinfo, or "".
std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (line.compare(0, key.size(), key) != 0 || colon == std::string::npos) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    const std::size_t value = line.find_first_not_of(" \t", colon + 1);
    if (value != std::string::npos) return line.substr(value);
  }
  return "";
}

std::string size(std::int64_t bytes) {
  return bytes % (1 << 20) == 0 ? std::to_string(bytes >> 20) + " MiB"
                                : std::to_string(bytes >> 10) + " KiB";
}

}  // namespace

std::string processor() {
  if (const std::string name = cpuinfo("model name"); !name.empty()) return name;
  if (const std::string part = cpuinfo("CPU part"); !part.empty()) {  // Arm: numbers only
    return "Arm, implementer " + cpuinfo("CPU implementer") + ", part " + part;
  }
  if (const std::string name = cpuinfo("uarch"); !name.empty()) return name;  // RISC-V
  utsname system;
  return ::uname(&system) == 0 ? system.machine : "unknown";
}

std::string caches() {
  const config::Caches& caches = config::machine_caches();
  return "L1 " + size(caches.l1) + ", L2 " + size(caches.l2) + ", L3 " + size(caches.l3);
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__) + "." +
         std::to_string(__GNUC_PATCHLEVEL__);
#else
  return "an unknown compiler";
#endif
}

std::string date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32] = "";
  std::strftime(text, sizeof text, "%Y-%m-%d", &utc);
  return text;
}

int threads() { return default_executor().workers(); }

std::string for_comment(const std::string& text) {
  std::string clean;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    clean += byte < ' ' || byte == 0x7f || c == '\\' ? ' ' : c;
  }
  return clean;
}

}  // namespace rapt::tune
