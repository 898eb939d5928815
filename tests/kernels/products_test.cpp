// The products, and the packing of b, on every target: small integers, so that every order of
// summation is exact, in guarded memory, so that every element outside is a crash.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "support/bounds.hpp"
#include "support/tensor.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using kernels::Index;

void fill_integers(Tensor<float>& tensor, Random& random) {
  tensor.fill([&](std::int64_t) { return static_cast<float>(random.between(-8, 8)); });
  tensor.seal();
}

// Two of them in each element.
void fill_pairs(Tensor<float>& tensor, Random& random) {
  const auto half = [&] {
    return std::uint32_t{to_bf16(static_cast<float>(random.between(-8, 8))).bits};
  };
  tensor.fill([&](std::int64_t) { return std::bit_cast<float>(half() | half() << 16); });
  tensor.seal();
}

// The product of two elements: one product, or two of pairs.
float product_of(float a, float b, bool pairs) {
  if (!pairs) return a * b;
  const auto half = [](float pair, int i) {
    return to_float(
        BFloat16{static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(pair) >> 16 * i)});
  };
  return half(a, 0) * half(b, 0) + half(a, 1) * half(b, 1);
}

// [rows, columns] of c must be alpha * sum + beta * before.
struct Expected {
  const Tensor<float>&a, &b, &c;
  Index rows, columns, inner;
  float alpha;
  std::vector<float> beta;    // [columns], or empty
  std::vector<float> before;  // c
  bool b_is_transposed = false;
  bool pairs = false;

  void check() const {
    for (Index r = 0; r < rows; ++r) {
      for (Index col = 0; col < columns; ++col) {
        float sum = 0;
        for (Index x = 0; x < inner; ++x) {
          sum +=
              product_of(a[r * inner + x],
                         b_is_transposed ? b[col * inner + x] : b[x * b.extents()[1] + col], pairs);
        }
        float want = alpha * sum;
        const auto at = static_cast<std::size_t>(r * columns + col);
        if (!beta.empty()) want += beta[static_cast<std::size_t>(col)] * before[at];
        ASSERT_EQ(c[r * columns + col], want)
            << "c[" << r << ", " << col << "] of " << rows << " x " << columns << " x " << inner
            << ", alpha " << alpha << (beta.empty() ? "" : ", beta");
      }
    }
    ASSERT_TRUE(c.gaps_unchanged());
    ASSERT_TRUE(a.unchanged());
    ASSERT_TRUE(b.unchanged());
  }
};

enum class Body { floats, pairs, matrix_tiles, digits };

// What c is before, and what that is multiplied by, [NR]; or nothing.
std::vector<float> fill_c(Tensor<float>& c, const kernels::TileKernel& tile, Random& random) {
  std::vector<float> beta;
  if (random.percent(50)) {
    for (int col = 0; col < tile.columns; ++col) beta.push_back(random.pick({0.5f, 1.0f, -2.0f}));
    fill_integers(c, random);
  } else {
    c.seal();  // NaN everywhere: must not be read
  }
  return beta;
}

// Whether it left a copy of b for its other tiles.
bool tile_product(const kernels::TileKernel& tile, Index rows, Index columns, Index inner,
                  Random& random, Body body) {
  const bool pairs = body != Body::floats;
  const auto product = body == Body::floats  ? tile.product
                       : body == Body::pairs ? tile.pair_product
                                             : tile.emulated_pair_product;
  const Edge edge = random.percent(50) ? Edge::end : Edge::start;
  // a [rows, inner]: one of the two strides is 1. b [inner, NR], rows perhaps further apart.
  const Layout a_layout{random.percent(50) ? std::vector<int>{0, 1} : std::vector<int>{1, 0},
                        1,
                        random.percent(50) ? 0 : 3,
                        0,
                        0,
                        edge};
  Tensor<float> a({rows, inner}, a_layout);
  Tensor<float> b({inner, tile.columns}, {{}, 1, random.percent(50) ? 0 : 5, 0, 0, edge});
  Tensor<float> c({rows, columns},
                  {{}, random.percent(60) ? 1 : 2, random.percent(50) ? 0 : 3, 0, 0, edge});
  (pairs ? fill_pairs : fill_integers)(a, random);
  (pairs ? fill_pairs : fill_integers)(b, random);
  const std::vector<float> beta = fill_c(c, tile, random);
  const float alpha = random.pick({1.0f, 1.0f, -0.5f});
  Tensor<float> b_copy({inner, tile.columns}, {{}, 1, 0, 0, 0, edge});
  b_copy.seal();
  const bool may_copy = body == Body::floats && random.percent(50);
  const Expected expected{a, b, c, rows, columns, inner, alpha, beta, c.values(), false, pairs};
  product({.a = a.data(),
           .a_row = a.strides()[0],
           .a_inner = a.strides()[1],
           .b = b.data(),
           .b_inner = b.strides()[0],
           .c = c.data(),
           .c_row = c.strides()[0],
           .c_column = c.strides()[1],
           .rows = rows,
           .inner = inner,
           .columns = columns,
           .alpha = alpha,
           .beta = beta.empty() ? nullptr : beta.data(),
           .b_copy = may_copy ? b_copy.data() : nullptr});
  expected.check();
  if (b_copy.unchanged()) return false;
  EXPECT_TRUE(may_copy && rows > tile.rows);
  EXPECT_EQ(b_copy.values(), b.values());
  return true;
}

