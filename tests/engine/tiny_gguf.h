// A two-layer Llama in F32 with hashed weights and a byte tokenizer, small enough to write in every
// test; tests/golden/make_llama_server_log_probs.py builds the same model for transformers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "puzzle/formats/gguf.h"

namespace puzzle::test {

class TinyGguf {
 public:
  static constexpr std::int64_t kWidth = 32;
  static constexpr std::int64_t kVocabulary = 258;

  void write(const std::filesystem::path& path) {
    GgufWriter writer;
    add_keys(writer);
    add(writer, "token_embd.weight", 1, {kVocabulary, kWidth}, 1.0);
    add(writer, "output_norm.weight", 2, {kWidth}, 0.5, 1.0);
    add(writer, "output.weight", 3, {kVocabulary, kWidth}, 0.3);
    for (std::uint64_t layer = 0; layer < 2; ++layer) {
      const std::uint64_t base = 10 * (layer + 1);
      const std::string name = "blk." + std::to_string(layer) + ".";
      add(writer, name + "attn_norm.weight", base, {kWidth}, 0.5, 1.0);
      add(writer, name + "attn_q.weight", base + 1, {32, kWidth}, 0.3);
      add(writer, name + "attn_k.weight", base + 2, {16, kWidth}, 0.3);
      add(writer, name + "attn_v.weight", base + 3, {16, kWidth}, 0.5);
      add(writer, name + "attn_output.weight", base + 4, {kWidth, 32}, 0.5);
      add(writer, name + "ffn_norm.weight", base + 5, {kWidth}, 0.5, 1.0);
      add(writer, name + "ffn_gate.weight", base + 6, {64, kWidth}, 0.4);
      add(writer, name + "ffn_up.weight", base + 7, {64, kWidth}, 0.4);
      add(writer, name + "ffn_down.weight", base + 8, {kWidth, 64}, 0.4);
    }
    writer.write(path);
  }

  // Row-major [258, 32]; after write().
  [[nodiscard]] std::vector<float> head() const {
    return values(3, kVocabulary * kWidth, 0.3, 0.0);
  }

 private:
  static std::vector<float> values(std::uint64_t index, std::int64_t count, double scale,
                                   double offset) {
    constexpr std::uint64_t kMask = 0xffffffffU;
    std::vector<float> result;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(count); ++i) {
      std::uint64_t x = ((i + 1) * 2654435761U + index * 40503U) & kMask;
      x ^= x >> 15U;
      x = x * 2246822519U & kMask;
      x ^= x >> 13U;
      result.push_back(
          static_cast<float>((static_cast<double>(x) / 4294967296.0 - 0.5) * 2.0 * scale + offset));
    }
    return result;
  }

  void add(GgufWriter& writer, const std::string& name, std::uint64_t index,
           std::vector<std::int64_t> shape, double scale, double offset = 0.0) {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) {
      count *= size;
    }
    TensorToWrite tensor;
    tensor.name = name;
    tensor.shape = std::move(shape);
    tensor.produce = [data = values(index, count, scale, offset)](const ByteSink& sink) {
      sink(std::as_bytes(std::span(data)));
    };
    writer.add_tensor(std::move(tensor));
  }

  static void add_keys(GgufWriter& writer) {
    writer.add_string("general.architecture", "llama").add_string("general.name", "tiny");
    writer.add_u32("llama.block_count", 2)
        .add_u32("llama.context_length", 512)
        .add_u32("llama.embedding_length", kWidth)
        .add_u32("llama.feed_forward_length", 64)
        .add_u32("llama.attention.head_count", 4)
        .add_u32("llama.attention.head_count_kv", 2)
        .add_u32("llama.vocab_size", kVocabulary)
        .add_u32("llama.rope.dimension_count", 8)
        .add_f32("llama.rope.freq_base", 10000.0F)
        .add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    std::vector<std::string> tokens;
    for (std::uint32_t byte = 0, beyond = 256; byte < 256; ++byte) {
      // GPT-2 writes a printable byte as itself and the others as U+0100 onwards.
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
      tokens.push_back(utf8(printable ? byte : beyond));
      beyond += printable ? 0 : 1;
    }
    tokens.emplace_back("th");
    tokens.emplace_back("<|endoftext|>");
    std::vector<std::int32_t> types(kVocabulary, 1);
    types.back() = 3;  // control
    writer.add_string("tokenizer.ggml.model", "gpt2").add_string("tokenizer.ggml.pre", "gpt-2");
    writer.add_value("tokenizer.ggml.tokens", tokens).add_value("tokenizer.ggml.token_type", types);
    writer.add_value("tokenizer.ggml.merges", std::vector<std::string>{"t h"});
    writer.add_u32("tokenizer.ggml.eos_token_id", 257)
        .add_value("tokenizer.ggml.add_bos_token", false);
  }

  static std::string utf8(std::uint32_t code) {
    if (code < 0x80) {
      return {static_cast<char>(code)};
    }
    return {static_cast<char>(0xc0U | code >> 6U), static_cast<char>(0x80U | (code & 0x3fU))};
  }
};

}  // namespace puzzle::test
