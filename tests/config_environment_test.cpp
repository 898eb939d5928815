// The files that are loaded before the first call, RAPT_CONFIG's and the installed one, and the
// rules that they have to obey.
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
#include "rapt/rapt.h"
#include "rapt/rapt.hpp"

namespace rapt {
namespace {

const std::string kRow =
    "RAPT_ROW(gemm, AVX2, f32, tile=6x2, block_m=336, block_n=1024, block_k=384, direct_rows=6, "
    "packed_kib=1024)\n";

// Of the first call.
std::string text_and_report() { return config_text() + config_report().text(); }

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
      return text_and_report();
    });
  }
  // And with XDG_CACHE_HOME=directory.
  std::string first_call_with_cache() const {
    return in_child([&] {
      ::unsetenv("RAPT_CONFIG");
      ::setenv("XDG_CACHE_HOME", directory_.c_str(), 1);
      return text_and_report();
    });
  }
  // Writes are where the library looks for an installed file.
  void write_installed(const std::string& text, mode_t mode = 0644) {
    path_ = directory_ + "/rapt/" + config::cpu_key() + ".hpp";
    ::mkdir((directory_ + "/rapt").c_str(), 0700);
    write(text, mode);
  }

  // The default goes on, and the report says why.
  static void expect_refusal(const std::string& said, const std::string& source,
                             const std::string& reason) {
    EXPECT_NE(said.find("config compiled in: 0 rows"), std::string::npos) << said;
    EXPECT_NE(said.find("\nnot " + source + ": "), std::string::npos) << said;
    EXPECT_NE(said.find(reason), std::string::npos) << said << "\n  wanted: " << reason;
    EXPECT_EQ(said.find(kRow), std::string::npos) << said;
  }
  void expect_refused(const std::string& path, const std::string& reason) {
    expect_refusal(first_call(path), "RAPT_CONFIG=" + path, reason);
  }

  std::string directory_, path_;
};

TEST_F(ConfigEnvironment, FileIsLoadedBeforeTheFirstCall) {
  write(kRow);
  const std::string said = first_call(path_);
  EXPECT_NE(said.find(kRow + "config RAPT_CONFIG=" + path_ + ": 1 rows"), std::string::npos)
      << said;
}

