#include "search.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>

#include "problems.hpp"
#include "race.hpp"
#include "rapt/config.hpp"
#include "trial.hpp"

namespace rapt::tune {
namespace {

using config::AttentionRow;
using config::Caches;
using config::GemmRow;
using config::Tile;

config::Registers registers_of(const kernels::Kernels& kernels) {
  return {kernels.lanes, kernels.registers, kernels.paired_rows};
}

std::string text_of(const Subject& subject, const AttentionRow& row) {
  return config::format({{{subject.kernels->target, {row}, std::nullopt}}});
}
std::string text_of(const Subject& subject, const GemmRow& row) {
  return config::format({{{subject.kernels->target, {}, row}}});
}

// What races share: the problems, timed for as long as the effort lasts.
class Track {
 public:
  // Takes the shapes that the time allows: a call of one should leave room for kCalls of them. At
  // least one.
  Track(const Subject& subject, std::vector<Shape> shapes, const Effort& effort,
        const Report& report)
      : effort_(effort), report_(report) {
    constexpr double kCalls = 200;
    std::sort(shapes.begin(), shapes.end(),
              [](const Shape& a, const Shape& b) { return a.flops() < b.flops(); });
    const std::string text = subject.default_text();
    double seconds_per_flop = 0;
    for (const Shape& shape : shapes) {
      if (shape.flops() * seconds_per_flop * kCalls > std::max(effort.left(), 0.0)) break;
      trials_.push_back(std::make_unique<Trial>(shape, 1));
      const double seconds = trials_.back()->seconds(text);
      seconds_per_flop = seconds / shape.flops();
      weights_.weights.push_back(time_weight(shape, seconds));
    }
  }

  std::size_t size() const { return trials_.size(); }

  template <class Row>
  RaceResult race(const std::string& step, const Subject& subject,
                  const std::vector<Row>& rows) const {
    std::vector<std::string> texts;
    for (const Row& row : rows) texts.push_back(text_of(subject, row));
    return tune::race(texts.size(), weights_, effort_.rounds, measure(step, texts),
                      [this] { return effort_.out_of_time(); });
  }

  Duel duel(const std::string& by_default, const std::string& challenger) const {
    return tune::duel(weights_, effort_.rounds + 1, measure("duel", {by_default, challenger}),
                      [this] { return effort_.out_of_time(); });
  }

 private:
  Measure measure(const std::string& step, std::vector<std::string> texts) const {
    return [this, step, texts = std::move(texts)](std::size_t candidate, std::size_t shape) {
      report_(step + ", " + trials_[shape]->shape().name);
      return trials_[shape]->seconds(texts[candidate]);
    };
  }

