#include "parallel/quota.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

namespace rapt::parallel {
namespace {

namespace fs = std::filesystem;

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

double cores(double quota, double period) {
  return quota > 0 && period > 0 ? quota / period : kNoLimit;
}

// "max 100000", or "150000 100000": microseconds in each period.
double limit_v2(const fs::path& group) {
  std::ifstream file(group / "cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? cores(quota, period) : kNoLimit;
}

// A quota of -1 is no limit.
double limit_v1(const fs::path& group) {
  std::ifstream quota_file(group / "cpu.cfs_quota_us"), period_file(group / "cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period ? cores(quota, period) : kNoLimit;
}

// The least limit of a group and of all above it. Inside a container the group's path may be the
// host's and lead nowhere: the mount's own limit is then the container's.
double least(const fs::path& mount, const std::string& group, double (*limit)(const fs::path&)) {
  double result = limit(mount);
  fs::path at = mount;
  for (const fs::path& name : fs::path(group).relative_path()) {
    if (name == "..") break;
    at /= name;
    result = std::min(result, limit(at));
  }
  return result;
}

}  // namespace

int cpu_quota(const fs::path& root) {
  const fs::path mounts = root / "sys/fs/cgroup";
  std::ifstream groups(root / "proc/self/cgroup");
  double limit = kNoLimit;
  // "0::/group" is version 2, "4:cpu,cpuacct:/group" version 1.
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") {
      for (const char* mount : {"", "unified"})
        limit = std::min(limit, least(mounts / mount, group, limit_v2));
    } else if (controllers.find(",cpu,") != std::string::npos) {
      for (const char* mount : {"cpu", "cpu,cpuacct"})
        limit = std::min(limit, least(mounts / mount, group, limit_v1));
    }
  }
  if (limit > std::numeric_limits<std::int16_t>::max()) return 0;
  return std::max(static_cast<int>(std::ceil(limit)), 1);
}

}  // namespace rapt::parallel
