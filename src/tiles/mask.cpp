// The mask kinds. Each says, for a tile of rows x keys, how it covers the tile, and applies itself
// to the bias of the tile; those that read nothing, also to one whose lanes are rows. To add a
// kind: one struct here, one place in AllKinds (a mask by position: in Positions), its option in
// AttentionProblem.
#include "tiles/mask.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

namespace rapt::tiles {
namespace {

constexpr float kNotAttended = -std::numeric_limits<float>::infinity();
constexpr Cover kNone{true, 0};

// A tile of bias under construction.
struct Tile {
  float* bias;
  Index stride;
  float* row(Index r) const { return bias + r * stride; }
};

// The same with a lane for each row, and lanes beyond the rows, whose bias stays 0.
struct Lanes {
  float* bias;
  Index stride, columns;
  float* key(Index j) const { return bias + j * stride; }
};

// The bias of a pair. Without a branch, which no CPU predicts for any mask, and so in vectors.
float if_attended(bool attended, float bias) {
  const std::uint32_t keep = 0u - static_cast<std::uint32_t>(attended);
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(bias) & keep) |
                              (std::bit_cast<std::uint32_t>(kNotAttended) & ~keep));
}

// Calls visit(j, j * stride), so that the usual stride is known to the compiler.
template <class Visit>
void for_each_key(Index n, Index stride, const Visit& visit) {
  if (stride == 1) {
    for (Index j = 0; j < n; ++j) visit(j, j);
  } else {
    for (Index j = 0; j < n; ++j) visit(j, j * stride);
  }
}

// ALiBi: slope of the head, times the distance from the row's own position.
struct Alibi {
  static bool given(const AttentionProblem& p) { return static_cast<bool>(p.slopes); }
  static Keys reachable(const Rows&, Keys all) { return all; }
  static Cover cover(const Rows&, Keys) { return {false, 0}; }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    for (Index r = 0; r < rows.count; ++r) {
      const float slope = rows.of_head(rows.problem->slopes, r);
      const auto distance = static_cast<float>(keys.begin - rows.position(r));
      float* to = tile.row(r);
      for (int j = 0; j < keys.count(); ++j) to[j] += slope * (distance + static_cast<float>(j));
    }
  }
  static void apply_in_lanes(const Rows& rows, Keys keys, const Lanes& tile) {
    float slope[kernels::kMaxColumns] = {}, distance[kernels::kMaxColumns] = {};
    for (Index r = 0; r < rows.count; ++r) {
      slope[r] = rows.of_head(rows.problem->slopes, r);
      distance[r] = static_cast<float>(keys.begin - rows.position(r));
    }
    for (int j = 0; j < keys.count(); ++j) {
      float* to = tile.key(j);
      for (Index r = 0; r < tile.columns; ++r)
        to[r] += slope[r] * (distance[r] + static_cast<float>(j));
    }
  }
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
      float* to = tile.row(r);
      for_each_key(keys.count(), bias.column_stride, [&](Index j, Index at) { to[j] += from[at]; });
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
      float* to = tile.row(r);
      for_each_key(keys.count(), mask.column_stride,
                   [&](Index j, Index at) { to[j] = if_attended(from[at], to[j]); });
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

