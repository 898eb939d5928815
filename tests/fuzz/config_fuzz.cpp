// Any text at all: the parser of the config takes it or refuses it with the line, and what it takes
// comes back from its own spelling as it was.
//
//     build/fuzz/tests/fuzz_config -max_total_time=600 NEW tests/fuzz/config
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "config/config.hpp"
#include "plan/rows.hpp"
#include "rapt/error.hpp"

namespace {

void must(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rapt;  // NOLINT(google-build-using-namespace)
  // A copy that ends where the text ends, so that AddressSanitizer sees a read beyond it.
  std::string text(reinterpret_cast<const char*>(data), size);
  text.shrink_to_fit();
  config::Config config;
  try {
    config = config::parse(text);
  } catch (const Error& error) {
    must(error.code() == ErrorCode::bad_config);
    must(std::strncmp(error.what(), "config line ", 12) == 0);
    must(std::strlen(error.what()) < 250);
    return 0;
  }
  const std::string formatted = config::format(config);
  const config::Config again = config::parse(formatted);
  must(config::format(again) == formatted);
  must(again.cpus == config.cpus);
  std::size_t rows = 0;
  for (const config::TargetRows& target : config.targets)
    rows += target.attention.size() + target.gemm.has_value();
  must(plan::judge_rows(config).size() == rows);
  return 0;
}
