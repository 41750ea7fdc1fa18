#include "puzzle/stages/generate.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "data/toy_tokenizer.h"
#include "puzzle/model/decoder.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

LoadedModel toy_model(const std::vector<std::string>& blocks, std::uint64_t seed = 7) {
  ModelSpec spec = test::tiny_spec(1);
  spec.vocab_size = test::kToyVocabSize;
  spec.eos_tokens = {};
  spec.layers.clear();
  for (const std::string& block : blocks) {
    spec.layers.push_back(parse_block(block));
  }
  return {"tiny", "tiny-key", random_model(spec, seed), Geometry(spec),
          std::make_shared<test::ToyTokenizer>()};
}

// Puts BOS before every text that it is asked to.
class BosTokenizer final : public test::ToyTokenizer {
 public:
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text,
                                                 EncodeOptions options) const override {
    std::vector<std::int32_t> ids = test::ToyTokenizer::encode(text, options);
    if (options.add_special) {
      ids.insert(ids.begin(), test::kToyBos);
    }
    return ids;
  }
};

const std::vector<std::vector<std::string>>& mixtures() {
  static const std::vector<std::vector<std::string>> kMixtures = {
      {"kv4/w96", "kv2/w64", "kv1/w32"},
      {"none/w96", "linear/linear", "kv2/none"},
      {"linear/w32", "none/none", "kv1/linear"},
      {"kv4/none"}};
  return kMixtures;
}

// Likeliest next tokens, each from a whole pass over all tokens before it.
std::vector<std::int64_t> naive_greedy(const LoadedModel& model, std::vector<std::int64_t> ids,
                                       int count) {
  const c10::NoGradGuard no_grad;
  std::vector<std::int64_t> made;
  for (int i = 0; i < count; ++i) {
    const at::Tensor logits =
        forward_logits(model.weights, model.geometry, at::tensor(ids).unsqueeze(0))[0][-1];
    made.push_back(logits.argmax().item<std::int64_t>());
    ids.push_back(made.back());
  }
  return made;
}

std::vector<std::int64_t> prompt_ids(const LoadedModel& model, const std::string& prompt) {
  std::vector<std::int64_t> ids;
  for (const std::int32_t id : model.tokenizer->encode(prompt, {.add_special = true})) {
    ids.push_back(id);
  }
  return ids;
}

std::string text_of(const LoadedModel& model, const std::vector<std::int64_t>& ids) {
  StreamDecoder decoder(model.tokenizer);
  std::string text;
  for (const std::int64_t id : ids) {
    text += decoder.push(static_cast<std::int32_t>(id));
  }
  return text + decoder.finish();
}

std::string run(const LoadedModel& model, const GenerateOptions& options) {
  return generate(model, "hello you", options, [](const std::string&) {}).text;
}

TEST(Generate, GreedyIsTheLikeliestTokenStepByStep) {
  for (const auto& blocks : mixtures()) {
    const LoadedModel model = toy_model(blocks);
    std::string streamed;
    const GenerateResult result = generate(model, "hello you", {.max_tokens = 20},
                                           [&](const std::string& piece) { streamed += piece; });
    const auto ids = prompt_ids(model, "hello you");
    EXPECT_EQ(result.text, text_of(model, naive_greedy(model, ids, 20))) << blocks[0];
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.prompt_tokens, std::ssize(ids));
    EXPECT_EQ(result.generated_tokens, 20);
  }
}

TEST(Generate, CachedLogitsAreThoseOfAWholePass) {
  const c10::NoGradGuard no_grad;
  for (const auto& blocks : mixtures()) {
    const LoadedModel model = toy_model(blocks, 11);
    at::Tensor tokens = at::arange(4, 4 + 30).reshape({2, 15});
    DecodeState state(model.weights, model.geometry, 2, 15);
    std::int64_t length = 0;
    for (const std::int64_t count : {5, 1, 1, 4, 1, 3}) {
      const at::Tensor logits = state.append(tokens.narrow(1, length, count));
      length += count;
      const at::Tensor whole =
          forward_logits(model.weights, model.geometry, tokens.narrow(1, 0, length));
      EXPECT_CLOSE(logits, whole.select(1, length - 1), 1e-4) << blocks[0] << " " << length;
      EXPECT_EQ(state.length(), length);
    }
  }
}

