// Gate B: the error against f64 is no larger than that of plain f32 code which stores the whole
// score matrix; and on random data it stays within an eighth of the a-priori bound.
#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "support/attention_case.hpp"
#include "support/plain.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

AttentionCase square(std::int64_t n, Data values) {
  AttentionCase c;
  c.heads = c.kv_heads = 2;
  c.seq_q = 97;
  c.seq_kv = n;
  c.d_k = c.d_v = 64;
  c.data = values;
  c.dense = true;
  c.seed = static_cast<std::uint64_t>(n);
  return c;
}

TEST(AttentionAccuracy, IsNotWorseThanPlainF32) {
  for (std::int64_t n : {128, 512, 1500}) {
    if (n > 128 && few_cases()) continue;
    // Sums of the squared ratios, by the number of the way.
    std::map<int, double> rms, max;
    int kinds = 0;
    for (Data values : {Data::normal, Data::large_queries, Data::value_mean_1, Data::rising,
                        Data::falling, Data::equal}) {
      const AttentionCase c = square(n, values);
      AttentionData data(c);
      const auto expected = data.expect();
      const std::vector<float> plain = plain_attention(data.problem({}));
      ASSERT_EQ(static_cast<std::int64_t>(plain.size()), data.out.size());
      const double* const reference = expected[0].out.data();
      Errors plain_errors;
      for (std::size_t i = 0; i < plain.size(); ++i) plain_errors.add(plain[i] - reference[i]);
      ++kinds;
      int way = 0;
      for_each_way({few_keys_lanes(64), few_keys_rows(64)}, [&] {
        data.run();
        data.check(expected, values == Data::normal || values == Data::value_mean_1);
        Errors errors;
        for (std::int64_t i = 0; i < data.out.size(); ++i) errors.add(data.out[i] - reference[i]);
        const double rms_ratio = errors.rms() / plain_errors.rms();
        const double max_ratio = errors.max / plain_errors.max;
        // One draw of 194 rows says an rms within 5 %: both may sum d_k in the same order, and then
        // differ by chance alone. Its maximum is one element.
        EXPECT_LE(rms_ratio, 1.05) << c.describe();
        EXPECT_LE(max_ratio, 1.25) << c.describe();
        rms[way] += rms_ratio * rms_ratio;
        max[way++] += max_ratio * max_ratio;
      });
    }
    for (const auto& [way, sum] : rms)
      EXPECT_LE(sum / kinds, 1) << "rms, n " << n << ", way " << way;
    for (const auto& [way, sum] : max)
      EXPECT_LE(sum / kinds, 1) << "max, n " << n << ", way " << way;
  }
}

}  // namespace
}  // namespace rapt::tests
