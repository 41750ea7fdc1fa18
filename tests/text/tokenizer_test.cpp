#include "puzzle/text/tokenizer.h"

#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/base/error.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "text/golden.h"

namespace puzzle {
namespace {

using Ids = std::vector<std::int32_t>;

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, GivesHuggingFacesIdsAndText) {
  const std::string name = GetParam();
  const auto tokenizer = load_tokenizer(test::golden_tokenizer(name));
  const auto& golden = test::tokenizer_golden()[name];
  const std::vector<std::string> texts = test::golden_texts();
  const test::GoldenIds expected = test::golden_ids(name);
  ASSERT_EQ(texts.size(), expected.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer->encode(texts[i]), expected[i]) << "\"" << texts[i] << "\"";
    EXPECT_EQ(tokenizer->decode(expected[i]), golden["decoded"][i]) << "\"" << texts[i] << "\"";
    Ids around = golden["prefix"];
    around.insert(around.end(), expected[i].begin(), expected[i].end());
    const Ids suffix = golden["suffix"];
    around.insert(around.end(), suffix.begin(), suffix.end());
    EXPECT_EQ(tokenizer->encode(texts[i], {.add_special = true}), around);
  }
  EXPECT_EQ(tokenizer->vocab_size(), golden["pieces"]);
  EXPECT_EQ(tokenizer->bos() ? nlohmann::json(*tokenizer->bos()) : nlohmann::json(), golden["bos"]);
  EXPECT_EQ(tokenizer->eos() ? nlohmann::json(*tokenizer->eos()) : nlohmann::json(), golden["eos"]);
  EXPECT_EQ(tokenizer->adds_bos(), !golden["prefix"].empty());
  EXPECT_EQ(tokenizer->chat_template(), "{{ messages }}");
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTokenizer,
                         ::testing::Values("gpt2", "smollm", "llama3", "qwen2", "tekken", "spm",
                                           "llama_class", "metaspace"),
                         [](const auto& family) { return std::string(family.param); });

std::string random_bytes(std::mt19937& random) {
  std::string text;
  const std::size_t length = random() % 40;
  for (std::size_t i = 0; i < length; ++i) {
    // Half plain letters and spaces, half anything.
    text.push_back(random() % 2 == 0 ? "ab c\n"[random() % 5] : static_cast<char>(random() % 256));
  }
  return text;
}

TEST(Tokenizer, KeepsBytesThatAreNotUtf8) {
  std::mt19937 random(11);
  // Not qwen2: it normalises, and metaspace has an unknown token.
  for (const char* name : {"gpt2", "smollm", "llama3", "tekken", "spm"}) {
    const auto tokenizer = load_tokenizer(test::golden_tokenizer(name));
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_bytes(random);
      ASSERT_EQ(tokenizer->decode_bytes(tokenizer->encode(text)), text) << name;
    }
  }
  const auto qwen2 = load_tokenizer(test::golden_tokenizer("qwen2"));
  EXPECT_EQ(qwen2->decode_bytes(qwen2->encode("e\u0301\xFF\xC3")), "\u00E9\xFF\xC3");
  EXPECT_EQ(qwen2->decode(qwen2->encode("a\xFF")), "a\uFFFD");
}

// Hugging Face's ByteFallback decoder looks at a run of them as a whole.
TEST(Tokenizer, ByteTokensThatAreNoTextBecomeOneReplacementEach) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("spm"));
  const auto decode = [&](const std::vector<const char*>& texts) {
    Ids ids;
    for (const char* text : texts) {
      ids.push_back(tokenizer->find_token(text).value());
    }
    return tokenizer->decode(ids);
  };
  EXPECT_EQ(decode({"a", "<0xE4>", "<0xB8>", "<0xAD>", "a"}), "a\u4E2Da");
  EXPECT_EQ(decode({"a", "<0xE4>", "<0xB8>", "a"}), "a\uFFFD\uFFFDa");
  EXPECT_EQ(decode({"a", "<0xE4>", "<0xB8>", "<0xAD>", "<0xFF>"}), "a\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(decode({"<0xFF>", "a", "<0x41>"}), "\uFFFDaA");
}