  const Effort& effort_;
  const Report& report_;
  std::vector<std::unique_ptr<Trial>> trials_;
  Shapes weights_{std::vector<double>()};
};

// value * factor as a multiple of `step` that the format takes.
std::int64_t scaled(std::int64_t value, double factor, std::int64_t step) {
  constexpr std::int64_t kMost = 4096;
  const auto wanted = static_cast<std::int64_t>(static_cast<double>(value) * factor);
  return std::clamp<std::int64_t>((wanted + step / 2) / step, 1,
                                  std::max<std::int64_t>(kMost / step, 1)) *
         step;
}

template <class Row>
void add(std::vector<Row>& rows, const Row& row) {
  if (std::find(rows.begin(), rows.end(), row) == rows.end()) rows.push_back(row);
}

// A step of the search: the candidates, the default first, and the best found so far.
template <class Row>
struct Step {
  std::vector<Row> rows;
  Step(const Row& by_default, const Row& best) : rows{by_default} { add(rows, best); }
  void operator()(const Row& row) { add(rows, row); }
  Row winner(const Track& track, const std::string& name, const Subject& subject) const {
    return rows[track.race(name, subject, rows).winner()];
  }
};

constexpr double kHalves[] = {0.5, 1, 2}, kQuarters[] = {0.25, 0.5, 1, 2, 4},
                 kThirds[] = {2 / 3.0, 1, 1.5};

std::vector<double> first_factors(const Effort& effort) {
  return effort.wide ? std::vector<double>(std::begin(kQuarters), std::end(kQuarters))
                     : std::vector<double>(std::begin(kHalves), std::end(kHalves));
}
const std::vector<double> kFiner(std::begin(kThirds), std::end(kThirds));

std::int64_t columns(const kernels::Kernels& kernels, Tile tile) {
  return std::int64_t{tile.vectors} * kernels.lanes;
}

// What the threshold between few rows and many is, and the problems that show it.
template <class Row>
struct FewRows {
  std::int64_t Row::* limit;
  std::function<std::vector<Shape>(std::size_t rows)> shapes;
};

template <class Row>
std::int64_t few_rows_limit(const Subject& subject, const Row& row, const Row& by_default,
                            const FewRows<Row>& few_rows_of, const Effort& effort,
                            const Report& report) {
  constexpr std::int64_t kAlways = 8192;
  std::vector<std::vector<double>> few, many;  // [shape][number of rows], seconds
  for (const std::size_t n : few_rows()) {
    const Track track(subject, few_rows_of.shapes(n), effort, report);
    Row always = row, never = row;
    always.*few_rows_of.limit = kAlways;
    never.*few_rows_of.limit = 0;
    const RaceResult result = track.race("few rows", subject, std::vector<Row>{always, never});
    if (result.rounds == 0) return by_default.*few_rows_of.limit;  // out of time
    few.resize(track.size());
    many.resize(track.size());
    for (std::size_t shape = 0; shape < track.size(); ++shape) {
      few[shape].push_back(result.seconds[0][shape]);
      many[shape].push_back(result.seconds[1][shape]);
    }
  }
  // Where the shapes disagree, the one that wants the least change is followed, so that none loses.
  const auto limit = static_cast<std::size_t>(by_default.*few_rows_of.limit);
  std::size_t least = std::numeric_limits<std::size_t>::max(), most = 0;
  for (std::size_t shape = 0; shape < few.size(); ++shape) {
    if (few[shape].size() != few_rows().size())
      return by_default.*few_rows_of.limit;  // left out for its length
    const std::size_t its_own = crossover(few_rows(), few[shape], many[shape], limit);
    least = std::min(least, its_own);
    most = std::max(most, its_own);
  }
  return static_cast<std::int64_t>(std::clamp(limit, least, most));
}

AttentionRow search_blocks(const Subject& subject, const AttentionRow& by_default,
                           const Track& track, const Effort& effort) {
  const kernels::Kernels& kernels = *subject.kernels;
  AttentionRow best = by_default;
  const auto blocks = [&](const std::string& name, const std::vector<double>& factors) {
    Step<AttentionRow> step(by_default, best);
    for (const double q : factors) {
      for (const double kv : factors) {
        AttentionRow row = best;
        row.block_q = scaled(best.block_q, q, columns(kernels, best.tile));
        row.block_kv = scaled(best.block_kv, kv, 16);
        step(row);
      }
    }
    best = step.winner(track, name, subject);
  };
  blocks("blocks", first_factors(effort));

  Step<AttentionRow> tiles(by_default, best);
  for (int i = 0; i < kernels.n_tiles; ++i) {
    AttentionRow row = best;
    row.tile = {kernels.tiles[i].rows, kernels.tiles[i].vectors};
    tiles(row);
    // A panel is as wide as its tile: the scores of a block take the same place in L1 with more or
    // fewer keys.
    row.block_kv = scaled(best.block_kv, double(best.tile.vectors) / row.tile.vectors, 16);
    tiles(row);
  }
  best = tiles.winner(track, "register tile", subject);

  blocks("blocks, finer", kFiner);

  Step<AttentionRow> parts(by_default, best);
  for (const double factor : {0.25, 0.5, 2.0}) {
    AttentionRow row = best;
    row.split_kv = scaled(best.split_kv, factor, 16);
    parts(row);
  }
  return parts.winner(track, "keys of a part", subject);
}

GemmRow search_blocks(const Subject& subject, const GemmRow& by_default, const Track& track,
                      const Effort& effort) {
  const kernels::Kernels& kernels = *subject.kernels;
  GemmRow best = by_default;
  Step<GemmRow> tiles(by_default, best);
  for (int i = 0; i < kernels.n_tiles; ++i) {
    GemmRow row = best;
    row.tile = {kernels.tiles[i].rows, kernels.tiles[i].vectors};
    tiles(row);
    row.block_k = scaled(best.block_k, double(best.tile.vectors) / row.tile.vectors, 16);
    tiles(row);
  }
  best = tiles.winner(track, "register tile", subject);

  const auto blocks = [&](const std::string& name, const std::vector<double>& factors) {
    Step<GemmRow> depth(by_default, best);
    for (const double k : factors) {
      for (const double m : factors) {
        GemmRow row = best;
        row.block_k = scaled(best.block_k, k, 16);
        row.block_m = scaled(best.block_m, m, best.tile.rows);
        depth(row);
      }
    }
    best = depth.winner(track, name, subject);
    Step<GemmRow> width(by_default, best);
    for (const double n : factors) {
      GemmRow row = best;
      row.block_n = scaled(best.block_n, n, columns(kernels, best.tile));
      width(row);
    }
    best = width.winner(track, name, subject);
  };
  blocks("blocks", first_factors(effort));
  blocks("blocks, finer", kFiner);

  Step<GemmRow> packed(by_default, best);
  for (const std::int64_t kib : {1024, 4096, 16384, 65536, 262144}) {
    GemmRow row = best;
    row.packed_kib = kib;
    packed(row);
  }
  return packed.winner(track, "size of b from which a is packed", subject);
}

// The problems with so few rows that two rows of the config choose different algorithms for them.
template <class Row>
std::vector<Shape> disputed(const FewRows<Row>& few, const Row& a, const Row& b) {
  std::vector<Shape> shapes;
  for (const std::size_t rows : few_rows()) {
    const auto n = static_cast<std::int64_t>(rows);
    if ((n <= a.*few.limit) == (n <= b.*few.limit)) continue;
    for (const Shape& shape : few.shapes(rows)) shapes.push_back(shape);
  }
  return shapes;
}

// Two duels against the default, on the problems that the row was made for. 0: not both were won.
template <class Row>
double confirmed_gain(const Subject& subject, const Row& by_default, const Row& row,
                      std::vector<Shape> shapes, const FewRows<Row>& few, const Effort& effort,
                      const Report& report) {
  for (const Shape& shape : disputed(few, by_default, row)) shapes.push_back(shape);
  const Track track(subject, shapes, effort, report);
  double gain = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 2; ++i) {
    const Duel duel = track.duel(text_of(subject, by_default), text_of(subject, row));
    if (duel.rounds < 2 || duel.gain() < kMargin || duel.loses_anywhere()) return 0;
    gain = std::min(gain, duel.gain());
  }
  return gain;
}

template <class Row>
SearchResult search_and_confirm(const Subject& subject, const Row& by_default,
                                const std::vector<Shape>& shapes, const FewRows<Row>& few,
                                const Effort& effort, const Report& report) {
  // A third of the time is for the duels.
  Effort searching = effort;
  searching.deadline -= std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(effort.left() / 3));
  const Track track(subject, shapes, searching, report);
  const Row blocks = search_blocks(subject, by_default, track, searching);
  Row both = blocks, limit = by_default;
  both.*few.limit = few_rows_limit(subject, blocks, by_default, few, searching, report);
  limit.*few.limit = both.*few.limit;

