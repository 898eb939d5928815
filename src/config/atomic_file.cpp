#include "config/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>

namespace rapt::config {
namespace {

[[noreturn]] void fail(int error, const std::string& action, const std::string& path) {
  throw std::system_error(error, std::generic_category(), "cannot " + action + " " + path);
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// A temporary file beside the target, so that rename() stays within one file system. It goes away
// unless it is kept; after a SIGKILL one named .rapt-XXXXXX may stay behind.
class Temporary {
 public:
  explicit Temporary(const std::string& directory) : name_(directory + "/.rapt-XXXXXX") {
    fd_ = ::mkostemp(name_.data(), O_CLOEXEC);
    if (fd_ < 0) fail(errno, "create a file in", directory);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (fd_ >= 0) ::close(fd_);
    if (!kept_) ::unlink(name_.c_str());
  }

  int fd() const { return fd_; }
  // Closes and gives it the name `path`, in one step for every reader.
  void keep_as(const std::string& path) {
    if (::close(std::exchange(fd_, -1)) != 0) fail(errno, "write", path);
    if (::rename(name_.c_str(), path.c_str()) != 0) fail(errno, "replace", path);
    kept_ = true;
  }

 private:
  std::string name_;
  int fd_ = -1;
  bool kept_ = false;
};

// mkstemp's 0600, widened to what any other program would have given a new file.
void give_usual_mode(int fd, const std::string& path) {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  if (::fchmod(fd, 0666 & ~mask) != 0) fail(errno, "set the mode of", path);
}

// The new name survives a power cut only once the directory is on disk, too. Some file systems
// cannot do that, and the file is whole without it.
void sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)::fsync(fd);
  ::close(fd);
}

}  // namespace

void write_whole_file(const std::string& path, const std::string& text) {
  const std::string directory = directory_of(path);
  Temporary file(directory);
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = ::write(file.fd(), text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(errno, "write", path);
    written += static_cast<std::size_t>(n);
  }
  give_usual_mode(file.fd(), path);
  if (::fsync(file.fd()) != 0) fail(errno, "write", path);
  file.keep_as(path);
  sync_directory(directory);
}

void check_writable(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    fail(S_ISDIR(status.st_mode) ? EISDIR : EINVAL, "write", path);
  }
  const Temporary probe(directory_of(path));
}

}  // namespace rapt::config
