#include "safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

namespace minilm {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little endian");

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit

const std::map<std::string, std::uint64_t> kElementBytes = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
    {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8},
};

[[noreturn]] void fail(const std::string& where, const std::string& problem) {
  throw SafetensorsError(where + ": " + problem);
}

std::string shape_text(const std::vector<std::int64_t>& shape) { return json(shape).dump(); }

const json& field(const json& entry, const char* name, const std::string& where) {
  if (!entry.is_object()) fail(where, "its entry in the header is not an object");
  const auto found = entry.find(name);
  if (found == entry.end()) fail(where, std::string("the header gives no ") + name);
  return *found;
}

// A JSON number that is a whole one, from 0 to 2^63 - 1: negative, fractional or larger ones have
// other types.
std::uint64_t whole(const json& number, const char* what, const std::string& where) {
  if (!number.is_number_unsigned() ||
      number.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
    const std::string given =
        number.is_number() ? number.dump() : std::string("a JSON ") + number.type_name();
    fail(where,
         std::string(what) + " has " + given + ", which is not a whole number from 0 to 2^63 - 1");
  }
  return number.get<std::uint64_t>();
}

// elements * element_bytes, unless a product on the way does not fit.
std::uint64_t byte_count(const Tensor& tensor, const std::string& where) {
  const auto size = kElementBytes.find(tensor.dtype);
  if (size == kElementBytes.end()) fail(where, "unknown dtype " + tensor.dtype);
  std::uint64_t bytes = size->second;
  for (const std::int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes)) {
      fail(where,
           "a tensor of shape " + shape_text(tensor.shape) + " does not fit the address space");
    }
  }
  return bytes;
}

Tensor read_entry(const json& entry, std::span<const std::byte> data, const std::string& where) {
  Tensor tensor;
  const json& dtype = field(entry, "dtype", where);
  if (!dtype.is_string()) fail(where, "dtype is not a string");
  tensor.dtype = dtype.get<std::string>();

  const json& shape = field(entry, "shape", where);
  if (!shape.is_array()) fail(where, "shape is not an array");
  for (const json& extent : shape) {
    tensor.shape.push_back(static_cast<std::int64_t>(whole(extent, "shape", where)));
  }

  const json& offsets = field(entry, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2)
    fail(where, "data_offsets is not an array of two numbers");
  const std::uint64_t begin = whole(offsets[0], "data_offsets", where);
  const std::uint64_t end = whole(offsets[1], "data_offsets", where);
  if (begin > end) fail(where, "data_offsets " + offsets.dump() + " begin after their end");
  if (end > data.size()) {
    fail(where, "data_offsets " + offsets.dump() + " end after the data, which has " +
                    std::to_string(data.size()) + " bytes: is the file truncated?");
  }
  if (const std::uint64_t bytes = byte_count(tensor, where); bytes != end - begin) {
    fail(where, "shape " + shape_text(tensor.shape) + " of " + tensor.dtype + " takes " +
                    std::to_string(bytes) + " bytes, but data_offsets " + offsets.dump() +
                    " span " + std::to_string(end - begin));
  }
  tensor.bytes = data.subspan(begin, end - begin);
  return tensor;
}

// In the order of their offsets, each tensor begins where the one before it ends, and the last ends
// the data.
void check_cover(const std::map<std::string, Tensor>& tensors, std::span<const std::byte> data,
                 const std::string& path) {
  std::vector<std::pair<std::span<const std::byte>, std::string>> ranges;
  for (const auto& [name, tensor] : tensors) ranges.emplace_back(tensor.bytes, name);
  // Empty tensors first among equals: they lie between their neighbours.
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  std::uint64_t covered = 0;
  for (const auto& [bytes, name] : ranges) {
    const std::uint64_t begin = static_cast<std::uint64_t>(bytes.data() - data.data());
    if (begin != covered) {
      fail(path + ": tensor '" + name + "'",
           "begins at byte " + std::to_string(begin) +
               " of the data, but the tensor before it ends at byte " + std::to_string(covered) +
               (begin < covered ? ": they overlap" : ": there is a hole"));
    }
    covered += bytes.size();
  }
  if (covered != data.size()) {
    fail(path, "the tensors end at byte " + std::to_string(covered) + " of the data, which has " +
                   std::to_string(data.size()) + " bytes");
  }
}

}  // namespace

std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> file,
                                                const std::string& path) {
  if (file.size() < kLengthBytes) {
    fail(path, "has " + std::to_string(file.size()) +
                   " bytes, too few for the length of a safetensors header");
  }
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeader) {
    fail(path, "says that its header has " + std::to_string(length) + " bytes; the format allows " +
                   std::to_string(kMaxHeader) + ": is it a safetensors file?");
  }
  if (length > file.size() - kLengthBytes) {
    fail(path, "says that its header has " + std::to_string(length) + " bytes, but only " +
                   std::to_string(file.size() - kLengthBytes) + " follow: is the file truncated?");
  }
  const char* text = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
  json header;
  try {
    header = json::parse(text, text + length);
  } catch (const json::exception& error) {
    fail(path, std::string("its header is not valid JSON: ") + error.what());
  }
  if (!header.is_object()) fail(path, "its header is not a JSON object");

  const std::span<const std::byte> data = file.subspan(kLengthBytes + length);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    tensors.emplace(name, read_entry(entry, data, path + ": tensor '" + name + "'"));
  }
  check_cover(tensors, data, path);
  return tensors;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(path, std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status{};
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  const std::size_t size = regular ? static_cast<std::size_t>(status.st_size) : 0;
  void* memory = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0) : nullptr;
  const int map_error = errno;
  close(descriptor);
  if (!regular) fail(path, "is not a regular file");
  if (memory == MAP_FAILED)
    fail(path, std::string("cannot be mapped: ") + std::strerror(map_error));
  file_ = {static_cast<const std::byte*>(memory), size};
  try {
    tensors_ = parse_safetensors(file_, path);
  } catch (...) {
    if (memory != nullptr) munmap(memory, size);  // a constructor that throws has no destructor
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() {
  if (!file_.empty()) munmap(const_cast<std::byte*>(file_.data()), file_.size());
}

const float* SafetensorsFile::f32(const std::string& name,
                                  const std::vector<std::int64_t>& shape) const {
  const std::string where = path_ + ": tensor '" + name + "'";
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail(path_, "has no tensor '" + name + "'");
  const Tensor& tensor = found->second;
  if (tensor.dtype != "F32") fail(where, "is " + tensor.dtype + ", but F32 is needed");
  if (tensor.shape != shape) {
    fail(where,
         "has shape " + shape_text(tensor.shape) + ", but " + shape_text(shape) + " is needed");
  }
  if (reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % alignof(float) != 0) {
    fail(where, "does not begin at a multiple of 4 bytes: pad the file's header with spaces");
  }
  return reinterpret_cast<const float*>(tensor.bytes.data());
}

}  // namespace minilm
