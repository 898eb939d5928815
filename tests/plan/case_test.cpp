// A problem as one line and back: what the library prints of a problem, the benchmark computes, and
// that is printed alike; and RAPT_TRACE, which collects such lines.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>

#include "../bench/cases.hpp"
#include "../bench/shapes.hpp"
#include "rapt/rapt.hpp"
#include "support/attention_case.hpp"
#include "support/backward_case.hpp"
#include "support/gemm_case.hpp"
#include "support/random.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

std::string case_of(const AttentionData& data) {
  return explain(data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(),
                 data.options())
      .bench_case;
}

std::string case_of(const BackwardData& data) {
  return data
      .with_arguments(nullptr,
                      [](const auto&... arguments) { return explain_backward(arguments...); })
      .bench_case;
}

// Every line is computed by the benchmark, right to f32's rounding.
void expect_right(const std::string& line) {
  SCOPED_TRACE(line);
  EXPECT_EQ(bench::make_case(bench::parse_line(line))->check(serial_executor()), "");
}

// Whether to trace is decided by the first call of a process, so each trace is that of a new one:
// this program again, with one of the tests named DISABLED_Child, what the environment says, and
// `lines` as a file for it to read.
class Child {
 public:
  Child(const std::string& test, const std::string& trace, const std::string& lines = "") {
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::setenv("RAPT_TRACE", trace.c_str(), 1);
    ::setenv("RAPT_TEST_LINES", lines.c_str(), 1);
    const std::string filter = "--gtest_filter=Child.DISABLED_" + test;
    ::close(STDOUT_FILENO);
    ::execl("/proc/self/exe", "test_case", "--gtest_also_run_disabled_tests", filter.c_str(),
            nullptr);
    ::_exit(127);
  }
  int wait() const {
    int status = -1;
    ::waitpid(pid_, &status, 0);
    return status;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(Child, DISABLED_Lines) {
  for (const bench::Shape& shape : bench::read_shapes(std::getenv("RAPT_TEST_LINES")))
    bench::make_case(shape)->run(serial_executor());
}

std::map<std::string, std::int64_t> calls_in(const std::string& path) {
  std::map<std::string, std::int64_t> calls;
  for (const bench::Shape& shape : bench::read_shapes(path)) calls[shape.name] = shape.calls;
  return calls;
}

class Trace : public testing::Test {
 protected:
  Trace() {
    std::string name = testing::TempDir() + "rapt-trace-XXXXXX";
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ + "/trace.txt";
  }
  ~Trace() override { std::filesystem::remove_all(directory_); }
  // What the lines leave when they are computed, each once.
  std::map<std::string, std::int64_t> traced(const std::map<std::string, std::int64_t>& lines) {
    const std::string list = directory_ + "/lines.txt";
    std::ofstream file(list);
    for (const auto& [line, calls] : lines) file << line << "\n";
    file.close();
    EXPECT_EQ(Child("Lines", path_, list).wait(), 0);
    return calls_in(path_);
  }

  std::string directory_, path_;
};

// Of random problems, with every option: what is printed of them is computed again, right, and
// traced as the same.
TEST_F(Trace, WhatIsPrintedIsComputedAgain) {
  std::map<std::string, std::int64_t> wanted;
  int empty = 0;
  Seeds(71, cases(300)).for_each([&](std::uint64_t seed) {
    const AttentionData data(with_dropout(AttentionCase::random(seed)));
    const std::string line = case_of(data);
    empty += line.empty();
    if (!line.empty()) wanted[line] = 1;
  });
  EXPECT_GT(wanted.size(), static_cast<std::size_t>(cases(200))) << empty << " had no pair";
  for (const auto& [line, calls] : wanted) expect_right(line);
  EXPECT_EQ(traced(wanted), wanted);
}

// And gradients. (Attention comes before them, and is traced as what it is.)
TEST_F(Trace, WhatIsPrintedOfGradientsIsComputedAgain) {
  std::map<std::string, std::int64_t> wanted, found;
  Seeds(75, cases(200)).for_each([&](std::uint64_t seed) {
    const std::string line = case_of(BackwardData(with_dropout(AttentionCase::random(seed))));
    if (!line.empty()) wanted[line] = 1;
  });
  EXPECT_GT(wanted.size(), static_cast<std::size_t>(cases(120)));
  for (const auto& [line, calls] : wanted) expect_right(line);
  for (const auto& [line, calls] : traced(wanted)) {
    if (line.find("/backward") != std::string::npos) found[line] = calls;
  }
  EXPECT_EQ(found, wanted);
}

TEST(Child, DISABLED_Products) {
  Seeds(72, cases(300)).for_each([&](std::uint64_t seed) {
    const GemmData data(GemmCase::random(seed));
    gemm(data.stored_a(), data.stored_b(), data.c_view(), data.stored_options());
  });
}

TEST_F(Trace, ProductsAreComputedAgain) {
  ASSERT_EQ(Child("Products", path_).wait(), 0);
  std::map<std::string, std::int64_t> wanted = calls_in(path_);
  EXPECT_GT(wanted.size(), static_cast<std::size_t>(cases(150)));
  for (auto& [line, calls] : wanted) {
    expect_right(line);
    calls = 1;
  }
  EXPECT_EQ(traced(wanted), wanted);
}

TEST(Case, NamesWhatAProblemIs) {
  const std::map<std::string, std::string> printed = {
      {"prefill/1,8,64,32", "attention/1,8,8,64,64,32,32"},
      {"causal/2,8,64,32/window16", "attention/2,8,8,64,64,32,32/causal/left15"},
      {"decode/1,32,8,128,64/bf16/page16", "attention/1,32,8,1,128,64,64/bf16/page16"},
      {"decode/3,4,2,64,32/int8/padded", "attention/3,4,2,1,64,32,32/int8/lengths64+24+40"},
      {"causal/3,4,64,32/ragged",
       "attention/3,4,4,64,64,32,32/causal/lengths64+24+40/queries64+24+40/packedq/packedkv"},
      {"causal/2,4,64,32/padded", "attention/2,4,4,64,64,32,32/causal/offset0/lengths64+24"},
      {"decode/2,8,2,2048,32/page16/shared", "attention/2,8,2,1,2048,32,32/page16/common1024"},
      {"causal/2,8,64,32/dropout", "attention/2,8,8,64,64,32,32/causal/dropout"},
      {"causal/1,8,64,32/f16/backward/dqf32",
       "attention/1,8,8,64,64,32,32/f16/causal/backward/dqf32"},
      {"causal/3,4,64,32/ragged/backward",
       "attention/3,4,4,64,64,32,32/causal/lengths64+24+40/queries64+24+40/packedq/packedkv/"
       "backward"}};
  for (const auto& [name, line] : printed) {
    const std::string text = bench::make_case(bench::parse_shape(name))->explain();
    EXPECT_NE(text.find("rapt-bench --case '" + line + "'"), std::string::npos) << name << text;
    expect_right(name);
    expect_right(line);
    // What it cannot do without is the same by both names.
    const bench::Shape one = bench::parse_shape(name), other = bench::parse_shape(line);
    if (!one.modifiers.padded) {
      EXPECT_DOUBLE_EQ(one.flops(), other.flops()) << name;
      EXPECT_DOUBLE_EQ(one.bytes(), other.bytes()) << name;
    }
  }
}

TEST(Case, IsRefusedWithASentence) {
  const std::map<std::string, std::string> refused = {
      {"attend/1", "no operation is called so"},
      {"attention/1,2,3", "attention takes 7 sizes, and here are 3"},
      {"attention/1,8,3,4,4,32,32", "heads must be a multiple of kv_heads"},
      {"attention/1,8,8,4,4,32,0", "'0' is no size"},
      {"attention/1,8,8,4,4,32,32/page", "no modifier is called page"},
      {"attention/1,8,8,4,4,32,32/causal/causal", "a second causal"},
      {"attention/1,8,8,4,4,32,32/left3/window4", "a second window"},
      {"attention/1,8,8,4,4,32,32/page4+4", "takes one number"},
      {"attention/1,8,8,4,4,32,32/ta", "attention takes no modifier ta"},
      {"gemm/8,8,8/causal", "gemm takes no modifier causal"},
      {"layer/1,8,8,1,8/bf16", "layer takes no modifier bf16"},
      {"attention/2,8,8,4,4,32,32/lengths4", "lengths are one for each batch element"},
      {"attention/2,8,8,4,4,32,32/lengths4+5", "the most seq_kv"},
      {"attention/2,8,8,4,4,32,32/queries4+4", "queries are of packedq"},
      {"attention/1,8,8,4,4,32,32/ragged", "of prefill, causal and decode"},
      {"causal/2,8,4,32/lengths4+4", "of prefill, causal and decode"},
      {"attention/1,8,8,4,4,32,31/int4", "a multiple of 32"},
      {"attention/1,8,8,4,4,32,32/common4", "only pages are shared"},
      {"attention/1,8,8,4,4,32,32/dqf32", "gradients are of backward and of training"},
      {"attention/1,8,8,4,4,32,32/backward/training", "a second pass"},
      {"attention/1,8,8,4,4,32,32/int8/backward", "have no gradients"},
      {"attention/1,8,8,4,4,32,32/page4/backward", "have no gradients"},
      {"attention/1,8,8,4,4,32,32/backward/dsinks", "dsinks of sinks"},
      {"layer/1,8,8,1,8/backward", "layer takes no modifier backward"},
      {"gemm/8,8,99999999999999999999", "is no size"}};
  for (const auto& [line, sentence] : refused) {
    try {
      bench::parse_line(line);
      ADD_FAILURE() << line << " was taken";
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(sentence), std::string::npos)
          << line << ": " << error.what();
    }
  }
}

TEST(Child, DISABLED_Plans) {
  AttentionCase c;
  c.heads = 2;
  c.seq_q = c.seq_kv = 5;
  c.d_k = c.d_v = 4;
  c.lse = false;
  c.dense = true;
  const AttentionData data(c);
  const AttentionPlan plan(data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(),
                           data.options());
  for (int i = 0; i < 3; ++i) plan.run();
  attention(data.stored_q(), data.stored_k(), data.stored_v(), data.stored_out(), data.options());
  case_of(data);        // is not a call
  if (::fork() == 0) {  // and a child of its own is not what is traced
    plan.run();
    std::exit(0);
  }
  ::wait(nullptr);
}

TEST_F(Trace, CountsCallsOfPlansAndFunctions) {
  EXPECT_EQ(Child("Plans", path_).wait(), 0);
  EXPECT_EQ(calls_in(path_), (std::map<std::string, std::int64_t>{{"attention/1,2,1,5,5,4,4", 4}}));
}

TEST(Child, DISABLED_Passes) {
  AttentionCase c;
  c.heads = 2;
  c.seq_q = c.seq_kv = 5;
  c.d_k = c.d_v = 4;
  c.causal = c.alibi = true;
  BackwardData data(c);
  data.run();
  data.with_arguments(nullptr,
                      [](const auto&... arguments) { AttentionBackwardPlan(arguments...).run(); });
}

// RAPT_VERBOSE, too, is looked up by the first call of a process.
TEST_F(Trace, VerboseSaysEachCall) {
  testing::internal::CaptureStderr();
  ::setenv("RAPT_VERBOSE", "1", 1);
  const int status = Child("Passes", path_).wait();
  ::unsetenv("RAPT_VERBOSE");
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(status, 0) << text;
  const std::string problem = ",batch 1 heads 2/1 seq 5/5 d 4/4,f32:f32:f32:f32,causal alibi,tasks";
  const auto count = [&](const std::string& words) {
    int n = 0;
    for (auto at = text.find(words); at != text.npos; at = text.find(words, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("rapt,attention," + target() + ",flash_rows" + problem), 1) << text;
  EXPECT_EQ(count("rapt,attention_backward," + target() + ",flash_backward" + problem), 2) << text;
  EXPECT_EQ(count("\n"), 3) << text;
}

TEST(Child, DISABLED_Endless) {
  std::vector<float> data(1 << 12);
  for (std::int64_t n = 1;; n = n % 60 + 1)
    gemm({data.data(), {1, n}}, {data.data(), {n, n}}, {data.data() + 3700, {1, n}});
}

// Killed, it leaves a whole file of what was there before.
TEST_F(Trace, IsWholeAfterKill) {
  for (int i = 0; i < 5; ++i) {
    const Child child("Endless", path_);
    while (!std::filesystem::exists(path_)) ::usleep(1000);
    ::usleep(5000 * static_cast<useconds_t>(i));
    ::kill(child.pid(), SIGKILL);
    child.wait();
    EXPECT_GE(calls_in(path_).size(), 1u);
    std::filesystem::remove(path_);
  }
}

TEST(Child, DISABLED_Errno) {
  float data[1] = {1}, c[1];
  errno = 1234;
  gemm({data, {1, 1}}, {data, {1, 1}}, {c, {1, 1}});
  EXPECT_EQ(errno, 1234);
}

TEST_F(Trace, ThatCannotBeWrittenIsNoError) {
  EXPECT_EQ(Child("Errno", directory_ + "/missing/trace.txt").wait(), 0);
  EXPECT_EQ(Child("Errno", path_).wait(), 0);
  EXPECT_EQ(calls_in(path_), (std::map<std::string, std::int64_t>{{"gemm/1,1,1", 1}}));
}

}  // namespace
}  // namespace rapt::tests
