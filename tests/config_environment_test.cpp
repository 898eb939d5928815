// RAPT_CONFIG: a file that is loaded before the first call, and the rules that it has to obey.
//
// A process has one first call, so every case runs in a child of its own that is forked before this
// process has made any call.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "config/config.hpp"
#include "rapt/config.hpp"
#include "rapt/error.hpp"

namespace rapt {
namespace {

const std::string kRow =
    "RAPT_ROW(gemm, AVX2, f32, tile=6x2, block_m=336, block_n=1024, block_k=384, direct_rows=6)\n";

std::string text_or_error() {
  try {
    return config_text();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    return std::string("error: ") + error.what();
  }
}

// What the function returns in a child process.
std::string in_child(const std::function<std::string()>& function) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string result = function();
    std::size_t sent = 0;
    while (sent < result.size()) {
      const ssize_t n = ::write(ends[1], result.data() + sent, result.size() - sent);
      if (n <= 0) ::_exit(1);
      sent += static_cast<std::size_t>(n);
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string result;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    result.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
  return result;
}

class ConfigEnvironment : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "rapt-config-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/config.hpp";
  }
  void TearDown() override { std::system(("rm -rf '" + directory_ + "'").c_str()); }

  void write(const std::string& text, mode_t mode = 0644) {
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(std::fwrite(text.data(), 1, text.size(), file), text.size());
    std::fclose(file);
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
  }

  // What the first call of a process with RAPT_CONFIG=path sees.
  static std::string first_call(const std::string& path) {
    return in_child([&] {
      ::setenv("RAPT_CONFIG", path.c_str(), 1);
      return text_or_error();
    });
  }

  void expect_refused(const std::string& path, const std::string& reason) {
    const std::string sentence = first_call(path);
    EXPECT_EQ(sentence.rfind("error: RAPT_CONFIG=" + path + ": ", 0), 0u) << sentence;
    EXPECT_NE(sentence.find(reason), std::string::npos) << sentence << "\n  wanted: " << reason;
  }

  std::string directory_, path_;
};

TEST_F(ConfigEnvironment, FileIsLoadedBeforeTheFirstCall) {
  write(kRow);
  EXPECT_NE(first_call(path_).find(kRow), std::string::npos);
}

TEST_F(ConfigEnvironment, UnsetOrEmptyMeansCompiledIn) {
  const std::string compiled_in = in_child([] {
    ::unsetenv("RAPT_CONFIG");
    return text_or_error();
  });
  EXPECT_EQ(compiled_in.rfind("// ", 0), 0u) << compiled_in;
  EXPECT_EQ(first_call(""), compiled_in);
}

TEST_F(ConfigEnvironment, BadRowNamesFileAndLine) {
  write("// fine\n" + kRow + kRow);
  expect_refused(path_, "config line 3: a second row for gemm");
}

TEST_F(ConfigEnvironment, MissingFile) {
  expect_refused(path_, "cannot open the file: No such file");
}

TEST_F(ConfigEnvironment, SymbolicLinkIsNotFollowed) {
  write(kRow);
  const std::string link = directory_ + "/link";
  ASSERT_EQ(::symlink(path_.c_str(), link.c_str()), 0);
  expect_refused(link, "is a symbolic link, which is not followed");
}

TEST_F(ConfigEnvironment, OnlyARegularFile) {
  expect_refused(directory_, "is not a regular file");
  expect_refused("/dev/zero", "is not a regular file");
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_refused(fifo, "is not a regular file");  // and does not wait for a writer
}

TEST_F(ConfigEnvironment, NotWritableByEverybody) {
  write(kRow, 0646);
  expect_refused(path_, "is writable by everybody");
  write(kRow, 0600);
  EXPECT_NE(first_call(path_).find(kRow), std::string::npos);
}

TEST_F(ConfigEnvironment, OwnedByUserOrRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give the file away";
  write(kRow);
  ASSERT_EQ(::chown(path_.c_str(), 12345, 12345), 0);
  expect_refused(path_, "is owned by user 12345, neither by this user (0) nor by root");
}

