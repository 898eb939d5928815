// The machine: which ISA target runs, and the tuned config that plans use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rapt/export.h"

namespace rapt {

// Highway's names of the targets that this build has and this CPU runs, best first, e.g.
// {"AVX3", "AVX2", "SSE4", "SSE2"}.
RAPT_API std::vector<std::string> targets();

// The target that calls use now: the best one, or the one named by the environment variable
// RAPT_TARGET, or the one last set here. An empty name goes back to the best. Throws
// unknown_target. Takes effect for calls that start afterwards, in every thread.
RAPT_API std::string target();
RAPT_API void set_target(std::string_view name);

// Where the config in use is from, and what calls on this machine make of its rows.
struct ConfigReport {
  // "RAPT_CONFIG=FILE", the path of the installed file, "load_config" or "compiled in".
  std::string source;
  // Its rows: those used are for ISA targets that run here, those ignored are not.
  std::int64_t read = 0, used = 0, ignored = 0;
  // Why the first row that is not used as it stands is not. Empty: all are.
  std::string reason;
  // Files that were to be loaded and are not, each with the reason.
  std::vector<std::string> refused;

  RAPT_API std::string text() const;  // all of it, in lines
};

// Replaces the tuned config of the process by the text of a config header (the format that
// rapt-tune writes, described in src/config/README.md), and says what became of its rows. All or
// nothing: a bad row throws bad_config with its line and changes nothing. An empty text goes back
// to the config that was compiled in. Takes effect for calls that start afterwards, in every
// thread.
//
// Where nothing was loaded when the first call comes, it looks for a file: that which the
// environment variable RAPT_CONFIG names; where it names none, that which rapt-tune --install wrote
// for this CPU, $XDG_CACHE_HOME/rapt/CPU.hpp, or ~/.cache/rapt/CPU.hpp. Programs that have more
// rights than their user look for none. A file that is bad, or says that it is for other CPUs, is
// refused with a reason, and the config that was compiled in is used: no call fails for a file.
RAPT_API ConfigReport load_config(std::string_view text);

// Of the config in use.
RAPT_API ConfigReport config_report();

// The config in use, as text that load_config takes.
RAPT_API std::string config_text();

}  // namespace rapt