// Documents: a query attends the keys that carry its own number.
struct Segments {
  static bool given(const AttentionProblem& p) { return static_cast<bool>(p.q_segments); }
  static Keys reachable(const Rows&, Keys all) { return all; }
  static std::int32_t of_query(const Rows& rows, Index r) {
    return *rows.at(rows.problem->q_segments, r);
  }
  static const std::int32_t* of_keys(const Rows& rows, Keys keys) {
    const Array<const std::int32_t>& segments = rows.problem->kv_segments;
    return rows.problem->batch.element(segments, rows.sequence.number) +
           (rows.sequence.first_key + keys.begin) * segments.row_stride;
  }
  static Cover cover(const Rows& rows, Keys keys) {
    const Index stride = rows.problem->kv_segments.row_stride;
    const std::int32_t* of_key = of_keys(rows, keys);
    const auto [low, high] = bounds(rows.count, [&](Index r) { return of_query(rows, r); });
    const auto [key_low, key_high] =
        bounds(keys.count(), [&](Index j) { return of_key[j * stride]; });
    if (high < key_low || key_high < low) return kNone;
    if (low != high) return {false, 0};
    Index whole = 0;
    while (whole < keys.count() && of_key[whole * stride] == low) ++whole;
    return {false, whole};
  }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    const Index stride = rows.problem->kv_segments.row_stride;
    const std::int32_t* of_key = of_keys(rows, keys);
    for (Index r = 0; r < rows.count; ++r) {
      const std::int32_t own = of_query(rows, r);
      float* to = tile.row(r);
      for_each_key(keys.count(), stride,
                   [&](Index j, Index at) { to[j] = if_attended(of_key[at] == own, to[j]); });
    }
  }

  template <class At>
  static std::pair<std::int32_t, std::int32_t> bounds(Index n, const At& at) {
    std::int32_t low = at(0), high = low;
    for (Index i = 1; i < n; ++i) low = std::min(low, at(i)), high = std::max(high, at(i));
    return {low, high};
  }
};

// A tree of drafts among the last keys: one bit for each.
struct Tree {
  static bool given(const AttentionProblem& p) { return static_cast<bool>(p.tree); }
  static Keys reachable(const Rows&, Keys all) { return all; }
  static Index first_key(const Rows& rows) {
    return rows.sequence.seq_kv - rows.problem->tree_keys;
  }
  static Cover cover(const Rows& rows, Keys keys) {
    return {false, std::clamp(first_key(rows) - keys.begin, Index{0}, keys.count())};
  }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    const Array<const std::uint64_t>& tree = rows.problem->tree;
    const Index first = first_key(rows);
    for (Index r = 0; r < rows.count; ++r) {
      const std::uint64_t* words = rows.at(tree, r);
      for (Index j = std::max(first - keys.begin, Index{0}); j < keys.count(); ++j) {
        const Index n = keys.begin + j - first;
        if ((words[n / 64 * tree.column_stride] >> (n % 64) & 1) == 0)
          tile.row(r)[j] = kNotAttended;
      }
    }
  }
};

// The masks by position: each says which keys position x attends. Both ends of these ranges never
// fall while x rises.
constexpr Keys kAllKeys{0, std::numeric_limits<Index>::max()};

struct Causal {
  static bool given(const AttentionProblem& p) { return p.causal; }
  static Keys attended(const AttentionProblem&, Index x) { return {0, x + 1}; }
};
struct Window {
  static bool given(const AttentionProblem& p) { return p.window_left >= 0 || p.window_right >= 0; }
  static Keys attended(const AttentionProblem& p, Index x) {
    return {p.window_left < 0 ? kAllKeys.begin : x - p.window_left,
            p.window_right < 0 ? kAllKeys.end : x + p.window_right + 1};
  }
};
struct Chunk {
  static bool given(const AttentionProblem& p) { return p.chunk > 0; }
  static Keys attended(const AttentionProblem& p, Index x) {
    const Index begin = (x >= 0 ? x / p.chunk : -((-x + p.chunk - 1) / p.chunk)) * p.chunk;
    return {begin, begin + p.chunk};
  }
};

