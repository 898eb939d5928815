// How many threads a container's control groups leave us: against trees of files like those of
// Docker, systemd and Kubernetes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "parallel/quota.hpp"

namespace rapt::tests {
namespace {

namespace fs = std::filesystem;

class Quota : public testing::Test {  // B9, R24
 protected:
  Quota() {
    std::string name = (fs::temp_directory_path() / "rapt-quota-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  ~Quota() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void group(const std::string& text) { write("proc/self/cgroup", text); }
  int cores() { return parallel::cpu_quota(root_); }

  fs::path root_;
};

TEST_F(Quota, IsNoneWhereThereAreNoGroups) {
  EXPECT_EQ(cores(), 0);
  group("0::/\n");
  EXPECT_EQ(cores(), 0);
}

TEST_F(Quota, OfVersion2) {
  group("0::/\n");
  for (const auto& [text, expected] : {std::pair{"max 100000\n", 0},
                                       {"400000 100000\n", 4},
                                       {"150000 100000\n", 2},
                                       {"1000 100000\n", 1},
                                       {"50000 25000\n", 2},
                                       {"", 0},
                                       {"0 100000\n", 0},
                                       {"-1 100000\n", 0},
                                       {"100000 0\n", 0},
                                       {"nonsense\n", 0},
                                       {"1e300 1\n", 0}}) {
    write("sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(cores(), expected) << text;
  }
}

TEST_F(Quota, IsTheLeastOfAGroupAndThoseAboveIt) {
  group("0::/kubepods.slice/pod7.slice/box.scope\n");
  write("sys/fs/cgroup/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/kubepods.slice/cpu.max", "1600000 100000\n");
  EXPECT_EQ(cores(), 16);
  write("sys/fs/cgroup/kubepods.slice/pod7.slice/cpu.max", "300000 100000\n");
  EXPECT_EQ(cores(), 3);
  write("sys/fs/cgroup/kubepods.slice/pod7.slice/box.scope/cpu.max", "800000 100000\n");
  EXPECT_EQ(cores(), 3);
}

TEST_F(Quota, OfVersion1) {
  group("12:memory:/docker/0a1b\n4:cpu,cpuacct:/docker/0a1b\n1:name=systemd:/docker/0a1b\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cores(), 0);
  // Inside the container its group is the root of the mount, and the path leads nowhere.
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
  EXPECT_EQ(cores(), 3);
  write("sys/fs/cgroup/cpu,cpuacct/docker/0a1b/cpu.cfs_quota_us", "100000\n");
  write("sys/fs/cgroup/cpu,cpuacct/docker/0a1b/cpu.cfs_period_us", "50000\n");
  EXPECT_EQ(cores(), 2);
}

TEST_F(Quota, OfCpusetIsNotOfCpu) {
  group("3:cpuset:/box\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cores(), 0);
}

TEST_F(Quota, OfBothVersionsAtOnce) {
  group("4:cpu:/box\n0::/box\n");
  write("sys/fs/cgroup/unified/box/cpu.max", "500000 100000\n");
  EXPECT_EQ(cores(), 5);
  write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "400000\n");
  write("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cores(), 4);
}

TEST_F(Quota, IgnoresPathsThatLeaveTheMountAndBrokenLines) {
  group("0::/../../elsewhere\nbroken\n:\n0:\n");
  write("elsewhere/cpu.max", "100000 100000\n");
  EXPECT_EQ(cores(), 0);
}

}  // namespace
}  // namespace rapt::tests