TEST(TileProduct, IsExactOnIntegersForAllRowsAndColumns) {  // B5, B22, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    Random random(3);
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const kernels::TileKernel& tile = kernels->tiles[t];
      SCOPED_TRACE(std::string(kernels->target) + " tile " + std::to_string(tile.rows) + "x" +
                   std::to_string(tile.vectors));
      EXPECT_EQ(tile.columns, tile.vectors * kernels->lanes);
      bool copies = false;
      for (Body body : {Body::floats, Body::pairs, Body::matrix_tiles}) {
        if (body != Body::floats && t > 0) continue;
        SCOPED_TRACE("body " + std::to_string(static_cast<int>(body)));
        const Index rows_of_two = 2 * tile.rows * (kernels->paired_rows ? tile.vectors : 1);
        const Index most = body == Body::matrix_tiles ? 67 : rows_of_two + 1;
        const Index step = body == Body::matrix_tiles ? 3 : 1;
        for (Index rows = 1; rows <= most; rows += step) {
          for (Index inner : {0, 1, 2, 3, 5, 16, 17, 33}) {
            copies |= tile_product(tile, rows, tile.columns, inner, random, body);
            tile_product(tile, rows, random.between(1, tile.columns), inner, random, body);
          }
        }
        for (Index columns = 1; columns <= tile.columns; ++columns) {
          tile_product(tile, random.between(1, most), columns, random.between(0, 9), random, body);
        }
      }
      if (HasFatalFailure()) return;
      EXPECT_EQ(copies, tile.rows >= 6 && tile.vectors >= 4);
    }
  }
}

// A tile of a panel of a, by several panels of b.
void packed_product(const kernels::TileKernel& tile, Index rows, Index panel_rows, Index inner,
                    Random& random) {
  const Index panels = random.between(1, 3), n = tile.columns;
  const Index columns = (panels - 1) * n + random.between(1, n), apart = inner * n;
  const Edge edge = random.percent(50) ? Edge::end : Edge::start;
  Tensor<float> a({rows, inner}, {{1, 0}, 1, panel_rows - rows, 0, 0, edge});
  Tensor<float> b({inner, columns}, {});
  Tensor<float> c({rows, columns}, {{}, random.percent(80) ? 1 : 2, 3, 0, 0, edge});
  fill_integers(a, random);
  fill_integers(b, random);
  Tensor<float> packed({panels, inner, n}, {{}, 1, 0, 0, 0, edge});
  packed.fill([&](Index i) {
    const Index column = i / (inner * n) * n + i % n;
    return column < columns ? b[i / n % inner * columns + column] : 0.0f;
  });
  packed.seal();
  const std::vector<float> beta = fill_c(c, tile, random);
  std::vector<float> of_columns;
  for (Index col = 0; !beta.empty() && col < columns; ++col)
    of_columns.push_back(beta[static_cast<std::size_t>(col % n)]);
  const Expected expected{a, b, c, rows, columns, inner, 1.0f, of_columns, c.values()};
  tile.product({.a = a.data(),
                .a_row = 1,
                .a_inner = panel_rows,
                .b = packed.data(),
                .b_inner = n,
                .c = c.data(),
                .c_row = c.strides()[0],
                .c_column = c.strides()[1],
                .rows = rows,
                .inner = inner,
                .columns = columns,
                .alpha = 1.0f,
                .beta = beta.empty() ? nullptr : beta.data(),
                .soon = reinterpret_cast<const std::byte*>(a.data()),
                .soon_step = random.between(1, 64),
                .b_apart = apart});
  expected.check();
  ASSERT_TRUE(packed.unchanged());
}

TEST(TileProduct, OfAPanelAndSeveralPanelsIsExactOnIntegers) {  // B5, B22, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    Random random(4);
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const kernels::TileKernel& tile = kernels->tiles[t];
      SCOPED_TRACE(std::string(kernels->target) + " tile " + std::to_string(tile.rows) + "x" +
                   std::to_string(tile.vectors));
      for (const Index panel_rows : {tile.rows, tile.rows * tile.vectors / 2 * 2}) {
        for (Index rows = 1; rows <= panel_rows; ++rows) {
          for (Index inner : {1, 2, 3, 4, 5, 8, 17})
            packed_product(tile, rows, panel_rows, inner, random);
        }
      }
      if (HasFatalFailure()) return;
    }
  }
}

