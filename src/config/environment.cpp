// What the environment says: files that it names, and where the tuned file of this CPU lies.
#include <cstdlib>

#include "config/config.hpp"

#if !defined(__linux__) && __has_include(<unistd.h>)
#include <unistd.h>  // issetugid
#endif

namespace rapt::config {

const char* environment(const char* name) {
#if defined(__linux__)
  const char* const value = ::secure_getenv(name);
#elif __has_include(<unistd.h>)
  const char* const value = ::issetugid() ? nullptr : std::getenv(name);
#else
  const char* const value = std::getenv(name);
#endif
  return value != nullptr && *value != '\0' ? value : nullptr;
}

// XDG Base Directory Specification 0.8: a path that is not absolute is ignored.
std::string installed_path() {
  const auto absolute = [](const char* name) {
    const char* const value = environment(name);
    return std::string(value != nullptr && value[0] == '/' ? value : "");
  };
  std::string directory = absolute("XDG_CACHE_HOME");
  if (directory.empty()) {
    directory = absolute("HOME");
    if (directory.empty()) return "";
    directory += "/.cache";
  }
  return directory + "/rapt/" + cpu_key() + ".hpp";
}

}  // namespace rapt::config
