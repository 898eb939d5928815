// Encodes sentences and prints how similar they are.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iomanip>
#include <stdexcept>

#include "batch.hpp"
#include "encoder.hpp"

namespace {

struct Arguments {
  std::string model, tokens, salience;
  std::int64_t batch = 32, sentence = 1;
  std::int64_t layer = 1,
               head = 7;  // a head in which words look ahead to the noun that they belong to
  bool serial = false, time = false;
};

std::span<const minilm::Sentence> part(const std::vector<minilm::Sentence>& sentences,
                                       std::size_t first, std::size_t count) {
  return std::span(sentences).subspan(first, std::min(count, sentences.size() - first));
}

// [sentences, hidden], `batch` sentences at a time.
std::vector<float> encode(const minilm::Encoder& encoder,
                          const std::vector<minilm::Sentence>& sentences, std::size_t batch) {
  std::vector<float> embeddings;
  for (std::size_t first = 0; first < sentences.size(); first += batch) {
    const std::vector<float> rows = encoder.encode(minilm::Batch(part(sentences, first, batch)));
    embeddings.insert(embeddings.end(), rows.begin(), rows.end());
  }
  return embeddings;
}

// Each row one sentence; the columns are the sentences before it. Rows of `embeddings` have length
// 1, so that cosines are dot products.
void print_similarities(const std::vector<minilm::Sentence>& sentences,
                        const std::vector<float>& embeddings, std::size_t hidden) {
  for (std::size_t row = 0; row < sentences.size(); ++row) {
    std::printf("%4zu  %s\n", row + 1, sentences[row].text.c_str());
  }
  std::printf("\nCosine similarity\n%4s", "");
  for (std::size_t column = 0; column < sentences.size(); ++column) std::printf("%7zu", column + 1);
  std::printf("\n");
  for (std::size_t row = 0; row < sentences.size(); ++row) {
    std::printf("%4zu", row + 1);
    for (std::size_t column = 0; column <= row; ++column) {
      const float* a = embeddings.data() + row * hidden;
      const float* b = embeddings.data() + column * hidden;
      double cosine = 0;
      for (std::size_t d = 0; d < hidden; ++d) cosine += static_cast<double>(a[d]) * b[d];
      std::printf("%7.3f", cosine);
    }
    std::printf("\n");
  }
}

// A title, then for each query token its id and its weights [key token], without the padding.
void write_salience(const minilm::Encoder& encoder, const minilm::Sentence& sentence,
                    const Arguments& arguments) {
  const minilm::Batch batch(std::span(&sentence, 1));
  const std::vector<float> salience =
      encoder.salience(batch, arguments.layer, arguments.head);  // [1, seq, seq]
  std::ofstream file(arguments.salience);
  file << "# layer " << arguments.layer << ", head " << arguments.head << '\n'
       << std::setprecision(9);
  for (std::int64_t i = 0; i < batch.seq; ++i) {
    if (!batch.attended[static_cast<std::size_t>(i)]) continue;
    file << batch.ids[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < batch.seq; ++j) {
      if (!batch.attended[static_cast<std::size_t>(j)]) continue;
      file << '\t' << salience[static_cast<std::size_t>(i * batch.seq + j)];
    }
    file << '\n';
  }
  if (!file.flush()) throw std::runtime_error(arguments.salience + ": cannot be written");
}

void print_time(const minilm::Encoder& encoder, const std::vector<minilm::Sentence>& sentences,
                const Arguments& arguments, const rapt::Executor& executor) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double seconds = 0;
  std::size_t encoded = 0;
  while (seconds < 2) {  // long enough for a steady number
    encode(encoder, sentences, static_cast<std::size_t>(arguments.batch));
    encoded += sentences.size();
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  std::size_t longest = 0;
  for (const minilm::Sentence& sentence : sentences)
    longest = std::max(longest, sentence.ids.size());
  std::printf(
      "\n%.1f sentences per second: batches of %zu, padded to %zu tokens, %d thread%s, %s\n",
      static_cast<double>(encoded) / seconds,
      std::min(static_cast<std::size_t>(arguments.batch), sentences.size()), longest,
      executor.workers(), executor.workers() == 1 ? "" : "s", rapt::target().c_str());
}

void run(const Arguments& arguments) {
  const rapt::Executor& executor =
      arguments.serial ? rapt::serial_executor() : rapt::default_executor();
  const std::vector<minilm::Sentence> sentences = minilm::read_sentences(arguments.tokens);
  if (arguments.sentence > static_cast<std::int64_t>(sentences.size())) {
    throw std::runtime_error("--sentence " + std::to_string(arguments.sentence) + ", but " +
                             arguments.tokens + " has " + std::to_string(sentences.size()));
  }
  const minilm::Encoder encoder(arguments.model, executor);
  const std::vector<float> embeddings =
      encode(encoder, sentences, static_cast<std::size_t>(arguments.batch));
  print_similarities(sentences, embeddings, static_cast<std::size_t>(encoder.config().hidden_size));
  if (!arguments.salience.empty()) {
    write_salience(encoder, sentences[static_cast<std::size_t>(arguments.sentence - 1)], arguments);
  }
  if (arguments.time) print_time(encoder, sentences, arguments, executor);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Encodes sentences with a BERT sentence encoder on rapt, and prints how similar they are.");
  app.add_option("--model", arguments.model, "directory with config.json and model.safetensors")
      ->required();
  app.add_option("--tokens", arguments.tokens,
                 "tokenised sentences, as write_tokens.py writes them")
      ->required();
  app.add_option("--batch", arguments.batch, "sentences in a batch")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_flag("--serial", arguments.serial, "run on one thread");
  app.add_flag("--time", arguments.time, "measure sentences per second for two seconds");
  CLI::Option* salience =
      app.add_option("--salience", arguments.salience, "write the salience map of a head here");
  app.add_option("--sentence", arguments.sentence, "of this sentence, from 1")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->needs(salience);
  app.add_option("--layer", arguments.layer, "of this layer, from 0")
      ->capture_default_str()
      ->needs(salience);
  app.add_option("--head", arguments.head, "of this head, from 0")
      ->capture_default_str()
      ->needs(salience);
  CLI11_PARSE(app, argc, argv);
  try {
    run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "minilm: %s\n", error.what());
    return 1;
  }
}
