// The encoder on rapt against PyTorch, by golden data (make_golden.py). Needs the weights, which
// are not in the repository: without them these tests fail and say how to get them.
#include "../encoder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "../batch.hpp"
#include "../safetensors.hpp"

namespace {

using minilm::Batch;
using minilm::Encoder;
using minilm::Sentence;

constexpr std::int64_t kSentences = 25, kHidden = 384, kHeads = 12, kLayers = 6;
constexpr std::size_t kSalienceSentence = 2;  // as in make_golden.py

std::string model_directory() {
  const char* chosen = std::getenv("RAPT_MINILM_MODEL");
  return chosen != nullptr ? chosen : MINILM_DEFAULT_MODEL;
}

// The dot product in f64. Embeddings have length 1, so that it is their cosine.
double dot(const float* a, const float* b) {
  return std::inner_product(a, a + kHidden, b, 0.0, std::plus<>(),
                            [](float x, float y) { return static_cast<double>(x) * y; });
}

double cosine(const float* a, const float* b) {
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

// The tokens of a sentence without its padding.
Sentence alone(const Sentence& padded) {
  Sentence sentence{padded.text, {}, {}};
  for (std::size_t i = 0; i < padded.ids.size(); ++i) {
    if (padded.mask[i] == 0) continue;
    sentence.ids.push_back(padded.ids[i]);
    sentence.mask.push_back(1);
  }
  return sentence;
}

class EncoderTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string directory = model_directory();
    if (directory == "absent")
      GTEST_SKIP() << "RAPT_MINILM_MODEL=absent: run without the model, as asked";
    ASSERT_TRUE(std::filesystem::exists(directory + "/model.safetensors"))
        << "No model in " << directory
        << ".\n  examples/minilm/get-model installs it into build/minilm-model (80 MB);"
        << "\n  RAPT_MINILM_MODEL=<directory> names another place;"
        << "\n  RAPT_MINILM_MODEL=absent skips this test.";
    encoder_ = std::make_unique<Encoder>(directory);
    sentences_ = minilm::read_sentences(MINILM_TEST_DATA "/golden.tsv");
    golden_file_ =
        std::make_unique<minilm::SafetensorsFile>(MINILM_TEST_DATA "/golden.safetensors");
    golden_ = golden_file_->f32("embeddings", {kSentences, kHidden});
    ASSERT_EQ(sentences_.size(), static_cast<std::size_t>(kSentences));
  }

  const float* golden(std::int64_t sentence) const { return golden_ + sentence * kHidden; }

  std::unique_ptr<Encoder> encoder_;
  std::vector<Sentence> sentences_;
  std::unique_ptr<minilm::SafetensorsFile> golden_file_;
  const float* golden_ = nullptr;  // [kSentences, kHidden]
};

TEST_F(EncoderTest, EmbeddingsAreThoseOfPyTorch) {
  const std::vector<float> embeddings = encoder_->encode(Batch(sentences_));
  double least = 1, largest = 0;
  for (std::int64_t i = 0; i < kSentences; ++i) {
    const float* embedding = embeddings.data() + i * kHidden;
    const double agreement = cosine(embedding, golden(i));
    EXPECT_GE(agreement, 0.99999) << sentences_[static_cast<std::size_t>(i)].text;
    least = std::min(least, agreement);
    for (std::int64_t d = 0; d < kHidden; ++d) {
      largest = std::max(largest, static_cast<double>(std::abs(embedding[d] - golden(i)[d])));
    }
  }
  EXPECT_LE(largest, 2e-6);  // PyTorch's own float32 is 2e-7 away from its float64
  std::printf("least cosine 1 - %.1e, largest difference of an element %.1e\n", 1 - least, largest);
}

