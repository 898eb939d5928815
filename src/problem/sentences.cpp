// The table of sentences: one for each kind of error about inputs.
#include "problem/sentences.hpp"

namespace rapt::problem {
namespace {

const char* sentence(ErrorCode code) {
  switch (code) {
    case ErrorCode::null_data:
      return "{0} has {1} elements but its data is null";
    case ErrorCode::wrong_rank:
      return "batch axes: {0} has {1}, but {2} has {3}";
    case ErrorCode::extent_mismatch:
      return "axis {0}: {1} has {2}, but {3} has {4}";
    case ErrorCode::extent_range:
      return "axis {0} of {1} is {2}, but must be from {3} to {4}";
    case ErrorCode::heads_not_multiple:
      return "axis heads: q has {0}, which is not a multiple of the {1} kv_heads of k and v";
    case ErrorCode::too_large:
      return "{0} is too large: axis {1} has extent {2} with stride {3}, beyond what memory can "
             "hold";
    case ErrorCode::bad_value:
      return "{0} is {1}, but {2}";
    case ErrorCode::unknown_target:
    case ErrorCode::bad_config:
      break;  // written where they are found: they quote a list or a line
  }
  return "{0}";
}

}  // namespace

void fail(ErrorCode code, std::initializer_list<Word> words) {
  std::string text = sentence(code);
  int number = 0;
  for (const Word& word : words) {
    const std::string mark = "{" + std::to_string(number++) + "}";
    if (const auto at = text.find(mark); at != std::string::npos)
      text.replace(at, mark.size(), word.text);
  }
  throw Error(code, text);
}

}  // namespace rapt::problem
