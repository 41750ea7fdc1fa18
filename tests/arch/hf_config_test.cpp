#include "puzzle/arch/hf_config.h"

#include <cmath>
#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "arch/naive_tensors.h"
#include "puzzle/arch/cost.h"
#include "puzzle/arch/gguf_config.h"
#include "puzzle/base/json.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

Json golden_cases() {
  return load_json(std::filesystem::path(PUZZLE_SOURCE_DIR) / "tests/golden/hf_config.json")
      .at("cases");
}

Json llama_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"vocab_size", 96},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5}};
}

ModelSpec parse_with(const Json& changes) {
  Json config = llama_config();
  config.update(changes);
  return parse_hf_config(config, "config.json");
}

TEST(HfConfig, GoldenConfigurationsOfTransformers) {
  const Json cases = golden_cases();
  ASSERT_EQ(cases.size(), 15U);
  for (const auto& [name, golden] : cases.items()) {
    SCOPED_TRACE(name);
    const ModelSpec spec = parse_hf_config(golden.at("config"), name);
    EXPECT_EQ(model_cost(spec, ExportTarget::kNative, {}).parameters, golden.at("parameters"));
    EXPECT_EQ(test::total_elements(test::naive_hf_tensors(spec)), golden.at("parameters"));
    EXPECT_EQ(hf_config_dtype(golden.at("config"), name), "bfloat16");
    const auto frequencies = golden.at("inverse_frequencies").get<std::vector<double>>();
    ASSERT_EQ(spec.head_dim, static_cast<std::int64_t>(2 * frequencies.size()));
    if (spec.rope.kind == RopeKind::kLlama3) {
      const std::vector<float> divisors = llama3_frequency_divisors(spec.rope, spec.head_dim);
      ASSERT_EQ(divisors.size(), frequencies.size());
      for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double plain = std::pow(
            spec.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.head_dim));
        EXPECT_NEAR(plain / static_cast<double>(divisors[i]) / frequencies[i], 1.0, 2e-6) << i;
      }
    }
    if (spec.rope.kind == RopeKind::kYarn) {
      const double factor = spec.rope.attention_factor != 0.0
                                ? spec.rope.attention_factor
                                : 0.1 * std::log(spec.rope.factor) + 1.0;
      EXPECT_NEAR(factor, golden.at("attention_factor").get<double>(), 1e-6);
    }
  }
}

TEST(HfConfig, FieldsOfAGoldenConfiguration) {
  const ModelSpec spec = parse_hf_config(golden_cases().at("llama-3.2-1b").at("config"), "c");
  EXPECT_EQ(spec.hidden_size, 2048);
  EXPECT_EQ(spec.num_heads, 32);
  EXPECT_EQ(spec.head_dim, 64);
  EXPECT_EQ(spec.vocab_size, 128256);
  EXPECT_EQ(spec.context_length, 131072);
  EXPECT_TRUE(spec.tie_embeddings);
  EXPECT_EQ(spec.bos_token, 128000);
  EXPECT_EQ(spec.eos_tokens, (std::vector<std::int64_t>{128001, 128008, 128009}));
  EXPECT_EQ(spec.layers, Architecture(16, parse_block("kv8/w8192")));
  EXPECT_EQ(
      spec.rope,
      (RopeSpec{
          .kind = RopeKind::kLlama3, .theta = 500000.0, .factor = 32.0, .original_context = 8192}));
  const ModelSpec window = parse_hf_config(golden_cases().at("mistral-7b-v0.1").at("config"), "c");
  EXPECT_EQ(window.context_length, 4096);
  const ModelSpec qwen = parse_hf_config(golden_cases().at("qwen2.5-0.5b").at("config"), "c");
  EXPECT_EQ(qwen.context_length, 32768);
  EXPECT_TRUE(qwen.attention_bias && qwen.tie_embeddings && !qwen.attention_output_bias);
  const ModelSpec biased =
      parse_hf_config(golden_cases().at("head-dim-and-biases").at("config"), "c");
  EXPECT_TRUE(biased.attention_bias && biased.attention_output_bias && biased.mlp_bias);
  EXPECT_EQ(biased.head_dim, 32);
}

