// What a problem gets where no tuned row is: block sizes from the cache sizes and the vector
// length, in the manner of Low et al., "Analytical Modeling Is Enough for High-Performance BLIS",
// ACM TOMS 43(2), 2016. Every figure has its reason beside it; rapt-tune starts from these rows and
// has to beat them.
#include <algorithm>

#include "config/config.hpp"

namespace rapt::config {
namespace {

constexpr std::int64_t kFloat = sizeof(float);

// Accumulators must cover FMA latency x pipes (8 on x86, 16 on large Arm cores) half as many again,
// and leave registers for the b vectors and the broadcast: 12 of 16, 28 of 32. Two vectors wide, so
// that two loads of b serve a whole column of the tile.
Tile default_tile(const Registers& registers) {
  return registers.count >= 32 ? Tile{14, 2} : Tile{6, 2};
}

// The largest multiple of `step` whose n * bytes_each fits `bytes`, kept within [least, most]
// (which are rounded to the step as well).
std::int64_t fit(std::int64_t bytes, std::int64_t bytes_each, std::int64_t step, std::int64_t least,
                 std::int64_t most) {
  const std::int64_t n = std::clamp(bytes / bytes_each, least, most);
  return std::max(n / step, std::int64_t{1}) * step;
}

}  // namespace

AttentionRow default_attention_row(const Caches& caches, Registers registers,
                                   std::int64_t head_size) {
  AttentionRow row;
  row.head_size = head_size;
  row.tile = default_tile(registers);
  const std::int64_t nr = row.tile.vectors * registers.lanes;

  // L1: the scores s [block_kv, NR] of a panel fill half, since one product writes them, the
  // softmax passes over them and the other product reads them. q^T [d, NR] may come from L2: a step
  // of the register tile reads NR floats of it for rows x vectors FMAs, which is 9 bytes a cycle or
  // less. At least 128 keys and at most 512, because every block rescales the sums: 2 % of the work
  // with 64 keys, 0.3 % with 512. Where k is transposed at most 256: with 512, k, its transpose and
  // v take 5 % of the time more (d = 128, L2 1 MiB).
  row.block_kv = fit(caches.l1 / 2, nr * kFloat, 16, 128, registers.paired_rows ? 256 : 512);

  // L2 holds the block of k and v, which every panel of the task reads again, and the task's q^T
  // and out^T [d, block_q]. A quarter is left to the rest. More rows read k and v less often: with
  // 96, a task does 48 FLOPs for each byte of k and v, what many cores on one memory need (90
  // GFLOP/s each on a share of 2 GB/s). More than 256 rows only make tasks fewer than cores.
  const std::int64_t kv_block = 2 * row.block_kv * head_size * kFloat;
  row.block_q = fit(caches.l2 * 3 / 4 - kv_block, 2 * head_size * kFloat, nr, 96, 256);

  // flash_rows reads k and v once for eight rows, and again for the next; flash_lanes once for all,
  // but computes whole panels of NR rows. Measured crossovers on Zen 4, of 64 to 4096 keys: 20 to
  // 24 rows (d = 64) and 23 to 30 (d = 128) with NR = 32 (14x2 tiles of 16 lanes), 12 and 14 with
  // NR = 16 (6x2 of 8); smaller types of k and v want more rows, 4-bit groups on AVX2 fewer.
  row.short_rows = 4 + nr / 2;

  // A cache of 4096 keys and 8 KV heads is work for 32 cores; 1024 keys of 64 floats take 20 us to
  // read, beside which a task's start and the merging are small.
  row.split_kv = 1024;
  return row;
}

GemmRow default_gemm_row(const Caches& caches, Registers registers) {
  GemmRow row;
  // Six rows, so that those of a share no set of L1 with more than its ways: a is read in place. As
  // wide as registers allow, so that b is read in place in long pieces.
  row.tile = registers.count >= 32 ? Tile{6, 4} : Tile{6, 2};
  const std::int64_t mr = row.tile.rows, nr = row.tile.vectors * registers.lanes;

  // A panel of b [block_k, NR] streams from L2 whatever its depth, at 11 bytes a cycle or less (as
  // above), so L1 sets no limit. Each slice of k reads and writes c once more, which costs several
  // percent: 1024 deep, most products have one.
  row.block_k = 1024;

  // L2: a task's share of a [block_m, block_k] fills half, and every panel of b passes over it; but
  // at least 120 rows, or panels pass too often (Zen 3, whose L2 has 512 KiB). Or its share of b
  // [block_k, block_n] does, and every panel of a passes.
  row.block_m = fit(caches.l2 / 2, row.block_k * kFloat, mr, 120, 512);
  row.block_n = fit(caches.l2 / 2, row.block_k * kFloat, nr, 64, 1024);

  // To pack a, too, takes as long as to multiply it by some 40 columns, and saves what b loses on
  // its way from L3. Measured: where L2 has 2 MiB and L3 is far (Emerald Rapids), a b that L2
  // nearly holds gains 3 % in place of it, and from 4 MiB on packing a gains 5 to 15 %; on Zen 4 it
  // loses 3 to 5 % until b is larger than L3. Tiles that multiply adjacent rows in pairs always
  // gain.
  constexpr std::int64_t kKib = 1024, kFarL3 = 2048 * kKib;
  row.packed_kib = registers.paired_rows ? 1
                   : caches.l2 >= kFarL3 ? 2 * caches.l2 / kKib
                                         : caches.l3 / kKib * 3 / 2;
  row.packed_kib = std::min(row.packed_kib, kMostPackedKib);

  // Measured: packing b costs 10 % with 64 rows, and more where b comes from memory. A panel of 256
  // bytes is read in place as fast as if it were packed; narrower ones lose soon.
  row.direct_rows = nr * kFloat >= 256 ? 128 : 24;
  return row;
}

AttentionRow attention_row(const Config& config, std::string_view target, Registers registers,
                           std::int64_t head_size) {
  // Larger than the largest class: the formulas, for exactly this size.
  const auto at = std::lower_bound(kHeadSizes.begin(), kHeadSizes.end(), head_size);
  const std::int64_t size_class = at == kHeadSizes.end() ? head_size : *at;
  for (const TargetRows& rows : config.targets) {
    if (rows.target != target || !fits(config)) continue;
    for (const AttentionRow& row : rows.attention) {
      if (row.head_size == size_class) return row;
    }
  }
  return default_attention_row(machine_caches(), registers, size_class);
}

GemmRow gemm_row(const Config& config, std::string_view target, Registers registers) {
  for (const TargetRows& rows : config.targets) {
    if (rows.target == target && rows.gemm && fits(config)) return *rows.gemm;
  }
  return default_gemm_row(machine_caches(), registers);
}

}  // namespace rapt::config
