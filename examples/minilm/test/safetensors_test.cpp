// The safetensors reader: a good file, and files broken in every way that matters, each with an
// error that names what is wrong.
#include "../safetensors.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using minilm::parse_safetensors;
using minilm::SafetensorsError;
using minilm::SafetensorsFile;
using minilm::Tensor;

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + rest;
}

std::string make_file(const std::string& header, const std::string& data) {
  return with_length(header.size(), header + data);
}

// a: F32 [2, 3] in bytes 0..24; b: I64 [1] in bytes 24..32; c: empty, between them.
const std::string kHeader =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[1],"data_offsets":[24,32]},)"
    R"("c":{"dtype":"U8","shape":[0,7],"data_offsets":[24,24]},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";

std::string good_data() {
  const float a[6] = {1, 2, 3, 4, 5, 6};
  const std::int64_t b = 7;
  std::string data(32, '\0');
  std::memcpy(data.data(), a, 24);
  std::memcpy(data.data() + 24, &b, 8);
  return data;
}

auto parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "file");
}

// The message of the error that `file` gives, or "no error".
std::string error_of(const std::string& file) {
  try {
    parse(file);
  } catch (const SafetensorsError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of_entry(const std::string& entry, const std::string& data) {
  return error_of(make_file(R"({"x":)" + entry + "}", data));
}

// A file on disk that goes away with the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& bytes)
      : path_(std::filesystem::temp_directory_path() /
              ("rapt_safetensors_test_" + std::to_string(getpid()))) {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string error_of_f32(const SafetensorsFile& file, const std::string& name,
                         const std::vector<std::int64_t>& shape) {
  try {
    file.f32(name, shape);
  } catch (const SafetensorsError& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_NAMES(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Safetensors, ReadsAGoodFile) {
  const std::string file = make_file(kHeader, good_data());
  const auto tensors = parse(file);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors.at("a").dtype, "F32");
  EXPECT_EQ(tensors.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tensors.at("a").bytes.size(), 24u);
  EXPECT_EQ(reinterpret_cast<const char*>(tensors.at("b").bytes.data()),
            file.data() + 8 + kHeader.size() + 24);
  EXPECT_TRUE(tensors.at("c").bytes.empty());
}

TEST(Safetensors, ReadsAFileWithoutTensors) { EXPECT_TRUE(parse(make_file("{}", "")).empty()); }

TEST(Safetensors, AScalarHasNoExtents) {
  const std::string file =
      make_file(R"({"x":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", std::string(8, '\0'));
  EXPECT_TRUE(parse(file).at("x").shape.empty());
}

TEST(Safetensors, TruncatedAnywhereIsAnError) {
  const std::string file = make_file(kHeader, good_data());
  for (std::size_t size = 0; size < file.size(); ++size) {
    const std::string error = error_of(file.substr(0, size));
    const char* names = size < 8 ? "too few for the length of a safetensors header"
                        : size < 8 + kHeader.size() ? "says that its header has"
                                                    : "end after the data";
    EXPECT_NE(error.find(names), std::string::npos) << size << " bytes: " << error;
  }
}

TEST(Safetensors, BytesAfterTheTensorsAreAnError) {
  EXPECT_NAMES(error_of(make_file(kHeader, good_data() + '\0')),
               "end at byte 32 of the data, which has 33");
}

TEST(Safetensors, HeaderLengthBeyondTheFile) {
  EXPECT_NAMES(error_of(with_length(1000, kHeader)), "header has 1000 bytes");
  EXPECT_NAMES(error_of(with_length(kHeader.size() + 1, kHeader)), "is the file truncated?");
  EXPECT_NAMES(error_of(with_length(~std::uint64_t{0}, kHeader)),
               "is it a safetensors file?");  // 8 + length wraps
  EXPECT_NAMES(error_of(with_length(~std::uint64_t{0} - 7, kHeader)), "is it a safetensors file?");
}

TEST(Safetensors, HeaderIsNotJson) {
  EXPECT_NAMES(error_of(make_file("", "")), "not valid JSON");
  EXPECT_NAMES(error_of(make_file("{\"a\":", "")), "not valid JSON");
  EXPECT_NAMES(error_of(make_file("{} {}", "")), "not valid JSON");
  EXPECT_NAMES(error_of(make_file("{\"\xff\":1}", "")), "not valid JSON");  // not UTF-8
  EXPECT_NAMES(error_of(make_file("[1,2]", "")), "not a JSON object");
}

TEST(Safetensors, EntriesOfTheWrongForm) {
  EXPECT_NAMES(error_of_entry("3", ""), "tensor 'x': its entry in the header is not an object");
  EXPECT_NAMES(error_of_entry("{}", ""), "gives no dtype");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32"})", ""), "gives no shape");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[1]})", ""), "gives no data_offsets");
  EXPECT_NAMES(error_of_entry(R"({"dtype":5,"shape":[1],"data_offsets":[0,4]})", "1234"),
               "dtype is not a string");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", "1234"),
               "shape is not an array");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})", "1234"),
               "array of two numbers");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F33","shape":[1],"data_offsets":[0,4]})", "1234"),
               "unknown dtype F33");
}

