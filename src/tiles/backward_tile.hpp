// A tile of the backward pass: the weights of a block of rows and a block of keys, computed again
// from lse, and the gradients of their scores. As in flash_lanes, lanes are rows:
//
//   qt, doutt  [d_k, NR], [d_v, NR]  q and grad_out of a panel, transposed
//   p          [keys, rows]          K qt, then p = exp(score - lse)
//   ds         [keys, rows]          V doutt = dp, then ds = scale * p (dp - delta), the gradient
//                                    of the products q k
//   dqt        [d_k, NR]             += K^T ds
//
// Of bf16, on a CPU that multiplies pairs of it, all five products are of pairs: what is above are
// floats still, and beside p and ds lie their roundings, those of ds in pairs along both axes that
// products sum over.
#pragma once

#include <optional>

#include "tiles/backward.hpp"
#include "tiles/dropout.hpp"
#include "tiles/lane_bias.hpp"
#include "tiles/pairs_down.hpp"
#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {

// n numbers are so many floats, or pairs.
inline Index elements_of(Index n, bool pairs) { return pairs ? (n + 1) / 2 : n; }

class BackwardTile {
 public:
  // The rows of a unit, or some of them. Takes its memory from the workspace.
  BackwardTile(const BackwardProblem& problem, const BackwardPlan& plan, const BackwardCut& cut,
               const Rows& unit, Workspace& workspace);

  // The rows of the next tiles: at most block_q of the unit's. dq begins at 0.
  void load(const Rows& rows);

  // The tile of these keys, at most block_kv; false where no pair of it is attended.
  enum class Wanted { scores, all };  // all: dq too
  // What the memory is asked for meanwhile (it made this pass up to a fifth faster): the sums that
  // these keys will be added to, the keys after them.
  struct Ahead {
    kernels::NextRows k_sums{}, v_sums{};
    Keys keys{0, 0};
  };
  bool compute(Keys keys, Wanted wanted, const Ahead& ahead);

  // What compute() has left, for its first keys() keys and for the rows [first(), first() + rows())
  // of those loaded. What is beyond these is not attended.
  Index keys() const { return n_; }
  Index first() const { return first_; }
  Index rows() const { return end_ - first_; }
  // [key * stride() + row]
  Index stride() const { return buffers_.stride; }
  const float* p() const { return buffers_.p; }
  const float* ds() const { return buffers_.ds; }
  const float* dscores() const { return buffers_.dscores; }  // where slopes or bias want them

  // sum[j, x] += sum over rows of pairs[j, row] loaded[row, x], for the keys of the tile:
  // of q with ds, and of grad_out with p. `begins`: there is no sum yet.
  void add_to_k(float* sum, Index row, bool begins) const {
    add(buffers_.q, buffers_.ds, buffers_.ds_rounded, {sum, row, begins}, next_k_);
  }
  void add_to_v(float* sum, Index row, bool begins) const {
    add(buffers_.dout, buffers_.p, buffers_.p_rounded, {sum, row, begins}, next_v_);
  }

  // Writes the rows of grad_q that were loaded.
  void write_dq();

  // The floats that it takes.
  static Index floats(const BackwardProblem& problem, const BackwardPlan& plan,
                      const BackwardCut& cut);

 private:
  // q or dout: of the rows that are loaded. An element is a float, or a pair.
  struct Loaded {
    Index depth, row;
    float *data, *zeroed;  // [block_q, row], of pairs half; zeroed: without NaN and infinity
    float* transposed;     // [panels, elements of depth, NR]
    float* copy;           // of pairs: [block_q, elements of depth]
    std::optional<NotFinite> not_finite;
  };
  struct Buffers {
    Loaded q, dout;
    float* dqt;                        // [panels, d_k, NR]
    float *lse, *delta;                // [block_q]
    Index stride;                      // of what has pairs of rows and keys
    float *p, *ds, *dscores, *bias;    // [block_kv, block_q]
    BFloat16 *p_rounded, *ds_rounded;  // the same
    float* ds_pairs;                   // [block_kv / 2, block_q]
    float *k_copy, *v_copy;            // [block_kv, elements of depth]
    PairsDown pairs_down;
    float *k_down, *k_zeroed;  // [block_kv, d_k], or of pairs as they are transposed
    float *rows_copy, *ones;   // [2, d_v] or [NR, d_k], [NR]
    float** row_pointers;      // [NR]
    Buffers(const BackwardProblem& problem, const BackwardPlan& plan, const BackwardCut& cut,
            Workspace& workspace);
  };

  Index elements(Index n) const { return elements_of(n, pairs_); }
  void load(Loaded& loaded, const Stored<const std::byte>& array);
  void pair_rows(const StoredRows& from, Index rows, Index depth, bool finite, float* to,
                 Index to_row) const;
  struct Sum {
    float* data;
    Index row;
    bool begins;
  };
  // sum[j, x] += sum over rows of weights[j, row] loaded[row, x]
  void add(const Loaded& loaded, const float* weights, const BFloat16* rounded, const Sum& sum,
           const kernels::NextRows& next) const;

  const BackwardProblem& problem_;
  const kernels::Kernels& kernel_;
  const kernels::TileKernel& tile_;
  const bool pairs_;
  void (*const product_)(const kernels::TileProduct&);
  Buffers buffers_;
  DropoutRows dropout_;
  LaneBias lane_bias_;
  KeyReader read_k_, read_v_;
  Rows rows_;
  Index n_ = 0, first_ = 0, end_ = 0;
  kernels::NextRows next_k_, next_v_;
};

// delta of a row, less the gradient of its lse. `row_copy`: [d_v].
float delta_of(const BackwardProblem& problem, const kernels::Kernels& kernel, const Rows& rows,
               Index r, const float* dout, float* row_copy);

// Panels hold so many columns.
inline Index whole_panels(Index depth, Index columns) {
  return (depth + columns - 1) / columns * columns;
}

}  // namespace rapt::tiles
