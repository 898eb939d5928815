#include "install.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <system_error>
#include <vector>

#include "config/atomic_file.hpp"
#include "config/config.hpp"
#include "rapt/error.hpp"

namespace rapt::tune {
namespace {

std::vector<std::string> paragraphs(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find("\n\n", at), text.size() - 1) + 1;
    parts.push_back(text.substr(at, end - at));
    at = std::min(text.find_first_not_of('\n', end), text.size());
  }
  return parts;
}

// What a paragraph is about: "attention AVX2 d=64". Empty: of no row.
std::string subject_of(const std::string& paragraph) {
  for (const char* operation : {"// attention ", "// gemm "}) {
    if (paragraph.starts_with(operation)) return paragraph.substr(3, paragraph.find(':') - 3);
  }
  return "";
}

bool is_config(const std::string& text) {
  try {
    return config::fits(config::parse(text));
  } catch (const Error&) {
    return false;
  }
}

// While it lives, no other tuner is between reading the file and replacing it. On the directory, so
// that no file of ours is left; where the file system cannot do that, the last tuner wins.
class Lock {
 public:
  explicit Lock(const std::string& directory)
      : fd_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    while (fd_ >= 0 && ::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  int fd_;
};

}  // namespace

std::string merged(const std::string& text, const std::string& old) {
  if (!is_config(old)) return text;
  std::set<std::string> spoken_of;
  for (const std::string& paragraph : paragraphs(text)) spoken_of.insert(subject_of(paragraph));
  std::string both = text;
  for (const std::string& paragraph : paragraphs(old)) {
    const std::string subject = subject_of(paragraph);
    if (!subject.empty() && spoken_of.insert(subject).second) both += "\n" + paragraph;
  }
  return is_config(both) ? both : text;  // it is not where somebody wrote into the old one
}

void make_directories(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string directory = path.substr(0, slash);
    if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
      throw std::system_error(errno, std::generic_category(), "cannot make " + directory);
  }
}

void install(const std::string& path, const std::string& text) {
  make_directories(path);
  const Lock lock(path.substr(0, path.rfind('/')));
  std::string old;
  try {
    old = config::read_trusted_file(path.c_str());
  } catch (const Error&) {  // none, or none that the library would take
  }
  config::write_whole_file(path, merged(text, old));
}

}  // namespace rapt::tune
