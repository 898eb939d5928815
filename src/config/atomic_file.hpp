// A file that is always whole: readers see the old text or the new one, however many programs write
// it and whenever one of them is killed.
#pragma once

#include <string>

namespace rapt::config {

// Throws std::system_error that names the path and the step that failed; the old file is then
// untouched.
void write_whole_file(const std::string& path, const std::string& text);

// Throws as write_whole_file would where that is already certain (no such directory, no right to
// write there): better said before an hour of measuring than after.
void check_writable(const std::string& path);

}  // namespace rapt::config