// All of them together, and the prefix, which is attended whatever they say.
template <class... Kinds>
struct Positions {
  static bool given(const AttentionProblem& p) { return (Kinds::given(p) || ...); }
  static Keys attended(const Rows& rows, Index x) {
    Keys keys = kAllKeys;
    const auto meet = [&](Keys other) {
      keys = {std::max(keys.begin, other.begin), std::min(keys.end, other.end)};
    };
    ((Kinds::given(*rows.problem) ? meet(Kinds::attended(*rows.problem, x)) : void()), ...);
    return keys;
  }
  static Keys reachable(const Rows& rows, Keys all) {
    const Index prefix = std::min(rows.problem->prefix, all.end);
    const Keys own{attended(rows, rows.first_position()).begin,
                   attended(rows, rows.last_position()).end};
    return {prefix > all.begin ? all.begin : std::clamp(own.begin, all.begin, all.end),
            std::clamp(own.end, std::max(prefix, all.begin), all.end)};
  }
  static Cover cover(const Rows& rows, Keys keys) {
    const Index prefix = rows.problem->prefix;
    const Keys first = attended(rows, rows.first_position()),
               last = attended(rows, rows.last_position());
    if (keys.begin >= prefix && (keys.begin >= last.end || keys.end <= first.begin)) return kNone;
    // Attended by all: the prefix, and then what both the first and the last row attend.
    Index whole = std::max(keys.begin, prefix);
    if (whole >= last.begin) whole = std::max(whole, first.end);
    return {false, std::clamp(whole - keys.begin, Index{0}, keys.count())};
  }
  static void apply(const Rows& rows, Keys keys, const Tile& tile) {
    for (Index r = 0; r < rows.count; ++r) {
      const Keys own = attended(rows, rows.position(r));
      const Index prefix = std::clamp(rows.problem->prefix - keys.begin, Index{0}, keys.count());
      const auto none = [&](Index begin, Index end) {
        if (begin < end) std::fill(tile.row(r) + begin, tile.row(r) + end, kNotAttended);
      };
      none(prefix, std::min(own.begin - keys.begin, keys.count()));
      none(std::max(own.end - keys.begin, prefix), keys.count());
    }
  }
  static void apply_in_lanes(const Rows& rows, Keys keys, const Lanes& tile) {
    const auto in_tile = [&](Index key) {
      return static_cast<float>(std::clamp(key - keys.begin, Index{0}, keys.count()));
    };
    // As floats, which compilers compare in vectors as they stand here.
    float begin[kernels::kMaxColumns], end[kernels::kMaxColumns];
    std::fill_n(begin, tile.columns, 0.0f);
    std::fill_n(end, tile.columns, in_tile(keys.end));
    for (Index r = 0; r < rows.count; ++r) {
      const Keys own = attended(rows, rows.position(r));
      begin[r] = in_tile(own.begin);
      end[r] = in_tile(own.end);
    }
    const float last_begin = begin[rows.count - 1], first_end = end[0];
    for (Index j = 0; j < keys.count(); ++j) {
      const auto key = static_cast<float>(j);
      if (keys.begin + j < rows.problem->prefix || (last_begin <= key && key < first_end)) continue;
      float* to = tile.key(j);
      for (Index r = 0; r < tile.columns; ++r)
        to[r] = if_attended((begin[r] <= key) & (key < end[r]), to[r]);
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
using AllKinds =
    KindList<Alibi, AdditiveBias, BooleanMask, Segments, Tree, Positions<Causal, Window, Chunk>>;

template <class Kind>
constexpr bool kInLanes =
    requires(const Rows& rows, const Lanes& tile) { Kind::apply_in_lanes(rows, Keys(), tile); };

}  // namespace

bool may_mask(const AttentionProblem& problem) {
  bool any = false;
  AllKinds::for_each_given(problem, [&](auto) { any = true; });
  return any;
}

Keys reachable_keys(const Rows& rows) {
  Keys keys{0, rows.sequence.seq_kv};
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

bool fill_lanes(const Rows& rows, Keys keys, float* bias, Index stride, Index columns) {
  const Lanes tile{bias, stride, columns};
  bool every = true;
  AllKinds::for_each_given(*rows.problem, [&](auto kind) { every &= kInLanes<decltype(kind)>; });
  if (!every) return false;
  for (Index j = 0; j < keys.count(); ++j) std::fill_n(tile.key(j), columns, 0.0f);
  AllKinds::for_each_given(*rows.problem, [&](auto kind) {
    if constexpr (kInLanes<decltype(kind)>) kind.apply_in_lanes(rows, keys, tile);
  });
  return true;
}

void fill_bias(const Rows& rows, Keys keys, float* bias, Index stride) {
  const Tile tile{bias, stride};
  for (Index r = 0; r < rows.count; ++r) std::fill_n(tile.row(r), keys.count(), 0.0f);
  AllKinds::for_each_given(*rows.problem, [&](auto kind) { kind.apply(rows, keys, tile); });
}

}  // namespace rapt::tiles