TEST(Generate, StopsAtAnEndOfTextToken) {
  LoadedModel model = toy_model(mixtures()[0]);
  const auto made = naive_greedy(model, prompt_ids(model, "hello you"), 20);
  model.weights.spec.eos_tokens = {0, made[6]};
  std::size_t stop = 0;
  while (made[stop] != made[6]) {
    ++stop;
  }
  const GenerateResult result =
      generate(model, "hello you", {.max_tokens = 20}, [](const std::string&) {});
  EXPECT_EQ(result.generated_tokens, static_cast<std::int64_t>(stop));
  EXPECT_EQ(result.text, text_of(model, {made.begin(), made.begin() + static_cast<int>(stop)}));
}

TEST(Generate, SamplingDependsOnTheSeedAlone) {
  const LoadedModel model = toy_model(mixtures()[0]);
  const GenerateOptions options{.max_tokens = 30, .temperature = 1.0, .top_p = 0.9, .seed = 5};
  const std::string text = run(model, options);
  EXPECT_EQ(run(model, options), text);
  GenerateOptions other = options;
  other.seed = 6;
  EXPECT_NE(run(model, other), text);
}

TEST(Generate, ATinyTopPOrTemperatureIsGreedy) {
  const LoadedModel model = toy_model(mixtures()[0]);
  const std::string greedy = run(model, {.max_tokens = 30});
  EXPECT_EQ(run(model, {.max_tokens = 30, .temperature = 1.0, .top_p = 1e-9, .seed = 3}), greedy);
  EXPECT_EQ(run(model, {.max_tokens = 30, .temperature = 1.0, .top_p = 0.0, .seed = 3}), greedy);
  EXPECT_EQ(run(model, {.max_tokens = 30, .temperature = 1e-4, .top_p = 1.0, .seed = 3}), greedy);
  EXPECT_NE(run(model, {.max_tokens = 30, .temperature = 1.0, .top_p = 1.0, .seed = 3}), greedy);
}

TEST(Generate, KeepsToTheContextAndToWhatIsAsked) {
  LoadedModel model = toy_model({"kv4/w96"});
  const auto count = [&](const std::string& prompt, std::int64_t max_tokens) {
    return generate(model, prompt, {.max_tokens = max_tokens}, [](const std::string&) {})
        .generated_tokens;
  };
  EXPECT_EQ(count("hello", 0), 0);
  EXPECT_EQ(count("hello", 1), 1);
  EXPECT_EQ(count(std::string(120, 'a'), 100), 8);  // of a context of 128
  EXPECT_PUZZLE_ERROR((void)count(std::string(128, 'a'), 1), ErrorKind::kUsage, "128 tokens");
  EXPECT_PUZZLE_ERROR((void)count("", 1), ErrorKind::kUsage, "0 tokens");
}

TEST(Generate, ChatNeedsATemplate) {
  EXPECT_PUZZLE_ERROR((void)chat_prompt(test::ToyTokenizer(), "hello"), ErrorKind::kUsage,
                      "--chat: this model has no chat template");
}

// What transformers 4.57's apply_chat_template gives with add_generation_prompt.
TEST(Generate, ChatsAsTheParentsTemplatesDo) {
  struct Parent {
    std::filesystem::path model;
    const char* prompt;
  };
  const Parent parents[] = {
      {test::parent_gguf(),
       "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
       "Face<|im_end|>\n<|im_start|>user\n Hi <there><|im_end|>\n<|im_start|>assistant\n"},
      {test::real_tokenizer("llama-3.1"),
       "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi <there><|eot_id|>"
       "<|start_header_id|>assistant<|end_header_id|>\n\n"},
      {test::real_tokenizer("qwen3"),
       "<|im_start|>user\n Hi <there><|im_end|>\n<|im_start|>assistant\n"},
  };
  bool is_any_there = false;
  for (const Parent& parent : parents) {
    if (std::filesystem::exists(parent.model)) {
      is_any_there = true;
      EXPECT_EQ(chat_prompt(*load_tokenizer(parent.model), " Hi <there>"), parent.prompt);
    }
  }
  if (!is_any_there) {
    GTEST_SKIP() << "none of the parents' tokenizers is there";
  }
}

TEST(Generate, APromptOfAChatHoldsItsOwnBos) {
  LoadedModel model = toy_model(mixtures()[0]);
  model.tokenizer = std::make_shared<BosTokenizer>();
  const auto count = [&](bool adds_special) {
    const GenerateOptions options{.max_tokens = 0, .adds_special = adds_special};
    return generate(model, "<s>hello", options, [](const std::string&) {}).prompt_tokens;
  };
  EXPECT_EQ(count(true), 7);
  EXPECT_EQ(count(false), 6);
}

}  // namespace
}  // namespace puzzle
