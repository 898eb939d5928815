// The parts of rapt-tune that need no clock: who wins a race, and the file that is always whole.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "../tune/install.hpp"
#include "../tune/problems.hpp"
#include "../tune/race.hpp"
#include "config/atomic_file.hpp"
#include "config/config.hpp"

namespace rapt::tune {
namespace {

using config::check_writable;
using config::write_whole_file;

bool never() { return false; }

// Times of candidates with noise that only adds, as on a machine that does other things as well.
struct Simulated {
  std::vector<double> seconds;
  double noise;
  std::mt19937 random{1};
  std::vector<int> runs = std::vector<int>(seconds.size());

  double operator()(std::size_t candidate, std::size_t) {
    ++runs[candidate];
    return seconds[candidate] * (1 + noise * std::exponential_distribution<double>(1)(random));
  }
};

Measure by(Simulated& simulated) {
  return [&](std::size_t candidate, std::size_t shape) { return simulated(candidate, shape); };
}

TEST(TuneRace, FastestWinsThroughNoise) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    Simulated simulated{
        .seconds = {1.0, 1.2, 0.9, 1.05, 1.5}, .noise = 0.02, .random = std::mt19937(seed)};
    EXPECT_EQ(race(5, 3, 4, by(simulated), never).winner(), 2u) << seed;
  }
}

TEST(TuneRace, HopelessCandidatesStopRunningAndTheDefaultNever) {
  Simulated simulated{.seconds = {2.0, 1.0, 1.3}, .noise = 0};
  const RaceResult result = race(3, 1, 4, by(simulated), never);
  EXPECT_EQ(simulated.runs, (std::vector<int>{4, 4, 1}));
  EXPECT_EQ(result.winner(), 1u);
  EXPECT_DOUBLE_EQ(result.cost(1), 0.5);
}

TEST(TuneRace, AWinnerLosesToTheDefaultOnNoShape) {
  const double seconds[3][2] = {{1, 1}, {0.5, 1.1}, {0.9, 1.0}};
  const auto measure = [&](std::size_t candidate, std::size_t shape) {
    return seconds[candidate][shape];
  };
  EXPECT_EQ(race(3, 2, 4, measure, never).winner(), 2u);
}

TEST(TuneRace, ACutRoundDoesNotCount) {
  Simulated simulated{.seconds = {1.0, 0.5}, .noise = 0};
  int timings = 0;
  const auto out_of_time = [&] { return ++timings > 3; };
  const RaceResult result = race(2, 2, 4, by(simulated), out_of_time);
  EXPECT_EQ(result.rounds, 0);
  EXPECT_EQ(result.winner(), 0u);
  EXPECT_TRUE(std::isinf(result.cost(1)));
}

TEST(TuneDuel, NoiseIsNeitherGainNorLoss) {
  int believed = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    Simulated simulated{.seconds = {1.0, 1.0}, .noise = 0.03, .random = std::mt19937(seed)};
    const Duel duel = tune::duel(2, 6, by(simulated), never);
    believed += duel.gain() > kMargin || duel.loses_anywhere();
  }
  EXPECT_LE(believed, 5);
}

TEST(TuneDuel, GainAndLossAreSeen) {
  Simulated faster{.seconds = {1.0, 0.9}, .noise = 0.02};
  EXPECT_GT(duel(2, 6, by(faster), never).gain(), 1.06);
  Simulated slower{.seconds = {1.0, 1.1}, .noise = 0.02};
  const Duel lost = duel(2, 6, by(slower), never);
  EXPECT_LT(lost.gain(), 1.0);
  EXPECT_TRUE(lost.loses_anywhere());
}

TEST(TuneCrossover, IsWhereTheAlgorithmsMeet) {
  const std::vector<std::size_t> rows = {1, 2, 4, 8, 16};
  EXPECT_EQ(crossover(rows, {1, 2, 4, 8, 16}, {5, 5, 5, 5, 5}, 1), 4u);
  EXPECT_EQ(crossover(rows, {9, 9, 9, 9, 9}, {5, 5, 5, 5, 5}, 4), 0u);
  EXPECT_EQ(crossover(rows, {1, 1, 1, 1, 1}, {5, 5, 5, 5, 5}, 4), 16u);
  // The default, 3, does what 2 does; and what is not better by the margin does not move it.
  EXPECT_EQ(crossover(rows, {1, 1, 9, 9, 9}, {5, 5, 5, 5, 5}, 3), 3u);
  EXPECT_EQ(crossover(rows, {1, 2, 4.95, 8, 16}, {5, 5, 5, 5, 5}, 2), 2u);
}

