#include "support/backward_case.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/bounds.hpp"

namespace rapt::tests {
namespace {

using namespace rapt::reference;

// The rows of an array packed like q, or the batch element of one that is not.
template <class AnyView>
AnyView keys_of(const AnyView& view, const AttentionData& data, const Batch& batch,
                std::int64_t n) {
  const AttentionOptions options = data.options();
  std::int64_t first = 0;
  if (options.cu_seqlens_kv) first = options.cu_seqlens_kv.data()[batch.position[0]];
  return slice<Key>(options.cu_seqlens_kv ? view : batch_element(view, batch), first, n);
}

// One more rounding of each of n summands and of the sums in between, in blocks of any size.
double long_sum_error(double n) { return sum_error(3 * n + 4); }

}  // namespace

ExpectedGradients expect_gradients(const Problem<float>& problem, Type out_type, bool rounded,
                                   View<const float, Head, Query, DepthV> dout,
                                   View<const float, Head, Query> dlse) {
  const Salience map = salience(problem);
  const Gradients d = backward(problem, map, dout, dlse);
  ExpectedGradients expected{BoundedArray(d.q),
                             BoundedArray(d.k),
                             BoundedArray(d.v),
                             BoundedArray(d.bias),
                             BoundedArray(d.alibi_slopes),
                             BoundedArray(d.sinks)};
  const ExpectedAttention forward = expect_attention(problem, rounded);
  const double rounding = rounded ? 0x1p-8 : 0;
  const AttentionOptions& options = problem.options;
  const double scale = std::abs(problem.scale());
  const auto d_v = static_cast<double>(along<DepthV>(problem.v).extent);
  for (At<Head> h : problem.heads()) {
    const At<KvHead> g = problem.kv_head(h);
    for (At<Query> i : problem.queries()) {
      const double lse = at(map.lse, h, i), lse_error = at(forward.lse_bound, h, i);
      const double dlse_i = dlse ? double{at(dlse, h, i)} : 0.0;
      double delta = -dlse_i, delta_error = 0, delta_magnitude = std::abs(dlse_i);
      for (At<DepthV> x : along<DepthV>(problem.v)) {
        const double y = at(dout, h, i, x), out = at(forward.out, h, i, x);
        if (out == 0 && !std::isfinite(y)) continue;  // a row that attends nothing
        const double out_error = at(forward.bound, h, i, x) + at(forward.floor, h, i, x);
        delta += y * out;
        delta_magnitude += std::abs(y * out);
        delta_error += std::abs(y) * (out_error + floor_of(out_type) +
                                      rounding_of(out_type) * (std::abs(out) + out_error));
      }
      delta_error += sum_error(d_v + 3) * (delta_magnitude + delta_error);
      for (At<Key> j : problem.keys()) {
        if (!attended(problem, h, i, j)) continue;
        const double s = score(problem, h, i, j), p = at(map.weights, h, i, j);
        const double factor = kept(problem, h, i, j);
        const double p_error =
            p * 1.01 *
                (score_error(problem, h, i, j) + lse_error + 2 * kU * std::abs(s - lse) +
                 2 * kU * std::abs(lse) + exp_error(s - lse)) +
            2 * kSmallestNormal;
        double dp = 0, dp_magnitude = 0;
        for (At<DepthV> x : along<DepthV>(problem.v)) {
          const double y = factor * at(dout, h, i, x) * at(problem.v, g, j, x);
          dp += y;
          dp_magnitude += std::abs(y);
          const double dout_x = factor * std::abs(double{at(dout, h, i, x)});
          at(expected.v.error, g, j, x) += (p_error + (3 * kU + rounding) * p) * dout_x;
          at(expected.v.magnitude, g, j, x) += p * dout_x;
        }
        const double dp_error =
            sum_error(d_v + 4) * dp_magnitude + delta_error + kU * (std::abs(dp) + std::abs(delta));
        double ds = p * (dp - delta);
        double error = p_error * (std::abs(dp - delta) + dp_error) + p * dp_error +
                       2 * kU * std::abs(ds) + kSmallestNormal;
        if (options.bias) {
          at(expected.bias.error, h, i, j) += error;
          at(expected.bias.magnitude, h, i, j) += std::abs(ds);
        }
        const auto distance = std::abs(static_cast<double>(j.value - problem.position(i)));
        at(expected.slopes.error, h) += distance * error;
        at(expected.slopes.magnitude, h) += distance * std::abs(ds);
        if (options.softcap > 0) {
          const double s_1 = product(problem, h, i, j), tanh = std::tanh(s_1 / options.softcap);
          const double slope = 1 - tanh * tanh;
          // tanh is right within 4 units in the last place of its argument's rounding and its own.
          const double slope_error =
              2 * std::abs(tanh) * (16 * kU + score_error(problem, h, i, j) / options.softcap) +
              2 * kU;
          error = error * (slope + slope_error) + std::abs(ds) * slope_error;
          ds *= slope;
        }
        error += rounding * (std::abs(ds) + error) + (rounded ? kSmallestNormal : 0);
        for (At<DepthK> x : along<DepthK>(problem.q)) {
          const double k = scale * std::abs(double{at(problem.k, g, j, x)});
          const double q = scale * std::abs(double{at(problem.q, h, i, x)});
          at(expected.q.error, h, i, x) += error * k;
          at(expected.q.magnitude, h, i, x) += std::abs(ds) * k;
          at(expected.k.error, g, j, x) += error * q;
          at(expected.k.magnitude, g, j, x) += std::abs(ds) * q;
        }
      }
      if (options.sinks && std::isfinite(at(options.sinks, h))) {
        const double x = at(options.sinks, h) - lse, p = std::exp(x);
        const double p_error = p * (lse_error + 2 * kU * (std::abs(lse) + std::abs(x)) + 4 * kU);
        at(expected.sinks.error, h) +=
            p_error * (std::abs(delta) + delta_error) + p * delta_error + kSmallestNormal;
        at(expected.sinks.magnitude, h) += p * std::abs(delta);
      }
    }
  }
  return expected;
}

AttentionCase differentiable(AttentionCase c) {
  if (c.cache == Cache::paged) c.cache = c.seed % 2 == 0 ? Cache::packed : Cache::lengths;
  const auto plain = [&](Type type) {
    return type == Type::int8 ? Type::f16 : type == Type::int4 ? Type::bf16 : type;
  };
  c.k_type = plain(c.k_type);
  c.v_type = plain(c.v_type);
  c.lse = true;
  return c;
}

namespace {

Layout any_layout(const AttentionCase& c, Random& random, const Tensor<float>& like, bool input) {
  const auto rank = static_cast<int>(like.extents().size());
  return c.dense ? Layout() : random_layout(random, rank, input);
}

}  // namespace

BackwardData::BackwardData(const AttentionCase& c)
    : BackwardData(differentiable(c), Random(c.seed + 77)) {}

BackwardData::BackwardData(const AttentionCase& c, Random random)
    : attention(c),
      dout(attention.out.extents(), any_layout(c, random, attention.out, true)),
      dlse(attention.lse.extents(), any_layout(c, random, attention.lse, true)),
      dq(attention.q.extents(), any_layout(c, random, attention.q, false)),
      dk(attention.k.extents(), any_layout(c, random, attention.k, false)),
      dv(attention.v.extents(), any_layout(c, random, attention.v, false)),
      dbias(attention.bias.extents(), any_layout(c, random, attention.bias, false)),
      dslopes(attention.slopes.extents()),
      dsinks(attention.sinks.extents()),
      with_dlse(random.percent(50)) {
  dout.fill([&](std::int64_t) {
    return static_cast<float>(c.data == Data::integers ? static_cast<double>(random.between(-3, 3))
                                                       : random.normal());
  });
  dlse.fill([&](std::int64_t) { return static_cast<float>(random.normal()); });
  // f32 as often as not.
  const auto type = [&](Type of) {
    return of == Type::f32 || random.percent(50) ? of
                                                 : random.pick({Type::f32, Type::bf16, Type::f16});
  };
  dq_type_ = type(c.q_type);
  dk_type_ = type(c.k_type);
  dv_type_ = type(c.v_type);
  stored_.reserve(4);
  stored_.emplace_back(c.out_type, dout, any_layout(c, random, dout, true));
  stored_.emplace_back(dq_type_, dq, any_layout(c, random, dq, false));
  stored_.emplace_back(dk_type_, dk, any_layout(c, random, dk, false));
  stored_.emplace_back(dv_type_, dv, any_layout(c, random, dv, false));
  stored_[0].round();
  dout.seal();
  dlse.seal();
}

BackwardOptions BackwardData::backward_options() const {
  const AttentionOptions options = attention.options();
  BackwardOptions backward;
  if (with_dlse) backward.grad_lse = dlse.view<Head, Query>();
  backward.grad_bias = grad<Head, Query, Key>(dbias, static_cast<bool>(options.bias));
  backward.grad_alibi_slopes = grad<Head>(dslopes, static_cast<bool>(options.alibi_slopes));
  backward.grad_sinks = grad<Head>(dsinks, static_cast<bool>(options.sinks));
  return backward;
}

void BackwardData::run(const Executor* executor) {
  attention.run(executor);
  run_backward(executor);
}

void BackwardData::run_backward(const Executor* executor) {
  prepare();
  with_arguments(executor, [](const auto&... arguments) { attention_backward(arguments...); });
  finish();
}

void BackwardData::prepare() {
  for (auto* tensor : {&dq, &dk, &dv, &dbias, &dslopes, &dsinks}) tensor->reset();
  stored_[0].write();
  for (std::size_t n = 1; n < 4; ++n) stored_[n].reset();
}

void BackwardData::finish() {
  for (std::size_t n = 1; n < 4; ++n) {
    EXPECT_TRUE(stored_[n].gaps_unchanged()) << attention.of.describe();
    stored_[n].read();
  }
  for (const auto* tensor : {&dq, &dk, &dv, &dbias, &dslopes, &dsinks})
    EXPECT_TRUE(tensor->gaps_unchanged()) << attention.of.describe();
  for (const auto* tensor : {&dout, &dlse}) EXPECT_TRUE(tensor->unchanged());
}

BackwardData::Expected BackwardData::expect() const {
  Expected expected;
  attention.for_each_element([&](const Batch& batch) {
    const auto options = attention.options();
    expected.push_back(expect_gradients(
        attention.problem(batch), attention.of.out_type, attention.of.may_round(),
        queries_of(View<const float, Head, Query, DepthV>(dout.view<Head, Query, DepthV>()),
                   options, batch),
        with_dlse ? queries_of(LseIn(dlse.view<Head, Query>()), options, batch) : LseIn()));
  });
  return expected;
}

namespace {

// Adds the elements of a result.
template <class... Axes>
void compare(const BoundedArray<Axes...>& want, const View<float, Axes...>& got, double terms,
             Type type, Comparison& comparison) {
  const std::int64_t count = (want.value.template extent<Axes>() * ...);
  comparison.add_size((got.template extent<Axes>() * ...), count);
  for (std::int64_t n = 0; n < count; ++n) {
    std::int64_t rest = n, offset = 0;
    ((offset += rest / want.value.template stride<Axes>() * got.template stride<Axes>(),
      rest %= want.value.template stride<Axes>()),
     ...);
    const double value = want.value.data()[n], size = std::abs(value);
    const double error = want.error.data()[n], magnitude = want.magnitude.data()[n];
    const bool finite = std::isfinite(value);
    const double bound = finite ? 1.01 * (error + long_sum_error(terms) * (magnitude + error)) : 0;
    const double floor = finite ? kU * size + rounding_of(type) * (size + bound) + floor_of(type) +
                                      (terms + 2) * kSmallestNormal
                                : 0;
    // A small negative number may round to -0.
    comparison.add(got.data()[offset] + (type == Type::f32 ? -0.0f : 0.0f), value, bound, floor,
                   comparison.count());
  }
}

}  // namespace

void BackwardData::check(const Expected& expected) const {
  const AttentionCase& c = attention.of;
  const auto options = attention.options();
  Comparison of_q, of_k, of_v, of_shared;
  // What the batch shares: the sums of what its elements add.
  const auto sums_of = [](const Tensor<float>& tensor) {
    std::vector<double> zeros(static_cast<std::size_t>(tensor.size()));
    return std::array<std::vector<double>, 3>{zeros, zeros, zeros};
  };
  auto bias = sums_of(dbias), slopes = sums_of(dslopes), sinks = sums_of(dsinks);
  std::size_t element = 0;
  attention.for_each_element([&](const Batch& batch) {
    const ExpectedGradients& want = expected[element];
    const std::int64_t seq_q = attention.seq_q(static_cast<std::int64_t>(element)),
                       seq_kv = attention.seq_kv(static_cast<std::int64_t>(element));
    ++element;
    const auto rows = static_cast<double>(seq_q * (c.heads / c.kv_heads));
    compare(want.q, queries_of(dq.view<Head, Query, DepthK>(), options, batch),
            static_cast<double>(seq_kv), dq_type_, of_q);
    compare(want.k, keys_of(dk.view<KvHead, Key, DepthK>(), attention, batch, seq_kv), rows,
            dk_type_, of_k);
    compare(want.v, keys_of(dv.view<KvHead, Key, DepthV>(), attention, batch, seq_kv), rows,
            dv_type_, of_v);
    if (!options.cu_seqlens_kv) {  // keys that do not exist
      const auto k = batch_element(dk.view<KvHead, Key, DepthK>(), batch);
      const auto v = batch_element(dv.view<KvHead, Key, DepthV>(), batch);
      for (At<KvHead> g : along<KvHead>(k)) {
        for (At<Key> j{seq_kv}; j.value < k.extent<Key>(); ++j.value) {
          for (At<DepthK> x : along<DepthK>(k)) of_k.add(at(k, g, j, x), 0, 0, 0, of_k.count());
          for (At<DepthV> x : along<DepthV>(v)) of_v.add(at(v, g, j, x), 0, 0, 0, of_v.count());
        }
      }
    }
    const auto add = [&]<class... Axes>(auto& sums, const Tensor<float>& tensor,
                                        const BoundedArray<Axes...>& part) {
      const double* const from[] = {part.value.data(), part.error.data(), part.magnitude.data()};
      for (std::size_t which = 0; which < 3; ++which) {
        // A dense array of the tensor's extents, of which the element is a part.
        std::vector<std::int64_t> strides(tensor.extents().size());
        std::int64_t stride = 1;
        for (std::size_t a = strides.size(); a-- > 0; stride *= tensor.extents()[a])
          strides[a] = stride;
        View<double, Axes...> sum(sums[which].data(), tensor.extents().data(), strides.size(),
                                  strides.data(), strides.size());
        if constexpr (sizeof...(Axes) == 3) {
          sum = queries_of(sum, options, batch);
        } else {
          sum = batch_element(sum, batch);
        }
        const std::int64_t count = (part.value.template extent<Axes>() * ...);
        for (std::int64_t n = 0; n < count; ++n) {
          std::int64_t rest = n, offset = 0;
          ((offset += rest / part.value.template stride<Axes>() * sum.template stride<Axes>(),
            rest %= part.value.template stride<Axes>()),
           ...);
          sum.data()[offset] += from[which][n];
        }
      }
    };
    if (options.bias) add(bias, dbias, want.bias);
    if (options.alibi_slopes) add(slopes, dslopes, want.slopes);
    if (options.sinks) add(sinks, dsinks, want.sinks);
  });
  const auto compare_sums = [&](bool given, const auto& sums, const Tensor<float>& tensor) {
    if (!given) return;
    const double terms = static_cast<double>(attention.elements() * c.heads) *
                         static_cast<double>(c.seq_q * c.seq_kv);
    for (std::size_t n = 0; n < sums[0].size(); ++n) {
      const double value = sums[0][n];
      const bool finite = std::isfinite(value);
      const double bound =
          finite ? 1.01 * (sums[1][n] + long_sum_error(terms) * (sums[2][n] + sums[1][n])) : 0;
      of_shared.add(tensor[static_cast<std::int64_t>(n)], value, bound,
                    finite ? kU * std::abs(value) + terms * kSmallestNormal : 0, of_shared.count());
    }
  };
  compare_sums(static_cast<bool>(options.bias), bias, dbias);
  compare_sums(static_cast<bool>(options.alibi_slopes), slopes, dslopes);
  compare_sums(static_cast<bool>(options.sinks), sinks, dsinks);
  EXPECT_TRUE(of_q.within()) << "grad_q, " << c.describe();
  EXPECT_TRUE(of_k.within()) << "grad_k, " << c.describe();
  EXPECT_TRUE(of_v.within()) << "grad_v, " << c.describe();
  EXPECT_TRUE(of_shared.within()) << "grad_bias, grad_alibi_slopes, grad_sinks, " << c.describe();
}

std::vector<float> BackwardData::values() const {
  std::vector<float> all;
  const BackwardOptions given = backward_options();
  const auto add = [&](const Tensor<float>& tensor, bool wanted) {
    const std::vector<float> values = tensor.values();
    if (wanted) all.insert(all.end(), values.begin(), values.end());
  };
  add(dq, true);
  add(dk, true);
  add(dv, true);
  add(dbias, static_cast<bool>(given.grad_bias));
  add(dslopes, static_cast<bool>(given.grad_alibi_slopes));
  add(dsinks, static_cast<bool>(given.grad_sinks));
  return all;
}

}  // namespace rapt::tests