TEST(HfConfig, AbsentKeysTakeTheDefaultsOfTransformers) {
  const Json config = {{"model_type", "llama"},    {"hidden_size", 64},
                       {"intermediate_size", 96},  {"num_hidden_layers", 1},
                       {"num_attention_heads", 4}, {"vocab_size", 96}};
  const ModelSpec spec = parse_hf_config(config, "c");
  EXPECT_EQ(spec.layers, Architecture(1, parse_block("kv4/w96")));
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.context_length, 2048);
  EXPECT_EQ(spec.rms_norm_eps, 1e-6);
  EXPECT_EQ(spec.rope, RopeSpec{});
  EXPECT_FALSE(spec.tie_embeddings || spec.attention_bias || spec.mlp_bias);
  EXPECT_EQ(spec.bos_token, -1);
  EXPECT_TRUE(spec.eos_tokens.empty());
  EXPECT_EQ(hf_config_dtype(config, "c"), "float32");
}

TEST(HfConfig, NullsAndBothDtypeKeys) {
  EXPECT_EQ(parse_with({{"num_key_value_heads", nullptr}}).layers[0].attention.kv_heads, 4);
  EXPECT_EQ(parse_with({{"head_dim", nullptr}}).head_dim, 16);
  EXPECT_EQ(parse_with({{"rope_scaling", nullptr}, {"rope_theta", 5e5}}).rope.theta, 5e5);
  EXPECT_TRUE(parse_with({{"eos_token_id", nullptr}}).eos_tokens.empty());
  EXPECT_EQ(parse_with({{"sliding_window", nullptr}}).num_layers(), 2);
  EXPECT_EQ(hf_config_dtype({{"torch_dtype", "float16"}}, "c"), "float16");
  EXPECT_EQ(hf_config_dtype({{"dtype", "torch.bfloat16"}}, "c"), "bfloat16");
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_with({{"torch_dtype", "float8_e4m3fn"}})),
                      ErrorKind::kFormat, "torch_dtype 'float8_e4m3fn' is not supported");
}

TEST(HfConfig, HarmlessKeysAreIgnored) {
  const ModelSpec plain = parse_with(Json::object());
  EXPECT_EQ(parse_with({{"is_llama_config", true},
                        {"rope_interleaved", false},
                        {"pretraining_tp", 4},
                        {"use_cache", false},
                        {"attention_dropout", 0.1},
                        {"sliding_window", 4096},
                        {"use_sliding_window", false},
                        {"layer_types", {"full_attention", "full_attention"}},
                        {"no_rope_layers", {1, 1}},
                        {"partial_rotary_factor", 1.0},
                        {"transformers_version", "9.9"}}),
            plain);
}

TEST(HfConfig, RopeSourcesInOrder) {
  const Json old_style = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(parse_with({{"rope_scaling", old_style}, {"rope_theta", 7.0}}).rope,
            (RopeSpec{.kind = RopeKind::kLinear, .theta = 7.0, .factor = 2.0}));
  // rope_type wins over type, rope_parameters over rope_scaling, its theta over the top level's.
  const Json both = {{"rope_type", "default"}, {"type", "linear"}, {"rope_theta", 9.0}};
  EXPECT_EQ(
      parse_with({{"rope_parameters", both}, {"rope_scaling", old_style}, {"rope_theta", 7.0}})
          .rope,
      (RopeSpec{.theta = 9.0}));
  EXPECT_EQ(parse_with({{"rope_parameters", {{"full_attention", both}}}}).rope,
            (RopeSpec{.theta = 9.0}));
  Json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_EQ(parse_with({{"rope_scaling", yarn}}).rope.original_context, 128);
  yarn["original_max_position_embeddings"] = 32;
  EXPECT_EQ(parse_with({{"rope_scaling", yarn}}).rope.original_context, 32);
  EXPECT_EQ(parse_with({{"rope_scaling", yarn}, {"original_max_position_embeddings", 64}})
                .rope.original_context,
            64);
  yarn.update(
      {{"beta_fast", 16}, {"beta_slow", 2}, {"truncate", false}, {"attention_factor", 1.5}});
  EXPECT_EQ(parse_with({{"rope_scaling", yarn}}).rope, (RopeSpec{.kind = RopeKind::kYarn,
                                                                 .factor = 4.0,
                                                                 .original_context = 32,
                                                                 .beta_fast = 16.0,
                                                                 .beta_slow = 2.0,
                                                                 .attention_factor = 1.5,
                                                                 .truncate = false}));
}

