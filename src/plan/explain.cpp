#include "plan/explain.hpp"

#include <algorithm>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <utility>

#include "config/config.hpp"
#include "plan/case.hpp"
#include "plan/plan.hpp"
#include "tiles/task.hpp"

namespace rapt::plan {
namespace {

using tiles::Index;

// Walks the tiles of some rows as its algorithm does, a panel at a time, and asks the masks what
// they will say. `attended`: the keys of a step that the algorithm takes, of those that a panel may
// attend. `depth`: of all products of a pair.
template <class Attended>
void count_tiles(const tiles::Rows& rows, Index panel, Index block_kv, Index depth,
                 const Attended& attended, Explanation& e) {
  const Index seq_kv = rows.sequence.seq_kv;
  for (Index first = 0; first < rows.count; first += panel) {
    const tiles::Rows part = rows.part(first, panel);
    const tiles::Keys reachable = reachable_keys(part);
    for (Index begin = 0; begin < seq_kv; begin += block_kv) {
      ++e.tiles;
      const tiles::Keys keys =
          attended(tiles::Keys{begin, std::min(begin + block_kv, seq_kv)}, reachable);
      const tiles::Cover cover = keys.count() > 0 && reachable.begin < keys.end
                                     ? tiles::cover(part, keys)
                                     : tiles::Cover{true, 0};
      if (cover.none) {
        ++e.skipped_tiles;
        continue;
      }
      e.masked_tiles += cover.whole < keys.count();
      e.flops += 2.0 * static_cast<double>(part.count) * static_cast<double>(keys.count()) *
                 static_cast<double>(depth);
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

double bytes_of(std::initializer_list<std::pair<Type, Index>> rows) {
  double bytes = 0;
  for (const auto& [type, depth] : rows)
    bytes += static_cast<double>(tiles::bytes_of_row(type, depth));
  return bytes;
}

double bytes_of_rows(const tiles::AttentionProblem& p, const tiles::Cut& cut, Index shared) {
  const auto queries = static_cast<double>(cut.count * cut.sequence.seq_q * p.heads);
  const auto keys = static_cast<double>(cut.count * cut.sequence.seq_kv * p.kv_heads -
                                        shared / cut.row_blocks * cut.part_kv);
  return queries * bytes_of({{p.q.type, p.d_k}, {p.out.type, p.d_v}}) +
         keys * (bytes_of({{p.k.type, p.d_k}, {p.v.type, p.d_v}}) + (p.k_scales ? 4.0 : 0.0) +
                 (p.v_scales ? 4.0 : 0.0));
}

double bytes_of_rows(const tiles::BackwardProblem& p, const tiles::BackwardCut& cut) {
  const Index d_k = p.forward.d_k, d_v = p.forward.d_v;
  const auto queries = static_cast<double>(cut.count * cut.sequence.seq_q * p.forward.heads);
  const auto keys = static_cast<double>(cut.count * cut.sequence.seq_kv * p.forward.kv_heads);
  return queries * bytes_of({{p.forward.q.type, d_k},
                             {p.out.type, d_v},
                             {p.grad_out.type, d_v},
                             {p.grad_q.type, d_k}}) +
         keys * bytes_of({{p.forward.k.type, d_k},
                          {p.forward.v.type, d_v},
                          {p.grad_k.type, d_k},
                          {p.grad_v.type, d_v}});
}

// What both passes say of themselves alike; but the cuts.
template <class Plan>
Explanation explain_plan(const tiles::AttentionProblem& problem, const Plan& plan) {
  Explanation e;
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
  return e;
}

template <class Cut>
Explanation::Cut explain_cut(const Cut& cut, const char* algorithm, Index units) {
  Explanation::Cut c;
  c.elements = cut.count;
  c.seq_q = cut.sequence.seq_q;
  c.seq_kv = cut.sequence.seq_kv;
  c.algorithm = algorithm;
  c.block_q = cut.block_q;
  c.block_kv = cut.block_kv;
  c.units = units;
  c.parts = cut.parts;
  return c;
}

}  // namespace

Explanation explain(const tiles::AttentionProblem& problem, const tiles::AttentionPlan& plan) {
  Explanation e = explain_plan(problem, plan);
  e.bench_case = case_of(problem, plan);
  for (const tiles::Cut& cut : plan.cuts) {
    Explanation::Cut c =
        explain_cut(cut, cut.algorithm->name, cut.count * problem.kv_heads * cut.row_blocks);
    c.part_kv = cut.part_kv;
    for (const auto& [name, reason] : refusals(problem, *plan.kernels, cut.sequence)) {
      if (c.algorithm == name) break;
      c.refused.push_back({name, reason});
    }
    e.cuts.push_back(c);
    const Index shared = shared_tasks(problem, plan, cut);
    e.shared_tasks += shared;
    e.bytes += bytes_of_rows(problem, cut, shared);
  }
  for (Index unit = 0; unit < plan.units; ++unit) {
    const tiles::Cut& cut = cut_of_unit(plan, unit);
    const tiles::Rows rows = rows_of_unit(problem, cut, unit);
    const bool few =
        cut.algorithm == &tiles::kFlashRows || cut.algorithm == &tiles::kFlashRowsPairs;
    const Index panel = few ? rows.count : plan.tile->columns;
    count_tiles(
        rows, panel, cut.block_kv, problem.d_k + problem.d_v,
        [](tiles::Keys keys, tiles::Keys reachable) {
          return tiles::Keys{std::max(keys.begin, reachable.begin),
                             std::min(keys.end, reachable.end)};
        },
        e);
  }
  return e;
}

Explanation explain(const tiles::BackwardProblem& problem, const tiles::BackwardPlan& plan) {
  const tiles::AttentionProblem& p = problem.forward;
  Explanation e = explain_plan(p, plan);
  e.bench_case = case_of(problem, plan);
  e.sum_tasks = plan.head_tasks + plan.bias_tasks;
  for (const tiles::BackwardCut& cut : plan.cuts) {
    const Index units = cut.count * p.kv_heads;
    Explanation::Cut c = explain_cut(cut, plan.name(), units);
    if (!plan.pairs()) c.refused.push_back({tiles::kBackwardPairsName, plan.refuse_pairs});
    c.part_rows = cut.part_rows;
    e.cuts.push_back(c);
    e.bytes += bytes_of_rows(problem, cut);
    for (Index i = 0; i < units; ++i) {
      count_tiles(
          rows_of_unit(problem, cut, cut.first_unit + i), plan.tile->columns, cut.block_kv,
          3 * p.d_k + 2 * p.d_v,
          [](tiles::Keys keys, tiles::Keys reachable) {
            return tiles::Keys{keys.begin, std::min(keys.end, reachable.end)};
          },
          e);
    }
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
    if (cut.part_rows > 0) {
      line("             %lld units, a KV head each, tiles of %lld rows x %lld keys", n(cut.units),
           n(cut.block_q), n(cut.block_kv));
      if (cut.parts > 1)
        line("             each in %lld parts of %lld rows, added in order", n(cut.parts),
             n(cut.part_rows));
      continue;
    }
    line("             %lld units of up to %lld rows, steps of %lld keys", n(cut.units),
         n(cut.block_q), n(cut.block_kv));
    if (cut.parts > 1)
      line("             each in %lld parts of %lld keys, merged in order", n(cut.parts),
           n(cut.part_kv));
  }
  line("tasks        %lld in %lld waves", n(tasks), n(waves));
  if (shared_tasks > 0)
    line("             %lld of them read keys that others read, once for all", n(shared_tasks));
  if (sum_tasks > 0)
    line("             then %lld for gradients that heads and batch elements share", n(sum_tasks));
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
