#include "puzzle/text/llama2c_tokenizer.h"

#include <cmath>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/text/tokenizer.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

template <class Value>
std::string bytes_of_value(Value value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string token(float score, const std::string& text) {
  return bytes_of_value(score) + bytes_of_value(static_cast<std::int32_t>(text.size())) + text;
}

// <unk>, BOS, EOS, the bytes, then " ", "a", "b", "ab", " ab".
std::string small_file() {
  std::string file = bytes_of_value(std::int32_t{7}) + token(0, "<unk>") + token(0, "\n<s>\n") +
                     token(0, "\n</s>\n");
  for (int byte = 0; byte < 256; ++byte) {
    file += token(0, byte_token(static_cast<std::uint8_t>(byte)));
  }
  return file + token(-3, " ") + token(-4, "a") + token(-5, "b") + token(0, "ab") +
         token(-1, " ab");
}

std::shared_ptr<const Tokenizer> load_bytes(const std::string& bytes) {
  const test::TempDir folder;
  write_text_file(folder / "tok.bin", bytes);
  return load_tokenizer(folder / "tok.bin");
}

TEST(Llama2cTokenizer, MergesByScoreBehindOneSpace) {
  const auto tokenizer = load_bytes(small_file());
  EXPECT_EQ(tokenizer->encode("ab"), (std::vector<std::int32_t>{263}));
  EXPECT_EQ(tokenizer->encode("abb", {.add_special = true}),
            (std::vector<std::int32_t>{1, 263, 261}));
  EXPECT_EQ(tokenizer->encode("\n"), (std::vector<std::int32_t>{259, 3 + 10}));
  EXPECT_EQ(tokenizer->encode(""), (std::vector<std::int32_t>{}));
  EXPECT_EQ(tokenizer->encode("<s>a"), (std::vector<std::int32_t>{1, 259, 260}));
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{263, 259, 3 + 10}), "ab \n");
}

TEST(Llama2cTokenizer, RefusesBrokenFiles) {
  const std::string good = small_file();
  const std::string cut = good.substr(0, good.size() - 1);
  EXPECT_PUZZLE_ERROR((void)load_bytes(cut), ErrorKind::kFormat, "ends at byte");
  EXPECT_PUZZLE_ERROR((void)load_bytes(good.substr(0, 2)), ErrorKind::kFormat, "ends at byte 2");
  EXPECT_PUZZLE_ERROR((void)load_bytes(""), ErrorKind::kFormat, "ends at byte 0");
  EXPECT_PUZZLE_ERROR((void)load_bytes(bytes_of_value(std::int32_t{-1})), ErrorKind::kFormat,
                      "the longest token has -1 bytes");
  EXPECT_PUZZLE_ERROR((void)load_bytes(good.substr(0, 1000)), ErrorKind::kFormat, "tok.bin");
  EXPECT_PUZZLE_ERROR((void)load_bytes(bytes_of_value(std::int32_t{7}) + bytes_of_value(0.0F) +
                                       bytes_of_value(std::int32_t{2'000'000'000})),
                      ErrorKind::kFormat, "token 0 at byte 12 has 2000000000 bytes");
  EXPECT_PUZZLE_ERROR((void)load_bytes(bytes_of_value(std::int32_t{7}) + token(0, "a")),
                      ErrorKind::kFormat, "not a llama2.c tokenizer");
  EXPECT_PUZZLE_ERROR((void)load_bytes(good + token(std::nanf(""), "x")), ErrorKind::kFormat,
                      "the score of token 264 is not a number");
}

}  // namespace
}  // namespace puzzle