TEST(TileProduct, WritesZerosWhereThereIsNothingToSum) {  // B22: c holds NaN before
  for (const kernels::Kernels* kernels : all_targets()) {
    for (int t = 0; t < kernels->n_tiles; ++t) {
      const kernels::TileKernel& tile = kernels->tiles[t];
      std::vector<float> c(static_cast<std::size_t>(tile.rows * tile.columns),
                           std::numeric_limits<float>::quiet_NaN());
      const float nothing = 0;
      tile.product({.a = &nothing,
                    .a_row = 1,
                    .a_inner = 1,
                    .b = &nothing,
                    .b_inner = tile.columns,
                    .c = c.data(),
                    .c_row = tile.columns,
                    .c_column = 1,
                    .rows = tile.rows,
                    .inner = 0,
                    .columns = tile.columns,
                    .alpha = 1,
                    .beta = nullptr});
      for (float x : c) ASSERT_TRUE(x == 0 && !std::signbit(x)) << kernels->target;
    }
  }
}

// A matrix in another storage type: its rows at equal distances, or in pages in any order, with NaN
// in the rows of pages that are not its own.
template <class T>
struct Stored {
  Tensor<T> tensor;
  std::vector<std::int32_t> table;
  kernels::StoredRows rows;
};

// convert(i): element i of the matrix.
template <class T, class Convert>
Stored<T> stored_as(Index rows, Index columns, Edge edge, Random& random, const Convert& convert) {
  const bool paged = random.percent(50);
  const Index size = !paged               ? 1
                     : random.percent(70) ? random.between(1, 5)
                                          : random.between(15, 40);
  const Index begin = random.between(0, size - 1), pages = (begin + rows + size - 1) / size;
  std::vector<std::int32_t> table(static_cast<std::size_t>(pages));
  std::vector<Index> page_at(table.size());  // which page lies there
  for (std::size_t i = 0; i < table.size(); ++i) page_at[i] = static_cast<Index>(i);
  for (std::size_t i = table.size(); paged && i > 1; --i)
    std::swap(page_at[i - 1],
              page_at[static_cast<std::size_t>(random.between(0, static_cast<Index>(i) - 1))]);
  for (std::size_t i = 0; i < table.size(); ++i)
    table[static_cast<std::size_t>(page_at[i])] = static_cast<std::int32_t>(i);
  Tensor<T> tensor({pages * size, columns}, {{}, 1, random.percent(50) ? 0 : 5, 0, 0, edge});
  tensor.fill([&](std::int64_t i) {
    const Index at = i / columns;
    const Index row = page_at[static_cast<std::size_t>(at / size)] * size + at % size - begin;
    if (row >= 0 && row < rows) return convert(row * columns + i % columns);
    if constexpr (std::is_same_v<T, BFloat16>) return to_bf16(NAN);
    if constexpr (std::is_same_v<T, Float16>) return to_f16(NAN);
    if constexpr (std::is_same_v<T, Int4Group>) return Int4Group{to_f16(NAN), {}};
    if constexpr (std::is_arithmetic_v<T>) return static_cast<T>(99);
  });
  tensor.seal();
  const Index stride = tensor.strides()[0] * static_cast<Index>(sizeof(T));
  Stored<T> stored{std::move(tensor), std::move(table), {}};
  stored.rows = {reinterpret_cast<const std::byte*>(stored.tensor.data()), stride, type_of<T>()};
  if (paged)
    stored.rows.pages = {
        stored.table.data(), 1, size * stride, size, begin, kernels::RowPages::inverse_of(size)};
  return stored;
}

// Small integers: each type holds them exactly.
template <class T>
Stored<T> stored_as(Tensor<float>& from, Edge edge, Random& random) {
  return stored_as<T>(from.extents()[0], from.extents()[1], edge, random, [&](Index i) {
    if constexpr (std::is_same_v<T, BFloat16>) return to_bf16(from[i]);
    if constexpr (std::is_same_v<T, Float16>) return to_f16(from[i]);
    if constexpr (std::is_arithmetic_v<T>) return static_cast<T>(from[i]);
  });
}

// Numbers of four bits; the scale of a group is a power of two, and is added to b.
template <>
Stored<Int4Group> stored_as(Tensor<float>& b, Edge edge, Random& random) {
  constexpr Index kSize = Int4Group::kSize;
  const Index rows = b.extents()[0], groups = b.extents()[1] / kSize;
  std::vector<Int4Group> stored(static_cast<std::size_t>(rows * groups));
  for (Index g = 0; g < rows * groups; ++g) {
    const float scale = random.pick({0.5f, 1.0f, 4.0f});
    Int4Group& group = stored[static_cast<std::size_t>(g)];
    group.scale = to_f16(scale);
    for (Index x = 0; x < kSize; ++x) {
      float& number = b[g * kSize + x];
      number = std::min(number, 7.0f);
      group.nibbles[x % 16] = static_cast<std::uint8_t>(
          group.nibbles[x % 16] | (static_cast<int>(number) + 8) << (x < 16 ? 0 : 4));
      number *= scale;
    }
  }
  b.seal();
  return stored_as<Int4Group>(rows, groups, edge, random,
                              [&](Index i) { return stored[static_cast<std::size_t>(i)]; });
}

