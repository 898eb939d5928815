// The dispatch table: every micro kernel of one ISA target, as plain function pointers.
// This header knows no SIMD; the bodies are the *-inl.h files, compiled once for each target.
//
// All arrays are f32. Strides and counts are in elements. No kernel reads or writes outside the
// elements that its struct describes. "NR" is columns() of the register tile: a panel is an array
// [n, NR].
#pragma once

#include <cstddef>
#include <cstdint>

#include "rapt/types.hpp"

namespace rapt::kernels {

using Index = std::int64_t;

// Rows that are needed next, for a kernel to ask the memory for while it computes: the CPU's
// prefetchers follow what is read in order, not pieces of rows, nor what is read in a task to come.
struct NextRows {
  const std::byte* first = nullptr;
  Index stride = 0;  // in bytes
  Index rows = 0, row_bytes = 0;
};

// The share of part `number` of `parts` in asking for rows.
inline NextRows share_of(NextRows rows, Index number, Index parts) {
  const Index first = rows.rows * number / parts;
  rows.rows = rows.rows * (number + 1) / parts - first;
  if (rows.first != nullptr) rows.first += first * rows.stride;
  return rows;
}

// c[r, col] = alpha * sum_x a[r, x] b[x, col] + beta[col] * c[r, col]
struct TileProduct {
  const float* a;  // a[r * a_row + x * a_inner]; one of the two strides is 1 on the fast paths
  Index a_row, a_inner;
  const float* b;  // b[x * b_inner + col], NR columns readable for every x
  Index b_inner;
  float* c;               // c[r * c_row + col * c_column]
  Index c_row, c_column;  // c_column = 1 on the fast path
  Index rows;             // any number: cut into register tiles of nearly equal height
  Index inner;            // 0: the sum is 0
  Index columns;          // of c that are written, 1 to NR
  float alpha;
  const float* beta;  // [NR], or null: c is overwritten and never read
  NextRows next[2]{};
  // Of a packed a, the next tile, or null. Then c may have the columns of several panels of b,
  // b_apart floats from one to the next; after each few steps of inner a line is asked for, of all
  // from `soon` on, soon_step bytes apart.
  const std::byte* soon = nullptr;
  Index soon_step = 0, b_apart = 0;
  // [inner, NR] of floats, or null: there the first tile, of several, leaves b for the others. It
  // has its vectors in registers, and they would read them from many pages, each in two lines.
  float* b_copy = nullptr;
};

// Pairs: two bf16 numbers in the place of one float, the first in its low half. Kernels read them
// at any address.

// Pages of rows: row i of a matrix is row (begin + i) % size of page table[(begin + i) / size *
// table_stride].
struct RowPages {
  const std::int32_t* table = nullptr;  // null: there are no pages
  Index table_stride = 1;
  Index stride = 0;  // from page number to page number, in bytes
  Index size = 1;    // at most kMost
  Index begin = 0;   // less than size

  // (begin + i) / size as a product and a shift, right for all rows that a kernel is given.
  static constexpr Index kMost = Index{1} << 20;
  static constexpr int kShift = 44;
  static constexpr Index inverse_of(Index size) { return (Index{1} << kShift) / size + 1; }
  Index inverse = 0;
};

// Rows of a matrix, each contiguous: at equal distances, or in pages.
struct StoredRows {
  const std::byte* first = nullptr;  // row 0, or that of page 0
  Index stride = 0;                  // in bytes
  Type type = Type::f32;             // int4: only where lanes <= 16
  RowPages pages{};
};

// c[r, col] = alpha * b_scale[col] * sum_x a[r, x] b[col, x] + beta * c[r, col]
struct DotProduct {
  const float* a;  // a[r * a_row + x]
  Index a_row;
  StoredRows b;          // [columns] rows of b, each [inner]
  const float* b_scale;  // [columns], multiplies b's rows; or null
  float* c;              // c[r * c_row + col * c_column]
  Index c_row, c_column;
  Index rows, columns, inner;
  float alpha;
  const float* beta;   // one value for all, or null: c is overwritten and never read
  bool pairs = false;  // a and b are of pairs: a_row and inner count them
  bool few = false;    // rows, here and of all calls that are to agree in bits: b of int8 or int4
                       // may be multiplied by digits of a

