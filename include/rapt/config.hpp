// The machine: which ISA target runs, and the tuned config that plans use.
#pragma once

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

// Replaces the tuned config of the process by the text of a config header (the format that
// rapt-tune writes, described in src/config/README.md). All or nothing: a bad row throws bad_config
// with its line and changes nothing. An empty text goes back to the config that was compiled in.
// The environment variable RAPT_CONFIG may name a file that is loaded before the first call; a bad
// one makes that first call throw. Takes effect for calls that start afterwards.
RAPT_API void load_config(std::string_view text);

// The config in use, as text that load_config takes.
RAPT_API std::string config_text();

}  // namespace rapt
