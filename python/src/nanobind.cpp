// nanobind's own sources, in one file.
#include <nb_combined.cpp>  // NOLINT(bugprone-suspicious-include)