template <class T>
void check_dot_product(const kernels::Kernels& kernel, Index rows, Index columns, Index inner,
                       Random& random, Body body) {
  const bool pairs =
      (body == Body::pairs || body == Body::matrix_tiles) && !std::is_same_v<T, std::int8_t>;
  const Edge edge = random.percent(50) ? Edge::end : Edge::start;
  Tensor<float> a({rows, inner}, {{}, 1, random.percent(50) ? 0 : 3, 0, 0, edge});
  Tensor<float> b({columns, inner});
  Tensor<float> c({rows, columns}, {{}, random.percent(50) ? 1 : 2, 0, 0, 0, edge});
  (pairs ? fill_pairs : fill_integers)(a, random);
  (pairs ? fill_pairs : fill_integers)(b, random);
  const Stored<T> stored = stored_as<T>(b, edge, random);
  std::vector<float> beta;
  if (random.percent(50)) {
    beta.assign(static_cast<std::size_t>(columns), random.pick({0.5f, -2.0f}));
    fill_integers(c, random);
  } else {
    c.seal();
  }
  // Powers of two, so that all stays exact.
  std::vector<float> scale(static_cast<std::size_t>(columns), 1);
  const bool scaled = !pairs && random.percent(50);
  if (scaled) {
    for (float& x : scale) x = random.pick({0.5f, 1.0f, 4.0f});
    for (Index col = 0; col < columns; ++col)
      for (Index x = 0; x < inner; ++x) b[col * inner + x] *= scale[static_cast<std::size_t>(col)];
    b.seal();
  }
  const float alpha = random.pick({1.0f, -0.5f});
  const Expected expected{a, b, c, rows, columns, inner, alpha, beta, c.values(), true, pairs};
  const auto product =
      body == Body::matrix_tiles ? kernel.emulated_dot_product : kernel.dot_product;
  product({.a = a.data(),
           .a_row = a.strides()[0],
           .b = stored.rows,
           .b_scale = scaled ? scale.data() : nullptr,
           .c = c.data(),
           .c_row = c.strides()[0],
           .c_column = c.strides()[1],
           .rows = rows,
           .columns = columns,
           .inner = inner,
           .alpha = alpha,
           .beta = beta.empty() ? nullptr : beta.data(),
           .pairs = pairs,
           .few = body == Body::digits});
  expected.check();
}

