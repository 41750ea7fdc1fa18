#include "puzzle/text/tokenizer_files.h"

#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/text/tokenizer.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "text/golden.h"

namespace puzzle {
namespace {

void write_files(const std::filesystem::path& model, const test::TempDir& folder) {
  for (const auto& [name, content] : load_hf_tokenizer_files(model)) {
    write_text_file(folder / name, content);
  }
}

TEST(TokenizerFiles, CopiesThoseOfAHuggingFaceParent) {
  const auto files = load_hf_tokenizer_files(test::golden_tokenizer("llama3"));
  ASSERT_EQ(files.size(), 2U);
  for (const auto& [name, content] : files) {
    EXPECT_EQ(content, read_text_file(test::golden_tokenizer("llama3") / name)) << name;
  }
}

TEST(TokenizerFiles, CopiesTheKeysOfAGgufParent) {
  const test::TempDir folder;
  GgufWriter writer;
  writer.add_string("general.architecture", "llama");
  writer.add_string("tokenizer.ggml.vendor_key", "kept");
  for (const auto& [key, value] : load_gguf_tokenizer_keys(test::golden_tokenizer("smollm"), 700)) {
    writer.add_value(key, value);
  }
  writer.write(folder / "parent.gguf");
  const GgufKeys keys = load_gguf_tokenizer_keys(folder / "parent.gguf", 700);
  const GgufFile file(folder / "parent.gguf");
  EXPECT_EQ(keys.size() + 1, file.metadata().size());
  for (const auto& [key, value] : keys) {
    EXPECT_EQ(value, *file.find_value(key)) << key;
  }
  EXPECT_PUZZLE_ERROR((void)load_gguf_tokenizer_keys(folder / "parent.gguf", 701),
                      ErrorKind::kFormat, "holds 700 tokens, the embedding 701 rows");
}

TEST(TokenizerFiles, MakesHuggingFaceFilesFromTheGgufParent) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const test::TempDir folder;
  write_files(test::parent_gguf(), folder);
  const auto tokenizer = load_tokenizer(folder.path());
  const std::vector<std::string> texts = test::golden_texts();
  const test::GoldenIds expected = test::golden_ids("smollm2");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer->encode(texts[i]), expected[i]) << "\"" << texts[i] << "\"";
  }
  const auto parent = load_tokenizer(test::parent_gguf());
  EXPECT_EQ(tokenizer->chat_template(), parent->chat_template());
  EXPECT_EQ(tokenizer->bos(), parent->bos());
  EXPECT_EQ(tokenizer->eos(), parent->eos());
}

TEST(TokenizerFiles, MakesBothKindsFromLlama2c) {
  const auto path = test::shared_data("tinyllamas/tok512.bin");
  PUZZLE_REQUIRE_FILE(path);
  const test::TempDir folder;
  write_files(path, folder);
  GgufWriter writer;
  writer.add_string("general.architecture", "llama");
  for (const auto& [key, value] : load_gguf_tokenizer_keys(path, 512)) {
    writer.add_value(key, value);
  }
  writer.write(folder / "tiny.gguf");
  const auto& golden = test::tokenizer_golden()["llama2c"];
  for (const std::filesystem::path& model : {folder.path(), folder / "tiny.gguf"}) {
    const auto tokenizer = load_tokenizer(model);
    for (std::size_t i = 0; i < golden["texts"].size(); ++i) {
      EXPECT_EQ(tokenizer->encode(golden["texts"][i].get<std::string>(), {.add_special = true}),
                golden["ids"][i].get<std::vector<std::int32_t>>())
          << model << " " << i;
    }
  }
}

// Starting transformers takes seconds, so one process encodes for every parent there is.
TEST(TokenizerFiles, AutoTokenizerReadsWhatWeMake) {
  constexpr int kNoTransformers = 77 << 8;  // the script's exit status, as std::system gives it
  const test::TempDir folder;
  const auto& golden = test::tokenizer_golden();
  std::string arguments;
  std::vector<std::string> names;
  const auto add = [&](const std::string& name, const std::filesystem::path& model,
                       const nlohmann::json& texts) {
    if (!std::filesystem::exists(model)) {
      return;
    }
    names.push_back(name);
    make_folder(folder / name);
    for (const auto& [file, content] : load_hf_tokenizer_files(model)) {
      write_text_file(folder / name / file, content);
    }
    save_json(folder / (name + ".texts"), texts);
    arguments += " " + (folder / name).string();
  };
  add("smollm2", test::parent_gguf(), golden["texts"]);
  add("llama2c", test::shared_data("tinyllamas/tok512.bin"), golden["llama2c"]["texts"]);
  if (names.empty()) {
    GTEST_SKIP() << "neither the parent nor llama2.c's tokenizer is there";
  }
  const std::string log = (folder / "log").string();
  const int status =
      std::system((PUZZLE_PYTHON " " PUZZLE_SOURCE_DIR "/tests/text/encode_with_transformers.py" +
                   arguments + " > " + log + " 2>&1")
                      .c_str());
  if (status == kNoTransformers) {
    GTEST_SKIP() << "this Python has no transformers";
  }
  ASSERT_EQ(status, 0) << read_text_file(log);
  for (const std::string& name : names) {
    EXPECT_EQ(load_json(folder / (name + ".ids")).get<test::GoldenIds>(), test::golden_ids(name));
  }
}

}  // namespace
}  // namespace puzzle
