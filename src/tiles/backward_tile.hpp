// A tile of the backward pass: the weights of a block of rows and a block of keys, computed again
// from lse, and the gradients of their scores. As in flash_lanes, lanes are rows:
//
//   qt, doutt  [d_k, NR], [d_v, NR]  q and grad_out of a panel, transposed
//   p          [keys, rows]          K qt, then p = exp(score - lse)
//   ds         [keys, rows]          V doutt = dp, then ds = p (dp - delta), the gradient of the
//                                    products q k but for their scale
//   dqt        [d_k, NR]             += scale * K^T ds
#pragma once

#include <optional>

#include "tiles/backward.hpp"
#include "tiles/dropout.hpp"
#include "tiles/values.hpp"
#include "tiles/workspace.hpp"

namespace rapt::tiles {

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

  // sum[j, x] += scale * sum over rows of pairs[j, row] loaded[row, x], for the keys of the tile:
  // of q with ds, and of grad_out with p.
  void add_to_k(float* sum, Index row) const;
  void add_to_v(float* sum, Index row) const;

  // Writes the rows of grad_q that were loaded.
  void write_dq();

  // The floats that it takes.
  static Index floats(const BackwardProblem& problem, const BackwardPlan& plan,
                      const BackwardCut& cut);

 private:
  struct Buffers {
    Index q_row, dout_row, stride;   // of q and dout; of p, ds, dscores and bias
    float *q, *dout;                 // [block_q, d_k] and [block_q, d_v], columns in whole panels
    float *q_zeroed, *dout_zeroed;   // without NaN and infinity
    float *qt, *doutt, *dqt;         // [panels, depth, NR]
    float *lse, *delta;              // [block_q]
    float *p, *ds, *dscores, *bias;  // [block_kv, block_q]
    float *k_copy, *v_copy, *k_zeroed;  // [block_kv, depth]
    float *row_copy, *ones;             // [d_v], [NR]
    float** row_pointers;               // [NR]
    Buffers(const BackwardProblem& problem, const BackwardPlan& plan, const BackwardCut& cut,
            Workspace& workspace);
  };

  void multiply_columns(const float* pairs, const KeyBlock& rows, Index depth, float scale,
                        float* sum, Index sum_row, const kernels::NextRows& next) const;

  const BackwardProblem& problem_;
  const kernels::Kernels& kernel_;
  const kernels::TileKernel& tile_;
  Buffers buffers_;
  DropoutRows dropout_;
  KeyReader read_k_, read_v_;
  Rows rows_;
  std::optional<NotFinite> q_, dout_;
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
