// The mask kinds. Each says, for a tile of rows x keys, how it covers the tile, and applies itself
// to the bias of the tile. To add a kind: one struct here, one place in AllKinds, its option in
// AttentionProblem.
#include "tiles/mask.hpp"

#include <cstring>
#include <limits>

namespace rapt::tiles {
namespace {

constexpr float kNotAttended = -std::numeric_limits<float>::infinity();
constexpr Cover kNone{true, 0};

// A tile of bias under construction.
struct Tile {
  float* bias;
  Index row_step, key_step;
  float& at(Index r, Index j) const { return bias[r * row_step + j * key_step]; }
};

// Additive bias, any float; -inf = not attended.
struct AdditiveBias {
  static bool given(const AttentionProblem& p) { return static_cast<bool>(p.bias); }
  static Keys reachable(const Rows&, Keys all) { return all; }
  static Cover cover(const Rows&, Keys) { return {false, 0}; }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    const Array<const float>& bias = rows.problem->bias;
    for (Index r = 0; r < rows.count; ++r) {
      const float* from = rows.at(bias, r) + keys.begin * bias.column_stride;
      for (Index j = 0; j < keys.count(); ++j) tile.at(r, j) += from[j * bias.column_stride];
    }
  }
};

// Boolean mask: true = attend.
struct BooleanMask {
  static bool given(const AttentionProblem& p) { return static_cast<bool>(p.mask); }
  static Keys reachable(const Rows&, Keys all) { return all; }
  static Cover cover(const Rows& rows, Keys keys) {
    const Array<const bool>& mask = rows.problem->mask;
    bool some = false, every = true;
    const Index distinct = mask.row_stride == 0 && mask.head_stride == 0 ? 1 : rows.count;
    for (Index r = 0; r < distinct && !(some && !every); ++r) {
      const bool* row = rows.at(mask, r);
      const auto seen =
          scan(row + keys.begin * mask.column_stride, keys.count(), mask.column_stride);
      some |= seen.some;
      every &= seen.every;
    }
    return !some ? kNone : Cover{false, every ? keys.count() : 0};
  }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    const Array<const bool>& mask = rows.problem->mask;
    for (Index r = 0; r < rows.count; ++r) {
      const bool* from = rows.at(mask, r) + keys.begin * mask.column_stride;
      for (Index j = 0; j < keys.count(); ++j) {
        if (!from[j * mask.column_stride]) tile.at(r, j) = kNotAttended;
      }
    }
  }

  struct Seen {
    bool some, every;
  };
  static Seen scan(const bool* row, Index n, Index stride) {
    if (stride == 1) {
      const void* first = std::memchr(row, true, static_cast<std::size_t>(n));
      return {first != nullptr, std::memchr(row, false, static_cast<std::size_t>(n)) == nullptr};
    }
    Seen seen{false, true};
    for (Index j = 0; j < n; ++j) (row[j * stride] ? seen.some = true : seen.every = false);
    return seen;
  }
};

// Causal: key j is attended when j <= query + q_offset.
struct Causal {
  static bool given(const AttentionProblem& p) { return p.causal; }
  static Keys reachable(const Rows& rows, Keys all) {
    return {all.begin,
            std::clamp(rows.last_query() + rows.problem->q_offset + 1, all.begin, all.end)};
  }
  static Cover cover(const Rows& rows, Keys keys) {
    if (keys.begin > rows.last_query() + rows.problem->q_offset) return kNone;
    const Index seen_by_all = rows.first_query() + rows.problem->q_offset + 1;
    return {false, std::clamp(seen_by_all - keys.begin, Index{0}, keys.count())};
  }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    for (Index r = 0; r < rows.count; ++r) {
      const Index attended = rows.query(r) + rows.problem->q_offset + 1 - keys.begin;
      for (Index j = std::max(attended, Index{0}); j < keys.count(); ++j)
        tile.at(r, j) = kNotAttended;
    }
  }
};

template <class... Kinds>
struct KindList {
  template <class Visit>
  static void for_each_given(const AttentionProblem& p, const Visit& visit) {
    ((Kinds::given(p) ? visit(Kinds()) : void()), ...);
  }
};

// In the order of the contract: what adds comes before what selects.
using AllKinds = KindList<AdditiveBias, BooleanMask, Causal>;

}  // namespace

bool may_mask(const AttentionProblem& problem) {
  bool any = false;
  AllKinds::for_each_given(problem, [&](auto) { any = true; });
  return any;
}

Keys reachable_keys(const Rows& rows) {
  Keys keys{0, rows.problem->seq_kv};
  AllKinds::for_each_given(*rows.problem, [&](auto kind) { keys = kind.reachable(rows, keys); });
  return keys;
}

Cover cover(const Rows& rows, Keys keys) {
  Cover all{false, keys.count()};
  AllKinds::for_each_given(*rows.problem, [&](auto kind) {
    if (all.none) return;
    const Cover one = kind.cover(rows, keys);
    all = {one.none, std::min(all.whole, one.whole)};
  });
  return all;
}

void fill_bias(const Rows& rows, Keys keys, float* bias, Index row_step, Index key_step) {
  const Tile tile{bias, row_step, key_step};
  // The inner loop along the step of 1.
  const bool rows_inside = row_step == 1;
  const Index outer = rows_inside ? keys.count() : rows.count,
              inner = rows_inside ? rows.count : keys.count();
  for (Index i = 0; i < outer; ++i)
    std::fill_n(bias + i * (rows_inside ? key_step : row_step), inner, 0.0f);
  AllKinds::for_each_given(*rows.problem, [&](auto kind) { kind.apply(rows, keys, tile); });
}

}  // namespace rapt::tiles
