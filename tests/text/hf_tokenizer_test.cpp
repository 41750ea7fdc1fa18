#include "puzzle/text/hf_tokenizer.h"

#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"
#include "puzzle/text/pipeline_tokenizer.h"
#include "puzzle/text/tokenizer.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "text/golden.h"

namespace puzzle {
namespace {

using nlohmann::json;

json golden_json(const std::string& name) {
  return json::parse(read_text_file(test::golden_tokenizer(name) / "tokenizer.json"));
}

std::shared_ptr<const Tokenizer> load_changed(const std::function<void(json&)>& change,
                                              const json& config = json::object(),
                                              const std::string& name = "smollm") {
  const test::TempDir folder;
  json root = golden_json(name);
  change(root);
  write_text_file(folder / "tokenizer.json", root.dump());
  write_text_file(folder / "tokenizer_config.json", config.dump());
  return load_tokenizer(folder.path());
}

struct BrokenTokenizer {
  const char* expected;  // part of the message
  std::function<void(json&)> change;
};

TEST(HfTokenizer, RefusesBrokenAndUnknownFilesWithOneClearError) {
  const BrokenTokenizer table[] = {
      {"no object \"model\"", [](json& j) { j.erase("model"); }},
      {"no object \"model\"", [](json& j) { j = json::array(); }},
      {"the tokenizer model is \"Unigram\"", [](json& j) { j["model"]["type"] = "Unigram"; }},
      {"model.vocab is not an object", [](json& j) { j["model"]["vocab"] = 3; }},
      {"a vocabulary of 0 tokens",
       [](json& j) {
         j["model"]["vocab"] = json::object();
         j["model"]["merges"] = json::array();
         j["added_tokens"] = json::array();
       }},
      {"has id \"7\", expected a whole number", [](json& j) { j["model"]["vocab"]["!"] = "7"; }},
      {"has id -1, expected", [](json& j) { j["model"]["vocab"]["!"] = -1; }},
      {"has id 99999999999", [](json& j) { j["model"]["vocab"]["!"] = 99999999999; }},
      {"have the same id", [](json& j) { j["model"]["vocab"]["new"] = 17; }},
      {"model.merges is not an array", [](json& j) { j["model"].erase("merges"); }},
      {"merge 0 is \"a b c\"", [](json& j) { j["model"]["merges"][0] = "a b c"; }},
      {"merge 0 is 5", [](json& j) { j["model"]["merges"][0] = 5; }},
      {"not both in the vocabulary", [](json& j) { j["model"]["merges"][0] = {"zz", "a"}; }},
      {"merge 0 gives \"!\"\", which is not in the vocabulary",
       [](json& j) { j["model"]["merges"][0] = {"!", "\""}; }},
      {"model.unk_token \"none\" is not in the vocabulary",
       [](json& j) { j["model"]["unk_token"] = "none"; }},
      {"model.end_of_word_suffix is \"</w>\"",
       [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"model.dropout is not 0", [](json& j) { j["model"]["dropout"] = 0.1; }},
      {"the normalizer \"Lowercase\" is not supported",
       [](json& j) { j["normalizer"] = {{"type", "Lowercase"}}; }},
      {"Replace with the regex x+ is not supported",
       [](json& j) {
         j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "x+"}}}, {"content", ""}};
       }},
      {"the normalizer replaces an empty string",
       [](json& j) {
         j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}};
       }},
      {"the pre-tokenizer \"Whitespace\" is not supported",
       [](json& j) { j["pre_tokenizer"] = {{"type", "Whitespace"}}; }},
      {"one of the supported ones: \\w+",
       [](json& j) {
         j["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}};
       }},
      {"the split behavior \"Sideways\" is not known",
       [](json& j) {
         j["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "Sideways"}};
       }},
      {"a Sequence without the array \"pretokenizers\"",
       [](json& j) { j["pre_tokenizer"] = {{"type", "Sequence"}}; }},
      {"the decoder \"WordPiece\" is not supported",
       [](json& j) { j["decoder"] = {{"type", "WordPiece"}}; }},
      {"the post-processor \"BertProcessing\" is not supported",
       [](json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; }},
      {"the template's token \"<s>\" has no ids",
       [](json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}},
                                {"special_tokens", json::object()}};
       }},
      {"a token that the template adds has id 900000",
       [](json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}},
                                {"special_tokens", {{"<s>", {{"ids", {900000}}}}}}};
       }},
      {"\"id\" is missing", [](json& j) { j["added_tokens"][0].erase("id"); }},
      {"has the id 20 of", [](json& j) { j["added_tokens"][0]["id"] = 20; }},
  };
  for (const BrokenTokenizer& broken : table) {
    EXPECT_PUZZLE_ERROR((void)load_changed(broken.change), ErrorKind::kFormat, broken.expected);
  }
}

