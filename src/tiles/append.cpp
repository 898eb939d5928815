#include "tiles/append.hpp"

#include <algorithm>

#include "tiles/quantize.hpp"
#include "tiles/stored.hpp"

namespace rapt::tiles {
namespace {

// Which batch element a new key belongs to, and which of the element's new keys it is.
struct NewKey {
  Index element, number;
};

NewKey new_key(const AppendProblem& p, Index row) {
  if (p.first_new == nullptr) return {row / p.seq_new, row % p.seq_new};
  // The last sequence that begins at or before the row: those before it may be empty.
  const std::int32_t* after = std::upper_bound(p.first_new, p.first_new + p.batch.size, row);
  return {after - p.first_new - 1, row - *(after - 1)};
}

// Where key `key` of a batch element lies in a cache, or its scale in scales.
template <class T>
T* cache_slot(const AppendProblem& p, const Array<T>& array, Index element, Index key) {
  if (!p.pages.table) return p.batch.element(array, element) + key * array.row_stride;
  const Index page =
      p.batch.element(p.pages.table, element)[key / p.pages.size * p.pages.table.row_stride];
  return array.data + page * array.batch_stride[0] + key % p.pages.size * array.row_stride;
}

}  // namespace

void run_row(const AppendProblem& p, const kernels::Kernels& kernels, Index row) {
  const auto [element, number] = new_key(p, row);
  const Index key = *p.batch.element(p.kv_lengths, element) + number;
  // Packed arrays count new keys from the first of all sequences.
  const Index source = p.first_new == nullptr ? number : row;
  const auto new_row = [&](const auto& array) {
    return (p.first_new == nullptr ? p.batch.element(array, element) : array.data) +
           source * array.row_stride;
  };

  float x[kMaxDepth];
  const auto append = [&](const Stored<const std::byte>& from, const Stored<std::byte>& to,
                          const Array<float>& scales, Index depth, const Rotation* rotation) {
    const std::byte* new_rows = new_row(from);
    std::byte* rows = cache_slot<std::byte>(p, to, element, key);
    float* scale = scales ? cache_slot(p, scales, element, key) : nullptr;
    for (Index head = 0; head < p.kv_heads; ++head) {
      read_row(kernels, from, new_rows + head * from.head_stride, depth, x);
      if (rotation != nullptr) rotate(p.rope, *rotation, x);
      float own = 0;
      if (scale != nullptr)
        scale[head * scales.head_stride] = own = int8_scale(largest_magnitude(x, depth));
      store_row(kernels, to, x, depth, own, rows + head * to.head_stride);
    }
  };
  Rotation rotation;
  if (p.rope.dims > 0)
    fill_rotation(p.rope, static_cast<double>(p.positions ? *new_row(p.positions) : key), rotation);
  append(p.k_new, p.k_cache, p.k_scales, p.d_k, p.rope.dims > 0 ? &rotation : nullptr);
  append(p.v_new, p.v_cache, p.v_scales, p.d_v, nullptr);
}

}  // namespace rapt::tiles
