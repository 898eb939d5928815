// A shape with its operands, ready to be run and checked.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "expected.hpp"
#include "rapt/executor.hpp"
#include "shapes.hpp"

namespace rapt::bench {

class Case {
 public:
  virtual ~Case() = default;

  // One call of rapt.
  virtual void run(const Executor& executor) = 0;

  // Runs once on a result that was filled with NaN. Empty when it is then right, otherwise a
  // sentence.
  std::string check(const Executor& executor);

  // How the library computes it, where it can say so.
  virtual std::string explain() const { return {}; }

  // Memory of as many bytes as Shape::streamed_bytes(), of the operand that they are of.
  virtual std::span<const float> streamed() const { return {}; }

 protected:
  virtual std::vector<Result> results() = 0;  // all their memory
  virtual Expected expect() const = 0;
  // Whether that is of what the last run left; otherwise targets and threads share it.
  virtual bool expects_anew() const { return false; }
  // What the result holds before it is computed: all bits set are NaN in every plain type.
  virtual float before() const { return std::bit_cast<float>(~std::uint32_t{0}); }

 private:
  Expected expected_;
};

std::unique_ptr<Case> make_case(const Shape& shape);

}  // namespace rapt::bench
