#include "plan/rows.hpp"

#include <algorithm>
#include <optional>

#include "kernels/kernels.hpp"

namespace rapt::plan {
namespace {

const kernels::Kernels* kernels_of(const std::string& target) {
  const kernels::KernelList all = kernels::all();
  for (int i = 0; i < all.size; ++i) {
    if (target == all.list[i]->target) return all.list[i];
  }
  return nullptr;
}

std::string text_of(const config::Tile& tile) {
  return std::to_string(tile.rows) + "x" + std::to_string(tile.vectors);
}

// The row, of which `text` is all that a config of it alone has.
JudgedRow judge(const std::string& target, const config::Tile& tile, std::string text) {
  text.pop_back();  // the end of the line
  const kernels::Kernels* const kernels = kernels_of(target);
  if (kernels == nullptr)
    return {text, RowUse::unused, target + " is not in this build, or not run by this CPU"};
  const auto* const end = kernels->tiles + kernels->n_tiles;
  if (std::none_of(kernels->tiles, end, [&](const kernels::TileKernel& t) {
        return t.rows == tile.rows && t.vectors == tile.vectors;
      })) {
    return {text, RowUse::stale,
            "no kernel of this build has the tile " + text_of(tile) +
                ": its blocks are used with " +
                text_of({kernels->tiles[0].rows, kernels->tiles[0].vectors})};
  }
  if (kernels == kernels::all().list[0]) return {text, RowUse::used, "by the best target"};
  return {text, RowUse::used, "where " + target + " is the target that was asked for"};
}

}  // namespace

std::vector<JudgedRow> judge_rows(const config::Config& config) {
  std::vector<JudgedRow> judged;
  for (const config::TargetRows& rows : config.targets) {
    for (const config::AttentionRow& row : rows.attention)
      judged.push_back(
          judge(rows.target, row.tile, config::format({{{rows.target, {row}, std::nullopt}}})));
    if (rows.gemm)
      judged.push_back(
          judge(rows.target, rows.gemm->tile, config::format({{{rows.target, {}, rows.gemm}}})));
  }
  if (config::fits(config)) return judged;
  for (JudgedRow& row : judged) {
    row.use = RowUse::unused;
    row.why = config::misfit(config);
  }
  return judged;
}

}  // namespace rapt::plan
