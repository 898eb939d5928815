// How much of the machine a container may use. oneTBB counts the cores that threads may run on, but
// not the time that a control group may spend on them: in a container that may use 2 of 64 cores it
// starts 64 threads, which then stop each other.
#pragma once

#include <filesystem>

namespace rapt::parallel {

// Cores' worth of time that the control groups of this process grant (versions 1 and 2), rounded up
// and at least 1; 0 when there is no limit or none can be read. `root` stands for /, in tests.
int cpu_quota(const std::filesystem::path& root);

}  // namespace rapt::parallel
