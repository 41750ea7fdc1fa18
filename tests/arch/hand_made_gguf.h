// GGUF files put together by hand, key by key and tensor by tensor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "arch/naive_tensors.h"
#include "puzzle/arch/gguf_config.h"
#include "puzzle/arch/lowering.h"
#include "puzzle/formats/gguf_quant.h"
#include "support/temp_dir.h"

namespace puzzle::test {

// Keys and tensors that a test may change before writing.
struct HandMadeGguf {
  std::map<std::string, GgufValue> keys;
  std::vector<NaiveTensor> tensors;
  DType matrix = DType::kF32;
  std::map<std::string, std::vector<float>> values;  // in place of the fill

  std::vector<float> fill(const NaiveTensor& tensor) const {
    const auto given = values.find(tensor.name);
    if (given != values.end()) {
      return given->second;
    }
    std::vector<float> data(static_cast<std::size_t>(tensor.elements()), 0.0F);
    const LinearFfnForm form = linear_ffn_form(matrix);
    switch (tensor.fill) {
      case Fill::kZero:
        break;
      case Fill::kOne:
        std::fill(data.begin(), data.end(), 1.0F);
        break;
      case Fill::kGateBias:
        std::fill(data.begin(), data.end(), form.gate_bias);
        break;
      case Fill::kDiagonal:
        for (std::size_t i = 0; i < data.size();
             i += static_cast<std::size_t>(tensor.shape[1]) + 1) {
          data[i] = form.down_diagonal;
        }
        break;
      case Fill::kRandom: {
        std::mt19937 random(7);
        for (float& value : data) {
          value = static_cast<float>(random() % 2000) / 1000.0F - 1.0F;
        }
        break;
      }
    }
    return data;
  }

  void write(const std::filesystem::path& path, GgufWriter& writer) const {
    for (const auto& [key, value] : keys) {
      writer.add_value(key, value);
    }
    for (const NaiveTensor& tensor : tensors) {
      TensorToWrite entry;
      entry.name = tensor.name;
      entry.dtype = tensor.shape.size() == 1 ? DType::kF32 : matrix;
      if (tensor.shape.size() == 2 && tensor.shape[1] % 32 != 0 && is_quantized(matrix)) {
        entry.dtype = DType::kF16;
      }
      entry.shape = tensor.shape;
      std::vector<std::byte> bytes;
      quantize(entry.dtype, fill(tensor), tensor.shape.back(), bytes);
      entry.produce = [bytes](const ByteSink& sink) { sink(bytes); };
      writer.add_tensor(std::move(entry));
    }
    writer.write(path);
  }
  void write(const std::filesystem::path& path) const {
    GgufWriter writer;
    write(path, writer);
  }
};

class GgufConfig : public ::testing::Test {
 protected:
  ModelSpec read(const HandMadeGguf& made) {
    made.write(path_);
    return read_gguf_config(GgufFile(path_));
  }

  TempDir folder_;
  std::filesystem::path path_ = folder_ / "model.gguf";
};

// Keys as llama.cpp's converter writes them for a small Llama.
inline HandMadeGguf llama_file(const ModelSpec& spec) {
  HandMadeGguf made;
  const auto u32 = [](std::int64_t value) { return GgufValue(static_cast<std::uint32_t>(value)); };
  made.keys = {{"general.architecture", std::string("llama")},
               {"general.name", std::string("small")},
               {"llama.block_count", u32(spec.num_layers())},
               {"llama.context_length", u32(spec.context_length)},
               {"llama.embedding_length", u32(spec.hidden_size)},
               {"llama.vocab_size", u32(spec.vocab_size)},
               {"llama.attention.head_count", u32(spec.num_heads)},
               {"llama.attention.head_count_kv", u32(spec.layers[0].attention.kv_heads)},
               {"llama.feed_forward_length", u32(spec.layers[0].ffn.width)},
               {"llama.attention.layer_norm_rms_epsilon", 1e-5F},
               {"llama.rope.dimension_count", u32(spec.head_dim)},
               {"llama.rope.freq_base", 10000.0F}};
  made.tensors = naive_deci_tensors(spec);
  return made;
}

// The same keys below another name.
inline HandMadeGguf qwen_file(const ModelSpec& spec, const std::string& architecture) {
  HandMadeGguf made = llama_file(spec);
  for (const auto& [key, value] : std::map(made.keys)) {
    if (key.starts_with("llama.")) {
      made.keys[architecture + key.substr(5)] = value;
      made.keys.erase(key);
    }
  }
  made.keys["general.architecture"] = architecture;
  made.keys.erase(architecture + ".rope.dimension_count");
  made.keys[architecture + ".attention.key_length"] = static_cast<std::uint32_t>(spec.head_dim);
  made.keys[architecture + ".attention.value_length"] = static_cast<std::uint32_t>(spec.head_dim);
  return made;
}

// What our exporter writes, but with tensors listed and rewritten by hand.
inline ModelSpec through_deci(const ModelSpec& spec, DType matrix,
                              const std::filesystem::path& path) {
  HandMadeGguf made;
  made.tensors = naive_deci_tensors(spec);
  made.matrix = matrix;
  GgufWriter writer;
  write_gguf_config(ExportTarget::kDeci, spec, matrix, writer);
  if (spec.bos_token >= 0) {
    writer.add_u32("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(spec.bos_token));
  }
  const std::vector<const char*> eos_keys = {"tokenizer.ggml.eos_token_id",
                                             "tokenizer.ggml.eot_token_id"};
  for (std::size_t i = 0; i < spec.eos_tokens.size(); ++i) {
    writer.add_u32(eos_keys[i], static_cast<std::uint32_t>(spec.eos_tokens[i]));
  }
  made.write(path, writer);
  return read_gguf_config(GgufFile(path));
}

}  // namespace puzzle::test
