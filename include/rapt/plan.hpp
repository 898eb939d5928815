// Planning apart from running: check and cut a problem once, run it many times on other data of the
// same shapes (the layers of a model, say), and say how it will be computed.
//
// Without a change to the program, the environment asks for more: RAPT_VERBOSE=1 prints a line for
// each call of attention, its backward pass and gemm on stderr (target, path, problem, time).
// RAPT_TRACE=FILE writes each distinct problem with the number of its calls, when it exits and now
// and then before, for rapt-tune --from and rapt-bench --from; programs that have more rights than
// their user write none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rapt/attention.hpp"
#include "rapt/backward.hpp"
#include "rapt/export.h"

namespace rapt {

// How a problem is computed.
struct Explanation {
  // An algorithm that was not taken, and the sentence that says why.
  struct Refusal {
    std::string algorithm, reason;
  };
  // Batch elements of unequal length may be cut in different ways.
  struct Cut {
    std::int64_t elements = 0;  // of the batch, that are cut like this
    std::int64_t seq_q = 0, seq_kv = 0;
    std::string algorithm;
    std::vector<Refusal> refused;
    std::int64_t block_q = 0, block_kv = 0;  // rows (positions x group) of a unit; keys of a step
    std::int64_t units = 0;                  // blocks of rows, of all these elements
    std::int64_t parts = 0, part_kv = 0;     // into which the keys of a unit are split
    // Of the backward pass, where a unit is a KV head with all its rows, block_q x block_kv are a
    // tile, and the parts are rows; else 0.
    std::int64_t part_rows = 0;
  };

  std::string bench_case;     // rapt-bench --case computes the like; empty: nothing to compute
  std::string target;         // ISA
  std::string config_row;     // the numbers in use, as the config format spells them
  bool tuned = false;         // the row is from a config, not from the formulas
  std::string config_source;  // of the config in use, as ConfigReport has it
  std::vector<std::string> config_refused;       // and the files that were refused before it
  std::int64_t tile_rows = 0, tile_columns = 0;  // register tile
  std::vector<Cut> cuts;
  std::int64_t tasks = 0, waves = 0;
  // Of these, the tasks whose keys are the same memory as those of the batch element before (shared
  // pages of a common prompt): they are read once for all that share them.
  std::int64_t shared_tasks = 0;
  std::int64_t workspace_bytes = 0;  // for one worker; each more needs worker_bytes
  std::int64_t worker_bytes = 0;
  // Tiles of rows x keys: nobody attends a skipped one; a masked one takes the path with mask work.
  std::int64_t tiles = 0, skipped_tiles = 0, masked_tiles = 0;
  // Of the products over the tiles that are not skipped. Those of the backward pass are five, and
  // for the gradient of a bias two are taken once more, which do not count.
  double flops = 0;
  double bytes = 0;  // q, k, v, out (and their gradients), each once; so are keys that are shared
  // Of the backward pass: tasks after the others, for gradients that heads and batch share.
  std::int64_t sum_tasks = 0;

  RAPT_API std::string text() const;  // all of it, in lines
};

// Memory to run on in place of that which was planned with, laid out alike. Null: as planned.
struct AttentionPointers {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* out = nullptr;
  float* lse = nullptr;
  const float* k_scales = nullptr;
  const float* v_scales = nullptr;
  const bool* mask = nullptr;
  const float* bias = nullptr;
  const std::uint32_t* dropout_offset = nullptr;  // of this run
};

// A checked, planned call of attention(). It keeps lengths, offsets and the block table as they
// were; all other arrays must live as long as it is run on them. Planning takes microseconds and
// allocates; running allocates nothing of its own where the caller gives a workspace. Any number of
// threads may run one plan at once, each with its own workspace and outputs.
class RAPT_API AttentionPlan {
 public:
  // Throws Error as attention() does.
  AttentionPlan(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                const AttentionOptions& options = {});
  AttentionPlan(AttentionPlan&&) noexcept;
  AttentionPlan& operator=(AttentionPlan&&) noexcept;
  ~AttentionPlan();

  // Bytes for a run with the plan's executor, as many workers as it has now.
  std::size_t workspace_bytes() const;

  // workspace: at least workspace_bytes(), on a multiple of 64; null: the library's own. Throws
  // Error when it is too small for the executor's workers.
  void run(const AttentionPointers& pointers = {}, void* workspace = nullptr,
           std::size_t bytes = 0) const;

  Explanation explain() const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

// The same for attention_backward().
struct BackwardPointers {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const void* out = nullptr;
  const float* lse = nullptr;
  const void* grad_out = nullptr;
  void* grad_q = nullptr;
  void* grad_k = nullptr;
  void* grad_v = nullptr;
  const bool* mask = nullptr;
  const float* bias = nullptr;
  const std::uint32_t* dropout_offset = nullptr;  // of this run
  const float* grad_lse = nullptr;
  float* grad_bias = nullptr;
  float* grad_alibi_slopes = nullptr;
  float* grad_sinks = nullptr;
};

// A checked, planned call of attention_backward(), with the rules of an AttentionPlan.
class RAPT_API AttentionBackwardPlan {
 public:
  // Throws Error as attention_backward() does.
  AttentionBackwardPlan(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOutIn& out,
                        const LseIn& lse, const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                        const AnyGradK& grad_k, const AnyGradV& grad_v,
                        const AttentionOptions& options = {}, const BackwardOptions& backward = {});
  AttentionBackwardPlan(AttentionBackwardPlan&&) noexcept;
  AttentionBackwardPlan& operator=(AttentionBackwardPlan&&) noexcept;
  ~AttentionBackwardPlan();

  std::size_t workspace_bytes() const;
  void run(const BackwardPointers& pointers = {}, void* workspace = nullptr,
           std::size_t bytes = 0) const;
  Explanation explain() const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

// How attention() would compute this, without running it.
RAPT_API Explanation explain(const AnyQ& q, const AnyK& k, const AnyV& v, const AnyOut& out,
                             const AttentionOptions& options = {});
// And attention_backward().
RAPT_API Explanation explain_backward(const AnyQ& q, const AnyK& k, const AnyV& v,
                                      const AnyOutIn& out, const LseIn& lse,
                                      const AnyOutIn& grad_out, const AnyGradQ& grad_q,
                                      const AnyGradK& grad_k, const AnyGradV& grad_v,
                                      const AttentionOptions& options = {},
                                      const BackwardOptions& backward = {});

}  // namespace rapt