TEST_F(ConfigEnvironment, SizeCap) {
  write(std::string(config::kMaxTextBytes - kRow.size(), '\n') + kRow);
  EXPECT_NE(first_call(path_).find(kRow), std::string::npos);
  write(std::string(config::kMaxTextBytes, '\n') + kRow);
  expect_refused(path_, "is longer than 1048576 bytes");
}

// A config that was asked for and cannot be had is never quietly replaced by another one.
TEST_F(ConfigEnvironment, EveryCallThrowsUntilAConfigIsLoaded) {
  write("rubbish\n");
  const std::string calls = in_child([&] {
    ::setenv("RAPT_CONFIG", path_.c_str(), 1);
    const std::string first = text_or_error(), second = text_or_error();
    load_config(kRow);
    const std::string loaded = text_or_error();
    load_config("");
    return std::string(first.rfind("error:", 0) == 0 && second == first ? "throws "
                                                                        : first + second) +
           (loaded.find(kRow) != std::string::npos ? "loaded " : loaded) +
           (text_or_error().rfind("// ", 0) == 0 ? "compiled in" : text_or_error());
  });
  EXPECT_EQ(calls, "throws loaded compiled in");
}

TEST_F(ConfigEnvironment, LoadedConfigComesBeforeTheFile) {
  write("rubbish\n");
  const std::string text = in_child([&] {
    ::setenv("RAPT_CONFIG", path_.c_str(), 1);
    load_config(kRow);
    return text_or_error();
  });
  EXPECT_NE(text.find(kRow), std::string::npos) << text;
}

TEST_F(ConfigEnvironment, ErrnoAndDescriptorsAreLeftAlone) {
  write(kRow);
  const std::string result = in_child([&] {
    ::setenv("RAPT_CONFIG", path_.c_str(), 1);
    const int before = ::open("/dev/null", O_RDONLY);
    ::close(before);
    errno = 1234;
    text_or_error();
    config::machine_caches();
    const int kept = errno;
    ::setenv("RAPT_CONFIG", "/nonexistent", 1);
    return std::to_string(kept) + (::open("/dev/null", O_RDONLY) == before ? " same" : " leaked");
  });
  EXPECT_EQ(result, "1234 same");
}

#if defined(__linux__)
// The child of the next test: a copy of this program that runs with its owner's rights.
TEST(ConfigPrivileged, DISABLED_Child) {
  std::printf("%s %s\n", ::getauxval(AT_SECURE) != 0 ? "privileged" : "ordinary",
              text_or_error().rfind("error:", 0) == 0 ? "file read" : "file ignored");
}

// A program that has more rights than its user must not read what the user's environment names.
TEST_F(ConfigEnvironment, IgnoredByPrivilegedPrograms) {  // B44
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to make a set-user-id program";
  const std::string program = directory_ + "/program";
  ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  char self[4096] = "";
  ASSERT_GT(::readlink("/proc/self/exe", self, sizeof self - 1), 0);
  ASSERT_EQ(std::system((std::string("cp '") + self + "' '" + program + "'").c_str()), 0);
  write("rubbish\n");
  const auto run = [&] {
    const std::string command = "RAPT_CONFIG='" + path_ + "' '" + program +
                                "' --gtest_also_run_disabled_tests "
                                "--gtest_filter=ConfigPrivileged.DISABLED_Child 2>&1";
    std::string output;
    std::FILE* pipe = ::popen(command.c_str(), "r");
    char buffer[4096];
    while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) output += buffer;
    ::pclose(pipe);
    return output;
  };
  const std::string ordinary = run();
  EXPECT_NE(ordinary.find("ordinary file read"), std::string::npos) << ordinary;
  ASSERT_EQ(::chown(program.c_str(), 65534, 65534), 0);
  ASSERT_EQ(::chmod(program.c_str(), 04755), 0);
  const std::string privileged = run();
  if (privileged.find("ordinary") != std::string::npos) GTEST_SKIP() << "a nosuid file system";
  EXPECT_NE(privileged.find("privileged file ignored"), std::string::npos) << privileged;
}
#endif

}  // namespace
}  // namespace rapt
