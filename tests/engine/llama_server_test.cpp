// Against a real llama.cpp: xllamacpp's, where it is installed.
#include "puzzle/engine/llama_server.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/tiny_gguf.h"
#include "puzzle/base/json.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

bool has_xllamacpp() {
  static const bool found =
      std::system("'" PUZZLE_PYTHON "' -c 'import xllamacpp' > /dev/null 2>&1") == 0;
  return found;
}

#define PUZZLE_REQUIRE_XLLAMACPP()                     \
  if (!has_xllamacpp()) {                              \
    GTEST_SKIP() << PUZZLE_PYTHON " has no xllamacpp"; \
  }                                                    \
  static_assert(true, "needs a semicolon")

LlamaServerOptions xllamacpp_options() {
  LlamaServerOptions options;
  options.program = "xllamacpp";
  options.threads = 1;  // does not spin beside other busy processes
  options.context_tokens = 256;
  return options;
}

struct Golden {
  std::vector<std::int32_t> tokens;
  std::vector<double> log_probs;
  std::vector<std::int32_t> top;
};

Golden load_golden(const char* name) {
  const Json golden =
      load_json(PUZZLE_SOURCE_DIR "/tests/golden/llama_server_log_probs.json").at(name);
  return {golden.at("tokens"), golden.at("log_probs"), golden.at("top")};
}

// log softmax(head · state)[token], in double.
double log_prob_of(std::span<const float> state, const std::vector<float>& head,
                   std::int32_t token) {
  const std::size_t rows = head.size() / state.size();
  std::vector<double> logits(rows, 0.0);
  double largest = -1e300;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t i = 0; i < state.size(); ++i) {
      logits[row] += static_cast<double>(head[row * state.size() + i]) * state[i];
    }
    largest = std::max(largest, logits[row]);
  }
  double sum = 0.0;
  for (const double logit : logits) {
    sum += std::exp(logit - largest);
  }
  return logits[static_cast<std::size_t>(token)] - largest - std::log(sum);
}

// F32 weights and an F32 cache: nothing is rounded to fewer bits than transformers has.
LlamaServerOptions exact_options() {
  LlamaServerOptions options = xllamacpp_options();
  options.cache_type = "f32";
  options.flash_attention = "off";
  return options;
}

class TinyModelServer : public testing::Test {
 protected:
  void SetUp() override {
    PUZZLE_REQUIRE_XLLAMACPP();
    tiny_.write(model());
  }

  [[nodiscard]] std::filesystem::path model() const { return folder_ / "tiny.gguf"; }

  test::TempDir folder_;
  test::TinyGguf tiny_;
};

TEST_F(TinyModelServer, ScoresTokensAsTransformersDoes) {
  const Golden golden = load_golden("tiny");
  LlamaServerOptions options = exact_options();
  options.parallel = 2;
  const LlamaServer server(model(), options);
  const std::vector<TokenScore> scores = server.score_tokens(golden.tokens, 1, 3);
  ASSERT_EQ(scores.size(), golden.log_probs.size());
  for (std::size_t t = 0; t < scores.size(); ++t) {
    EXPECT_NEAR(scores[t].log_prob, golden.log_probs[t], 1e-5) << t;
    EXPECT_EQ(scores[t].top_token, golden.top[t]) << t;
    EXPECT_EQ(scores[t].top.size(), 3U);
    EXPECT_GE(scores[t].top[1].second, scores[t].top[2].second);
  }
  // Whatever the cache holds: the same numbers.
  (void)server.score_tokens(
      std::vector<std::int32_t>(golden.tokens.rbegin(), golden.tokens.rend()));
  const std::vector<TokenScore> again = server.score_tokens(golden.tokens);
  for (std::size_t t = 0; t < scores.size(); ++t) {
    EXPECT_NEAR(again[t].log_prob, scores[t].log_prob, 1e-5) << t;
  }
}

TEST_F(TinyModelServer, HiddenStatesTimesTheHeadAreTheLogits) {
  const Golden golden = load_golden("tiny");
  const LlamaServer server(model(), exact_options(), LlamaServerMode::kHiddenStates);
  const HiddenStates states = server.hidden_states(golden.tokens);
  ASSERT_EQ(states.num_tokens, static_cast<std::int64_t>(golden.tokens.size()));
  ASSERT_EQ(states.width, test::TinyGguf::kWidth);
  const std::vector<float> head = tiny_.head();
  for (std::size_t t = 0; t < golden.log_probs.size(); ++t) {
    const std::span<const float> state =
        std::span(states.values).subspan(t * test::TinyGguf::kWidth, test::TinyGguf::kWidth);
    EXPECT_NEAR(log_prob_of(state, head, golden.tokens[t + 1]), golden.log_probs[t], 1e-5) << t;
  }
}

TEST_F(TinyModelServer, ComesNearWithTheDefaultsToo) {
  const Golden golden = load_golden("tiny");
  const LlamaServer server(model(), xllamacpp_options());
  const std::vector<double> log_probs = server.token_log_probs(golden.tokens);
  double mean = 0.0;
  for (std::size_t t = 0; t < log_probs.size(); ++t) {
    EXPECT_NEAR(log_probs[t], golden.log_probs[t], 2e-2) << t;
    mean += (log_probs[t] - golden.log_probs[t]) / static_cast<double>(log_probs.size());
  }
  EXPECT_NEAR(mean, 0.0, 5e-4);
}