// tests/golden/make_byte_ids.py says what these ids are.
TEST(Tokenizer, IdsOfBytesThatAreNotUtf8AreThoseOfTheBpeModelOnRawBytes) {
  const auto golden =
      nlohmann::json::parse(read_text_file(test::golden_folder() / "byte_ids.json"));
  const auto strings = golden.at("strings").get<std::vector<std::string>>();
  ASSERT_GE(strings.size(), 10U);
  for (const char* name : {"gpt2", "smollm", "llama3"}) {
    const auto tokenizer = load_tokenizer(test::golden_tokenizer(name));
    const auto ids = golden.at(name).get<test::GoldenIds>();
    ASSERT_EQ(ids.size(), strings.size());
    for (std::size_t i = 0; i < strings.size(); ++i) {
      std::string bytes;
      for (std::size_t at = 0; at < strings[i].size(); at += 2) {
        bytes.push_back(static_cast<char>(std::stoi(strings[i].substr(at, 2), nullptr, 16)));
      }
      EXPECT_EQ(tokenizer->encode(bytes), ids[i]) << name << " " << strings[i];
    }
  }
}

TEST(Tokenizer, ParentGivesHuggingFacesIds) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const auto tokenizer = load_tokenizer(test::parent_gguf());
  const auto& golden = test::tokenizer_golden()["smollm2"];
  const std::vector<std::string> texts = test::golden_texts();
  const test::GoldenIds expected = test::golden_ids("smollm2");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer->encode(texts[i]), expected[i]) << "\"" << texts[i] << "\"";
    EXPECT_EQ(tokenizer->decode(expected[i]), golden["decoded"][i]) << "\"" << texts[i] << "\"";
  }
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->encode("hi", {.add_special = true}), tokenizer->encode("hi"));
  EXPECT_EQ(tokenizer->find_token("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer->token_text(2), "<|im_end|>");
  EXPECT_NE(tokenizer->chat_template().find("<|im_start|>"), std::string::npos);
  EXPECT_GT(tokenizer->encode("<|im_end|>", {.parse_special = false}).size(), 1U);
  // A byte that no UTF-8 text has, and the vocabulary neither: dropped, as in Hugging Face's.
  EXPECT_EQ(tokenizer->decode_bytes(tokenizer->encode("a\xFF"
                                                      "b")),
            "ab");
}

std::string fnv1a(const Ids& ids) {
  std::uint64_t value = 0xCBF29CE484222325ULL;
  for (const std::int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ ((static_cast<std::uint32_t>(id) >> shift) & 0xFFU)) * 0x100000001B3ULL;
    }
  }
  return fmt::format("{:016x}", value);
}

TEST(Tokenizer, ParentGivesHuggingFacesIdsOnWholeCorporaAndBack) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const auto tokenizer = load_tokenizer(test::parent_gguf());
  for (const auto& [name, golden] : test::tokenizer_golden()["smollm2"]["corpora"].items()) {
    PUZZLE_REQUIRE_FILE(test::shared_data(name));
    const std::string text = read_text_file(test::shared_data(name));
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(ids.size(), golden["count"]) << name;
    EXPECT_EQ(Ids(ids.begin(), ids.begin() + 16), golden["head"]) << name;
    EXPECT_EQ(fnv1a(ids), golden["fnv1a"]) << name;
    EXPECT_EQ(tokenizer->decode_bytes(ids), text) << name;
  }
}

TEST(Tokenizer, Llama2cGivesItsOwnEncodersIds) {
  const auto path = test::shared_data("tinyllamas/tok512.bin");
  PUZZLE_REQUIRE_FILE(path);
  const auto tokenizer = load_tokenizer(path);
  const auto& golden = test::tokenizer_golden()["llama2c"];
  for (std::size_t i = 0; i < golden["texts"].size(); ++i) {
    const std::string text = golden["texts"][i];
    const Ids ids = tokenizer->encode(text, {.add_special = true});
    EXPECT_EQ(ids, golden["ids"][i]) << "\"" << text << "\"";
    EXPECT_EQ(tokenizer->decode_bytes(tokenizer->encode(text)), text);
  }
  EXPECT_EQ(tokenizer->vocab_size(), 512);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
}

