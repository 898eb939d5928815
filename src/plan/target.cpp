// The one piece of state that says which ISA target runs.
#include "plan/target.hpp"

#include <atomic>
#include <string>

#include "config/config.hpp"
#include "rapt/error.hpp"

namespace rapt::plan {
namespace {

const kernels::Kernels* find(std::string_view name) {
  const kernels::KernelList list = kernels::all();
  if (name.empty()) return list.list[0];
  std::string known;
  for (int i = 0; i < list.size; ++i) {
    if (name == list.list[i]->target) return list.list[i];
    known += std::string(i == 0 ? "" : ", ") + list.list[i]->target;
  }
  throw Error(ErrorCode::unknown_target,
              "ISA target " + std::string(name) +
                  " is unknown, not in this build, or not run by this CPU, which runs " + known);
}

std::atomic<const kernels::Kernels*> chosen{nullptr};

}  // namespace

const kernels::Kernels& current_kernels() {
  const kernels::Kernels* kernels = chosen.load(std::memory_order_acquire);
  if (kernels == nullptr) {
    const char* wanted = config::environment("RAPT_TARGET");
    const kernels::Kernels* found = find(wanted == nullptr ? "" : wanted);
    // A set_target in another thread that came first stays.
    if (chosen.compare_exchange_strong(kernels, found)) kernels = found;
  }
  return *kernels;
}

void choose_target(std::string_view name) { chosen.store(find(name), std::memory_order_release); }

}  // namespace rapt::plan