struct Refusal {
  Json changes;
  const char* part;
};

TEST(HfConfig, WhatThisProjectLacksIsRefusedByName) {
  const std::vector<Refusal> refusals = {
      {{{"architectures", {"Qwen3MoeForCausalLM"}}, {"model_type", "qwen3_moe"}},
       "config.json: architecture Qwen3MoeForCausalLM (model_type qwen3_moe) is not supported"},
      {{{"architectures", nullptr}, {"model_type", "gemma"}}, "Qwen3ForCausalLM (qwen3)"},
      {{{"model_type", "mistral"}}, "architecture LlamaForCausalLM (model_type mistral)"},
      {{{"architectures", {"AnyModel"}}}, "\"base_architecture\" is missing"},
      {{{"architectures", {"AnyModel"}}, {"base_architecture", "GptOssForCausalLM"}},
       "architecture GptOssForCausalLM"},
      {{{"architectures", nullptr}, {"model_type", nullptr}}, "neither \"architectures\""},
      {{{"architectures", "LlamaForCausalLM"}}, "\"architectures\" is no list"},
      {{{"quantization_config", {{"quant_method", "gptq"}}}}, "quant_method 'gptq'"},
      {{{"compression_config", {{"quant_method", "compressed-tensors"}}}}, "compressed-tensors"},
      {{{"sliding_window", 0}}, "sliding_window is 0"},
      {{{"layer_types", {"full_attention", "sliding_attention"}}},
       "layer_types holds sliding_attention, but no sliding_window"},
      {{{"layer_types", {"full_attention", "linear_attention"}}}, "\"linear_attention\""},
      {{{"layer_types", "full_attention"}}, "layer_types is string"},
      {{{"hidden_act", "gelu"}}, "hidden_act 'gelu' is not supported, expected silu"},
      {{{"partial_rotary_factor", 0.5}}, "partial_rotary_factor = 0.5"},
      {{{"no_rope_layers", {1, 0}}}, "no_rope_layers"},
      {{{"no_rope_layer_interval", 4}}, "no_rope_layer_interval = 4"},
      {{{"rope_interleaved", true}}, "rope_interleaved = true"},
      {{{"qkv_bias", true}}, "qkv_bias = true"},
      {{{"bias", true}}, "bias = true"},
      {{{"block_configs", Json::array({1})}}, "block_configs has 1 entries, expected"},
      {{{"block_configs", Json::array({1, 2})}}, "block_configs[0]: \"attention\" is missing"},
      {{{"block_configs", Json::array({1})}, {"per_layer_config", Json::object()}},
       "block_configs beside per_layer_config"},
      {{{"per_layer_config", Json::array()}}, "per_layer_config is array"},
      {{{"per_layer_config", {{"2", {{"skip", {"mlp"}}}}}}},
       "per_layer_config.2 is no object for a layer of 0 … 1"},
      {{{"per_layer_config", {{"x1", {{"skip", {"mlp"}}}}}}}, "per_layer_config.x1"},
      {{{"per_layer_config", {{"1", 3}}}}, "per_layer_config.1 is no object"},
      {{{"per_layer_config", {{"1", {{"skip", {"norm"}}}}}}}, "skip holds \"norm\""},
      {{{"per_layer_config", {{"1", {{"num_key_value_heads", 3}}}}}},
       "per_layer_config.1: num_key_value_heads is 3"},
      {{{"per_layer_config", {{"1", {{"head_dim", 8}}}}}}, "head_dim is not supported"},
      {{{"num_key_value_heads_per_layer", Json::array({4})}},
       "no list of num_hidden_layers = 2 numbers"},
      {{{"num_key_value_heads_per_layer", Json::array({4, 3})}},
       "num_key_value_heads_per_layer[1] is 3"},
      {{{"num_key_value_heads_per_layer", Json::array({4, "a"})}},
       "num_key_value_heads_per_layer[1] is \"a\""},
      {{{"num_local_experts", 8}}, "num_local_experts = 8"},
      {{{"logits_scaling", 8.0}}, "logits_scaling = 8"},
      {{{"rope_scaling", {{"rope_type", "longrope"}}}},
       "rope type 'longrope' is not supported, expected default, linear, dynamic, llama3 or yarn"},
      {{{"rope_scaling", {{"type", "dynamic"}, {"original_max_position_embeddings", 0}}}},
       "dynamic scaling beyond 0 tokens"},
      {{{"rope_parameters", {{"sliding_attention", {{"rope_type", "default"}}}}}},
       "layer type sliding_attention"},
      {{{"rope_parameters", {{"partial_rotary_factor", 0.25}}}}, "partial_rotary_factor"},
      {{{"rope_scaling", {{"rope_type", "linear"}}}}, "rope_scaling: \"factor\" is missing"},
      {{{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}}, "\"low_freq_factor\""},
      {{{"rope_scaling", "yarn"}}, "rope_scaling is string, expected an object"},
      {{{"num_key_value_heads", 3}}, "num_key_value_heads is 3, expected a divisor"},
      {{{"num_key_value_heads", 0}}, "num_key_value_heads is 0"},
      {{{"num_attention_heads", 5}}, "hidden_size 64 is no multiple of num_attention_heads 5"},
      {{{"head_dim", 15}}, "expected an even number"},
      {{{"intermediate_size", nullptr}}, "\"intermediate_size\" is missing"},
      {{{"num_hidden_layers", 1000000000000}}, "num_hidden_layers is 1000000000000, expected 1 … "},
      {{{"hidden_size", 0}}, "hidden_size is 0"},
      {{{"vocab_size", -5}}, "vocab_size is -5"},
      {{{"rms_norm_eps", 0}}, "epsilon of RMSNorm"},
      {{{"eos_token_id", {2, "x"}}}, "eos_token_id holds \"x\""},
      {{{"bos_token_id", 96}}, "begin-of-text token is 96"},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_PUZZLE_ERROR(static_cast<void>(parse_with(refusal.changes)), ErrorKind::kFormat,
                        refusal.part);
  }
}

