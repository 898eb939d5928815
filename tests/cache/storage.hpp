// Arrays of the tests in any storage type, in guarded memory, compared by their bytes.
#pragma once

#include <cstring>
#include <memory>
#include <variant>
#include <vector>

#include "rapt/rapt.hpp"
#include "support/tensor.hpp"

namespace rapt::tests {

inline constexpr Type kPlainTypes[] = {Type::f32, Type::bf16, Type::f16};

// [..., depth], whose extents count numbers: 4-bit groups have depth / 32 elements.
class Storage {
 public:
  Storage(Type type, std::vector<std::int64_t> extents, Layout layout = {})
      : type_(type), depth_(extents.back()), tensor_(make(type, std::move(extents), layout)) {}

  Type type() const { return type_; }
  template <class Any, class... Axes>
  Any view() const {
    return std::visit([](const auto& t) { return Any(t.template view<Axes...>()); }, tensor_);
  }
  // From numbers of [..., depth], the nearest; not for int8 and 4-bit groups.
  template <class Make>
  void fill(const Make& make) {
    if (auto* t = std::get_if<Tensor<float>>(&tensor_)) t->fill(make);
    if (auto* t = std::get_if<Tensor<BFloat16>>(&tensor_))
      t->fill([&](std::int64_t i) { return to_bf16(make(i)); });
    if (auto* t = std::get_if<Tensor<Float16>>(&tensor_))
      t->fill([&](std::int64_t i) { return to_f16(make(i)); });
  }
  // Number i of [..., depth]; of int8 without its scale.
  float operator[](std::int64_t i) const {
    return std::visit([i](const auto& t) { return number(t, i); }, tensor_);
  }
  std::int64_t rows() const {
    return std::visit([](const auto& t) { return t.size(); }, tensor_) /
           (type_ == Type::int4 ? depth_ / Int4Group::kSize : depth_);
  }
  // The bytes of row r, without what lies between its elements.
  std::vector<std::byte> row(std::int64_t r) const {
    return std::visit(
        [&](const auto& t) {
          using T = std::remove_reference_t<decltype(t[0])>;
          const std::int64_t n = t.size() / rows();
          std::vector<std::byte> bytes(static_cast<std::size_t>(n) * sizeof(T));
          for (std::int64_t i = 0; i < n; ++i)
            std::memcpy(bytes.data() + static_cast<std::size_t>(i) * sizeof(T), &t[r * n + i],
                        sizeof(T));
          return bytes;
        },
        tensor_);
  }
  std::vector<std::vector<std::byte>> all_rows() const {
    std::vector<std::vector<std::byte>> all;
    for (std::int64_t r = 0; r < rows(); ++r) all.push_back(row(r));
    return all;
  }
  void seal() {
    std::visit([](auto& t) { t.seal(); }, tensor_);
  }
  testing::AssertionResult unchanged() const {
    return std::visit([](const auto& t) { return t.unchanged(); }, tensor_);
  }
  testing::AssertionResult gaps_unchanged() const {
    return std::visit([](const auto& t) { return t.gaps_unchanged(); }, tensor_);
  }

 private:
  using AnyTensor = std::variant<Tensor<float>, Tensor<BFloat16>, Tensor<Float16>,
                                 Tensor<std::int8_t>, Tensor<Int4Group>>;

  static AnyTensor make(Type type, std::vector<std::int64_t> extents, const Layout& layout) {
    if (type == Type::bf16) return Tensor<BFloat16>(std::move(extents), layout);
    if (type == Type::f16) return Tensor<Float16>(std::move(extents), layout);
    if (type == Type::int8) return Tensor<std::int8_t>(std::move(extents), layout);
    if (type == Type::f32) return Tensor<float>(std::move(extents), layout);
    extents.back() /= Int4Group::kSize;
    return Tensor<Int4Group>(std::move(extents), layout);
  }
  template <class T>
  static float number(const Tensor<T>& t, std::int64_t i) {
    if constexpr (std::is_same_v<T, Int4Group>) {
      const Int4Group& group = t[i / 32];
      const auto at = i % 32;
      const int nibble = at < 16 ? group.nibbles[at] & 15 : group.nibbles[at - 16] >> 4;
      return to_float(group.scale) * static_cast<float>(nibble - 8);
    } else if constexpr (std::is_same_v<T, BFloat16> || std::is_same_v<T, Float16>) {
      return to_float(t[i]);
    } else {
      return static_cast<float>(t[i]);
    }
  }

  Type type_;
  std::int64_t depth_;
  AnyTensor tensor_;
};

}  // namespace rapt::tests
