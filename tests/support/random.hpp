// Random numbers that are the same on every machine and standard library, so that a printed seed is
// enough to see a failure again.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace rapt::tests {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits();
  std::int64_t between(std::int64_t least, std::int64_t most) {
    const auto range = static_cast<std::uint64_t>(most - least) + 1;
    return least + static_cast<std::int64_t>(bits() % range);
  }
  bool percent(int chance) { return between(0, 99) < chance; }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  double normal();
  template <class T>
  T pick(std::initializer_list<T> list) {
    return list.begin()[between(0, static_cast<std::int64_t>(list.size()) - 1)];
  }

 private:
  std::uint64_t state_;
};

}  // namespace rapt::tests
