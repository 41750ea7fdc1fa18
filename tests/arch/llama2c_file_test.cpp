#include "puzzle/arch/llama2c_file.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "formats/file_bytes.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

struct Llama2cHeader {
  std::int32_t dim = 8, ffn = 6, layers = 2, heads = 2, kv_heads = 1, vocab = 10, context = 3;
};

// Header and floats 0, 1, 2, …
std::string llama2c_bytes(const Llama2cHeader& header, std::size_t floats) {
  std::string bytes;
  for (const std::int32_t value : {header.dim, header.ffn, header.layers, header.heads,
                                   header.kv_heads, header.vocab, header.context}) {
    test::put(bytes, value);
  }
  for (std::size_t i = 0; i < floats; ++i) {
    test::put(bytes, static_cast<float>(i));
  }
  return bytes;
}

// By hand, for the header above: embedding 80; per layer norms 2·8, q and o 2·64, k and v 2·32,
// FFN 3·48; final norm 8; tables 2·3·2.
constexpr std::size_t kFloats = 80 + 2 * (16 + 128 + 64 + 144) + 8 + 12;

class Llama2cFileTest : public ::testing::Test {
 protected:
  const std::filesystem::path& write(const std::string& bytes) {
    test::write_bytes(path_, bytes);
    return path_;
  }

  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "model.bin";
};

TEST_F(Llama2cFileTest, CutsTheFileIntoNamedTensors) {
  const Llama2cFile file(write(llama2c_bytes({}, kFloats)));
  EXPECT_EQ(file.spec().hidden_size, 8);
  EXPECT_EQ(file.spec().head_dim, 4);
  EXPECT_TRUE(file.spec().tie_embeddings);
  ASSERT_EQ(file.spec().num_layers(), 2);
  EXPECT_EQ(file.spec().layers[1].name(), "kv1/w6");
  const auto first_value = [&](const char* name) {
    float value = 0.0F;
    std::memcpy(&value, file.tensor(name).bytes.data(), sizeof value);
    return value;
  };
  EXPECT_EQ(first_value("model.embed_tokens.weight"), 0.0F);
  EXPECT_EQ(first_value("model.layers.1.input_layernorm.weight"), 88.0F);
  EXPECT_EQ(first_value("model.layers.0.self_attn.q_proj.weight"), 96.0F);
  EXPECT_EQ(first_value("model.layers.1.self_attn.k_proj.weight"), 96.0F + 128.0F + 32.0F);
  EXPECT_EQ(first_value("model.norm.weight"), 80.0F + 2 * 352.0F);
  EXPECT_EQ(file.tensor("model.layers.1.mlp.down_proj.weight").shape,
            (std::vector<std::int64_t>{8, 6}));
  EXPECT_PUZZLE_ERROR((void)file.tensor("lm_head.weight"), ErrorKind::kFormat,
                      "there is no tensor lm_head.weight");
}

TEST_F(Llama2cFileTest, ANegativeVocabularyMeansAHeadOfItsOwn) {
  const Llama2cFile file(write(llama2c_bytes({.vocab = -10}, kFloats + 80)));
  EXPECT_FALSE(file.spec().tie_embeddings);
  EXPECT_EQ(file.spec().vocab_size, 10);
  EXPECT_EQ(file.tensor("lm_head.weight").shape, (std::vector<std::int64_t>{10, 8}));
}

TEST_F(Llama2cFileTest, EveryBrokenFileIsRefusedWithOneClearError) {
  constexpr std::int32_t kMin = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();
  const struct {
    std::string bytes;
    const char* message;
  } cases[] = {
      {"", "0 bytes, too short"},
      {llama2c_bytes({}, 0).substr(0, 27), "27 bytes, too short"},
      {llama2c_bytes({}, 0), "end inside model.embed_tokens.weight [10, 8]"},
      {llama2c_bytes({}, kFloats - 1), "end inside the rotary tables [2, 3, 2]"},
      {llama2c_bytes({}, 100), "end inside self_attn.q_proj.weight [2, 8, 8]"},
      {llama2c_bytes({}, 100), "is it truncated? download it again"},
      {llama2c_bytes({}, kFloats + 1), "4 bytes after the last tensor"},
      {llama2c_bytes({}, kFloats) + "x", "1 bytes after the last tensor"},
      {llama2c_bytes({.vocab = -10}, kFloats), "end inside lm_head.weight [10, 8]"},
      {llama2c_bytes({.heads = 3, .kv_heads = 3}, kFloats), "3 heads of a width of 8"},
      {llama2c_bytes({.kv_heads = 3}, kFloats), "KV heads"},
      {llama2c_bytes({.heads = 8}, kFloats), "the head width is 1"},
      {llama2c_bytes({.dim = 0}, kFloats), "a size of 0 in the header"},
      {llama2c_bytes({.layers = -1}, kFloats), "a size of -1 in the header"},
      {llama2c_bytes({.vocab = kMin}, kFloats), "a size of 2147483648 in the header"},
      {llama2c_bytes({.context = kMax}, kFloats), "a size of 2147483647 in the header"},
      // 28 bytes that ask for 4 TiB.
      {llama2c_bytes({.dim = 1 << 16, .ffn = 1 << 18, .vocab = 1 << 20}, 0),
       "end inside model.embed_tokens.weight"},
  };
  for (const auto& entry : cases) {
    SCOPED_TRACE(entry.message);
    EXPECT_PUZZLE_ERROR((void)Llama2cFile(write(entry.bytes)), ErrorKind::kFormat, entry.message);
  }
}

TEST_F(Llama2cFileTest, FindsTheOneTokenizerBesideIt) {
  EXPECT_PUZZLE_ERROR((void)llama2c_tokenizer_path(path_), ErrorKind::kIo, "0 files tok*.bin");
  test::write_bytes(folder_ / "tok512.bin", "x");
  EXPECT_EQ(llama2c_tokenizer_path(path_), folder_ / "tok512.bin");
  test::write_bytes(folder_ / "tok32.bin", "x");
  EXPECT_PUZZLE_ERROR((void)llama2c_tokenizer_path(path_), ErrorKind::kIo, "2 files tok*.bin");
}

}  // namespace
}  // namespace puzzle