TEST(Tokenizer, SeveralThreadsMayEncodeAtOnce) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("llama3"));
  const std::vector<std::string> texts = test::golden_texts();
  const test::GoldenIds expected = test::golden_ids("llama3");
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t worker = 0; worker < wrong.size(); ++worker) {
    threads.emplace_back([&, worker] {
      for (std::size_t i = 0; i < 20 * texts.size(); ++i) {
        const std::size_t at = (i + worker * 31) % texts.size();
        wrong[worker] += tokenizer->encode(texts[at]) != expected[at] ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, SpecialTokensCanBeLeftOut) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("smollm"));
  const Ids ids = tokenizer->encode("<|im_start|>hi<|im_end|>");
  EXPECT_TRUE(tokenizer->is_special(ids.front()));
  EXPECT_FALSE(tokenizer->is_special(ids[1]));
  EXPECT_EQ(tokenizer->decode(ids), "<|im_start|>hi<|im_end|>");
  EXPECT_EQ(tokenizer->decode(ids, {.skip_special = true}), "hi");
}

TEST(Tokenizer, RefusesIdsItDoesNotHave) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("smollm"));
  EXPECT_PUZZLE_ERROR((void)tokenizer->decode(Ids{700}), ErrorKind::kUsage,
                      "token id 700, expected 0 to 699");
  EXPECT_PUZZLE_ERROR((void)tokenizer->token_bytes(-1), ErrorKind::kUsage, "token id -1");
}

TEST(Tokenizer, ContentKeyFollowsTheContent) {
  const auto smollm = load_tokenizer(test::golden_tokenizer("smollm"));
  EXPECT_EQ(smollm->content_key().size(), 32U);
  EXPECT_EQ(load_tokenizer(test::golden_tokenizer("smollm"))->content_key(), smollm->content_key());
  EXPECT_NE(load_tokenizer(test::golden_tokenizer("gpt2"))->content_key(), smollm->content_key());
  // The same vocabulary and merges, but EOS is added.
  EXPECT_NE(load_tokenizer(test::golden_tokenizer("spm"))->content_key(),
            load_tokenizer(test::golden_tokenizer("llama_class"))->content_key());
}

TEST(Tokenizer, SaysWhatItCanLoad) {
  const test::TempDir folder;
  write_text_file(folder / "model.onnx", "x");
  EXPECT_PUZZLE_ERROR((void)load_tokenizer(folder / "none"), ErrorKind::kIo, "no such file");
  EXPECT_PUZZLE_ERROR((void)load_tokenizer(folder.path()), ErrorKind::kIo,
                      "holds no tokenizer.json");
  EXPECT_PUZZLE_ERROR((void)load_tokenizer(folder / "model.onnx"), ErrorKind::kFormat,
                      "not a tokenizer; expected a .gguf file");
}

TEST(StreamDecoder, NeverGivesHalfACharacter) {
  const auto tokenizer = load_tokenizer(test::golden_tokenizer("smollm"));
  const std::string text = "ok \U0001F642 \u4E00 <|im_end|>!";
  std::string joined;
  StreamDecoder decoder(tokenizer);
  for (const std::int32_t id : tokenizer->encode(text)) {
    const std::string part = decoder.push(id);
    EXPECT_EQ(part.find("\uFFFD"), std::string::npos);
    joined += part;
  }
  joined += decoder.finish();
  EXPECT_EQ(joined, "ok \U0001F642 \u4E00 !");

  StreamDecoder cut(tokenizer);
  joined.clear();
  for (const std::int32_t id : tokenizer->encode("a\xF0\x9F")) {
    joined += cut.push(id);
  }
  EXPECT_EQ(joined, "a");
  EXPECT_EQ(cut.finish(), "\uFFFD");
}

}  // namespace
}  // namespace puzzle
