#include "puzzle/text/gguf_tokenizer.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/text/hf_tokenizer.h"
#include "puzzle/text/tokenizer.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "text/golden.h"

namespace puzzle {
namespace {

GgufKeys golden_keys(const std::string& name) {
  const TokenizerSpec spec = load_hf_tokenizer(test::golden_tokenizer(name));
  return make_gguf_keys(spec, static_cast<std::int64_t>(spec.tokens.size()));
}

std::shared_ptr<const Tokenizer> load_keys(const GgufKeys& keys) {
  const test::TempDir folder;
  GgufWriter writer;
  writer.add_string("general.architecture", "llama");
  for (const auto& [key, value] : keys) {
    writer.add_value(key, value);
  }
  writer.write(folder / "model.gguf");
  return load_tokenizer(folder / "model.gguf");
}

GgufValue& value_of(GgufKeys& keys, const std::string& key) {
  for (auto& [name, value] : keys) {
    if (name == key) {
      return value;
    }
  }
  throw std::out_of_range(key);
}

// GGUF has no place for lstrip, rstrip and single_word, which <mark> and <word> have.
bool fits_gguf(const std::string& text) {
  return text.find("<mark>") == std::string::npos && text.find("<word>") == std::string::npos;
}

class GgufGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufGolden, KeepsEveryIdOnTheWayThroughGguf) {
  const std::string name = GetParam();
  const auto tokenizer = load_keys(golden_keys(name));
  const auto original = load_tokenizer(test::golden_tokenizer(name));
  const std::vector<std::string> texts = test::golden_texts();
  const test::GoldenIds expected = test::golden_ids(name);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (fits_gguf(texts[i])) {
      EXPECT_EQ(tokenizer->encode(texts[i]), expected[i]) << "\"" << texts[i] << "\"";
      EXPECT_EQ(tokenizer->decode(expected[i]), original->decode(expected[i]));
    }
  }
  EXPECT_EQ(tokenizer->bos(), original->bos());
  EXPECT_EQ(tokenizer->eos(), original->eos());
  EXPECT_EQ(tokenizer->encode("x", {.add_special = true}),
            original->encode("x", {.add_special = true}));
  EXPECT_EQ(tokenizer->chat_template(), original->chat_template());
}

INSTANTIATE_TEST_SUITE_P(Families, GgufGolden,
                         ::testing::Values("gpt2", "smollm", "llama3", "qwen2", "tekken", "spm"),
                         [](const auto& family) { return std::string(family.param); });

TEST(GgufTokenizer, NamesThePreTokenizer) {
  for (const auto& [name, pre] : {std::pair{"gpt2", "gpt-2"},
                                  {"smollm", "smollm"},
                                  {"llama3", "llama-bpe"},
                                  {"qwen2", "qwen2"},
                                  {"tekken", "tekken"},
                                  {"spm", "default"}}) {
    GgufKeys keys = golden_keys(name);
    EXPECT_EQ(std::get<std::string>(value_of(keys, "tokenizer.ggml.pre")), pre);
  }
}

TEST(GgufTokenizer, TheNameSaysWhetherTextIsNormalized) {
  TokenizerSpec spec = load_hf_tokenizer(test::golden_tokenizer("qwen2"));
  ASSERT_FALSE(spec.normalizer.empty());
  spec.normalizer.clear();
  GgufKeys keys = make_gguf_keys(spec, 2000);
  EXPECT_EQ(std::get<std::string>(value_of(keys, "tokenizer.ggml.pre")), "stablelm2");
  spec = load_hf_tokenizer(test::golden_tokenizer("gpt2"));
  spec.normalizer.emplace_back(UnicodeNormalizer{NormalForm::kNfc});
  EXPECT_PUZZLE_ERROR((void)make_gguf_keys(spec, 2000), ErrorKind::kFormat,
                      "llama.cpp has no name for this tokenizer's pre-tokenizer");
}

TEST(GgufTokenizer, ScoresAreMinusTheRankOfTheFirstMerge) {
  const TokenizerSpec spec = load_hf_tokenizer(test::golden_tokenizer("spm"));
  GgufKeys keys = golden_keys("spm");
  const auto& scores = std::get<std::vector<float>>(value_of(keys, "tokenizer.ggml.scores"));
  ASSERT_EQ(scores.size(), spec.tokens.size());
  for (const std::size_t rank : {0U, 1U, 50U}) {
    const auto [left, right] = spec.merges[rank];
    const std::string text = spec.tokens[left].text + spec.tokens[right].text;
    const std::int32_t id = index_tokens(spec.tokens).at(text);
    EXPECT_EQ(scores[static_cast<std::size_t>(id)], -static_cast<float>(rank));
  }
  EXPECT_EQ(scores[0], -1e9F);
}

TEST(GgufTokenizer, FillsTheRowsOfTheEmbedding) {
  const TokenizerSpec spec = load_hf_tokenizer(test::golden_tokenizer("spm"));
  const auto size = static_cast<std::int64_t>(spec.tokens.size());
  GgufKeys keys = make_gguf_keys(spec, size + 3);
  const auto& tokens = std::get<std::vector<std::string>>(value_of(keys, "tokenizer.ggml.tokens"));
  const auto& types =
      std::get<std::vector<std::int32_t>>(value_of(keys, "tokenizer.ggml.token_type"));
  ASSERT_EQ(static_cast<std::int64_t>(tokens.size()), size + 3);
  EXPECT_EQ(tokens.back(), fmt::format("[PAD{}]", size + 2));
  EXPECT_EQ(types.back(), 5);
  EXPECT_EQ(types[0], 2);  // <unk>
  EXPECT_EQ(types[1], 3);  // <s>
  EXPECT_EQ(types[3], 6);  // <0x00>
  EXPECT_EQ(types[259], 1);
  EXPECT_EQ(load_keys(keys)->encode("[PAD903]x"),
            load_keys(golden_keys("spm"))->encode("[PAD903]x"));
  EXPECT_PUZZLE_ERROR((void)make_gguf_keys(spec, size - 1), ErrorKind::kFormat,
                      "but the model's embedding has");
}

