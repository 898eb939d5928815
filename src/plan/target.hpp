// Which ISA target plans are made for.
#pragma once

#include <string_view>

#include "kernels/kernels.hpp"

namespace rapt::plan {

// The target of calls that start now: the best one, or what RAPT_TARGET or choose_target said.
// Throws unknown_target when RAPT_TARGET names none.
const kernels::Kernels& current_kernels();

// Empty: the best one. Throws unknown_target.
void choose_target(std::string_view name);

}  // namespace rapt::plan
