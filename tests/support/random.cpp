// SplitMix64 and normal numbers.
#include "support/random.hpp"

#include <cmath>

namespace rapt::tests {

// Steele, Lea, Flood 2014.
std::uint64_t Random::bits() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Box-Muller.
double Random::normal() {
  return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform());
}

}  // namespace rapt::tests