template <class T>
void check_dot_product(const kernels::Kernels& kernel, std::uint64_t seed,
                       Body body = Body::floats) {
  Random random(seed);
  if (std::is_same_v<T, Int4Group> || body == Body::digits) {
    for (Index rows = 1; rows <= 9; ++rows) {
      for (const Index inner : {32, 64, 128, 256, 384}) {
        for (const Index columns : {Index{1}, random.between(2, 16), random.between(17, 70)}) {
          check_dot_product<T>(kernel, rows, columns, inner, random, body);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
    return;
  }
  const bool digits = body == Body::matrix_tiles && std::is_same_v<T, std::int8_t>;
  for (Index rows = 1; rows <= 9; ++rows) {
    // Up to 9, and then some that fill the tiles of several columns.
    for (Index columns = 1; columns <= 33 && !digits; columns += columns < 9 ? 1 : 6) {
      for (Index inner = 0; inner <= 2 * kernel.lanes + 1; inner += kernel.lanes > 16 ? 5 : 1) {
        check_dot_product<T>(kernel, rows, columns, inner, random, body);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
    // Matrix tiles: several blocks of columns, more pairs than tiles keep of a, and than it takes
    // at a time; of int8 all that they take, and one more.
    const std::vector<Index> some = {65}, all = {16, 32, 33, 64, 65, 100, 256, 257, 530};
    for (const Index inner : few_cases() ? some : all) {
      if (body == Body::floats) break;
      const Index columns = random.between(1, few_cases() ? 70 : 200);
      check_dot_product<T>(kernel, rows, columns, inner, random, body);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(DotProduct, IsExactOnIntegersForAllSizesAndTypes) {  // B5, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    check_dot_product<float>(*kernels, 4);
    check_dot_product<BFloat16>(*kernels, 5);
    check_dot_product<Float16>(*kernels, 6);
    check_dot_product<std::int8_t>(*kernels, 7);
    check_dot_product<float>(*kernels, 8, Body::pairs);
    check_dot_product<float>(*kernels, 9, Body::matrix_tiles);
    check_dot_product<std::int8_t>(*kernels, 10, Body::matrix_tiles);
    check_dot_product<std::int8_t>(*kernels, 12, Body::digits);
    if (kernels->lanes > 16) continue;
    check_dot_product<Int4Group>(*kernels, 13);
    check_dot_product<Int4Group>(*kernels, 14, Body::digits);
  }
}

// Numbers of int8 or of 4-bit groups: [rows, inner], and what they are.
template <class T>
struct Small {
  std::vector<T> stored;
  std::vector<float> numbers;

  Small(Index rows, Index inner, Random& random) {
    for (Index i = 0; i < rows * inner; ++i) {
      if constexpr (std::is_same_v<T, Int4Group>) {
        if (i % Int4Group::kSize == 0)
          stored.push_back({random.percent(2) ? to_f16(std::numeric_limits<float>::infinity())
                                              : to_f16(static_cast<float>(random.normal())),
                            {}});
        Int4Group& group = stored.back();
        const Index x = i % Int4Group::kSize;
        const int number = set(i, inner, static_cast<int>(random.between(-8, 7)));
        group.nibbles[x % 16] =
            static_cast<std::uint8_t>(group.nibbles[x % 16] | (number + 8) << (x < 16 ? 0 : 4));
        numbers.push_back(to_float(group.scale) * static_cast<float>(number));
      } else {
        const int number = set(i, inner, static_cast<int>(random.between(-128, 127)));
        stored.push_back(static_cast<T>(number));
        numbers.push_back(static_cast<float>(number));
      }
    }
  }

  static int set(Index i, Index inner, int number) {
    return i % inner == 7 ? 0 : i % inner == inner - 1 ? 1 : number;
  }
};

// Rows that are multiplied as digits, and rows that digits cannot say: each as exact as floats,
// with the bits that it has alone.
template <class T>
void check_any_range(Index inner, bool few) {
  constexpr Index kRows = 9, kColumns = 37;
  Random random(11);
  std::vector<float> a(static_cast<std::size_t>(kRows * inner));
  const auto at = [&](Index r, Index x) -> float& {
    return a[static_cast<std::size_t>(r * inner + x)];
  };
  for (Index r = 0; r < kRows; ++r) {
    for (Index x = 0; x < inner; ++x) {
      float number = static_cast<float>(random.normal());
      if (r == 1) number *= std::ldexp(1.0f, static_cast<int>(random.between(-40, 40)));
      if (r == 2) number *= 1e-36f;
      if (r == 3) number *= 1e33f;
      if (r == 4) number = 0.0f;
      at(r, x) = number;
    }
  }
  at(5, 40) = NAN;
  at(6, inner - 1) = std::numeric_limits<float>::infinity();  // times 1
  at(7, 7) = 1e9f;                                            // the largest, times 0
  const Small<T> b(kColumns, inner, random);
  for (const kernels::Kernels* kernels : all_targets()) {
    if (std::is_same_v<T, Int4Group> && kernels->lanes > 16) continue;
    for (auto product : {kernels->dot_product, kernels->emulated_dot_product}) {
      const auto multiply = [&](Index row, Index rows) {
        std::vector<float> c(static_cast<std::size_t>(rows * kColumns));
        product({.a = a.data() + row * inner,
                 .a_row = inner,
                 .b = {reinterpret_cast<const std::byte*>(b.stored.data()),
                       static_cast<Index>(b.stored.size() * sizeof(T)) / kColumns, type_of<T>()},
                 .b_scale = nullptr,
                 .c = c.data(),
                 .c_row = kColumns,
                 .c_column = 1,
                 .rows = rows,
                 .columns = kColumns,
                 .inner = inner,
                 .alpha = 1.0f,
                 .beta = nullptr,
                 .few = few});
        return c;
      };
      const std::vector<float> all = multiply(0, kRows);
      for (Index r = 0; r < kRows; ++r) {
        const std::vector<float> alone = multiply(r, 1);
        for (Index j = 0; j < kColumns; ++j) {
          double sum = 0, magnitude = 0;
          for (Index x = 0; x < inner; ++x) {
            const double term =
                static_cast<double>(at(r, x)) * b.numbers[static_cast<std::size_t>(j * inner + x)];
            sum += term;
            magnitude += std::abs(term);
          }
          const float c = all[static_cast<std::size_t>(r * kColumns + j)];
          SCOPED_TRACE(std::string(kernels->target) + " row " + std::to_string(r));
          const float same = alone[static_cast<std::size_t>(j)];
          // Of two NaN that are added, which one stays is the compiler's choice.
          ASSERT_TRUE(std::bit_cast<std::uint32_t>(c) == std::bit_cast<std::uint32_t>(same) ||
                      (std::isnan(c) && std::isnan(same)));
          if (std::isfinite(sum)) {
            ASSERT_LE(std::abs(c - sum), sum_error(inner) * magnitude);
          } else {
            ASSERT_TRUE(std::isnan(sum) ? std::isnan(c) : c == static_cast<float>(sum));
          }
        }
      }
    }
  }
}

TEST(DotProduct, OfInt8IsAsExactAsFloatsForRowsOfAnyRange) {
  check_any_range<std::int8_t>(150, false);
  check_any_range<std::int8_t>(128, true);
  check_any_range<std::int8_t>(256, true);
}
TEST(DotProduct, OfInt4IsAsExactAsFloatsForRowsOfAnyRange) {
  check_any_range<Int4Group>(128, true);
  check_any_range<Int4Group>(256, true);
}

// Each row as pairs of neighbours, which take half of it: what lies behind is NaN.
void round_in_pairs(Tensor<float>& p, Index rows, Index n) {
  const std::vector<float> floats = p.values();
  p.fill([](std::int64_t) { return std::numeric_limits<float>::quiet_NaN(); });
  for (Index i = 0; i < rows * n; ++i) {
    const Index r = i / n, j = i % n;
    const auto bits = [&](Index key) {
      return key < n ? std::uint32_t{to_bf16(floats[static_cast<std::size_t>(r * n + key)]).bits}
                     : 0;
    };
    if (j % 2 == 0) p[r * n + j / 2] = std::bit_cast<float>(bits(j) | bits(j + 1) << 16);
  }
}

template <class T>
void check_value_product(const kernels::Kernels& kernel, Index rows, Index columns, Index n,
                         Random& random, Body body) {
  const bool pairs = body != Body::floats;
  const Edge edge = random.percent(50) ? Edge::end : Edge::start;
  Tensor<float> p({rows, n}, {{}, 1, random.percent(50) ? 0 : 3, 0, 0, edge});
  Tensor<float> v({n, columns});
  Tensor<float> out({rows, columns}, {{}, 1, random.percent(50) ? 0 : 2, 0, 0, edge});
  fill_integers(p, random);
  fill_integers(v, random);
  fill_integers(out, random);
  const Stored<T> stored = stored_as<T>(v, edge, random);
  const std::vector<float> before = out.values();
  std::vector<float> rescale;
  for (Index r = 0; r < rows; ++r) rescale.push_back(random.pick({0.0f, 0.5f, 1.0f}));
  const std::vector<float> weights = p.values();
  if (pairs) round_in_pairs(p, rows, n);
  const auto product =
      body == Body::matrix_tiles ? kernel.emulated_value_product : kernel.value_product;
  product({.p = p.data(),
           .p_row = p.strides()[0],
           .v = stored.rows,
           .out = out.data(),
           .out_row = out.strides()[0],
           .rescale = rescale.data(),
           .rows = rows,
           .n = n,
           .columns = columns,
           .pairs = pairs});
  for (Index r = 0; r < rows; ++r) {
    for (Index x = 0; x < columns; ++x) {
      float want =
          before[static_cast<std::size_t>(r * columns + x)] * rescale[static_cast<std::size_t>(r)];
      for (Index j = 0; j < n; ++j)
        want += weights[static_cast<std::size_t>(r * n + j)] * v[j * columns + x];
      ASSERT_EQ(out[r * columns + x], want)
          << r << " of " << rows << ", " << x << " of " << columns << ", " << n << " keys";
    }
  }
  ASSERT_TRUE(out.gaps_unchanged());
}

template <class T>
void check_value_product(const kernels::Kernels& kernel, std::uint64_t seed,
                         Body body = Body::floats) {
  Random random(seed);
  for (Index rows = 1; rows <= 9; ++rows) {
    for (Index columns = 1; columns <= 9 * kernel.lanes; columns += 1 + columns / 9)
      check_value_product<T>(kernel, rows, columns, random.between(0, 9), random, body);
    // Several blocks of keys, and of columns, of matrix tiles.
    if (body != Body::floats && (!few_cases() || rows % 4 == 1))
      check_value_product<T>(kernel, rows, random.between(1, 300), random.between(10, 150), random,
                             body);
  }
  // As wide as tiles are, and many keys, of which some tiles read so many bytes at a time.
  constexpr Index kChunk = 1 << 17;
  for (const Index rows : {1, 3, 4, 9}) {
    for (const Index columns : {4 * kernel.lanes, 8 * kernel.lanes}) {
      const Index keys = kChunk / (columns * static_cast<Index>(sizeof(T)));
      check_value_product<T>(kernel, rows, columns, keys + 3, random, body);
    }
  }
}

TEST(ValueProduct, IsExactOnIntegersForAllSizesAndTypes) {  // B5, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    check_value_product<float>(*kernels, 14);
    check_value_product<BFloat16>(*kernels, 15);
    check_value_product<Float16>(*kernels, 16);
    check_value_product<std::int8_t>(*kernels, 17);
    check_value_product<BFloat16>(*kernels, 18, Body::pairs);
    check_value_product<BFloat16>(*kernels, 19, Body::matrix_tiles);
  }
}

// Matrix tiles multiply the pairs of neighbouring columns by a weight and a zero.
TEST(ValueProduct, ANumberThatIsNotFiniteStaysInItsColumn) {
  constexpr Index kKeys = 21, kColumns = 140, kRows = 3, kKey = 18, kColumn = 129;
  for (const kernels::Kernels* kernels : all_targets()) {
    for (auto product : {kernels->value_product, kernels->emulated_value_product}) {
      for (const float bad : {std::numeric_limits<float>::infinity(), NAN}) {
        std::vector<BFloat16> v(kKeys * kColumns, to_bf16(1.0f));
        v[kKey * kColumns + kColumn] = to_bf16(bad);
        std::vector<std::uint16_t> p(kRows * (kKeys + 1), to_bf16(0.5f).bits);
        for (Index r = 0; r < kRows; ++r)
          p[static_cast<std::size_t>((r + 1) * (kKeys + 1) - 1)] = 0;
        std::vector<float> out(kRows * kColumns, 2.0f), rescale(kRows, 0.5f);
        product({.p = reinterpret_cast<const float*>(p.data()),
                 .p_row = (kKeys + 1) / 2,
                 .v = {reinterpret_cast<const std::byte*>(v.data()), kColumns * 2, Type::bf16},
                 .out = out.data(),
                 .out_row = kColumns,
                 .rescale = rescale.data(),
                 .rows = kRows,
                 .n = kKeys,
                 .columns = kColumns,
                 .pairs = true});
        for (Index i = 0; i < kRows * kColumns; ++i) {
          const float x = out[static_cast<std::size_t>(i)];
          if (i % kColumns != kColumn) {
            ASSERT_EQ(x, 1.0f + 0.5f * kKeys) << kernels->target << " column " << i % kColumns;
          } else {
            ASSERT_TRUE(std::isnan(bad) ? std::isnan(x) : x == bad) << kernels->target;
          }
        }
      }
    }
  }
}

template <class T>
void check_row_product(const kernels::Kernels& kernel, std::uint64_t seed) {
  Random random(seed);
  for (Index inner = 0; inner <= 14; ++inner) {
    for (Index columns = 1; columns <= 5 * kernel.lanes; columns += 1 + columns / 9) {
      const Edge edge = random.percent(50) ? Edge::end : Edge::start;
      const Index rows = random.percent(50) ? 1 : random.between(2, 9);
      Tensor<float> a({rows, inner}, {{}, 1, random.percent(50) ? 0 : 3, 0, 0, edge});
      Tensor<float> b({inner, columns});
      Tensor<float> c({rows, columns}, {{}, 1, random.percent(50) ? 0 : 2, 0, 0, edge});
      fill_integers(a, random);
      fill_integers(b, random);
      fill_integers(c, random);
      const Stored<T> stored = stored_as<T>(b, edge, random);
      // The columns from `first` on: rows that begin anywhere in a vector, alike or not.
      const Index first = random.between(0, columns - 1);
      kernels::StoredRows b_part = stored.rows;
      if (inner > 0) b_part.first += first * static_cast<Index>(sizeof(T));
      const std::vector<float> before = c.values();
      kernel.row_product({.a = a.data(),
                          .a_row = a.strides()[0],
                          .b = b_part,
                          .c = c.data() + first,
                          .c_row = c.strides()[0],
                          .rows = rows,
                          .inner = inner,
                          .columns = columns - first,
                          .from_memory = random.percent(50)});
      for (Index r = 0; r < rows; ++r) {
        for (Index x = 0; x < columns; ++x) {
          float want = before[static_cast<std::size_t>(r * columns + x)];
          for (Index j = 0; j < inner && x >= first; ++j)
            want += a[r * inner + j] * b[j * columns + x];
          ASSERT_EQ(c[r * columns + x], want)
              << r << " of " << rows << ", " << x << " of " << columns << ", inner " << inner;
        }
      }
      ASSERT_TRUE(c.gaps_unchanged());
    }
  }
}

TEST(RowProduct, IsExactOnIntegersForAllSizesAndTypes) {  // B5, B24
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    check_row_product<float>(*kernels, 18);
    check_row_product<BFloat16>(*kernels, 19);
    check_row_product<Float16>(*kernels, 20);
    check_row_product<std::int8_t>(*kernels, 21);
  }
}

template <class T>
void check_pack_columns(const kernels::Kernels& kernel, std::uint64_t seed) {
  Random random(seed);
  for (int t = 0; t < kernel.n_tiles; ++t) {
    const Index nr = kernel.tiles[t].columns;
    for (Index columns = 1; columns <= 2 * nr + 1; columns += nr > 48 ? 11 : 1) {
      const Index rows = random.between(0, 19);
      const Edge edge = random.percent(50) ? Edge::end : Edge::start;
      Tensor<float> b({rows, columns});
      fill_integers(b, random);
      const Stored<T> stored = stored_as<T>(b, edge, random);
      const Index n_panels = (columns + nr - 1) / nr;
      Tensor<float> panels({n_panels, rows * nr}, {{}, 1, random.percent(50) ? 0 : 16, 0, 0, edge});
      panels.seal();
      kernel.pack_columns({.b = stored.rows,
                           .rows = rows,
                           .columns = columns,
                           .panels = panels.data(),
                           .apart = panels.strides()[0],
                           .panel_columns = nr});
      for (Index i = 0; i < n_panels * rows * nr; ++i) {
        const Index row = i / nr % rows, col = i / (rows * nr) * nr + i % nr;
        ASSERT_EQ(panels[i], col < columns ? b[row * columns + col] : 0)
            << row << " of " << rows << ", " << col << " of " << columns << ", NR " << nr;
      }
      ASSERT_TRUE(panels.gaps_unchanged());
    }
  }
}

TEST(PackColumns, WidensAndPadsWithZeros) {  // B5
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    check_pack_columns<float>(*kernels, 18);
    check_pack_columns<BFloat16>(*kernels, 19);
    check_pack_columns<Float16>(*kernels, 20);
    check_pack_columns<std::int8_t>(*kernels, 21);
  }
}

TEST(PackPairs, PutsNeighbouringRowsSideBySide) {
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    Random random(22);
    for (Index rows = 1; rows <= 9; ++rows) {
      for (Index columns = 1; columns <= 2 * kernels->lanes + 1;
           columns += kernels->lanes > 16 ? 5 : 1) {
        const Edge edge = random.percent(50) ? Edge::end : Edge::start;
        Tensor<BFloat16> b({rows, columns});
        b.fill([&](std::int64_t) {
          const auto x = random.percent(10)   ? std::numeric_limits<float>::infinity()
                         : random.percent(10) ? std::numeric_limits<float>::quiet_NaN()
                                              : static_cast<float>(random.normal());
          return to_bf16(x);
        });
        b.seal();
        const Stored<BFloat16> stored =
            stored_as<BFloat16>(rows, columns, edge, random, [&](Index i) { return b[i]; });
        const bool finite = random.percent(50);
        const Index wide = random.between(1, columns + 3), panels = (columns + wide - 1) / wide;
        const Index gap = random.percent(50) ? 0 : 3;
        const Index pairs_rows = (rows + 1) / 2;
        Tensor<float> pairs({panels, pairs_rows * wide}, {{}, 1, gap, 0, 0, edge});
        pairs.seal();
        kernels->pack_pairs(
            {stored.rows, rows, columns, finite, pairs.data(), pairs_rows * wide + gap, wide});
        const auto want = [&](Index row, Index column) -> std::uint32_t {
          if (row >= rows || column >= columns) return 0;
          const BFloat16 number = b[row * columns + column];
          return finite && !std::isfinite(to_float(number)) ? 0 : number.bits;
        };
        for (Index i = 0; i < pairs_rows; ++i) {
          for (Index x = 0; x < panels * wide; ++x) {
            ASSERT_EQ(
                std::bit_cast<std::uint32_t>(pairs[(x / wide * pairs_rows + i) * wide + x % wide]),
                want(2 * i, x) | want(2 * i + 1, x) << 16)
                << "rows " << rows << " pair " << i << ", column " << x << " of " << columns;
          }
        }
        ASSERT_TRUE(pairs.gaps_unchanged() && stored.tensor.unchanged());
      }
    }
  }
}

// Every 16-bit number, and every byte, widened; every 16-bit number narrowed again; and what lies
// between two of them goes to the nearest.
TEST(StorageTypes, WidenAndNarrowEveryNumber) {
  std::vector<std::uint16_t> all(1 << 16);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  const auto n = static_cast<Index>(all.size());
  for (const kernels::Kernels* kernels : all_targets()) {
    SCOPED_TRACE(kernels->target);
    for (Type type : {Type::bf16, Type::f16}) {
      std::vector<float> wide(all.size());
      kernels->widen(type, all.data(), n, wide.data());
      std::vector<std::uint16_t> again(all.size());
      kernels->narrow(type, wide.data(), n, again.data());
      for (std::size_t i = 0; i < all.size(); ++i) {
        const float want =
            type == Type::bf16 ? to_float(BFloat16{all[i]}) : to_float(Float16{all[i]});
        if (std::isnan(want)) {
          ASSERT_TRUE(std::isnan(wide[i])) << i;
          continue;
        }
        ASSERT_EQ(wide[i], want) << i;
        ASSERT_EQ(again[i], all[i]) << wide[i];
        const float next = type == Type::bf16
                               ? to_float(BFloat16{static_cast<std::uint16_t>(i + 1)})
                               : to_float(Float16{static_cast<std::uint16_t>(i + 1)});
        if (!std::isfinite(want) || !std::isfinite(next) || i + 1 == 0x8000) continue;
        // Halfway goes to the even one, the rest to the nearer.
        const float half = want + (next - want) / 2;
        const float around[] = {std::nextafter(half, want), half, std::nextafter(half, next)};
        std::uint16_t got[3];
        kernels->narrow(type, around, 3, got);
        ASSERT_EQ(got[0], all[i]) << half;
        ASSERT_EQ(got[1], all[i] + (i & 1)) << half;
        ASSERT_EQ(got[2], all[i] + 1) << half;
      }
    }
    std::vector<std::int8_t> bytes;
    for (int i = -128; i < 128; ++i) bytes.push_back(static_cast<std::int8_t>(i));
    std::vector<float> wide(bytes.size());
    kernels->widen(Type::int8, bytes.data(), 255, wide.data());
    for (int i = 0; i < 255; ++i) ASSERT_EQ(wide[static_cast<std::size_t>(i)], i - 128);
    Int4Group group{to_f16(0.25f), {}};
    for (int i = 0; i < 16; ++i) group.nibbles[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
    kernels->widen(Type::int4, &group, 32, wide.data());
    for (int i = 0; i < 16; ++i) {
      ASSERT_EQ(wide[static_cast<std::size_t>(i)], 0.25f * static_cast<float>(i - 8));
      ASSERT_EQ(wide[static_cast<std::size_t>(i + 16)], 0.25f * static_cast<float>(7 - i));
    }
  }
}

}  // namespace
}  // namespace rapt::tests