TEST(HfTokenizer, SurvivesTruncation) {
  const test::TempDir folder;
  const std::string whole = read_text_file(test::golden_tokenizer("spm") / "tokenizer.json");
  for (std::size_t bytes = 0; bytes < whole.size(); bytes += whole.size() / 40) {
    write_text_file(folder / "tokenizer.json", whole.substr(0, bytes));
    EXPECT_PUZZLE_ERROR((void)load_tokenizer(folder.path()), ErrorKind::kFormat, "tokenizer.json");
  }
}

TEST(HfTokenizer, ReadsMergesInBothSpellings) {
  const auto tokenizer = load_changed([](json& j) {
    for (json& merge : j["model"]["merges"]) {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  });
  EXPECT_EQ(tokenizer->encode("The tailor"),
            load_tokenizer(test::golden_tokenizer("smollm"))->encode("The tailor"));
}

TEST(HfTokenizer, TakesTokensThatOnlyTheConfigNames) {
  const auto tokenizer =
      load_changed([](json&) {}, {{"added_tokens_decoder", {{"705", {{"content", "<tool>"}}}}}});
  EXPECT_EQ(tokenizer->encode("<tool>"), (std::vector<std::int32_t>{705}));
  EXPECT_EQ(tokenizer->vocab_size(), 706);
  EXPECT_EQ(tokenizer->token_text(702), "");
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{705}), "<tool>");
}

TEST(HfTokenizer, FindsTheChatTemplateWhereverItIs) {
  const auto unchanged = [](json&) {};
  EXPECT_EQ(load_changed(unchanged)->chat_template(), "");
  EXPECT_EQ(load_changed(unchanged, {{"chat_template", "A"}})->chat_template(), "A");
  const json list = {{{"name", "tool_use"}, {"template", "B"}},
                     {{"name", "default"}, {"template", "C"}}};
  EXPECT_EQ(load_changed(unchanged, {{"chat_template", list}})->chat_template(), "C");

  const test::TempDir folder;
  write_text_file(folder / "tokenizer.json", golden_json("smollm").dump());
  write_text_file(folder / "chat_template.jinja", "D");
  EXPECT_EQ(load_tokenizer(folder.path())->chat_template(), "D");
}

TEST(HfTokenizer, FindsBosAndEosInTheOtherFiles) {
  const test::TempDir folder;
  write_text_file(folder / "tokenizer.json", golden_json("smollm").dump());
  write_text_file(folder / "special_tokens_map.json",
                  R"({"bos_token": {"content": "<|im_start|>"}})");
  write_text_file(folder / "config.json", R"({"bos_token_id": 9, "eos_token_id": [2, 0]})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(HfTokenizer, WritesWhatItReads) {
  for (const char* name : {"gpt2", "smollm", "llama3", "qwen2", "tekken", "spm", "metaspace"}) {
    const test::TempDir folder;
    const auto tokenizer = load_tokenizer(test::golden_tokenizer(name));
    for (const auto& [file, content] :
         make_hf_files(load_hf_tokenizer(test::golden_tokenizer(name)))) {
      write_text_file(folder / file, content);
    }
    const auto again = load_tokenizer(folder.path());
    EXPECT_EQ(again->content_key(), tokenizer->content_key()) << name;
    EXPECT_EQ(again->chat_template(), tokenizer->chat_template()) << name;
  }
}

}  // namespace
}  // namespace puzzle
