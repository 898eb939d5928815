// The main of every test program: GoogleTest's, plus a check that the ISA target which the run script asked
// for is the one that runs. A target that is not compiled in must not turn into a green run of another one.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "rapt/config.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* expected = std::getenv("RAPT_EXPECT_TARGET");  // Highway's name, e.g. SVE2_128
  if (expected != nullptr && rapt::target() != expected) {
    std::fprintf(stderr, "RAPT_EXPECT_TARGET is %s, but %s runs\n", expected, rapt::target().c_str());
    return 1;
  }
  return RUN_ALL_TESTS();
}
