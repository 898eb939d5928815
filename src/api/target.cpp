// targets(), target(), set_target().
#include <string>
#include <vector>

#include "kernels/kernels.hpp"
#include "plan/target.hpp"
#include "rapt/config.hpp"

namespace rapt {

std::vector<std::string> targets() {
  const kernels::KernelList all = kernels::all();
  std::vector<std::string> names;
  for (int i = 0; i < all.size; ++i) names.emplace_back(all.list[i]->target);
  return names;
}

std::string target() { return plan::current_kernels().target; }

void set_target(std::string_view name) { plan::choose_target(name); }

}  // namespace rapt
