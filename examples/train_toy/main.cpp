// Trains one layer of attention on the toy task, and writes the loss of each step.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "toy.hpp"

namespace {

struct Arguments {
  rapt::LayerShape shape{11, 13, 3, 5, 7};  // primes: no two axes can be mixed up unnoticed
  std::int64_t steps = 1000;
  double rate = 0.5;
  std::uint64_t seed = 1;
  std::string type = "f64", csv;
  bool serial = false;
};

// One line on stderr that is rewritten; nothing where that is no terminal.
class Progress {
 public:
  explicit Progress(std::int64_t steps) : steps_(steps) {}
  ~Progress() { clear(); }

  void show(std::int64_t done, double loss) {
    constexpr std::int64_t kWidth = 24;
    if (!terminal_ || (elapsed() - drawn_ < 0.1 && done < steps_)) return;
    drawn_ = elapsed();
    const auto filled = static_cast<std::size_t>(kWidth * done / steps_);
    const double left = drawn_ * static_cast<double>(steps_ - done) / static_cast<double>(done);
    std::fprintf(stderr, "\r[%s%s] %3d %%, %.0f s left  step %lld: loss %.3g\033[K",
                 std::string(filled, '#').c_str(), std::string(kWidth - filled, '.').c_str(),
                 static_cast<int>(100 * done / steps_), left, static_cast<long long>(done), loss);
  }
  void clear() {
    if (terminal_ && drawn_ >= 0) std::fputs("\r\033[K", stderr);
    drawn_ = -1;
  }
  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const std::int64_t steps_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double drawn_ = -1;  // elapsed() at the last drawing; -1: no line is there
};

void write_csv(const std::string& path, const std::vector<double>& losses) {
  std::ofstream file(path);
  file << "step,loss\n";
  file.precision(17);  // all bits
  for (std::size_t step = 0; step < losses.size(); ++step)
    file << step << ',' << losses[step] << '\n';
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

void run(const Arguments& a) {
  train_toy::Trainer trainer(rapt::MultiHeadAttention(a.shape, a.seed),
                             a.type == "f32" ? train_toy::Kept::f32 : train_toy::Kept::f64,
                             a.serial ? &rapt::serial_executor() : nullptr);
  train_toy::Source source(a.shape.embedding, a.seed);
  std::vector<double> losses;
  Progress progress(a.steps);
  for (std::int64_t step = 0; step < a.steps; ++step) {
    losses.push_back(trainer.loss(source.next()));
    if (!std::isfinite(losses.back()))
      throw std::runtime_error("the loss is not finite after " + std::to_string(step) +
                               " steps: try a smaller --rate");
    trainer.descend(a.rate);
    progress.show(step + 1, losses.back());
  }
  progress.clear();
  std::printf("loss %.4g at first, %.4g after %lld steps: %.0f x less, in %.1f s\n", losses.front(),
              losses.back(), static_cast<long long>(a.steps), losses.front() / losses.back(),
              progress.elapsed());
  if (!a.csv.empty()) write_csv(a.csv, losses);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Trains one layer of attention to give the mean of all tokens so far.");
  app.footer(
      "The task can be learned where the tokens pass through the layer: d_model, and heads x d_v,\n"
      "not less than embedding.");
  const auto size = [&](const char* name, std::int64_t& value, const char* what, int least) {
    app.add_option(name, value, what)->capture_default_str()->check(CLI::Range(least, 4096));
  };
  size("--embedding", a.shape.embedding, "of a token", 1);
  size("--d-model", a.shape.d_model, "of the first projection; 0: a layer without it", 0);
  size("--heads", a.shape.heads, "number of heads", 1);
  size("--d-k", a.shape.d_k, "of queries and keys of a head", 1);
  size("--d-v", a.shape.d_v, "of values of a head", 1);
  app.add_option("--steps", a.steps, "of gradient descent, each on a new batch of 32")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000000));
  app.add_option("--rate", a.rate, "how far a step goes along the gradient")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", a.seed, "of parameters and tokens")->capture_default_str();
  app.add_option("--type", a.type, "in which parameters are kept; computed is in f32")
      ->capture_default_str()
      ->check(CLI::IsMember({"f64", "f32"}));
  app.add_option("--csv", a.csv, "write the loss of each step here");
  app.add_flag("--serial", a.serial, "run on one thread: the same bits");
  CLI11_PARSE(app, argc, argv);
  try {
    run(a);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_toy: %s\n", error.what());
    return 1;
  }
}
