// The main of every test program: GoogleTest's, plus a check that the ISA target which the run
// script asked for is the one that runs. A target that is not compiled in must not turn into a
// green run of another one.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/kernels.hpp"
#include "rapt/config.hpp"

namespace {

// True when the environment variable is not set, or is what runs.
bool as_expected(const char* variable, const std::string& runs) {
  const char* expected = std::getenv(variable);
  if (expected == nullptr || expected == runs) return true;
  std::fprintf(stderr, "%s is %s, but %s runs\n", variable, expected, runs.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  setenv("XDG_CACHE_HOME", "/nonexistent", 0);  // what this user has tuned is not what is tested
  const std::string target = rapt::target();    // Highway's name, e.g. SVE2_128
  const std::string lanes = std::to_string(rapt::kernels::all().list[0]->lanes);  // f32 in a vector
  std::printf("ISA target %s, %s lanes\n", target.c_str(), lanes.c_str());
  if (!as_expected("RAPT_EXPECT_TARGET", target)) return 1;
  if (!as_expected("RAPT_EXPECT_LANES", lanes)) return 1;
  return RUN_ALL_TESTS();
}
