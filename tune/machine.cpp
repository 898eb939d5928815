#include "machine.hpp"

#include <ctime>

#include "config/config.hpp"
#include "rapt/executor.hpp"

namespace rapt::tune {
namespace {

std::string size(std::int64_t bytes) {
  return bytes % (1 << 20) == 0 ? std::to_string(bytes >> 20) + " MiB"
                                : std::to_string(bytes >> 10) + " KiB";
}

}  // namespace

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
