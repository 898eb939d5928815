// The tuned file where the library finds it: config::installed_path(). Tuners that install at the
// same time, each for other ISA targets, lose nothing of each other's.
#pragma once

#include <string>

namespace rapt::tune {

// The text of a new header, and what it does not speak of from the old one. Both are made of a head
// and of paragraphs, each of which begins with "// attention AVX2 d=64: " or the like.
std::string merged(const std::string& text, const std::string& old);

// Makes the directories of `path` (0700, as XDG wants them) where they are missing.
void make_directories(const std::string& path);

// Merges with the file that is there and replaces it. Throws std::system_error.
void install(const std::string& path, const std::string& text);

}  // namespace rapt::tune
