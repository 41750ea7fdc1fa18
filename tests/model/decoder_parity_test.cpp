// The decoder against transformers, by logits that tests/golden/make_llama_logits.py recorded.
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/base/json.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/model/decoder.h"
#include "puzzle/tensor/convert.h"
#include "support/expect_close.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

std::filesystem::path golden_folder() {
  return std::filesystem::path(PUZZLE_SOURCE_DIR) / "tests/golden";
}

Json golden_logits() { return load_json(golden_folder() / "llama_logits.json"); }

// The script's formula.
at::Tensor formula_weights(const std::string& name, const std::vector<std::int64_t>& shape) {
  double phase = 0;
  for (const char c : name) {
    phase += static_cast<double>(static_cast<unsigned char>(c));
  }
  at::Tensor tensor = at::empty(shape, at::TensorOptions(at::kFloat));
  auto* data = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    const auto x = static_cast<double>(i);
    const double wave = std::sin(phase + 1.2345 * x + 0.001 * x * x);
    double value = 1.5 * wave / std::sqrt(static_cast<double>(shape.back()));
    if (name.find("norm") != std::string::npos) {
      value = 1.0 + 0.1 * wave;
    } else if (shape.size() == 1) {
      value = 0.2 * wave;
    }
    data[i] = static_cast<float>(value);
  }
  return tensor;
}

ModelWeights formula_model(const ModelSpec& spec) {
  ModelWeights model = random_model(spec, 0);
  visit_tensors(model, TensorVisitor([](const std::string& name, at::Tensor& tensor) {
                  tensor = formula_weights(name, tensor.sizes().vec());
                }));
  if (spec.tie_embeddings) {
    model.head = model.embedding;
  }
  return model;
}

TEST(DecoderParity, LogitsAreThoseOfTransformersForEveryVariationOfTheConfig) {
  const c10::NoGradGuard no_grad;
  const Json golden = golden_logits();
  const auto tokens = golden.at("tokens").get<std::vector<std::int64_t>>();
  const at::Tensor tokens_BT = at::tensor(tokens).unsqueeze(0);
  ASSERT_GE(golden.at("cases").size(), 16U);
  for (const auto& [name, entry] : golden.at("cases").items()) {
    SCOPED_TRACE(name);
    const ModelWeights model = formula_model(parse_hf_config(entry.at("config"), name));
    EXPECT_GE(model.spec.context_length, static_cast<std::int64_t>(tokens.size()));
    const at::Tensor logits = forward_logits(model, Geometry(model.spec), tokens_BT)[0];
    const std::vector<std::int64_t> positions = {0, 5, 23};
    for (std::size_t p = 0; p < positions.size(); ++p) {
      EXPECT_CLOSE(logits[positions[p]],
                   at::tensor(entry.at("logits").at(p).get<std::vector<double>>()), 2e-5);
    }
  }
}

