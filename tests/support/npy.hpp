// Golden cases from disk: .npy files (NumPy's format, version 1) and the options beside them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "rapt/types.hpp"

namespace rapt::tests {

// An array in C order. Only the vector of its type is filled; f32 also with the values of f16 and
// of bf16, which NumPy has no type for: its bits are saved as uint16.
struct Npy {
  std::vector<std::int64_t> shape;
  std::vector<float> f32;
  std::vector<double> f64;
  std::vector<Float16> f16;
  std::vector<BFloat16> bf16;
  std::vector<unsigned char> booleans;
  std::vector<std::int32_t> i32;
  std::vector<std::uint64_t> u64;
};

// Throws std::runtime_error on anything that is not such an array.
Npy read_npy(const std::string& path);

// One folder of tests/golden/data.
class GoldenCase {
 public:
  explicit GoldenCase(const std::string& name);
  const std::string& name() const { return name_; }
  bool has(const std::string& array) const;
  Npy array(const std::string& array) const;
  std::optional<double> option(const std::string& option) const;

 private:
  std::string name_, folder_;
  std::map<std::string, std::string> options_;
};

// The names of all cases of one kind: attention, gemm or layer.
std::vector<std::string> golden_cases(const std::string& kind);

}  // namespace rapt::tests
