// What the head of a tuned file says about where and with what it was measured.
#pragma once

#include <string>

namespace rapt::tune {

std::string caches();    // e.g. "L1 32 KiB, L2 1 MiB, L3 32 MiB"
std::string compiler();  // e.g. "g++ 12.2.0"
std::string date();      // UTC, e.g. "2026-03-01"
int threads();           // that the default executor uses

// The text as a part of a // comment line: one line, no control characters, no backslash.
std::string for_comment(const std::string& text);

}  // namespace rapt::tune