// The file that llama.cpp's converter makes of the formula's model: its names, keys of one
// architecture, and rows of q and k interleaved only where its rotary embedding wants them so.
void write_gguf(const std::filesystem::path& path, const ModelWeights& model,
                const std::string& architecture, bool is_interleaved) {
  const ModelSpec& spec = model.spec;
  GgufWriter writer;
  writer.add_string("general.architecture", architecture);
  const auto add_u32 = [&](const char* key, std::int64_t value) {
    writer.add_u32(architecture + "." + key, static_cast<std::uint32_t>(value));
  };
  add_u32("block_count", spec.num_layers());
  add_u32("context_length", spec.context_length);
  add_u32("embedding_length", spec.hidden_size);
  add_u32("attention.head_count", spec.num_heads);
  add_u32("attention.head_count_kv", spec.layers[0].attention.kv_heads);
  add_u32("feed_forward_length", spec.layers[0].ffn.width);
  add_u32("attention.key_length", spec.head_dim);
  add_u32("attention.value_length", spec.head_dim);
  writer.add_f32(architecture + ".attention.layer_norm_rms_epsilon",
                 static_cast<float>(spec.rms_norm_eps));
  writer.add_f32(architecture + ".rope.freq_base", static_cast<float>(spec.rope.theta));
  const std::vector<std::pair<std::string, std::string>> renames = {
      {"model.layers.", "blk."},
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.", "attn_"},
      {"mlp.", "ffn_"},
      {"_proj", ""}};
  visit_tensors(model, ConstTensorVisitor([&](std::string name, const at::Tensor& tensor) {
                  const bool is_rotary = name.find("q_proj") != std::string::npos ||
                                         name.find("k_proj") != std::string::npos;
                  for (const auto& [from, to] : renames) {
                    if (const std::size_t at = name.find(from); at != std::string::npos) {
                      name.replace(at, from.size(), to);
                    }
                  }
                  const at::Tensor stored = is_rotary && is_interleaved
                                                ? to_interleaved_rows(tensor, spec.head_dim)
                                                : tensor.contiguous();
                  TensorToWrite entry;
                  entry.name = name;
                  entry.shape = stored.sizes().vec();
                  entry.produce = [stored](const ByteSink& sink) { sink(tensor_bytes(stored)); };
                  writer.add_tensor(std::move(entry));
                }));
  writer.write(path);
}

TEST(DecoderParity, LogitsOfAGgufFileAreThoseOfTransformersForEveryArchitecture) {
  const c10::NoGradGuard no_grad;
  const Json golden = golden_logits();
  const at::Tensor tokens_BT =
      at::tensor(golden.at("tokens").get<std::vector<std::int64_t>>()).unsqueeze(0);
  const struct {
    const char* name;
    const char* architecture;
    bool is_interleaved;
  } cases[] = {{"biases", "llama", true},
               {"mistral", "llama", true},
               {"qwen2", "qwen2", false},
               {"qwen3", "qwen3", false}};
  const test::TempDir folder;
  for (const auto& entry : cases) {
    SCOPED_TRACE(entry.name);
    const Json& recorded = golden.at("cases").at(entry.name);
    write_gguf(folder / "model.gguf",
               formula_model(parse_hf_config(recorded.at("config"), entry.name)),
               entry.architecture, entry.is_interleaved);
    const ModelWeights model = load_model(folder / "model.gguf", at::kFloat);
    EXPECT_CLOSE(forward_logits(model, Geometry(model.spec), tokens_BT)[0][23],
                 at::tensor(recorded.at("logits").at(2).get<std::vector<double>>()), 2e-5);
  }
}

TEST(DecoderParity, LogitsOfTheRealParentAreThoseOfTransformers) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const c10::NoGradGuard no_grad;
  const Json golden = load_json(golden_folder() / "parent_logits.json");
  const auto rows = [&](const char* name) {
    std::vector<at::Tensor> tensors;
    for (const Json& row : golden.at(name)) {
      tensors.push_back(at::tensor(row.get<std::vector<double>>(), at::TensorOptions(at::kDouble)));
    }
    return at::stack(tensors);
  };
  const ModelWeights model = load_model(test::parent_gguf(), at::kFloat);
  const at::Tensor tokens_BT =
      at::tensor(golden.at("tokens").get<std::vector<std::int64_t>>()).unsqueeze(0);
  const at::Tensor logits_TV =
      forward_logits(model, Geometry(model.spec), tokens_BT)[0].to(at::kDouble);
  ASSERT_EQ(logits_TV.size(0), 64);
  EXPECT_CLOSE(logits_TV.gather(1, rows("top_columns").to(at::kLong)), rows("top_logits"), 1e-4);
  EXPECT_CLOSE(logits_TV.logsumexp(-1),
               at::tensor(golden.at("log_sum_exp").get<std::vector<double>>()), 1e-4);
  // Errors of 1,024 logits largely cancel: one that is wrong by 0.01 shows.
  const at::Tensor signs = 1.0 - 2.0 * at::arange(1024).remainder(2).to(at::kDouble);
  EXPECT_CLOSE((logits_TV.reshape({64, 48, 1024}) * signs).mean(-1), rows("signed_means"), 1e-5);
}