ModelSpec parse_family(const char* type, const Json& changes) {
  Json config = llama_config();
  config.erase("architectures");
  config["model_type"] = type;
  config.update(changes);
  return parse_hf_config(config, "c");
}

TEST(HfConfig, FamiliesDifferInWhatTheirClassesFix) {
  const Json biases = {{"attention_bias", true}, {"mlp_bias", true}};
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3"}) {
    SCOPED_TRACE(type);
    const bool is_qwen3 = type == "qwen3";
    const bool is_llama = type == "llama";
    const ModelSpec spec = parse_family(type.c_str(), Json::object());
    EXPECT_EQ(spec.attention_bias, type == "qwen2");
    EXPECT_FALSE(spec.attention_output_bias || spec.mlp_bias || spec.tie_embeddings);
    EXPECT_EQ(spec.qk_norm, is_qwen3);
    EXPECT_EQ(spec.head_dim, is_qwen3 ? 128 : 16);
    EXPECT_EQ(spec.context_length, 128);
    EXPECT_EQ(spec.context_limit, "");
    const ModelSpec biased = parse_family(type.c_str(), biases);
    EXPECT_EQ(biased.attention_output_bias, is_llama || is_qwen3);
    EXPECT_EQ(biased.mlp_bias, is_llama);
    EXPECT_EQ(parse_family(type.c_str(), {{"head_dim", 32}}).head_dim, 32);
  }
  const Json open = {{"max_position_embeddings", nullptr}, {"sliding_window", nullptr}};
  EXPECT_EQ(parse_family("mistral", open).context_length, 131072);
  EXPECT_EQ(parse_family("qwen3", open).context_length, 32768);
}

