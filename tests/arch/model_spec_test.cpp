#include "puzzle/arch/model_spec.h"

#include <functional>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "arch/naive_tensors.h"
#include "puzzle/arch/scenario.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/options.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::small_spec;

struct Change {
  const char* part;  // of the message
  std::function<void(ModelSpec&)> apply;
};

TEST(ModelSpec, NumbersThatMakeNoModelAreRefused) {
  check_model_spec(small_spec(), "m");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Change> changes = {
      {"m: model family 'mamba'", [](ModelSpec& s) { s.family = "mamba"; }},
      {"the hidden size is 0", [](ModelSpec& s) { s.hidden_size = 0; }},
      {"the hidden size is 9999999", [](ModelSpec& s) { s.hidden_size = 9999999; }},
      {"the number of heads is -1", [](ModelSpec& s) { s.num_heads = -1; }},
      {"the head width is 0", [](ModelSpec& s) { s.head_dim = 0; }},
      {"expected an even number", [](ModelSpec& s) { s.head_dim = 15; }},
      {"heads times head width",
       [](ModelSpec& s) { s.num_heads = s.head_dim = std::int64_t{1} << 20; }},
      {"the vocabulary size is 0", [](ModelSpec& s) { s.vocab_size = 0; }},
      {"the context length is 0", [](ModelSpec& s) { s.context_length = 0; }},
      {"the number of layers is 0", [](ModelSpec& s) { s.layers.clear(); }},
      {"the epsilon of RMSNorm is 0", [](ModelSpec& s) { s.rms_norm_eps = 0.0; }},
      {"the epsilon of RMSNorm is nan", [=](ModelSpec& s) { s.rms_norm_eps = nan; }},
      {"the begin-of-text token is 96", [](ModelSpec& s) { s.bos_token = 96; }},
      {"an end-of-text token is -1", [](ModelSpec& s) { s.eos_tokens = {3, -1}; }},
      {"layer 1 has 3 KV heads, expected a divisor of the 4",
       [](ModelSpec& s) { s.layers[1].attention.kv_heads = 3; }},
      {"layer 2 has 2 KV heads but linear attention",
       [](ModelSpec& s) { s.layers[2].attention = {AttentionKind::kLinear, 2}; }},
      {"the FFN width of layer 0 is 0", [](ModelSpec& s) { s.layers[0].ffn.width = 0; }},
      {"layer 0 has FFN width 7 but FFN none",
       [](ModelSpec& s) { s.layers[0].ffn = {FfnKind::kNone, 7}; }},
      {"the rotary base is -1", [](ModelSpec& s) { s.rope.theta = -1.0; }},
      {"the rotary scaling factor is 0",
       [](ModelSpec& s) { s.rope = {.kind = RopeKind::kLinear, .factor = 0.0}; }},
      {"the original context is 0",
       [](ModelSpec& s) { s.rope = {.kind = RopeKind::kLlama3, .factor = 8.0}; }},
      {"high_freq_factor 1 is not above low_freq_factor 1",
       [](ModelSpec& s) {
         s.rope = {.kind = RopeKind::kLlama3,
                   .factor = 8.0,
                   .high_frequency_factor = 1.0,
                   .original_context = 64};
       }},
      {"the rotary scaling factor is 0.5",
       [](ModelSpec& s) {
         s.rope = {.kind = RopeKind::kYarn, .factor = 0.5, .original_context = 64};
       }},
      {"beta_fast 1 is below beta_slow 2",
       [](ModelSpec& s) {
         s.rope = {
             .kind = RopeKind::kYarn, .original_context = 64, .beta_fast = 1.0, .beta_slow = 2.0};
       }},
      {"2 rotary frequency divisors, expected 8",
       [](ModelSpec& s) {
         s.rope = {.kind = RopeKind::kLlama3, .frequency_divisors = {1.0F, 2.0F}};
       }},
      {"a rotary frequency divisor is 0",
       [](ModelSpec& s) {
         s.rope = {.kind = RopeKind::kLlama3, .frequency_divisors = std::vector<float>(8, 0.0F)};
       }},
      {"divisors with default scaling",
       [](ModelSpec& s) { s.rope.frequency_divisors = std::vector<float>(8, 1.0F); }},
  };
  for (const Change& change : changes) {
    ModelSpec spec = small_spec();
    change.apply(spec);
    EXPECT_PUZZLE_ERROR(check_model_spec(spec, "m"), ErrorKind::kFormat, change.part);
  }
}

