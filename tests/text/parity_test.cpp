// Real tokenizers against Hugging Face's tokenizers library, on ten thousand seeded texts of every
// kind (mixed_texts.py). SmolLM2's is the real parent's; tools/setup.sh --with-tokenizers fetches
// the others.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/text/tokenizer.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

constexpr int kNumTexts = 10'000;
constexpr int kMissingPackage = 77 << 8;  // the script's exit status, as std::system gives it

using Ids = std::vector<std::int32_t>;

// Counts differences and shows the first few.
class Differences {
 public:
  template <class Value>
  void compare(const std::string& what, const Json& input, const Value& found,
               const Value& expected) {
    if (found == expected) {
      return;
    }
    if (++count_ <= 3) {
      ADD_FAILURE() << what << " of " << input.dump() << "\n gives    " << Json(found).dump()
                    << "\n expected " << Json(expected).dump();
    }
  }
  [[nodiscard]] int count() const { return count_; }

 private:
  int count_ = 0;
};

void expect_the_same(const Tokenizer& tokenizer, const Json& answers) {
  Differences differences;
  ASSERT_EQ(answers["texts"].size(), kNumTexts);
  for (std::size_t i = 0; i < kNumTexts; ++i) {
    const Ids ids = answers["ids"][i].get<Ids>();
    const Json& text = answers["texts"][i];
    differences.compare("encode", text, tokenizer.encode(text.get<std::string>()), ids);
    differences.compare("decode", answers["ids"][i], tokenizer.decode(ids),
                        answers["decoded"][i].get<std::string>());
    const Json& random_ids = answers["random_ids"][i];
    differences.compare("decode", random_ids, tokenizer.decode(random_ids.get<Ids>()),
                        answers["random_decoded"][i].get<std::string>());
  }
  EXPECT_EQ(differences.count(), 0);
}

void compare_with_hugging_face(const std::filesystem::path& model) {
  PUZZLE_REQUIRE_FILE(model);
  const test::TempDir folder;
  const std::string log = (folder / "log").string();
  const std::string script = PUZZLE_SOURCE_DIR "/tests/text/answers_of_tokenizers.py";
  const int status =
      std::system((PUZZLE_PYTHON " " + script + " " + std::to_string(kNumTexts) + " " +
                   model.string() + " " + (folder / "answers").string() + " > " + log + " 2>&1")
                      .c_str());
  if (status == kMissingPackage) {
    GTEST_SKIP() << "this Python has no tokenizers, or no gguf";
  }
  ASSERT_EQ(status, 0) << read_text_file(log);
  expect_the_same(*load_tokenizer(model), load_json(folder / "answers"));
}

TEST(Parity, SmolLm2) { compare_with_hugging_face(test::parent_gguf()); }
TEST(Parity, Llama31) { compare_with_hugging_face(test::real_tokenizer("llama-3.1")); }
TEST(Parity, Qwen3) { compare_with_hugging_face(test::real_tokenizer("qwen3")); }
TEST(Parity, SentencePieceOfMistral) {
  compare_with_hugging_face(test::real_tokenizer("mistral-7b"));
}

}  // namespace
}  // namespace puzzle