TEST(HfConfig, ASlidingWindowEndsTheContext) {
  const auto context = [](const char* type, Json changes) {
    changes["max_position_embeddings"] = 32768;
    const ModelSpec spec = parse_family(type, changes);
    EXPECT_EQ(spec.context_limit.empty(), spec.context_length == 32768) << spec.context_limit;
    return spec.context_length;
  };
  EXPECT_EQ(context("mistral", {{"sliding_window", 4096}}), 4096);
  EXPECT_EQ(context("mistral", Json::object()), 4096);  // transformers' default
  EXPECT_EQ(context("mistral", {{"sliding_window", nullptr}}), 32768);
  EXPECT_EQ(context("mistral", {{"sliding_window", 32768}}), 32768);
  EXPECT_EQ(context("llama", {{"sliding_window", 1000}}), 1000);
  EXPECT_EQ(context("llama", Json::object()), 32768);
  const auto qwen = [&](const Json& changes) {
    Json all = {{"sliding_window", 512}, {"use_sliding_window", true}};
    all.update(changes);
    return context("qwen2", all);
  };
  EXPECT_EQ(qwen({{"max_window_layers", 1}}), 512);
  EXPECT_EQ(qwen({{"max_window_layers", 1}, {"use_sliding_window", false}}), 32768);
  EXPECT_EQ(qwen({{"max_window_layers", 2}}), 32768);  // no layer is left
  EXPECT_EQ(qwen(Json::object()), 32768);              // from layer 28 on
  EXPECT_EQ(qwen({{"layer_types", {"full_attention", "sliding_attention"}}}), 512);
  EXPECT_EQ(qwen({{"layer_types", {"full_attention", "full_attention"}}, {"max_window_layers", 0}}),
            32768);
  EXPECT_EQ(parse_with({{"sliding_window", 32}}).context_limit,
            "beyond it attention would slide a window, which this program lacks (the file says 128 "
            "tokens)");
}

TEST(HfConfig, DynamicRopeIsTheDefaultUpToItsContext) {
  Json scaling = {{"type", "dynamic"}, {"factor", 2.0}};
  const ModelSpec spec = parse_with({{"rope_scaling", scaling}});
  EXPECT_EQ(spec.rope, RopeSpec{});
  EXPECT_EQ(spec.context_length, 128);
  EXPECT_NE(spec.context_limit.find("dynamic rotary scaling"), std::string::npos);
  scaling["original_max_position_embeddings"] = 64;
  EXPECT_EQ(parse_with({{"rope_scaling", scaling}}).context_length, 64);
}

TEST(HfConfig, LayersMayDifferAsInPerLayerConfigAndDeciLm7b) {
  const ModelSpec sparse =
      parse_with({{"num_hidden_layers", 5},
                  {"per_layer_config",
                   {{"1", {{"intermediate_size", 48}, {"skip", {"attention"}}}},
                    {"02", {{"num_key_value_heads", 2}}},
                    {"4", {{"skip", {"mlp", "attention"}}, {"intermediate_size", 8}}}}}});
  EXPECT_EQ(block_names(sparse.layers),
            (std::vector<std::string>{"kv4/w96", "none/w48", "kv2/w96", "kv4/w96", "none/none"}));
  const ModelSpec deci = parse_with({{"architectures", {"DeciLMForCausalLM"}},
                                     {"model_type", "deci"},
                                     {"num_key_value_heads_per_layer", {1, 4}}});
  EXPECT_EQ(block_names(deci.layers), (std::vector<std::string>{"kv1/w96", "kv4/w96"}));
}

// A layer as Puzzletron writes it (docs/formats.md).
Json puzzletron_block(const Json& attention, const Json& ffn) {
  Json block = {{"attention",
                 {{"no_op", false},
                  {"replace_with_linear", false},
                  {"sparsify", nullptr},
                  {"weights_precision", "bf16"},
                  {"num_key_value_heads", nullptr},
                  {"llama4", nullptr},
                  {"mamba", nullptr}}},
                {"ffn",
                 {{"no_op", false},
                  {"replace_with_linear", false},
                  {"sparsify", nullptr},
                  {"weights_precision", "bf16"},
                  {"moe", nullptr},
                  {"intermediate_size", nullptr}}},
                {"parallel_blocks", nullptr}};
  block["attention"].update(attention);
  block["ffn"].update(ffn);
  return block;
}

