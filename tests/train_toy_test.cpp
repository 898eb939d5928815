// The training of examples/train_toy: a step's gradients are JAX's, the loss falls, and a run has
// the same bits again and on any number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "examples/train_toy/toy.hpp"
#include "support/executors.hpp"
#include "support/npy.hpp"
#include "support/ways.hpp"

namespace rapt::tests {
namespace {

using namespace train_toy;

constexpr LayerShape kShape{11, 13, 3, 5, 7};  // embedding, d_model, heads, d_k, d_v

TEST(TrainToy, AStepHasTheGradientsOfJax) {
  const GoldenCase golden("train_toy_step");  // make_layer_gradients.py
  LayerParameters parameters;
  const std::pair<const char*, std::vector<double> LayerParameters::*> all[] = {
      {"qkv", &LayerParameters::qkv},
      {"w_q", &LayerParameters::w_q},
      {"w_k", &LayerParameters::w_k},
      {"w_v", &LayerParameters::w_v},
      {"output", &LayerParameters::output}};
  for (const auto& [name, values] : all) parameters.*values = golden.array(name).f64;
  const Npy tokens = golden.array("tokens");
  ASSERT_EQ(tokens.shape, (std::vector<std::int64_t>{kBatch, kKeys, kShape.embedding}));
  const Examples examples(kShape.embedding, tokens.f32);
  for_each_target([&] {
    Trainer trainer(MultiHeadAttention(kShape, parameters), Kept::f64);
    const double loss = golden.array("loss").f64.at(0);
    EXPECT_NEAR(trainer.loss(examples), loss, 1e-6 * loss);
    for (const auto& [name, values] : all) {
      const std::vector<double>&got = trainer.gradients().*values,
            want = golden.array(std::string("d") + name).f64;
      ASSERT_EQ(got.size(), want.size()) << name;
      double most = 0;
      for (double x : want) most = std::max(most, std::abs(x));
      for (std::size_t n = 0; n < want.size(); ++n)
        ASSERT_NEAR(got[n], want[n], 1e-5 * most) << name << " " << n;
    }
  });
}

// The losses of a run, and the parameters that it ends with.
struct Training {
  std::vector<double> losses;
  LayerParameters parameters;

  explicit Training(int steps, Kept kept = Kept::f64, const Executor* executor = nullptr,
                    const LayerShape& shape = kShape) {
    Trainer trainer(MultiHeadAttention(shape, 1), kept, executor);
    Source source(shape.embedding, 1);
    for (int step = 0; step < steps; ++step) {
      losses.push_back(trainer.loss(source.next()));
      trainer.descend(0.5);
    }
    parameters = trainer.parameters();
  }
};

TEST(TrainToy, TheLossFalls) {
  for (const Kept kept : {Kept::f64, Kept::f32}) {
    if (kept == Kept::f64 && few_cases()) continue;
    const Training run(300, kept);
    EXPECT_GT(run.losses.front(), 100 * run.losses.back());
  }
  // Without the first projection.
  const Training run(300, Kept::f64, nullptr, {11, 0, 3, 5, 7});
  EXPECT_GT(run.losses.front(), 100 * run.losses.back());
}

TEST(TrainToy, HasTheSameBitsAgainAndOnAnyNumberOfThreads) {
  const Training first(20), again(20);
  const auto expect_same = [&](const Training& other) {
    EXPECT_EQ(first.losses, other.losses);
    EXPECT_EQ(first.parameters.qkv, other.parameters.qkv);
    EXPECT_EQ(first.parameters.w_q, other.parameters.w_q);
    EXPECT_EQ(first.parameters.output, other.parameters.output);
  };
  expect_same(again);
  expect_same(Training(20, Kept::f64, &serial_executor()));
  for (int threads : {2, 3, 8}) {
    const ThreadExecutor executor(threads);
    expect_same(Training(20, Kept::f64, &executor));
  }
}

TEST(TrainToy, KeepsParametersInTheTypeThatIsAsked) {
  const auto all_floats = [](const Training& run) {
    for (double x : run.parameters.w_v)
      if (x != static_cast<float>(x)) return false;
    return true;
  };
  EXPECT_TRUE(all_floats(Training(2, Kept::f32)));
  EXPECT_FALSE(all_floats(Training(2, Kept::f64)));
}

TEST(TrainToy, TheTargetIsTheMeanOfAllTokensSoFar) {
  std::vector<float> tokens(kBatch * kKeys * 2);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<float>(i);
  const Examples examples(2, tokens);
  // Query 0 of batch element 1 sees three tokens, and is the third of them.
  const std::size_t first = kKeys * 2, target = kQueries * 2;
  EXPECT_EQ(examples.target[target], (tokens[first] + tokens[first + 2] + tokens[first + 4]) / 3);
  EXPECT_EQ(examples.queries().data()[examples.queries().batch_stride(0)], tokens[first + 4]);
}

}  // namespace
}  // namespace rapt::tests