TEST_F(ConfigEnvironment, UnsetOrEmptyMeansCompiledIn) {
  const std::string compiled_in = in_child([] {
    ::unsetenv("RAPT_CONFIG");
    return text_and_report();
  });
  EXPECT_NE(compiled_in.find("config compiled in: 0 rows, 0 used, 0 ignored\n"), std::string::npos);
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

// A bad file is a message: calls go on, and explain says it too.
TEST_F(ConfigEnvironment, ExplainSaysWhichFilesWereRefused) {
  write("rubbish\n");
  const std::string said = in_child([&] {
    ::setenv("RAPT_CONFIG", path_.c_str(), 1);
    float data[4] = {};
    const View<const float, axis::Head, axis::Query, axis::DepthK> q(data, {1, 1, 4});
    const View<const float, axis::KvHead, axis::Key, axis::DepthK> k(data, {1, 1, 4});
    const View<const float, axis::KvHead, axis::Key, axis::DepthV> v(data, {1, 1, 4});
    const View<float, axis::Head, axis::Query, axis::DepthV> out(data, {1, 1, 4});
    attention(q, k, v, out);
    // In C, the same as fields.
    const std::int64_t extents[] = {1, 1, 4};
    const rapt_array in_c = rapt_dense(data, RAPT_F32, 3, extents);
    rapt_plan* plan = nullptr;
    rapt_explanation explained{};
    explained.size = sizeof explained;
    rapt_config_fields report{};
    report.size = sizeof report;
    if (rapt_plan_create(&plan, &in_c, &in_c, &in_c, &in_c, nullptr) != RAPT_OK ||
        rapt_plan_explanation(plan, &explained) != RAPT_OK ||
        rapt_config_report(&report, nullptr, 0, nullptr) != RAPT_OK ||
        explained.n_config_refused != 1 || report.n_refused != 1)
      return std::string("in C: ") + rapt_last_error();
    const std::string fields = std::string("report ") + report.refused[0] + "\nexplained " +
                               explained.config_refused[0] + "\n";
    rapt_plan_destroy(plan);
    return fields + explain(q, k, v, out).text();
  });
  EXPECT_NE(said.find("the config in use: compiled in\n"), std::string::npos) << said;
  for (const char* where : {"not ", "report ", "explained "})
    EXPECT_NE(said.find(where + ("RAPT_CONFIG=" + path_ + ": config line 1: expected RAPT_ROW")),
              std::string::npos)
        << said;
}

TEST_F(ConfigEnvironment, LoadedConfigComesBeforeTheFile) {
  write("rubbish\n");
  const std::string said = in_child([&] {
    ::setenv("RAPT_CONFIG", path_.c_str(), 1);
    load_config(kRow);
    const std::string loaded = text_and_report();
    load_config("");
    return loaded + text_and_report();
  });
  EXPECT_NE(said.find(kRow + "config load_config: 1 rows"), std::string::npos) << said;
  EXPECT_NE(said.find("config compiled in: 0 rows"), std::string::npos) << said;
  EXPECT_EQ(said.find(path_), std::string::npos) << said;  // nobody looked
}

TEST_F(ConfigEnvironment, InstalledFileIsFoundByTheNameOfTheCpu) {
  EXPECT_NE(first_call_with_cache().find("config compiled in: 0 rows"), std::string::npos);
  write_installed("// CPU: " + config::cpu_name() + "\n" + kRow);
  const std::string said = first_call_with_cache();
  EXPECT_NE(said.find(kRow + "config " + path_ + ": 1 rows"), std::string::npos) << said;
  // By HOME where nothing else is said, or a path that is not absolute.
  const std::string by_home = in_child([&] {
    ::unsetenv("RAPT_CONFIG");
    ::setenv("XDG_CACHE_HOME", "relative", 1);
    ::setenv("HOME", "/somewhere", 1);
    return config::installed_path();
  });
  EXPECT_EQ(by_home, "/somewhere/.cache/rapt/" + config::cpu_key() + ".hpp");
  EXPECT_EQ(in_child([] {
              ::unsetenv("XDG_CACHE_HOME");
              ::unsetenv("HOME");
              return config::installed_path() + text_and_report();
            }).rfind("// ", 0),
            0u);
}

TEST_F(ConfigEnvironment, InstalledFileComesAfterRaptConfig) {
  write(kRow);
  const std::string named = path_;
  write_installed("// CPU: " + config::cpu_name() + "\n");
  const auto both = [&](const std::string& name) {
    return in_child([&] {
      ::setenv("RAPT_CONFIG", name.c_str(), 1);
      ::setenv("XDG_CACHE_HOME", directory_.c_str(), 1);
      return text_and_report();
    });
  };
  EXPECT_NE(both(named).find("config RAPT_CONFIG=" + named), std::string::npos);
  // One that was asked for and cannot be had is not replaced by a third.
  expect_refusal(both("/nonexistent"), "RAPT_CONFIG=/nonexistent", "cannot open the file");
}

TEST_F(ConfigEnvironment, InstalledFileObeysTheSameRules) {
  write_installed(kRow, 0646);
  expect_refusal(first_call_with_cache(), path_, "is writable by everybody");
  write_installed(kRow + "rubbish\n");
  expect_refusal(first_call_with_cache(), path_, "config line 2: expected RAPT_ROW");
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  ASSERT_EQ(::symlink("/dev/null", path_.c_str()), 0);
  expect_refusal(first_call_with_cache(), path_, "is a symbolic link");
}

TEST_F(ConfigEnvironment, AFileForOtherCpusIsRefused) {
  const std::string other = "// CPU: Difference Engine No. 2\n",
                    own = "// CPU: " + config::cpu_name();
  const std::string reason =
      "is for 'Difference Engine No. 2', and this CPU is '" + config::cpu_name() + "'";
  write(other + kRow);
  expect_refused(path_, reason);
  write(other + own + "\n" + kRow);  // it says that it fits
  EXPECT_NE(first_call(path_).find(kRow), std::string::npos);
  write(other + kRow + own + "\n");  // below the rows it is any comment
  expect_refused(path_, reason);
  write_installed(other + kRow);
  expect_refusal(first_call_with_cache(), path_, reason);
}

TEST_F(ConfigEnvironment, ErrnoAndDescriptorsAreLeftAlone) {
  write(kRow);
  const std::string result = in_child([&] {
    ::setenv("RAPT_CONFIG", path_.c_str(), 1);
    const int before = ::open("/dev/null", O_RDONLY);
    ::close(before);
    errno = 1234;
    text_and_report();
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
  const std::string said = text_and_report();
  std::printf("%s %s\n", ::getauxval(AT_SECURE) != 0 ? "privileged" : "ordinary",
              said.find("rubbish") != std::string::npos ? "file read" : "file ignored");
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
  const std::string by_name = "RAPT_CONFIG='" + path_ + "' '";
  write_installed("rubbish\n");
  const std::string by_place = "XDG_CACHE_HOME='" + directory_ + "' '";
  const auto run = [&](const std::string& environment) {
    const std::string command = environment + program +
                                "' --gtest_also_run_disabled_tests "
                                "--gtest_filter=ConfigPrivileged.DISABLED_Child 2>&1";
    std::string output;
    std::FILE* pipe = ::popen(command.c_str(), "r");
    char buffer[4096];
    while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) output += buffer;
    ::pclose(pipe);
    return output;
  };
  for (const std::string& environment : {by_name, by_place}) {
    const std::string ordinary = run(environment);
    EXPECT_NE(ordinary.find("ordinary file read"), std::string::npos) << ordinary;
  }
  ASSERT_EQ(::chown(program.c_str(), 65534, 65534), 0);
  ASSERT_EQ(::chmod(program.c_str(), 04755), 0);
  for (const std::string& environment : {by_name, by_place}) {
    const std::string privileged = run(environment);
    if (privileged.find("ordinary") != std::string::npos) GTEST_SKIP() << "a nosuid file system";
    EXPECT_NE(privileged.find("privileged file ignored"), std::string::npos) << privileged;
  }
}
#endif

}  // namespace
}  // namespace rapt
