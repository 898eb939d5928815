// What this machine allows, by itself: rapt-bench --limits.
#pragma once

#include <string>
#include <vector>

namespace rapt::bench {

// Prints, for each target and number of threads, the multiply-adds of every number of chains and
// the read bandwidth of memory blocks from 32 KiB to 128 MiB; then how long it takes to hand a task
// to each thread.
void print_limits(const std::vector<std::string>& targets, const std::vector<int>& threads);

}  // namespace rapt::bench
