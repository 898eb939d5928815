// The tuned config: a few rows of numbers for each ISA target, and where they come from.
// A row that is missing is filled by the formulas of defaults.cpp from the caches of this machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rapt::config {

// A register tile: rows x vectors accumulators. Columns = vectors * lanes of the target.
struct Tile {
  int rows = 0;
  int vectors = 0;
  bool operator==(const Tile&) const = default;
};

// How attention with head size max(d_k, d_v) <= head_size is cut. All fields count rows (query
// positions x group) or keys.
struct AttentionRow {
  std::int64_t head_size = 0;
  Tile tile;                    // of q k^T and p v
  std::int64_t block_q = 0;     // rows of one task of flash_lanes
  std::int64_t block_kv = 0;    // keys of one step of the online softmax
  std::int64_t short_rows = 0;  // at most this many rows: flash_rows
  std::int64_t split_kv = 0;    // keys of one task, where few rows have many keys
  bool operator==(const AttentionRow&) const = default;
};

inline constexpr std::int64_t kMostPackedKib = std::int64_t{1} << 20;

// How a matrix product is cut.
struct GemmRow {
  Tile tile;
  std::int64_t block_m = 0;      // rows of c in one task, where a stays in L2 and b passes
  std::int64_t block_n = 0;      // columns of c in one task, where b stays there and a passes
  std::int64_t block_k = 0;      // depth of one pass over a task's c
  std::int64_t direct_rows = 0;  // at most this many rows: b is read in place
  std::int64_t packed_kib = 0;   // of a b of at least this many KiB a is packed, too
  bool operator==(const GemmRow&) const = default;
};

// The head-size classes that rows are tuned for; a problem takes the smallest class that holds it.
inline constexpr std::array<std::int64_t, 6> kHeadSizes = {32, 64, 80, 96, 128, 256};

struct TargetRows {
  std::string target;                   // Highway's name, e.g. AVX2
  std::vector<AttentionRow> attention;  // ascending head_size
  std::optional<GemmRow> gemm;
};

struct Config {
  std::vector<TargetRows> targets;
  std::vector<std::string> cpus{};  // that its head names: its rows are for these alone

  // Of the config of the process, as ConfigReport has them.
  std::string source{};
  std::vector<std::string> refused{};  // files that were to be loaded before it
};

// Strict: throws Error(bad_config) that names the line; unknown words, missing or repeated fields,
// duplicate rows and values out of range are all bad. A tile that no kernel here has is not bad,
// because the row may be another machine's: the plan then takes the target's default tile. Nor is
// a CPU that is not this one: the rows are then left alone.
inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;
Config parse(std::string_view text);
std::string format(const Config& config);  // CPUs and rows alone, in one fixed spelling

// Whether its rows are for this CPU.
bool fits(const Config& config);
std::string misfit(const Config& config);  // and where they are not, a phrase that says so

// The config of the process (see rapt/config.hpp for who sets it), as a snapshot that stays valid
// while it is held. A few nanoseconds, and threads do not contend.
std::shared_ptr<const Config> current();

// Replaces it, as rapt::load_config does, and returns it.
std::shared_ptr<const Config> load(std::string_view text);

// An environment variable of ours. Null where it is not set, empty, or this process has
// rights that its user has not.
const char* environment(const char* name);

// Where rapt-tune --install writes the config of this CPU and the first call looks for it. Empty
// where the environment does not say.
std::string installed_path();

// The text of a config file named by the environment, whose writer is not the caller: a regular
// file (no symbolic link) of at most kMaxTextBytes, owned by this user or root and not writable by
// everybody, or else Error(bad_config).
std::string read_trusted_file(const char* path);

// This CPU's model: "AMD EPYC 9654 96-Core Processor, family 25, model 17". Printable, without
// backslashes, the same in every process on the machine.
const std::string& cpu_name();
// It as a file's name: "amd-epyc-9654-96-core-processor-family-25-model-17".
std::string cpu_key();

// Per-call answers: the tuned row, or the formulas' one.
struct Registers {
  int lanes = 0;             // f32 lanes of a vector
  int count = 0;             // vector registers
  bool paired_rows = false;  // flash_lanes transposes k
};
AttentionRow attention_row(const Config& config, std::string_view target, Registers registers,
                           std::int64_t head_size);
GemmRow gemm_row(const Config& config, std::string_view target, Registers registers);
// The same of the config of the process, for a target's name that stays where it is. To hold a
// snapshot takes two locked instructions, which wait for all stores before them: those of the call
// before.
AttentionRow current_attention_row(const char* target, Registers registers, std::int64_t head_size);
GemmRow current_gemm_row(const char* target, Registers registers);

// The formulas themselves, for a machine with these caches.
struct Caches {
  std::int64_t l1 = 0, l2 = 0,
               l3 = 0;  // bytes that one core can use of its own L1d, of L2, and of the shared L3
};
const Caches& machine_caches();  // measured once
AttentionRow default_attention_row(const Caches& caches, Registers registers,
                                   std::int64_t head_size);
GemmRow default_gemm_row(const Caches& caches, Registers registers);

}  // namespace rapt::config