TEST(HfConfig, LayersMayDifferAsPuzzletronWritesThem) {
  Json config = {
      {"architectures", {"Qwen3ForCausalLM"}},
      {"model_type", "qwen3"},
      {"intermediate_size", nullptr},
      {"head_dim", 16},
      {"num_hidden_layers", 3},
      {"block_configs",
       {puzzletron_block({{"num_key_value_heads", 2}},
                         {{"intermediate_size", 96}, {"gated", true}}),
        puzzletron_block({{"no_op", true}}, {{"intermediate_size", 50}, {"hidden_act", "silu"}}),
        puzzletron_block({{"n_heads_in_group", 4}}, {{"no_op", true}})}}};
  const ModelSpec spec = parse_with(config);
  EXPECT_EQ(block_names(spec.layers),
            (std::vector<std::string>{"kv2/w96", "none/w50", "kv1/none"}));
  EXPECT_TRUE(spec.qk_norm);
  // The same model for vLLM.
  config["architectures"] = {"AnyModel"};
  config["base_architecture"] = "Qwen3ForCausalLM";
  EXPECT_EQ(parse_with(config), spec);
  config["block_configs"][0]["attention"]["n_heads_in_group"] = 4;
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_with(config)), ErrorKind::kFormat,
                      "n_heads_in_group 4 means 1 KV heads, but num_key_value_heads is 2");
  config["block_configs"][0]["attention"]["n_heads_in_group"] = nullptr;
  config["block_configs"][0]["ffn"]["gated"] = false;
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_with(config)), ErrorKind::kFormat, "gated = false");
}

// Every key with every JSON type: a spec that checks out or one clear error, never a crash.
void mutate_everything(const Json& config) {
  const std::vector<Json> values = {nullptr,
                                    true,
                                    -1,
                                    0,
                                    3,
                                    1e300,
                                    0.5,
                                    18446744073709551615ULL,
                                    "text",
                                    "",
                                    Json::array(),
                                    Json::array({1, "a", nullptr}),
                                    Json::object(),
                                    {{"a", 1}}};
  std::set<std::string> pointers;  // of every value, also those that hold others
  const Json leaves = config.flatten();
  for (const auto& [pointer, leaf] : leaves.items()) {
    for (Json::json_pointer part(pointer); !part.empty(); part = part.parent_pointer()) {
      pointers.insert(part.to_string());
    }
  }
  int refused = 0;
  for (const std::string& pointer : pointers) {
    for (const Json& value : values) {
      Json changed = config;
      changed[Json::json_pointer(pointer)] = value;
      try {
        check_model_spec(parse_hf_config(changed, "mutated"), "parsed");
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kFormat) << error.what();
        EXPECT_THAT(error.what(), ::testing::StartsWith("mutated")) << pointer;
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 50);
}

TEST(HfConfig, AnyTypeAnywhereIsParsedOrRefused) {
  const Json cases = golden_cases();
  for (const auto& [name, golden] : cases.items()) {
    mutate_everything(golden.at("config"));
  }
  ModelSpec child =
      test::small_spec(test::parse_layers({"kv2/w256", "linear/w96", "none/linear", "kv4/none"}));
  child.rope = {.kind = RopeKind::kYarn, .factor = 2.0, .original_context = 64};
  child.attention_bias = true;
  mutate_everything(make_nemotron_nas_config(child, "float32"));
  Json other = llama_config();
  other.update({{"model_type", "qwen3"},
                {"architectures", {"Qwen3ForCausalLM"}},
                {"sliding_window", 64},
                {"use_sliding_window", true},
                {"layer_types", {"full_attention", "sliding_attention"}},
                {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}},
                {"per_layer_config", {{"1", {{"skip", {"mlp"}}, {"num_key_value_heads", 1}}}}}});
  mutate_everything(other);
  for (const Json& config : {Json(), Json(1), Json("x"), Json::array(), Json::object()}) {
    EXPECT_PUZZLE_ERROR(static_cast<void>(parse_hf_config(config, "c")), ErrorKind::kFormat, "c: ");
  }
}

TEST(HfConfig, LoadsAFolderAndTakesItsName) {
  const test::TempDir folder;
  save_json(folder / "config.json", llama_config());
  EXPECT_EQ(load_hf_config(folder.path()).name, folder.path().filename().string());
  EXPECT_EQ(load_hf_config(folder.path() / "").name, folder.path().filename().string());
  EXPECT_PUZZLE_ERROR(static_cast<void>(load_hf_config(folder / "absent")), ErrorKind::kIo,
                      "config.json");
}

}  // namespace
}  // namespace puzzle
