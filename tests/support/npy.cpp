// Reading .npy files and the folders of golden data.
#include "support/npy.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace rapt::tests {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw std::runtime_error(path + ": " + why);
}

// The text after 'name': in the header's dictionary.
std::string entry(const std::string& header, const std::string& name, const std::string& path) {
  const std::size_t at = header.find("'" + name + "':");
  if (at == std::string::npos) fail(path, "the header has no " + name);
  return header.substr(at + name.size() + 3);
}

template <class T>
std::vector<T> values(const std::string& bytes, std::size_t count, const std::string& path) {
  if (bytes.size() != count * sizeof(T)) fail(path, "has the wrong size");
  std::vector<T> result(count);
  if (count > 0) std::memcpy(result.data(), bytes.data(), bytes.size());
  return result;
}

}  // namespace

Npy read_npy(const std::string& path) {
  static_assert(std::endian::native == std::endian::little, "the data is little-endian");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path, "cannot be read");
  char start[10];
  file.read(start, sizeof(start));
  if (!file || std::memcmp(start, "\x93NUMPY\x01\x00", 8) != 0)
    fail(path, "is no .npy file of version 1");
  const auto length = static_cast<std::size_t>(static_cast<unsigned char>(start[8]) |
                                               static_cast<unsigned char>(start[9]) << 8);
  std::string header(length, ' ');
  file.read(header.data(), static_cast<std::streamsize>(length));
  const std::string bytes(std::istreambuf_iterator<char>(file), {});

  if (entry(header, "fortran_order", path).find("False") > 1) fail(path, "is not in C order");
  Npy npy;
  std::size_t count = 1;
  const std::string shape = entry(header, "shape", path);
  for (std::size_t at = shape.find('(') + 1; at < shape.find(')');) {
    if (shape[at] < '0' || shape[at] > '9') {
      ++at;
      continue;
    }
    std::size_t digits = 0;
    npy.shape.push_back(std::stoll(shape.substr(at), &digits));
    count *= static_cast<std::size_t>(npy.shape.back());
    at += digits;
  }
  const std::string type = entry(header, "descr", path);
  if (type.find("'<f4'") <= 1)
    npy.f32 = values<float>(bytes, count, path);
  else if (type.find("'<f8'") <= 1)
    npy.f64 = values<double>(bytes, count, path);
  else if (type.find("'|b1'") <= 1)
    npy.booleans = values<unsigned char>(bytes, count, path);
  else if (type.find("'<i4'") <= 1)
    npy.i32 = values<std::int32_t>(bytes, count, path);
  else if (type.find("'<u8'") <= 1)
    npy.u64 = values<std::uint64_t>(bytes, count, path);
  else if (type.find("'<f2'") <= 1)
    npy.f16 = values<Float16>(bytes, count, path);
  else if (type.find("'<u2'") <= 1)
    npy.bf16 = values<BFloat16>(bytes, count, path);
  else
    fail(path, "has another type");
  for (Float16 x : npy.f16) npy.f32.push_back(to_float(x));
  for (BFloat16 x : npy.bf16) npy.f32.push_back(to_float(x));
  return npy;
}

GoldenCase::GoldenCase(const std::string& name)
    : name_(name), folder_(RAPT_GOLDEN_DATA "/" + name + "/") {
  std::ifstream file(folder_ + "case.txt");
  if (!file) fail(folder_, "has no case.txt");
  for (std::string option, value; file >> option >> value;) options_[option] = value;
}

bool GoldenCase::has(const std::string& array) const {
  return std::filesystem::exists(folder_ + array + ".npy");
}

Npy GoldenCase::array(const std::string& array) const { return read_npy(folder_ + array + ".npy"); }

std::optional<double> GoldenCase::option(const std::string& option) const {
  const auto found = options_.find(option);
  if (found == options_.end()) return std::nullopt;
  return std::stod(found->second);
}

std::vector<std::string> golden_cases(const std::string& kind) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(RAPT_GOLDEN_DATA)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kind + "_")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace rapt::tests
