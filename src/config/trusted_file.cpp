// Reads a file that an environment variable names. Whoever set the variable chose the file, so the
// file itself must show that nobody else could have written it, and opening it must have no
// effects.
#include <cerrno>
#include <string>
#include <system_error>

#include "config/config.hpp"
#include "rapt/error.hpp"

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <fstream>
#include <iterator>
#endif

namespace rapt::config {
namespace {

[[noreturn]] void refuse(const std::string& reason) { throw Error(ErrorCode::bad_config, reason); }

#if __has_include(<unistd.h>)

[[noreturn]] void refuse_errno(const char* action, int code) {
  refuse(std::string(action) + ": " + std::generic_category().message(code));
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// All of the checks are on the open descriptor: the path may point elsewhere a moment later.
void check(int fd) {
  struct stat status;
  if (::fstat(fd, &status) != 0) refuse_errno("cannot look at the file", errno);
  if (!S_ISREG(status.st_mode)) refuse("is not a regular file");
  if (status.st_uid != ::geteuid() && status.st_uid != 0) {
    refuse("is owned by user " + std::to_string(status.st_uid) + ", neither by this user (" +
           std::to_string(::geteuid()) + ") nor by root");
  }
  if ((status.st_mode & S_IWOTH) != 0) refuse("is writable by everybody");
}

#endif

}  // namespace

#if __has_include(<unistd.h>)

std::string read_trusted_file(const char* path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOCTTY: nor a terminal take us over.
  const Descriptor file{::open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)};
  if (file.fd < 0) {
    if (errno == ELOOP) refuse("is a symbolic link, which is not followed");
    refuse_errno("cannot open the file", errno);
  }
  check(file.fd);
  // One byte more than parse() takes: a longer file is seen to be too long, and that is its error.
  std::string text(kMaxTextBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(file.fd, text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse_errno("cannot read the file", errno);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > kMaxTextBytes) {
    refuse("is longer than " + std::to_string(kMaxTextBytes) + " bytes");
  }
  text.resize(size);
  return text;
}

#else

std::string read_trusted_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse("cannot open the file");
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (text.size() > kMaxTextBytes) {
    refuse("is longer than " + std::to_string(kMaxTextBytes) + " bytes");
  }
  return text;
}

#endif

}  // namespace rapt::config
