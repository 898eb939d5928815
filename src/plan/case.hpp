// A problem as one line that rapt-bench and rapt-tune take: the syntax of bench/shapes.txt, which
// bench/shapes.hpp reads. It says what decides about path and time: sizes, types, masks, places.
// Values, and strides beyond the order of the axes, it does not say.
#pragma once

#include <string>

#include "tiles/attention.hpp"
#include "tiles/backward.hpp"
#include "tiles/gemm.hpp"

namespace rapt::plan {

// "attention/1,32,8,1,4096,128,128/bf16/page16". Empty where there is nothing to compute.
std::string case_of(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan);
std::string case_of(const tiles::BackwardProblem& problem, const tiles::BackwardPlan& plan);
std::string case_of(const tiles::GemmProblem& problem);  // as it was checked, before it is planned

}  // namespace rapt::plan