TEST_F(TinyModelServer, GeneratesTheMostProbableTokens) {
  LlamaServerOptions options = xllamacpp_options();
  options.parallel = 3;
  const LlamaServer server(model(), options);
  const std::string version = find_llama_server_version(options);
  EXPECT_EQ(version.find("xllamacpp 20"), 0U) << version;
  const std::vector<std::int32_t> prompt = {11, 48, 85, 122, 159};
  const Completion completion = server.complete(prompt, {.num_tokens = 20});
  ASSERT_EQ(completion.tokens.size(), 20U);
  EXPECT_EQ(completion.prompt_tokens, 5);
  EXPECT_GT(completion.prompt_s, 0.0);
  EXPECT_GT(completion.step_s(), 0.0);
  // What was generated greedily is on top when it is scored.
  std::vector<std::int32_t> whole = prompt;
  whole.insert(whole.end(), completion.tokens.begin(), completion.tokens.end());
  const std::vector<TokenScore> scores = server.score_tokens(whole, 5);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    EXPECT_EQ(scores[i].top_token, completion.tokens[i]) << i;
    EXPECT_DOUBLE_EQ(scores[i].log_prob, scores[i].top[0].second) << i;
  }
  // Batches: each sequence as if alone, all started together.
  const BatchCompletion batch =
      server.complete_batch({{9, 9, 9, 9, 9}, prompt, {1, 2, 3, 4, 5}}, {.num_tokens = 20});
  ASSERT_EQ(batch.sequences.size(), 3U);
  EXPECT_EQ(batch.sequences[1].tokens, completion.tokens);
  EXPECT_NE(batch.sequences[0].tokens, completion.tokens);
  EXPECT_GT(batch.wall_s, batch.prompt_s());
}

TEST_F(TinyModelServer, ReusesTheCacheOnlyWhenAsked) {
  const LlamaServer server(model(), xllamacpp_options());
  const std::vector<std::int32_t> prompt(100, 65);
  EXPECT_EQ(server.complete(prompt, {.num_tokens = 2}).prompt_tokens, 100);
  EXPECT_EQ(server.complete(prompt, {.num_tokens = 2}).prompt_tokens, 100);
  EXPECT_LT(server.complete(prompt, {.num_tokens = 2, .reuse_cached_prompt = true}).prompt_tokens,
            10);
}

TEST_F(TinyModelServer, QuotesLlamaCppWhereItRefuses) {
  const LlamaServer server(model(), xllamacpp_options());
  EXPECT_PUZZLE_ERROR((void)server.complete(std::vector<std::int32_t>{999}, {}), ErrorKind::kIo,
                      "invalid tokens");
  EXPECT_PUZZLE_ERROR((void)server.complete(std::vector<std::int32_t>(256, 1), {}),
                      ErrorKind::kUsage, "257 tokens do not fit the context of 256");
}

TEST(LlamaServer, RefusesAFileThatIsNoModel) {
  PUZZLE_REQUIRE_XLLAMACPP();
  const test::TempDir folder;
  write_text_file(folder / "bad.gguf", "GGUF but not really");
  EXPECT_PUZZLE_ERROR(LlamaServer(folder / "bad.gguf", xllamacpp_options()), ErrorKind::kIo,
                      "llama-server on bad.gguf: ended with");
}

// The real parent; 16 tokens per request would do, but the mean needs some.
TEST(LlamaServer, RunsTheRealParent) {
  PUZZLE_REQUIRE_XLLAMACPP();
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const Golden golden = load_golden("parent");
  const LlamaServer server(test::parent_gguf(), xllamacpp_options());
  const std::vector<TokenScore> scores = server.score_tokens(golden.tokens);
  double mean = 0.0;
  double golden_mean = 0.0;
  double mean_distance = 0.0;
  std::int64_t same_top = 0;
  for (std::size_t t = 0; t < scores.size(); ++t) {
    const auto count = static_cast<double>(scores.size());
    mean -= scores[t].log_prob / count;
    golden_mean -= golden.log_probs[t] / count;
    mean_distance += std::abs(scores[t].log_prob - golden.log_probs[t]) / count;
    same_top += scores[t].top_token == golden.top[t] ? 1 : 0;
  }
  RecordProperty("mean_nll", std::to_string(mean));
  // llama.cpp rounds activations to 8 bits before products with Q4_1 weights, transformers does
  // not.
  EXPECT_NEAR(mean, golden_mean, 1.5e-2);
  EXPECT_LT(mean_distance, 0.1);
  EXPECT_GE(same_top, static_cast<std::int64_t>(scores.size()) - 4);

  const Completion completion =
      server.complete(std::span(golden.tokens).first(32), {.num_tokens = 16});
  EXPECT_EQ(completion.prompt_tokens, 32);
  EXPECT_GT(completion.prompt_s, 1e-3);
  EXPECT_GT(completion.step_s(), 1e-4);
  EXPECT_LT(completion.prompt_s / 32, 4 * completion.step_s()) << "prompts run in batches";
}

}  // namespace
}  // namespace puzzle

#undef PUZZLE_REQUIRE_XLLAMACPP