TEST(GgufTokenizer, RefusesWhatLlamaCppLacksAndWarnsOfTheRest) {
  TokenizerSpec spec = load_hf_tokenizer(test::golden_tokenizer("smollm"));
  spec.pre_tokenizer.insert(spec.pre_tokenizer.begin(), SplitStep{.pattern = "x"});
  EXPECT_PUZZLE_ERROR((void)make_gguf_keys(spec, 700), ErrorKind::kFormat,
                      "llama.cpp has no name for this tokenizer's pre-tokenizer");
  spec = load_hf_tokenizer(test::golden_tokenizer("spm"));
  spec.normalizer.clear();
  EXPECT_PUZZLE_ERROR((void)make_gguf_keys(spec, 900), ErrorKind::kFormat,
                      "neither byte-level nor SentencePiece-style");
  testing::internal::CaptureStderr();
  (void)golden_keys("gpt2");
  EXPECT_NE(testing::internal::GetCapturedStderr().find("takes \"<mark>\" without"),
            std::string::npos);
  EXPECT_PUZZLE_ERROR((void)golden_keys("metaspace"), ErrorKind::kFormat, "byte_fallback is off");
}

struct BrokenKeys {
  const char* tokenizer;
  const char* expected;  // part of the message
  std::function<void(GgufKeys&)> change;
};

std::function<void(GgufKeys&)> set(const std::string& key, GgufValue value) {
  return [=](GgufKeys& keys) { value_of(keys, key) = value; };
}

std::function<void(GgufKeys&)> remove_key(const std::string& key) {
  return
      [=](GgufKeys& keys) { std::erase_if(keys, [&](const auto& k) { return k.first == key; }); };
}

TEST(GgufTokenizer, RefusesBrokenKeysWithOneClearError) {
  const BrokenKeys table[] = {
      {"smollm", "tokenizer.ggml.model", remove_key("tokenizer.ggml.model")},
      {"smollm", "tokenizer.ggml.model \"bert\" is not supported",
       set("tokenizer.ggml.model", std::string("bert"))},
      {"smollm", "tokenizer.ggml.pre \"falcon\" is not supported; supported are gpt-2, ",
       set("tokenizer.ggml.pre", std::string("falcon"))},
      {"smollm", "tokenizer.ggml.tokens", remove_key("tokenizer.ggml.tokens")},
      {"smollm", "tokenizer.ggml.tokens", set("tokenizer.ggml.tokens", std::uint32_t{3})},
      {"smollm", "tokenizer.ggml.tokens is empty",
       [](GgufKeys& keys) {
         value_of(keys, "tokenizer.ggml.tokens") = std::vector<std::string>{};
         value_of(keys, "tokenizer.ggml.token_type") = std::vector<std::int32_t>{};
       }},
      {"smollm", "2 token types for 700 tokens",
       set("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1})},
      {"smollm", "token_type of token 0 is 9, expected 1 to 6",
       set("tokenizer.ggml.token_type", std::vector<std::int32_t>(700, 9))},
      {"smollm", "tokenizer.ggml.merges", remove_key("tokenizer.ggml.merges")},
      {"smollm", "tokenizer.ggml.merges[0] is \"ab\"",
       set("tokenizer.ggml.merges", std::vector<std::string>{"ab"})},
      {"smollm", "tokenizer.ggml.merges[0] is \"a zzzz\"",
       set("tokenizer.ggml.merges", std::vector<std::string>{"a zzzz"})},
      {"smollm", "tokenizer.ggml.bos_token_id is 700, expected an id below 700",
       set("tokenizer.ggml.bos_token_id", std::uint32_t{700})},
      {"spm", "tokenizer.ggml.scores", remove_key("tokenizer.ggml.scores")},
      {"spm", "1 scores for 900 tokens", set("tokenizer.ggml.scores", std::vector<float>{0.0F})},
      {"spm", "the score of token 0 is not a number",
       set("tokenizer.ggml.scores", std::vector<float>(900, std::nanf("")))},
      {"spm", "tokenizer.ggml.unknown_token_id is 4000000000",
       set("tokenizer.ggml.unknown_token_id", std::uint32_t{4000000000})},
  };
  for (const BrokenKeys& broken : table) {
    GgufKeys keys = golden_keys(broken.tokenizer);
    broken.change(keys);
    EXPECT_PUZZLE_ERROR((void)load_keys(keys), ErrorKind::kFormat, broken.expected);
  }
}

TEST(GgufTokenizer, MissingKeysHaveLlamaCppsDefaults) {
  GgufKeys keys = golden_keys("llama3");
  remove_key("tokenizer.ggml.add_bos_token")(keys);
  EXPECT_TRUE(load_keys(keys)->adds_bos());
  keys = golden_keys("smollm");
  remove_key("tokenizer.ggml.add_bos_token")(keys);
  EXPECT_FALSE(load_keys(keys)->adds_bos());
  keys = golden_keys("spm");
  remove_key("tokenizer.ggml.add_bos_token")(keys);
  remove_key("tokenizer.ggml.add_space_prefix")(keys);
  EXPECT_TRUE(load_keys(keys)->adds_bos());
  EXPECT_EQ(load_keys(keys)->encode("cloth"), load_keys(golden_keys("spm"))->encode("cloth"));
}

}  // namespace
}  // namespace puzzle
