// Where the list of shapes is: in the source tree that this was built from, or where it was
// installed.
#pragma once

#include <filesystem>
#include <string>

namespace rapt::bench {

inline std::string shapes_file() {
  std::error_code ignored;
  return std::filesystem::exists(RAPT_SHAPES_FILE, ignored) ? RAPT_SHAPES_FILE
                                                            : RAPT_SHAPES_INSTALLED;
}

}  // namespace rapt::bench