// What training in bfloat16 does: the stream stays in float, and the masters get their gradients.
TEST(DecoderParity, MixedPrecisionReachesTheNormsOfQAndK) {
  ModelSpec spec = test::tiny_spec(1);
  spec.qk_norm = true;
  const ModelWeights model = random_model(spec, 4);
  const Geometry geometry(spec);
  at::Generator generator = at::detail::createCPUGenerator(5);
  const at::Tensor x =
      at::randn({2, 8, spec.hidden_size}, generator, at::TensorOptions(at::kFloat));
  const auto apply = [&](const LayerWeights& layer, c10::ScalarType type) {
    return apply_layer(layer, geometry, x, make_pass(geometry, 8, type, at::kCPU));
  };
  const LayerWeights masters = clone(model.layers[0], /*requires_grad=*/true);
  const at::Tensor mixed = apply(with_matrices_in(masters, at::kBFloat16), at::kBFloat16);
  EXPECT_EQ(mixed.scalar_type(), at::kFloat);
  EXPECT_CLOSE(mixed.detach(), apply(model.layers[0], at::kFloat), 0.05);
  mixed.square().sum().backward();
  const at::Tensor in_mixed = masters.attention.q_norm.grad();
  ASSERT_TRUE(in_mixed.defined());
  const LayerWeights exact = clone(model.layers[0], /*requires_grad=*/true);
  apply(exact, at::kFloat).square().sum().backward();
  const at::Tensor wanted = exact.attention.q_norm.grad();
  EXPECT_LT((in_mixed - wanted).norm().item<double>(), 0.1 * wanted.norm().item<double>());
}

// Incremental decoding must see what the whole pass sees, for every kind of block.
TEST(DecoderParity, CachedStepsGiveTheLogitsOfTheWholePass) {
  const c10::NoGradGuard no_grad;
  ModelSpec spec =
      parse_hf_config(golden_logits().at("cases").at("default").at("config"), "default");
  spec.qk_norm = true;
  spec.layers = {
      {AttentionSpec::gqa(2), FfnSpec::swiglu(40)}, {AttentionSpec::linear(), FfnSpec::none()},
      {AttentionSpec::none(), FfnSpec::linear()},   {AttentionSpec::gqa(4), FfnSpec::swiglu(8)},
      {AttentionSpec::none(), FfnSpec::none()},     {AttentionSpec::gqa(1), FfnSpec::none()}};
  const ModelWeights model = random_model(spec, 3);
  const Geometry geometry(spec);
  const at::Tensor tokens = at::arange(20).remainder(48).reshape({2, 10});
  const at::Tensor whole = forward_logits(model, geometry, tokens);
  DecodeState state(model, geometry, 2, 10);
  EXPECT_CLOSE(state.append(tokens.narrow(1, 0, 4)), whole.select(1, 3), 1e-4);
  EXPECT_CLOSE(state.append(tokens.narrow(1, 4, 1)), whole.select(1, 4), 1e-4);
  EXPECT_CLOSE(state.append(tokens.narrow(1, 5, 3)), whole.select(1, 7), 1e-4);
  EXPECT_CLOSE(state.append(tokens.narrow(1, 8, 2)), whole.select(1, 9), 1e-4);
  // 2 sequences × (2 + 4 + 1) KV heads × 10 tokens × 12 wide × keys and values × 4 bytes
  EXPECT_EQ(state.cache_bytes(), 2 * 7 * 10 * 12 * 2 * 4);
  const WeightTypes types{.kv = DType::kF32};
  EXPECT_EQ(state.cache_bytes(),
            2 * 10 * model_cost(spec, ExportTarget::kNative, types).kv_bytes_per_token);
}

}  // namespace
}  // namespace puzzle
