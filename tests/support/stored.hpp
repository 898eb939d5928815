// Arrays of the tests in any storage type, beside the floats that they stand for.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "rapt/types.hpp"
#include "support/tensor.hpp"

namespace rapt::tests {

// The storage of a tensor of floats, whose last axis is the depth. f32 has none: it is the tensor.
class StoredTensor {
 public:
  StoredTensor(Type type, Tensor<float>& floats, Layout layout) : type_(type), floats_(floats) {
    std::vector<std::int64_t> extents = floats.extents();
    // A layout for depths may not suit groups.
    if (type == Type::int4) layout = {}, extents.back() /= Int4Group::kSize;
    if (type == Type::bf16) bf16_.emplace(extents, layout);
    if (type == Type::f16) f16_.emplace(extents, layout);
    if (type == Type::int8) int8_.emplace(extents, layout);
    if (type == Type::int4) int4_.emplace(extents, layout);
    if (type == Type::int8) {
      extents.pop_back();
      scales_.emplace(extents);
    }
  }

  // The floats become what their storage can hold.
  void round() {
    if (type_ == Type::int8) choose_scales();
    write();
    read();
  }

  // floats -> storage.
  void write() {
    const auto n = floats_.size();
    if (bf16_) bf16_->fill([&](std::int64_t i) { return to_bf16(floats_[i]); });
    if (f16_) f16_->fill([&](std::int64_t i) { return to_f16(floats_[i]); });
    const std::int64_t depth = std::max<std::int64_t>(floats_.extents().back(), 1);
    if (int8_) {
      for (std::int64_t i = 0; i < n; ++i) {
        const float x = floats_[i] / (*scales_)[i / depth];
        (*int8_)[i] = static_cast<std::int8_t>(std::isnan(x) ? 1 : std::nearbyint(x));
        // int8 has no NaN; its scale may be one.
        if (std::isnan(floats_[i])) (*scales_)[i / depth] = floats_[i];
      }
    }
    if (int4_) {
      for (std::int64_t g = 0; g < int4_->size(); ++g) write_group(g);
    }
  }

  // storage -> floats.
  void read() {
    const auto n = floats_.size();
    const std::int64_t depth = std::max<std::int64_t>(floats_.extents().back(), 1);
    for (std::int64_t i = 0; i < n; ++i) {
      if (bf16_) floats_[i] = to_float((*bf16_)[i]);
      if (f16_) floats_[i] = to_float((*f16_)[i]);
      if (int8_) floats_[i] = static_cast<float>((*int8_)[i]) * (*scales_)[i / depth];
      if (int4_) {
        const Int4Group& group = (*int4_)[i / 32];
        const auto at = i % 32;
        const int nibble = at < 16 ? group.nibbles[at] & 15 : group.nibbles[at - 16] >> 4;
        floats_[i] = to_float(group.scale) * static_cast<float>(nibble - 8);
      }
    }
  }

  template <class Any, class... Axes>
  Any view() const {
    if (bf16_) return bf16_->template view<Axes...>();
    if (f16_) return f16_->template view<Axes...>();
    if constexpr (std::is_const_v<std::remove_pointer_t<decltype(Any().data())>>) {
      if (int8_) return int8_->template view<Axes...>();
      if (int4_) return int4_->template view<Axes...>();
    }
    return floats_.template view<Axes...>();
  }
  const std::optional<Tensor<float>>& scales() const { return scales_; }

  // An output: poisoned before the call, its gaps and rounding checked after it.
  void reset() {
    if (bf16_) bf16_->reset();
    if (f16_) f16_->reset();
  }
  testing::AssertionResult gaps_unchanged() const {
    if (bf16_) return bf16_->gaps_unchanged();
    if (f16_) return f16_->gaps_unchanged();
    return testing::AssertionSuccess();
  }

 private:
  // Of few bits, so that every product with an int8 is exact.
  void choose_scales() {
    const std::int64_t depth = std::max<std::int64_t>(floats_.extents().back(), 1);
    for (std::int64_t key = 0; key < scales_->size(); ++key) {
      float most = 0;
      for (std::int64_t d = 0; d < depth; ++d)
        most = std::max(most, std::abs(floats_[key * depth + d]));
      (*scales_)[key] = to_float(to_bf16(std::max(most / 126, 0x1p-60f)));
    }
  }
  void write_group(std::int64_t g) {
    float most = 0;
    bool nan = false;
    for (int i = 0; i < 32; ++i) {
      nan |= std::isnan(floats_[g * 32 + i]);
      most = std::max(most, std::abs(floats_[g * 32 + i]));
    }
    Int4Group group{to_f16(nan ? std::nanf("") : std::max(most / 7, 0x1p-14f)), {}};
    for (int i = 0; i < 32; ++i) {
      const float x = floats_[g * 32 + i] / to_float(group.scale);
      const int n = std::isnan(x) ? 9 : std::clamp(static_cast<int>(std::nearbyint(x)) + 8, 0, 15);
      group.nibbles[i % 16] = static_cast<std::uint8_t>(group.nibbles[i % 16] | n << (i / 16 * 4));
    }
    (*int4_)[g] = group;
  }

  Type type_;
  Tensor<float>& floats_;
  std::optional<Tensor<BFloat16>> bf16_;
  std::optional<Tensor<Float16>> f16_;
  std::optional<Tensor<std::int8_t>> int8_;
  std::optional<Tensor<Int4Group>> int4_;
  std::optional<Tensor<float>> scales_;
};

// Half a unit in the last place of what a type stores, relative at most; and of its denormals.
inline double rounding_of(Type type) {
  return type == Type::bf16 ? 0x1p-8 : type == Type::f16 ? 0x1p-11 : 0;
}
inline double floor_of(Type type) { return type == Type::f16 ? 0x1p-25 : 0; }

}  // namespace rapt::tests
