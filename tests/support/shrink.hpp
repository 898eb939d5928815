// From a random case that fails to the smallest one like it.
#pragma once

#include <functional>

#include "support/attention_case.hpp"
#include "support/ways.hpp"

namespace rapt::tests {

// Simplifies a failing case, one field at a time, as long as it still fails. Deterministic.
using Fails = std::function<bool(const AttentionCase&)>;
AttentionCase shrink(AttentionCase failing, const Fails& fails);

// What a body of a test comes to; its failures are not counted as the test's own.
enum class Outcome { right, wrong, thrown };
Outcome outcome(const std::function<void()>& body);

// Runs the test on the case that each seed draws. For the first that fails, the smallest like it is
// part of the failure, with the environment that runs it alone: RAPT_TEST_CASE.
void for_each_case(const Seeds& seeds, const std::function<AttentionCase(std::uint64_t)>& draw,
                   const std::function<void(const AttentionCase&)>& test);

}  // namespace rapt::tests