std::string key_of(const ModelSpec& spec) {
  KeyBuilder key;
  add_model_spec_to_key(key, spec);
  return key.key();
}

TEST(ModelSpec, TheKeyDependsOnEverythingButTheName) {
  const std::vector<std::function<void(ModelSpec&)>> changes = {
      [](ModelSpec& s) { s.family = "other"; },
      [](ModelSpec& s) { s.hidden_size = 128; },
      [](ModelSpec& s) { s.num_heads = 8; },
      [](ModelSpec& s) { s.head_dim = 8; },
      [](ModelSpec& s) { s.vocab_size = 97; },
      [](ModelSpec& s) { s.context_length = 64; },
      [](ModelSpec& s) { s.rms_norm_eps = 1e-6; },
      [](ModelSpec& s) { s.tie_embeddings = true; },
      [](ModelSpec& s) { s.attention_bias = true; },
      [](ModelSpec& s) { s.attention_output_bias = true; },
      [](ModelSpec& s) { s.mlp_bias = true; },
      [](ModelSpec& s) { s.qk_norm = true; },
      [](ModelSpec& s) { s.rope.kind = RopeKind::kLinear; },
      [](ModelSpec& s) { s.rope.theta = 5e5; },
      [](ModelSpec& s) { s.rope.factor = 2.0; },
      [](ModelSpec& s) { s.rope.low_frequency_factor = 2.0; },
      [](ModelSpec& s) { s.rope.high_frequency_factor = 2.0; },
      [](ModelSpec& s) { s.rope.original_context = 2; },
      [](ModelSpec& s) { s.rope.beta_fast = 2.0; },
      [](ModelSpec& s) { s.rope.beta_slow = 2.0; },
      [](ModelSpec& s) { s.rope.attention_factor = 2.0; },
      [](ModelSpec& s) { s.rope.truncate = false; },
      [](ModelSpec& s) { s.rope.frequency_divisors = {1.0F}; },
      [](ModelSpec& s) { s.bos_token = 1; },
      [](ModelSpec& s) { s.eos_tokens = {1}; },
      [](ModelSpec& s) { s.layers[1] = parse_block("kv2/w96"); },
      [](ModelSpec& s) { s.layers.pop_back(); },
  };
  std::set<std::string> keys = {key_of(small_spec())};
  for (const auto& change : changes) {
    ModelSpec spec = small_spec();
    change(spec);
    keys.insert(key_of(spec));
  }
  EXPECT_EQ(keys.size(), changes.size() + 1);
  ModelSpec renamed = small_spec();
  renamed.name = "another";
  renamed.context_limit = "a window";
  EXPECT_EQ(key_of(renamed), key_of(small_spec()));
}

TEST(ModelSpec, WithLayersChangesNothingElse) {
  const ModelSpec child = with_layers(small_spec(), test::parse_layers({"none/w96", "kv1/none"}));
  EXPECT_EQ(child.layers, test::parse_layers({"none/w96", "kv1/none"}));
  EXPECT_EQ(with_layers(child, small_spec().layers), small_spec());
}

TEST(Scenario, OptionsAreReadAndChecked) {
  Scenario scenario;
  OptionList list;
  list.section("scenario", scenario);
  list.set("scenario.batch", "[1, 8]", "test");
  list.set("scenario.prompt_tokens", "512", "test");
  EXPECT_EQ(scenario.batch, (std::vector<std::int64_t>{1, 8}));
  EXPECT_EQ(scenario.prompt_tokens, 512);
  EXPECT_EQ(scenario.generated_tokens, 128);
  EXPECT_PUZZLE_ERROR(list.set("scenario.generated_tokens", "0", "test"), ErrorKind::kUsage,
                      "generated_tokens");
}

}  // namespace
}  // namespace puzzle