  // Rows [first, first + n) of it.
  DotProduct part(Index first, Index n) const {
    DotProduct some = *this;
    some.a += first * a_row;
    some.c += first * c_row;
    some.rows = n;
    return some;
  }
};

// Bytes of v that value_product reads at a time, where its tiles read pieces of rows: half of a
// small L1. It asks for the next ones meanwhile, and its caller for the first.
inline constexpr Index kValueChunk = 1 << 14;

// out[r, x] = out[r, x] * rescale[r] + sum_j p[r, j] v[j][x]
struct ValueProduct {
  const float* p;  // p[r * p_row + j]; pairs: that of keys 2i and 2i + 1 in p[r * p_row + i]
  Index p_row;
  StoredRows v;  // [n] rows of v, each [columns]
  float* out;    // out[r * out_row + x]
  Index out_row;
  const float* rescale;  // [rows]
  Index rows, n, columns;
  bool pairs = false;  // p is of pairs and v of bf16; p of a key that is not there is 0
};

// c[r, col] += sum_x a[r, x] b[x, col]
struct RowProduct {
  const float* a;  // a[r * a_row + x]
  Index a_row;
  StoredRows b;  // [inner] rows of b, each [columns]; not int4
  float* c;      // c[r * c_row + col]
  Index c_row;
  Index rows, inner, columns;
  bool from_memory;  // b is in no cache: it is asked for ahead
};

// One block of the online softmax, on scores whose rows lie in lanes or along vectors.
// Lanes: s is [n, NR], each column is one row of attention. Rows: s is [rows, n], each row is one.
struct SoftmaxStep {
  float* s;  // in: scores; out: p = exp(score - maximum so far)
  const float*
      bias;     // same layout: added after pre_scale; -inf = not attended, by selection. Or null
  Index s_row;  // stride of s and bias: from key to key (lanes) or from row to row (rows)
  Index n;      // keys
  Index bias_begin;  // keys before this one have no bias, and bias need not be filled there (lanes
                     // only)
  bool pairs = false;  // p rounded to bf16, those of keys 2i and 2i + 1 as pairs: in row i of s
                       // (lanes), or element i of each (rows); that of a key that is not there is 0
  bool all = false;    // these are all keys: p divided by row_sum, 0 where that is (lanes only)
  Index rows;          // columns in use (lanes), or rows
  float pre_scale;     // multiplies a score, first
  float softcap;       // > 0: then bounds it, softcap * tanh(score / softcap); then bias is added
  float scale;         // of the exponent: p = e^(scale * (s - max)), positive
  float* row_max;  // [rows] state: maximum so far, before scale; -inf at first. With pairs it may
                   // lag, so that weights reach 2^8
  float* row_sum;  // [rows] state: sum of p so far
  float* rescale;  // [rows] out: what earlier sums and outputs were multiplied by, e^(scale * (old
                   // max - new max))
};

// A tile of the backward pass: s is [n, NR], each column is one row of attention (contract steps 5
// to 2, backwards).
struct SoftmaxBackward {
  float* s;           // in: the products q k; out: p = exp(score - lse)
  float* dp;          // in: the products dout v, the gradient of p; out: that of the products q k
  float* dscores;     // out: that of the scores; or null
  const float* bias;  // as in SoftmaxStep, or null
  Index row;          // stride of all four
  Index n, bias_begin, rows;  // as in SoftmaxStep: columns beyond rows, in the last vector, too
  float scale, softcap;
  const float* lse;    // [rows, in whole vectors]
  const float* delta;  // the same: the sum over all keys of p dp, less the gradient of lse
  // Or null: in addition, both rounded to bf16, [n, row]; and those of dp once more, keys 2i and
  // 2i + 1 as pairs in row i of [n / 2, rounded up, row]. That of a key that is not there is 0.
  BFloat16 *p_rounded = nullptr, *dp_rounded = nullptr;
  float* dp_pairs = nullptr;
};

// Dropout of p [n, NR], each column a row of attention: 0 where the word of Philox 4x32-10 with key
// `seed`, counter {key / 4, query, stream, offset}, number key % 4, is below the threshold; times
// `factor` elsewhere.
struct Drop {
  float* p;
  Index row;                    // stride of p
  Index n, first_key;           // keys [first_key, first_key + n)
  Index rows;                   // columns beyond, in the last vector, are computed, too
  const std::uint32_t* query;   // [rows, in whole vectors]
  const std::uint32_t* stream;  // the same
  std::uint32_t seed[2], offset, threshold;
  float factor;
};

// panel[x, r] = source[r][x * stride] for r < rows, 0 for rows <= r < NR
struct PackRows {
  const float* const* source;  // [rows] pointers
  Index stride;                // 1 on the fast path
  Index rows;                  // 0 to columns
  Index length;                // of each row
  float* panel;                // [length, columns]
  Index panel_row;             // from row to row of it
  Index columns;               // NR
};

// Panels of neighbouring columns, each [rows, NR]:
// panel i, at panels + i * apart: panel[x, col] = b[x, i * NR + col], 0 where b has no such column
struct PackColumns {
  StoredRows b;  // [rows] rows, each [columns]
  Index rows, columns;
  float* panels;
  Index apart;          // in floats
  Index panel_columns;  // NR
};

// The same of pairs: panel i: panel[x, col] = b[2x, i * NR + col] and b[2x + 1, i * NR + col],
// bf16; 0 where b has no such number
struct PackPairs {
  StoredRows b;  // [rows] rows, each [columns]
  Index rows, columns;
  bool finite;  // 0 in place of NaN and infinity
  float* panels;
  Index apart;          // in floats
  Index panel_columns;  // NR, any number
};

// destination[r][x * stride] = panel[x, r] / divisor[r]; 0 where divisor[r] is 0
struct UnpackRows {
  const float* panel;  // [length, columns]
  Index columns;
  const float* divisor;  // [rows]
  Index rows, length;
  float* const* destination;  // [rows] pointers
  Index stride;
};

// What happens to c at the end of a matrix product, after the bias.
enum class Finish { none, relu, gelu };

// A compiled register tile.
struct TileKernel {
  int rows;  // accumulators: rows x vectors
  int vectors;
  int columns;  // NR = vectors * lanes
  void (*product)(const TileProduct&);
  // The same of pairs: inner, and strides, count them. Of the first tile alone.
  void (*pair_product)(const TileProduct&);
  // What pair_product is on a CPU with matrix tiles, on tiles in memory: for the tests of all
  // others.
  void (*emulated_pair_product)(const TileProduct&);
};

inline constexpr Index kSoonSteps = 4;  // of inner, from line to line of TileProduct::soon
inline constexpr int kMaxTiles = 5;
inline constexpr int kMaxRows = 32;  // of a register tile
inline constexpr int kMaxColumns =
    8 * 64;  // NR of the widest tile on the longest vector that we take

struct Kernels {
  const char* target;  // Highway's name
  int lanes;           // f32 lanes of a vector
  int registers;       // vector registers
  bool native_pairs;  // whether the CPU is faster of pairs than of floats: of vectors, or of matrix
                      // tiles
  bool matrix_tiles;  // whether it has these
  bool paired_rows;   // whether tiles multiply an a of adjacent rows so much faster that it is
                      // worth a transpose
  bool slow_splits;   // whether it pays to copy what is read often by vectors that lie in two lines
  int n_tiles;
  TileKernel tiles[kMaxTiles];  // the first is the default, and none is narrower
  void (*dot_product)(const DotProduct&);
  void (*value_product)(const ValueProduct&);
  // What these are on a CPU with matrix tiles: as above.
  void (*emulated_dot_product)(const DotProduct&);
  void (*emulated_value_product)(const ValueProduct&);
  void (*row_product)(const RowProduct&);
  void (*softmax_lanes)(const SoftmaxStep&);
  void (*softmax_rows)(const SoftmaxStep&);
  void (*softmax_backward)(const SoftmaxBackward&);
  void (*drop)(const Drop&);
  void (*pack_rows)(const PackRows&);
  void (*pack_columns)(const PackColumns&);
  void (*pack_pairs)(const PackPairs&);
  void (*unpack_rows)(const UnpackRows&);
  void (*widen)(Type, const void* from, Index n, float* to);   // n a multiple of 32 for int4
  void (*narrow)(Type, const float* from, Index n, void* to);  // to f32, bf16 or f16
  void (*exp)(const float* x, float* y, Index n);              // e^x, x <= 0
  void (*tanh)(const float* x, float* y, Index n);
  void (*finish)(float* row, const float* bias, Index n,
                 Finish finish);  // row = finish(row + bias), bias may be null
};

// All targets of this build that this CPU runs, best first. At least one.
struct KernelList {
  const Kernels* const* list;
  int size;
};
KernelList all();

}  // namespace rapt::kernels
