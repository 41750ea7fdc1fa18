// Small exported models on fixed tokens: what the native decoder gives and what a real llama.cpp
// does.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/formats/gguf_quant.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/model/decoder.h"
#include "puzzle/model/weights.h"
#include "puzzle/stages/gguf_export.h"
#include "support/temp_dir.h"

namespace puzzle::test {

inline constexpr std::int64_t kVocab = 512;
inline constexpr std::int64_t kTokens = 40;

// A folder with the first of the golden byte-level tokenizer's tokens, as many as the models have.
inline std::filesystem::path tokenizer_source() {
  static const TempDir kFolder;
  static const bool kIsMade = [] {
    const std::filesystem::path golden =
        std::filesystem::path(PUZZLE_SOURCE_DIR) / "tests/golden/tokenizer_gpt2";
    nlohmann::json tokenizer = nlohmann::json::parse(read_text_file(golden / "tokenizer.json"));
    std::int64_t next = kVocab - std::ssize(tokenizer["added_tokens"]) + 1;  // the first one is 0
    nlohmann::json vocabulary;
    for (const auto& [text, id] : tokenizer["model"]["vocab"].items()) {
      if (id.get<std::int64_t>() < next) {
        vocabulary[text] = id;
      }
    }
    nlohmann::json merges = nlohmann::json::array();
    for (const nlohmann::json& merge : tokenizer["model"]["merges"]) {
      if (vocabulary.contains(merge[0].get<std::string>() + merge[1].get<std::string>())) {
        merges.push_back(merge);
      }
    }
    for (nlohmann::json& token : tokenizer["added_tokens"]) {
      if (token["id"] != 0) {
        token["id"] = next++;
      }
    }
    tokenizer["model"]["vocab"] = vocabulary;
    tokenizer["model"]["merges"] = merges;
    write_text_file(kFolder / "tokenizer.json", tokenizer.dump());
    std::filesystem::copy(golden / "tokenizer_config.json", kFolder.path());
    return true;
  }();
  EXPECT_TRUE(kIsMade);
  return kFolder.path();
}

inline at::Tensor some_tokens() {
  return (at::arange(kTokens, at::TensorOptions(at::kLong)) * 37 + 11).remainder(kVocab);
}

inline std::vector<std::int32_t> token_ids() {
  const at::Tensor tokens = some_tokens().to(at::kInt);
  const auto* data = tokens.const_data_ptr<std::int32_t>();
  return {data, data + kTokens};
}

// [T, V]
inline at::Tensor native_logits(const ModelWeights& model) {
  const c10::NoGradGuard no_grad;
  return forward_logits(model, Geometry(model.spec), some_tokens().unsqueeze(0)).squeeze(0);
}

// Tokens and the native decoder's logits, for scripts that compare.
inline void save_expected(const std::filesystem::path& file, const ModelWeights& child) {
  const at::Tensor tokens = some_tokens();
  const at::Tensor logits = native_logits(child).contiguous();
  std::vector<TensorToWrite> tensors(2);
  tensors[0].name = "tokens";
  tensors[0].dtype = DType::kI64;
  tensors[0].shape = {kTokens};
  tensors[0].bytes = std::as_bytes(std::span(tokens.const_data_ptr<std::int64_t>(), kTokens));
  tensors[1].name = "logits";
  tensors[1].dtype = DType::kF32;
  tensors[1].shape = {kTokens, kVocab};
  tensors[1].bytes = std::as_bytes(
      std::span(logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.numel())));
  write_safetensors(file, std::move(tensors));
}

inline at::Tensor log_probs(const at::Tensor& logits) {
  return at::log_softmax(logits.to(at::kDouble), -1);
}

inline GgufExport gguf_options(const std::string& types) {
  return {.name = "tiny child",
          .license = "mit",
          .parent_name = "tiny parent",
          .tokenizer_source = tokenizer_source(),
          .types = gguf_weight_types(types, tokenizer_source())};
}

inline bool has_module(const std::string& name) {
  return std::system(("'" PUZZLE_PYTHON "' -c 'import " + name + "' > /dev/null 2>&1").c_str()) ==
         0;
}
inline bool has_llama_cpp() { return has_module("xllamacpp"); }

inline LlamaServerOptions server_options() {
  LlamaServerOptions options;
  options.program = "xllamacpp";
  options.threads = 1;
  options.context_tokens = 128;
  // Else rounding to halves in the attention hides what is tested (up to 5e-3).
  options.cache_type = "f32";
  options.flash_attention = "off";
  return options;
}

// What a matrix becomes when it is stored as `wanted`; on purpose not the code of check_exports.
inline at::Tensor rounded(const at::Tensor& matrix, DType wanted) {
  const DType type = stored_dtype(wanted, matrix.size(-1));
  const at::Tensor plain = matrix.contiguous();
  const auto count = static_cast<std::size_t>(plain.numel());
  std::vector<std::byte> bytes;
  quantize(type, {plain.const_data_ptr<float>(), count}, matrix.size(-1), bytes);
  at::Tensor out = at::empty_like(plain);
  dequantize(type, bytes, {out.mutable_data_ptr<float>(), count});
  return out;
}

inline void round_weights(ModelWeights& model, const WeightTypes& types) {
  visit_tensors(model, TensorVisitor([&](const std::string& name, at::Tensor& tensor) {
                  const bool is_table =
                      name == "model.embed_tokens.weight" || name == "lm_head.weight";
                  if (tensor.dim() == 2) {
                    tensor = rounded(tensor, is_table ? types.embedding : types.matrix);
                  }
                }));
  if (model.spec.tie_embeddings) {
    model.head = model.embedding;
  }
}

// What a file's own engine gives: [T, V].
inline at::Tensor llama_cpp_log_probs(const std::filesystem::path& file, const at::Tensor& head) {
  const LlamaServer server(file, server_options(), LlamaServerMode::kHiddenStates);
  const HiddenStates states = server.hidden_states(token_ids());
  EXPECT_EQ(states.num_tokens, kTokens);
  EXPECT_EQ(states.width, head.size(1));
  const at::Tensor hidden = at::tensor(states.values).reshape({kTokens, states.width});
  return log_probs(hidden.matmul(head.t()));
}

}  // namespace puzzle::test

#define PUZZLE_REQUIRE_LLAMA_CPP()                     \
  if (!::puzzle::test::has_llama_cpp()) {              \
    GTEST_SKIP() << PUZZLE_PYTHON " has no xllamacpp"; \
  }                                                    \
  static_assert(true, "needs a semicolon")
