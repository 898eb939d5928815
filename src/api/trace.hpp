// RAPT_TRACE=FILE: each distinct problem that a program computes, with how often: a list of shapes
// for rapt-tune --from and rapt-bench --from.
#pragma once

#include <string>

namespace rapt::trace {

// Whether the environment asks for it; looked up once.
bool on();

// One more call of a case; of none where it is empty.
void count(const std::string& a_case);

// Counts what case_of() says, where it is on.
template <class CaseOf>
void record(const CaseOf& case_of) {
  if (on()) count(case_of());
}

}  // namespace rapt::trace