TEST(TuneRace, CountsAShapeByItsWeight) {
  const double seconds[3][2] = {{1, 1}, {0.8, 1.0}, {1.0, 0.9}};
  const auto measure = [&](std::size_t candidate, std::size_t shape) {
    return seconds[candidate][shape];
  };
  EXPECT_EQ(race(3, 2, 4, measure, never).winner(), 1u);
  EXPECT_EQ(race(3, Shapes({1.0, 9.0}), 4, measure, never).winner(), 2u);
  const Duel weighed = duel(
      Shapes({0.0, 1.0}), 4,
      [&](std::size_t candidate, std::size_t shape) {
        return seconds[candidate == 0 ? 0 : 2][shape];
      },
      never);
  EXPECT_NEAR(weighed.gain(), 1 / 0.9, 1e-9);
}

// A chat: each token is a problem of its own length.
TEST(TuneProblems, OfAProgramAreItsMostCostlyOnes) {
  std::vector<bench::Shape> traced;
  for (int n = 513; n <= 1024; ++n) {
    const std::string size = std::to_string(n);
    traced.push_back(bench::parse_line("attention/1,8,2,1," + size + ",64,64/bf16 calls:24"));
  }
  traced.push_back(bench::parse_line("attention/1,8,2,512,512,64,64/bf16/causal calls:24"));
  traced.push_back(bench::parse_line("attention/1,8,2,1,600,80,64/bf16 calls:24"));
  traced.push_back(bench::parse_line("attention/1,8,2,1,600,300,64/bf16 calls:24"));  // no row
  traced.push_back(bench::parse_line("gemm/8,64,64 calls:1"));
  traced.push_back(bench::parse_line("gemm/512,512,512/bias calls:9"));

  const std::vector<bench::Shape> d64 = of_program(traced, 64);
  ASSERT_EQ(d64.size(), 2u);
  const bench::Shape& decode = d64[0].attention().seq_q == 1 ? d64[0] : d64[1];
  EXPECT_EQ(decode.name, "attention/1,8,2,1,1024,64,64/bf16");  // stands for all
  EXPECT_GT(decode.calls, 24 * 512 / 2);
  EXPECT_LT(decode.calls, 24 * 512);
  ASSERT_EQ(of_program(traced, 80).size(), 1u);
  EXPECT_EQ(of_program(traced, 128).size(), 0u);
  const std::vector<bench::Shape> products = of_program(traced, 0);
  ASSERT_EQ(products.size(), 2u);
  EXPECT_EQ(products[0].name, "gemm/512,512,512/bias");
  EXPECT_EQ(time_weight(products[0], 2.0), 18);
  EXPECT_EQ(time_weight(bench::parse_shape("gemm/8,8,8"), 2.0), 1);
}

class TuneFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "rapt-tune-test-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = pattern + "/config.hpp";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string read() const {
    std::ifstream file(path_, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  // Versions of some hundred KiB that differ in every line, so that a mixture of two is seen.
  static std::string version(int number) {
    std::string text;
    for (int line = 0; line < 20000; ++line) text += "// version " + std::to_string(number) + "\n";
    return text;
  }
  static bool whole(const std::string& text) {
    const std::size_t at = text.find_first_of("0123456789");
    return at != std::string::npos && text == version(std::atoi(text.c_str() + at));
  }

  // A child that writes versions until it is killed.
  pid_t writer(int first) const {
    const pid_t child = ::fork();
    if (child != 0) return child;
    for (int number = first;; ++number) write_whole_file(path_, version(number));
  }

  std::string directory_, path_;
};

TEST_F(TuneFile, IsWrittenWithTheUsualMode) {
  const mode_t before = ::umask(027);
  write_whole_file(path_, version(1));
  ::umask(before);
  struct stat status;
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
  EXPECT_EQ(read(), version(1));
  write_whole_file(path_, version(2));
  EXPECT_EQ(read(), version(2));
}

