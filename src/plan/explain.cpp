#include "plan/explain.hpp"

#include <algorithm>
#include <cstdio>
#include <string>

#include "config/config.hpp"
#include "plan/case.hpp"
#include "plan/plan.hpp"
#include "tiles/task.hpp"

namespace rapt::plan {
namespace {

using tiles::Index;

// Walks the tiles of a unit as its algorithm does, and asks the masks what they will say.
void count_tiles(const tiles::AttentionProblem& p, const tiles::AttentionPlan& plan,
                 const tiles::Cut& cut, const tiles::Rows& rows, Explanation& e) {
  const Index height = cut.algorithm == &tiles::kFlashRows ? rows.count : plan.tile->columns;
  for (Index first = 0; first < rows.count; first += height) {
    const tiles::Rows part = rows.part(first, height);
    const tiles::Keys reachable = reachable_keys(part);
    for (Index begin = 0; begin < cut.sequence.seq_kv; begin += cut.block_kv) {
      const tiles::Keys keys{begin, std::min(begin + cut.block_kv, cut.sequence.seq_kv)};
      ++e.tiles;
      const tiles::Keys attended{std::max(keys.begin, reachable.begin),
                                 std::min(keys.end, reachable.end)};
      const tiles::Cover cover =
          attended.count() > 0 ? tiles::cover(part, attended) : tiles::Cover{true, 0};
      if (cover.none) {
        ++e.skipped_tiles;
        continue;
      }
      e.masked_tiles += cover.whole < attended.count();
      e.flops += 2.0 * static_cast<double>(part.count) * static_cast<double>(attended.count()) *
                 static_cast<double>(p.d_k + p.d_v);
    }
  }
}

// Tasks of the batch elements of a cut that read the same memory as the element before.
Index shared_tasks(const tiles::AttentionProblem& p, const tiles::AttentionPlan& plan,
                   const tiles::Cut& cut) {
  Index parts = 0;
  for (Index i = 0; i < cut.count && !plan.joined.empty(); ++i)
    parts += plan.joined[static_cast<std::size_t>(cut.sequence.number + i)];
  return parts * p.kv_heads * cut.row_blocks;
}

double bytes_of_rows(const tiles::AttentionProblem& p, const tiles::Cut& cut, Index shared) {
  const auto row = [](Type type, Index depth) {
    return static_cast<double>(tiles::bytes_of_row(type, depth));
  };
  const auto queries = static_cast<double>(cut.count * cut.sequence.seq_q * p.heads);
  const auto keys = static_cast<double>(cut.count * cut.sequence.seq_kv * p.kv_heads -
                                        shared / cut.row_blocks * cut.part_kv);
  return queries * (row(p.q.type, p.d_k) + row(p.out.type, p.d_v)) +
         keys * (row(p.k.type, p.d_k) + row(p.v.type, p.d_v) + (p.k_scales ? 4.0 : 0.0) +
                 (p.v_scales ? 4.0 : 0.0));
}

}  // namespace

Explanation explain(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan) {
  Explanation e;
  e.bench_case = case_of(problem, plan);
  e.target = plan.kernels->target;
  const RowInUse row = row_in_use(problem, *plan.kernels);
  e.config_row = row.text;
  e.tuned = row.tuned;
  const auto config = config::current();
  e.config_source = config->source;
  e.config_refused = config->refused;
  e.tile_rows = plan.tile->rows;
  e.tile_columns = plan.tile->columns;
  e.tasks = plan.tasks;
  e.waves = plan.wave_units == 0 ? 0 : (plan.units + plan.wave_units - 1) / plan.wave_units;
  for (const tiles::Cut& cut : plan.cuts) {
    Explanation::Cut c;
    c.elements = cut.count;
    c.seq_q = cut.sequence.seq_q;
    c.seq_kv = cut.sequence.seq_kv;
    c.algorithm = cut.algorithm->name;
    for (const auto& [name, reason] : refusals(problem, *plan.kernels, cut.rows)) {
      if (c.algorithm == name) break;
      c.refused.push_back({name, reason});
    }
    c.block_q = cut.block_q;
    c.block_kv = cut.block_kv;
    c.units = cut.count * problem.kv_heads * cut.row_blocks;
    c.parts = cut.parts;
    c.part_kv = cut.part_kv;
    e.cuts.push_back(c);
    const Index shared = shared_tasks(problem, plan, cut);
    e.shared_tasks += shared;
    e.bytes += bytes_of_rows(problem, cut, shared);
  }
  for (Index unit = 0; unit < plan.units; ++unit) {
    const tiles::Cut& cut = cut_of_unit(plan, unit);
    count_tiles(problem, plan, cut, rows_of_unit(problem, cut, unit), e);
  }
  return e;
}

}  // namespace rapt::plan

namespace rapt {

std::string Explanation::text() const {
  std::string lines;
  const auto line = [&](const char* format, auto... values) {
    char buffer[512];
    std::snprintf(buffer, sizeof(buffer), format, values...);
    lines += buffer;
    lines += '\n';
  };
  const auto n = [](std::int64_t value) { return static_cast<long long>(value); };
  line("target       %s, register tile %lld x %lld", target.c_str(), n(tile_rows), n(tile_columns));
  line("config       %s (%s)", config_row.c_str(), tuned ? "tuned" : "from the formulas");
  line("             the config in use: %s", config_source.c_str());
  for (const std::string& file : config_refused) line("             not %s", file.c_str());
  for (const Cut& cut : cuts) {
    line("algorithm    %s, for %lld elements of the batch: seq_q %lld, seq_kv %lld",
         cut.algorithm.c_str(), n(cut.elements), n(cut.seq_q), n(cut.seq_kv));
    for (const Refusal& refusal : cut.refused)
      line("             not %s: %s", refusal.algorithm.c_str(), refusal.reason.c_str());
    line("             %lld units of up to %lld rows, steps of %lld keys", n(cut.units),
         n(cut.block_q), n(cut.block_kv));
    if (cut.parts > 1)
      line("             each in %lld parts of %lld keys, merged in order", n(cut.parts),
           n(cut.part_kv));
  }
  line("tasks        %lld in %lld waves", n(tasks), n(waves));
  if (shared_tasks > 0)
    line("             %lld of them read keys that others read, once for all", n(shared_tasks));
  line("workspace    %lld bytes, %lld more for each further worker", n(workspace_bytes),
       n(worker_bytes));
  line("tiles        %lld: %lld skipped (%.1f %%), %lld with mask work", n(tiles), n(skipped_tiles),
       tiles == 0 ? 0.0 : 100.0 * static_cast<double>(skipped_tiles) / static_cast<double>(tiles),
       n(masked_tiles));
  if (!bench_case.empty()) lines += "case         rapt-bench --case '" + bench_case + "'\n";
  line("work         %.3g flop, %.3g bytes", flops, bytes);
  return lines;
}

}  // namespace rapt
