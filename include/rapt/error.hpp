// Everything that can go wrong, as one list. rapt throws rapt::Error and nothing else of its own;
// it never prints, never aborts, and throws before the first byte of an output is written.
#pragma once

#include <stdexcept>
#include <string>

#include "rapt/export.h"

namespace rapt {

enum class ErrorCode {
  null_data,           // a view has elements but no memory
  wrong_rank,          // a view has fewer extents than named axes, or too many batch axes
  extent_mismatch,     // two views disagree about an axis
  extent_range,        // an extent is negative, or beyond what rapt computes
  heads_not_multiple,  // n_heads is not a multiple of n_kv_heads
  too_large,           // a product of sizes does not fit the address space
  bad_value,           // an option's value has no meaning
  unknown_target,      // no such ISA target, or this CPU does not run it
  bad_config,          // a config header has a bad row
};

// what() is a full sentence that names the axis or option and both values.
class RAPT_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace rapt