TEST(Safetensors, NumbersThatAreNoSizes) {
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", "1234"),
               "shape has -1");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", "1234"),
               "shape has 1.5");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":["1"],"data_offsets":[0,4]})", "1234"),
               "shape has a JSON string");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[-4,4]})", "1234"),
               "data_offsets has -4");
  EXPECT_NAMES(
      error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]})",
                     "1234"),
      "data_offsets has 18446744073709551615");
  EXPECT_NAMES(
      error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551616]})",
                     "1234"),
      "data_offsets has 1.8");  // 2^64: JSON reads it as a fraction
  const std::string deep =
      std::string(1'000'000, '[') + std::string(1'000'000, ']');  // must not overflow the stack
  EXPECT_NAMES(
      error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,)" + deep + "]}", "1234"),
      "data_offsets has a JSON array");
}

TEST(Safetensors, OffsetsOutOfRange) {
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,5]})", "1234"),
               "end after the data, which has 4");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", "1234"),
               "begin after their end");
  EXPECT_NAMES(
      error_of_entry(
          R"({"dtype":"F32","shape":[1],"data_offsets":[9223372036854775804,9223372036854775807]})",
          "1234"),
      "end after the data");
}

TEST(Safetensors, ShapeThatDoesNotFillItsOffsets) {
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", "1234"),
               "takes 8 bytes, but data_offsets [0,4] span 4");
  EXPECT_NAMES(error_of_entry(R"({"dtype":"F16","shape":[1],"data_offsets":[0,4]})", "1234"),
               "takes 2 bytes");
}

TEST(Safetensors, ShapeWhoseProductOverflows) {
  // 2^32 * 2^30 * 4 = 2^64, which is 0 to careless arithmetic.
  EXPECT_NAMES(
      error_of_entry(R"({"dtype":"F32","shape":[4294967296,1073741824],"data_offsets":[0,0]})", ""),
      "does not fit the address space");
  EXPECT_NAMES(
      error_of_entry(R"({"dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,0]})", ""),
      "does not fit the address space");
}

TEST(Safetensors, OverlapsAndHoles) {
  const auto two = [](const char* first, const char* second) {
    return make_file(std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)") + first +
                         R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}",
                     std::string(20, '\0'));
  };
  EXPECT_NAMES(error_of(two("[0,8]", "[4,12]")),
               "tensor 'b': begins at byte 4 of the data, but the tensor before it "
               "ends at byte 8: they overlap");
  EXPECT_NAMES(error_of(two("[0,8]", "[0,8]")), "they overlap");
  EXPECT_NAMES(error_of(two("[0,8]", "[12,20]")), "there is a hole");
  EXPECT_NAMES(error_of(two("[4,12]", "[12,20]")), "tensor 'a': begins at byte 4");
  EXPECT_NAMES(error_of(two("[8,16]", "[0,8]")),
               "the tensors end at byte 16 of the data, which has 20");
}

TEST(SafetensorsFile, GivesF32TensorsOfTheAskedShape) {
  const std::string header =
      kHeader + std::string(8 - kHeader.size() % 8, ' ');  // aligns the data, as writers do
  const TemporaryFile temporary(make_file(header, good_data()));
  const SafetensorsFile file(temporary.path());
  const float* a = file.f32("a", {2, 3});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(a[i], static_cast<float>(i + 1));
  EXPECT_NAMES(error_of_f32(file, "z", {1}), "has no tensor 'z'");
  EXPECT_NAMES(error_of_f32(file, "b", {1}), "tensor 'b': is I64, but F32 is needed");
  EXPECT_NAMES(error_of_f32(file, "a", {3, 2}), "tensor 'a': has shape [2,3], but [3,2] is needed");
}

TEST(SafetensorsFile, DataThatIsNotAlignedIsAnError) {
  const std::string header = kHeader + std::string(9 - kHeader.size() % 8, ' ');
  const TemporaryFile temporary(make_file(header, good_data()));
  EXPECT_NAMES(error_of_f32(SafetensorsFile(temporary.path()), "a", {2, 3}), "multiple of 4 bytes");
}

std::string error_of_path(const std::string& path) {
  try {
    SafetensorsFile file(path);
  } catch (const SafetensorsError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SafetensorsFile, FilesThatCannotBeRead) {
  EXPECT_NAMES(error_of_path("/nowhere/model.safetensors"),
               "/nowhere/model.safetensors: cannot be opened: No such file");
  EXPECT_NAMES(error_of_path("/"), "is not a regular file");
  const TemporaryFile empty("");
  EXPECT_NAMES(error_of_path(empty.path()), "has 0 bytes");
  const TemporaryFile text("this is not a tensor file");
  EXPECT_NAMES(error_of_path(text.path()), "is it a safetensors file?");
}

}  // namespace
