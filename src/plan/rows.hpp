// What becomes of the rows of a config on this machine.
#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"

namespace rapt::plan {

enum class RowUse {
  used,    // by calls with its ISA target
  stale,   // the kernels have no such register tile: the target's default stands in for it
  unused,  // no call can come to it
};

struct JudgedRow {
  std::string text;  // as the config format spells it
  RowUse use;
  std::string why;  // a phrase
};

// In the order of config::format.
std::vector<JudgedRow> judge_rows(const config::Config& config);

}  // namespace rapt::plan