TEST_F(EncoderTest, AllPairsRankAsInPyTorch) {
  const std::vector<float> embeddings = encoder_->encode(Batch(sentences_));
  std::vector<std::pair<std::int64_t, std::int64_t>> pairs;
  for (std::int64_t i = 0; i < kSentences; ++i) {
    for (std::int64_t j = i + 1; j < kSentences; ++j) pairs.emplace_back(i, j);
  }
  const auto ranked = [&](const float* rows) {
    auto order = pairs;
    std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
      return dot(rows + a.first * kHidden, rows + a.second * kHidden) >
             dot(rows + b.first * kHidden, rows + b.second * kHidden);
    });
    return order;
  };
  EXPECT_EQ(ranked(embeddings.data()), ranked(golden_));
}

TEST_F(EncoderTest, ASentenceAloneAgreesWithItselfInAPaddedBatch) {
  const std::vector<float> batched = encoder_->encode(Batch(sentences_));
  double least = 1;
  for (std::int64_t i = 0; i < kSentences; ++i) {
    const Sentence sentence = alone(sentences_[static_cast<std::size_t>(i)]);
    const std::vector<float> embedding = encoder_->encode(Batch(std::span(&sentence, 1)));
    least = std::min(least, cosine(embedding.data(), batched.data() + i * kHidden));
  }
  EXPECT_GT(least, 0.999999);
  std::printf("least cosine 1 - %.1e\n", 1 - least);
}

TEST_F(EncoderTest, SameBitsWhateverTheNeighboursAndTheThreads) {
  const std::vector<float> batched = encoder_->encode(Batch(sentences_));
  const std::vector<Sentence> reversed(sentences_.rbegin(), sentences_.rend());
  const Encoder serial(model_directory(), rapt::serial_executor());
  const std::vector<float> backwards = serial.encode(Batch(reversed));
  for (std::int64_t i = 0; i < kSentences; ++i) {
    const float* row = batched.data() + i * kHidden;
    EXPECT_TRUE(std::equal(row, row + kHidden, backwards.data() + (kSentences - 1 - i) * kHidden))
        << "sentence " << i;
  }
}

TEST_F(EncoderTest, SalienceIsThatOfPyTorch) {
  const std::span<const Sentence> one = std::span(sentences_).subspan(kSalienceSentence, 1);
  const std::int64_t tokens =
      std::accumulate(one[0].mask.begin(), one[0].mask.end(), std::int64_t{0});
  const float* golden = golden_file_->f32("salience", {kHeads, tokens, tokens});
  const Batch batch(one);
  ASSERT_GT(batch.seq, tokens);  // padded
  for (std::int64_t head = 0; head < kHeads; ++head) {
    const std::vector<float> salience = encoder_->salience(batch, kLayers - 1, head);
    for (std::int64_t i = 0; i < tokens; ++i) {
      const float* row = salience.data() + i * batch.seq;
      for (std::int64_t j = 0; j < tokens; ++j) {
        EXPECT_NEAR(row[j], golden[(head * tokens + i) * tokens + j], 2e-6)
            << head << ' ' << i << ' ' << j;
      }
      EXPECT_TRUE(
          std::all_of(row + tokens, row + batch.seq, [](float weight) { return weight == 0; }));
    }
  }
}

TEST_F(EncoderTest, InputsBeyondTheModelsTablesAreErrors) {
  const auto error_of = [&](const std::vector<std::int32_t>& ids) -> std::string {
    const Sentence sentence{"", ids, std::vector<std::int32_t>(ids.size(), 1)};
    try {
      encoder_->encode(Batch(std::span(&sentence, 1)));
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of({101, 30521, 102}), "no error");
  EXPECT_EQ(error_of({101, 30522, 102}), "token id 30522 is not in the vocabulary of 30522");
  EXPECT_EQ(error_of(std::vector<std::int32_t>(512, 101)), "no error");
  EXPECT_EQ(error_of(std::vector<std::int32_t>(513, 101)),
            "a sentence has 513 tokens, but the model has 512 positions");
  const Batch batch{std::span(sentences_).first(1)};
  EXPECT_THROW(encoder_->salience(batch, kLayers, 0), std::runtime_error);
  EXPECT_THROW(encoder_->salience(batch, 0, kHeads), std::runtime_error);
  EXPECT_THROW(encoder_->salience(batch, -1, 0), std::runtime_error);
}

}  // namespace
