// The decoder against transformers, by logits that tests/golden/make_llama_logits.py recorded.
#include <cmath>
#include <filesystem>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/base/json.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/model/decoder.h"
#include "support/expect_close.h"
#include "support/shared_data.h"

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
  ASSERT_GE(golden.at("cases").size(), 7U);
  for (const auto& [name, entry] : golden.at("cases").items()) {
    SCOPED_TRACE(name);
    const ModelWeights model = formula_model(parse_hf_config(entry.at("config"), name));
    const at::Tensor logits = forward_logits(model, Geometry(model.spec), tokens_BT)[0];
    const std::vector<std::int64_t> positions = {0, 5, 23};
    for (std::size_t p = 0; p < positions.size(); ++p) {
      EXPECT_CLOSE(logits[positions[p]],
                   at::tensor(entry.at("logits").at(p).get<std::vector<double>>()), 2e-5);
    }
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

// Incremental decoding must see what the whole pass sees, for every kind of block.
TEST(DecoderParity, CachedStepsGiveTheLogitsOfTheWholePass) {
  const c10::NoGradGuard no_grad;
  ModelSpec spec =
      parse_hf_config(golden_logits().at("cases").at("default").at("config"), "default");
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