  std::vector<Row> rows;
  for (const Row& row : {both, blocks, limit}) {
    if (row != by_default) add(rows, row);
  }
  SearchResult result;
  for (const Row& row : rows) {
    const double gain = confirmed_gain(subject, by_default, row, shapes, few, effort, report);
    if (gain > 0) result.found.push_back({text_of(subject, row), gain});
  }
  if (rows.empty()) {
    result.why_none =
        searching.out_of_time() ? "the time was too short to search" : "nothing was faster";
  } else if (result.found.empty()) {
    result.why_none = effort.out_of_time() ? "the time was too short to be sure of better"
                                           : "no candidate beat it by 2 % twice and lost nowhere";
  }
  return result;
}

}  // namespace

std::string Subject::name() const {
  const std::string target = kernels->target;
  return head_size == 0 ? "gemm " + target
                        : "attention " + target + " d=" + std::to_string(head_size);
}

std::string Subject::default_text() const {
  const Caches& caches = config::machine_caches();
  return head_size == 0 ? text_of(*this, config::default_gemm_row(caches, registers_of(*kernels)))
                        : text_of(*this, config::default_attention_row(
                                             caches, registers_of(*kernels), head_size));
}

SearchResult search(const Subject& subject, const std::vector<Shape>& shapes, const Effort& effort,
                    const Report& report) {
  set_target(subject.kernels->target);
  const Caches& caches = config::machine_caches();
  const config::Registers registers = registers_of(*subject.kernels);
  if (subject.head_size == 0) {
    return search_and_confirm<GemmRow>(subject, config::default_gemm_row(caches, registers), shapes,
                                       {&GemmRow::direct_rows, gemm_with_rows}, effort, report);
  }
  const auto with_rows = [&](std::size_t rows) {
    return attention_with_rows(rows, subject.head_size);
  };
  return search_and_confirm<AttentionRow>(
      subject, config::default_attention_row(caches, registers, subject.head_size), shapes,
      {&AttentionRow::short_rows, with_rows}, effort, report);
}

}  // namespace rapt::tune