TEST_F(TuneFile, FailureNamesThePathAndLeavesNothing) {
  const std::string missing = directory_ + "/missing/config.hpp";
  for (const auto& attempt : {+[](const std::string& p) { write_whole_file(p, "x"); },
                              +[](const std::string& p) { check_writable(p); }}) {
    try {
      attempt(missing);
      FAIL() << "no error";
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code().value(), ENOENT);
      EXPECT_NE(std::string(error.what()).find(directory_ + "/missing"), std::string::npos)
          << error.what();
    }
    EXPECT_THROW(check_writable(directory_), std::system_error);
  }
  // The target is a directory that is not empty: the rename fails, and the temporary file goes
  // away.
  ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
  EXPECT_THROW(write_whole_file(path_, "x"), std::system_error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(TuneFile, IsWholeWhileSixtyWrite) {  // B43
  write_whole_file(path_, version(0));
  std::vector<pid_t> children;
  for (int i = 0; i < 60; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      write_whole_file(path_, version(i));
      ::_exit(0);
    }
    children.push_back(child);
  }
  while (!children.empty()) {
    ASSERT_TRUE(whole(read()));
    std::erase_if(children, [](pid_t child) {
      int status = 0;
      if (::waitpid(child, &status, WNOHANG) != child) return false;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      return true;
    });
  }
  EXPECT_TRUE(whole(read()));
  // Nobody left a temporary file.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

// A header of one row, as a tuner writes that was asked for one of sixty.
class TuneInstall : public TuneFile {
 protected:
  static constexpr const char* kTargets[] = {"SSE2", "SSE4", "AVX2", "AVX3", "NEON",
                                             "SVE",  "SVE2", "RVV",  "LSX",  "Z14"};
  static std::string subject(int i) {
    return std::string("attention ") + kTargets[i / 6] +
           " d=" + std::to_string(config::kHeadSizes[static_cast<std::size_t>(i % 6)]);
  }
  static std::string header(int i, int block_q = 96) {
    const std::int64_t d = config::kHeadSizes[static_cast<std::size_t>(i % 6)];
    return "// by test\n// CPU: " + config::cpu_name() + "\n\n// " + subject(i) +
           ": gain 1.05 on the search\n" +
           config::format({{{kTargets[i / 6], {{d, {6, 2}, block_q, 128, 6, 512}}, std::nullopt}}});
  }
  // How many rows the file has, all of which must be whole paragraphs.
  int rows() const {
    const config::Config config = config::parse(read());
    int n = 0;
    for (int i = 0; i < 60; ++i)
      n += read().find("// " + subject(i) + ": gain") != std::string::npos;
    int parsed = 0;
    for (const config::TargetRows& rows : config.targets)
      parsed += static_cast<int>(rows.attention.size());
    EXPECT_EQ(n, parsed);
    return n;
  }
};

TEST_F(TuneInstall, KeepsWhatIsNotTunedAnew) {
  install(path_, header(0));
  EXPECT_EQ(read(), header(0));
  install(path_, header(1));
  EXPECT_EQ(rows(), 2);
  install(path_, header(0, 192));
  EXPECT_EQ(rows(), 2);
  EXPECT_NE(read().find("block_q=192"), std::string::npos);
  // That the default stays is an answer, too.
  install(path_, "// CPU: " + config::cpu_name() + "\n\n// " + subject(0) +
                     ": the default stays; nothing was faster.\n");
  EXPECT_EQ(rows(), 1);
  install(path_, header(2));
  EXPECT_NE(read().find(subject(0) + ": the default stays"), std::string::npos);
  // Of another CPU, or bad: nothing is worth keeping.
  const std::string other = header(1).replace(header(1).find("CPU: "), 5, "CPU: not ");
  for (const std::string& bad : {other, header(1) + "rubbish\n"}) {
    write_whole_file(path_, bad);
    install(path_, header(0));
    EXPECT_EQ(read(), header(0)) << bad;
  }
}

TEST_F(TuneInstall, SixtyAtOnceLoseNothing) {  // B43
  path_ = directory_ + "/not/there/yet/config.hpp";
  std::vector<pid_t> children;
  for (int i = 0; i < 60; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      install(path_, header(i));
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(rows(), 60);
}

TEST_F(TuneInstall, KilledItLeavesTheOldOrTheNew) {  // B43
  install(path_, header(0));
  std::mt19937 random(7);
  for (int i = 0; i < 20; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int n = 1;; n = n % 59 + 1) install(path_, header(n));
    }
    ::usleep(static_cast<useconds_t>(random() % 10000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ASSERT_GE(rows(), 1) << "kill " << i;
  }
  install(path_, header(1));  // and no lock is left
}

// RAPT_TEST_KILLS makes this the long test of a release.
TEST_F(TuneFile, IsWholeAfterKill) {  // B43
  const char* const kills = std::getenv("RAPT_TEST_KILLS");
  const int points = kills != nullptr ? std::atoi(kills) : 20;
  write_whole_file(path_, version(0));
  std::mt19937 random(7);
  for (int i = 0; i < points; ++i) {
    const pid_t child = writer(1000 * i);
    ::usleep(static_cast<useconds_t>(random() % 10000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ASSERT_TRUE(whole(read())) << "kill " << i;
  }
}

}  // namespace
}  // namespace rapt::tune
