// The other inputs of the encoder: the tokens file and config.json, good and broken.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "../batch.hpp"
#include "../config.hpp"

namespace {

class InputTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  std::string write(const std::string& text) const {
    std::ofstream(path_) << text;
    return path_;
  }

  // The message without the path, or "no error".
  template <class Read>
  std::string error_of(const Read& read, const std::string& text) const {
    try {
      read(write(text));
    } catch (const std::runtime_error& error) {
      const std::string message = error.what();
      return message.starts_with(path_) ? message.substr(path_.size()) : message;
    }
    return "no error";
  }

  std::string path_ =
      std::filesystem::temp_directory_path() / ("rapt_input_test_" + std::to_string(getpid()));
};

TEST_F(InputTest, SentencesOfDifferentLengthsArePadded) {
  const auto sentences =
      minilm::read_sentences(write("a b\t101 7 102\t1 1 1\n\t101 102 0 0\t1 1 0 0\n"));
  ASSERT_EQ(sentences.size(), 2u);
  EXPECT_EQ(sentences[0].text, "a b");
  const minilm::Batch batch(sentences);
  EXPECT_EQ(batch.size, 2);
  EXPECT_EQ(batch.seq, 4);
  EXPECT_EQ(batch.ids, (std::vector<std::int32_t>{101, 7, 102, 0, 101, 102, 0, 0}));
  const bool attended[8] = {true, true, true, false, true, true, false, false};
  EXPECT_TRUE(std::equal(attended, attended + 8, batch.attended.get()));
}

TEST_F(InputTest, BrokenTokensAreErrorsThatNameTheLine) {
  const auto error = [&](const std::string& text) {
    return error_of(minilm::read_sentences, text);
  };
  EXPECT_EQ(error(""), ": has no sentences");
  EXPECT_EQ(error("a\t1\t1\nb\t1"),
            ", line 2: expected three columns: sentence <tab> token ids <tab> attention mask");
  EXPECT_EQ(error("a\t1\t1\t1"),
            ", line 1: expected three columns: sentence <tab> token ids <tab> attention mask");
  EXPECT_EQ(error("a\t1 x\t1 1"), ", line 1: 'x' is not a whole number");
  EXPECT_EQ(error("a\t1 -2\t1 1"), ", line 1: '-2' is not a whole number");
  EXPECT_EQ(error("a\t1 2.5\t1 1"), ", line 1: '2.5' is not a whole number");
  EXPECT_EQ(error("a\t1 99999999999\t1 1"), ", line 1: '99999999999' is not a whole number");
  EXPECT_EQ(error("a\t1 2 3\t1 1"), ", line 1: 3 token ids, but 2 mask values");
  EXPECT_EQ(error("a\t1 2\t1 2"), ", line 1: a mask value is neither 0 nor 1");
  EXPECT_EQ(error("a\t1 2\t0 0"),
            ", line 1: no token is attended, so the sentence has no embedding");
  EXPECT_EQ(error("a\t\t"), ", line 1: no token is attended, so the sentence has no embedding");
  EXPECT_THROW(minilm::read_sentences("/nowhere"), std::runtime_error);
}

const std::string kConfig =
    R"({"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "layer_norm_eps": 1e-12,
        "hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 6, "intermediate_size": 1536,
        "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2})";

std::string with(const std::string& from, const std::string& to) {
  std::string config = kConfig;
  return config.replace(config.find(from), from.size(), to);
}

TEST_F(InputTest, ReadsAConfig) {
  const minilm::Config config = minilm::read_config(write(kConfig));
  EXPECT_EQ(config.hidden_size, 384);
  EXPECT_EQ(config.num_hidden_layers, 6);
  EXPECT_EQ(config.layer_norm_eps, 1e-12f);
}

TEST_F(InputTest, ConfigsOfOtherModelsAreErrorsThatNameTheField) {
  const auto error = [&](const std::string& text) { return error_of(minilm::read_config, text); };
  EXPECT_EQ(error(kConfig), "no error");
  EXPECT_EQ(error("{").substr(0, 16), ": not valid JSON");
  EXPECT_EQ(error("[]"), ": has no field model_type");
  EXPECT_EQ(error(with("\"bert\"", "\"mpnet\"")),
            R"(: model_type is "mpnet", but this encoder computes only "bert")");
  EXPECT_EQ(error(with("\"gelu\"", "\"relu\"")),
            R"(: hidden_act is "relu", but this encoder computes only "gelu")");
  EXPECT_EQ(error(with("\"hidden_size\"", "\"hidden\"")), ": has no field hidden_size");
  EXPECT_EQ(error(with("384", "0")), ": hidden_size is 0, not a size from 1 to 10000000");
  EXPECT_EQ(error(with("384", "-384")), ": hidden_size is -384, not a size from 1 to 10000000");
  EXPECT_EQ(error(with("384", "\"384\"")),
            ": hidden_size is \"384\", not a size from 1 to 10000000");
  EXPECT_EQ(error(with("384", "1e30")), ": hidden_size is 1e+30, not a size from 1 to 10000000");
  EXPECT_EQ(error(with("384", "[384]")), ": hidden_size is array, not a size from 1 to 10000000");
  EXPECT_EQ(error(with("384", "385")),
            ": hidden_size 385 is not a multiple of num_attention_heads 12");
  EXPECT_EQ(error(with("1e-12", "null")), ": layer_norm_eps is not a number");
  EXPECT_THROW(minilm::read_config("/nowhere"), std::runtime_error);
}

}  // namespace
