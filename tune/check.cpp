#include "check.hpp"

#include "config/config.hpp"
#include "plan/rows.hpp"
#include "rapt/error.hpp"

namespace rapt::tune {

std::string check(const std::string& path) try {
  const config::Config config = config::parse(config::read_trusted_file(path.c_str()));
  std::string lines;
  for (const plan::JudgedRow& row : plan::judge_rows(config)) {
    constexpr const char* kNames[] = {"used    ", "stale   ", "unused  "};
    lines += kNames[static_cast<int>(row.use)] + row.text + "\n        " + row.why + "\n";
  }
  return lines.empty() ? "no rows: the formulas answer for all\n" : lines;
} catch (const Error& error) {
  throw Error(error.code(), path + ": " + error.what());
}

}  // namespace rapt::tune
