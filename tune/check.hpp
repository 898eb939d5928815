// rapt-tune --check: what the library makes of a file.
#pragma once

#include <string>

namespace rapt::tune {

// A line for each row: used, unused or stale, and why. Throws Error where the library refuses the
// file.
std::string check(const std::string& path);

}  // namespace rapt::tune
