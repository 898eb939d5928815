// load_config(), config_report(), config_text().
#include "rapt/config.hpp"

#include "config/config.hpp"
#include "plan/rows.hpp"

namespace rapt {
namespace {

ConfigReport report_of(const config::Config& config) {
  ConfigReport report;
  report.source = config.source;
  report.refused = config.refused;
  for (const plan::JudgedRow& row : plan::judge_rows(config)) {
    ++report.read;
    ++(row.use == plan::RowUse::unused ? report.ignored : report.used);
    if (row.use != plan::RowUse::used && report.reason.empty())
      report.reason = row.text + ": " + row.why;
  }
  return report;
}

}  // namespace

ConfigReport load_config(std::string_view text) { return report_of(*config::load(text)); }

ConfigReport config_report() { return report_of(*config::current()); }

std::string config_text() {
  // Never empty, because load_config takes an empty text for something else.
  return "// What has no row here is computed from the cache sizes of the machine.\n" +
         config::format(*config::current());
}

std::string ConfigReport::text() const {
  std::string lines = "config " + source + ": " + std::to_string(read) + " rows, " +
                      std::to_string(used) + " used, " + std::to_string(ignored) + " ignored\n";
  if (!reason.empty()) lines += reason + "\n";
  for (const std::string& file : refused) lines += "not " + file + "\n";
  return lines;
}

}  // namespace rapt
