// Reads safetensors files: tensors by name, checked before the first one is touched, never copied.
//
//   bytes 0..7     N, the length of the header, unsigned, little endian
//   bytes 8..8+N   the header, JSON: {name: {"dtype": "F32", "shape": [384, 384], "data_offsets":
//   [begin, end]}} the rest       the data; offsets count from its first byte
// The tensors cover the data exactly, without holes or overlaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace minilm {

// what() names the file and, where there is one, the tensor.
struct SafetensorsError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Tensor {
  std::string dtype;  // as in the file: F32, BF16, I64, ...
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // inside the file's bytes
};

// The tensors of a file that is in memory at `file`. `path` is for messages.
std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> file,
                                                const std::string& path);

class SafetensorsFile {
 public:
  // Maps the file; its pages are read when they are used. The file must not be truncated meanwhile.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // The elements of an F32 tensor of this shape; valid as long as the file object.
  const float* f32(const std::string& name, const std::vector<std::int64_t>& shape) const;

  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

 private:
  std::string path_;
  std::span<const std::byte> file_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace minilm
