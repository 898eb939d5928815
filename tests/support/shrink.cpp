// Shrinking, field by field.
#include "support/shrink.hpp"

#include <gtest/gtest-spi.h>

#include <cstdlib>

namespace rapt::tests {
namespace {

// One step of a field towards its simplest value: all the way, half of it, or by one. A step that
// changes nothing is none.
constexpr int kSteps = 3;

template <class T>
void step(int how, T& value, const T& simplest) {
  if (how == 0) value = simplest;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (how == 1) value = simplest + (value - simplest) / 2;
    if (how == 2 && value != simplest) value > simplest ? --value : ++value;
  }
}
template <class T>
void step(int how, std::optional<T>& value, const std::optional<T>&) {
  if (how == 0) value.reset();
  if (value) step(how, *value, T{});
}
void step(int how, std::vector<std::int64_t>& batch, const std::vector<std::int64_t>&) {
  if (how == 0) batch.clear();
  if (how == 1 && !batch.empty()) batch.pop_back();
  if (how == 2) {
    for (std::int64_t& extent : batch) {
      if (extent > 1) return void(--extent);
    }
  }
}

}  // namespace

AttentionCase shrink(AttentionCase smallest, const Fails& fails) {
  AttentionCase simplest;
  simplest.dense = true;
  simplest.seed = smallest.seed;
  bool smaller = true;
  const auto take = [&](const AttentionCase& c) {
    if (c.describe() == smallest.describe() || !c.valid() || !fails(c)) return false;
    smallest = c;
    return smaller = true;
  };
  while (smaller) {
    smaller = false;
    for (int field = 0, fields = 1; field < fields; ++field) {
      for (int how = 0; how < kSteps;) {
        AttentionCase c = smallest;
        fields = 0;
        for_each_field(
            [&](const char*, auto& value, const auto& goal) {
              if (fields++ == field) step(how, value, goal);
            },
            c, std::as_const(simplest));
        if (!take(c)) ++how;
      }
    }
    // Two fields that must go together: fewer KV heads of the same group, and a smaller group.
    AttentionCase fewer = smallest, group = smallest;
    fewer.heads -= fewer.heads / fewer.kv_heads;
    --fewer.kv_heads;
    group.heads -= group.kv_heads;
    if (!take(fewer)) take(group);
  }
  return smallest;
}

Outcome outcome(const std::function<void()>& body) {
  testing::TestPartResultArray results;
  const testing::ScopedFakeTestPartResultReporter reporter(
      testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
  try {
    body();
  } catch (const std::exception&) {
    return Outcome::thrown;
  }
  for (int i = 0; i < results.size(); ++i) {
    if (results.GetTestPartResult(i).failed()) return Outcome::wrong;
  }
  return Outcome::right;
}

void for_each_case(const Seeds& seeds, const std::function<AttentionCase(std::uint64_t)>& draw,
                   const std::function<void(const AttentionCase&)>& test) {
  if (const char* text = std::getenv("RAPT_TEST_CASE")) return test(AttentionCase::parse(text));
  bool shrunk = false;
  seeds.for_each([&](std::uint64_t seed) {
    const AttentionCase c = draw(seed);
    const auto of = [&](const AttentionCase& any) { return outcome([&] { test(any); }); };
    const Outcome first = of(c);
    if (first == Outcome::right) return;
    if (!shrunk) {  // a wrong kernel fails many cases: one of them is enough to look at
      shrunk = true;
      const AttentionCase small =
          shrink(c, [&](const AttentionCase& any) { return of(any) == first; });
      const auto& info = *testing::UnitTest::GetInstance()->current_test_info();
      ADD_FAILURE() << "the smallest case like it, alone: RAPT_TEST_CASE=\"" << small.describe()
                    << "\" <program> --gtest_filter=" << info.test_suite_name() << "."
                    << info.name();
    }
    test(c);  // again, so that its failures count
  });
}

}  // namespace rapt::tests
