// What LlamaServer asks for and how it takes bad answers, against fake_llama_server.py.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <signal.h>
#include <sys/stat.h>

#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/child_process.h"
#include "puzzle/engine/llama_server.h"
#include "support/expect_error.h"
#include "support/fake_llama_server.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

class FakeLlamaServer : public testing::Test {
 protected:
  void SetUp() override { write_text_file(model(), "not a real model"); }

  [[nodiscard]] std::filesystem::path model() const { return folder_ / "model.gguf"; }

  // Options for a server that behaves as `mode` says.
  [[nodiscard]] LlamaServerOptions options(const std::string& mode) const {
    const std::filesystem::path program = folder_ / "fake-llama-server";
    test::write_fake_llama_server(program, mode, request_log());
    LlamaServerOptions result;
    result.program = program.string();
    result.threads = 1;
    result.context_tokens = 64;
    result.start_timeout_s = 60.0;
    result.request_timeout_s = 60.0;
    return result;
  }

  [[nodiscard]] std::vector<Json> requests() const {
    std::vector<Json> bodies;
    for (const std::string& line : split(read_text_file(request_log()), '\n')) {
      if (!line.empty()) {
        bodies.push_back(Json::parse(line));
      }
    }
    return bodies;
  }

  [[nodiscard]] std::filesystem::path request_log() const { return folder_ / "requests.jsonl"; }

  test::TempDir folder_;
};

bool is_running(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  const std::size_t state = text.rfind(')');
  return state != std::string::npos && text.substr(state + 2, 1) != "Z";
}

TEST_F(FakeLlamaServer, SaysWhichVersionItIs) {
  EXPECT_EQ(find_llama_server_version(options("good")), "llama-server 1 (fake)");
  EXPECT_THAT(find_llama_server_version(options("no-version")),
              testing::HasSubstr("fake-llama-server of unknown version"));
}

TEST_F(FakeLlamaServer, SeveralAtOnceHavePortsAndLogsOfTheirOwn) {
  LlamaServerOptions first = options("good");
  first.port = 40000;
  first.log_file = "log";
  EXPECT_EQ(numbered_server(first, 0).port, 40000);
  EXPECT_EQ(numbered_server(first, 0).log_file, "log");
  EXPECT_EQ(numbered_server(first, 2).port, 40002);
  EXPECT_EQ(numbered_server(first, 2).log_file, "log.2");
  EXPECT_EQ(numbered_server(options("good"), 2).port, 0);
  EXPECT_EQ(numbered_server(options("good"), 2).log_file, "");
  first.port = 65535;
  EXPECT_PUZZLE_ERROR((void)numbered_server(first, 1), ErrorKind::kUsage, "65535 for the first of");
}

TEST_F(FakeLlamaServer, CompletesWithExactlyTheTokensAskedFor) {
  pid_t process = 0;
  {
    const LlamaServer server(model(), options("good"));
    process = static_cast<pid_t>(server.process_id());
    EXPECT_THAT(server.log_tail(),
                testing::HasSubstr("arguments --host 127.0.0.1 -c 64 -np 1 -t 1 -tb 1"));
    const Completion completion =
        server.complete(std::vector<std::int32_t>{5, 6, 7}, {.num_tokens = 4});
    EXPECT_EQ(completion.tokens, (std::vector<std::int32_t>{3, 4, 5, 6}));
    EXPECT_EQ(completion.prompt_tokens, 3);
    EXPECT_DOUBLE_EQ(completion.prompt_s, 0.03);
    EXPECT_DOUBLE_EQ(completion.step_s(), 0.004);
    EXPECT_TRUE(is_running(process));
  }
  EXPECT_FALSE(is_running(process));
  const Json body = requests().at(0);
  EXPECT_EQ(body["prompt"], Json({5, 6, 7}));
  EXPECT_EQ(body["n_predict"], 4);
  EXPECT_EQ(body["temperature"], 0.0);
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["cache_prompt"], false);
}

TEST_F(FakeLlamaServer, SendsABatchAsOneRequest) {
  LlamaServerOptions two = options("chunked");
  two.parallel = 2;
  two.gpu_layers = 0;
  two.cache_type = "q8_0";
  two.flash_attention = "on";
  const LlamaServer server(model(), two);
  EXPECT_THAT(
      server.log_tail(),
      testing::HasSubstr("-c 128 -np 2 -t 1 -tb 1 -ngl 0 -ctk q8_0 -ctv q8_0 -fa on -b 2048"));
  const BatchCompletion batch =
      server.complete_batch({{1, 2, 3}, {4, 5}}, {.num_tokens = 3, .reuse_cached_prompt = true});
  ASSERT_EQ(batch.sequences.size(), 2U);
  EXPECT_EQ(batch.sequences[1].tokens, (std::vector<std::int32_t>{2, 3, 4}));
  EXPECT_DOUBLE_EQ(batch.prompt_s(), 0.03);
  EXPECT_DOUBLE_EQ(batch.step_s(), 0.004);
  EXPECT_GT(batch.wall_s, 0.0);
  ASSERT_EQ(requests().size(), 1U);
  EXPECT_EQ(requests()[0]["prompt"], Json({{1, 2, 3}, {4, 5}}));
  EXPECT_EQ(requests()[0]["cache_prompt"], true);
  EXPECT_PUZZLE_ERROR((void)server.complete_batch({{1}, {2}, {3}}, {}), ErrorKind::kUsage,
                      "3 prompts for 2 slots");
}

TEST_F(FakeLlamaServer, ScoresByForcingOneTokenAfterTheOther) {
  const LlamaServer server(model(), options("good"));
  const std::vector<std::int32_t> tokens = {9, 7, 3, 4};
  const std::vector<TokenScore> scores = server.score_tokens(tokens, 1, 3);
  ASSERT_EQ(scores.size(), 3U);
  EXPECT_DOUBLE_EQ(scores[0].log_prob, -0.5);
  EXPECT_DOUBLE_EQ(scores[1].log_prob, -3.0);
  EXPECT_EQ(scores[1].top_token, 7);
  EXPECT_EQ(scores[1].top.at(2), (std::pair<std::int32_t, double>{101, -2.0}));
  const std::vector<Json> bodies = requests();
  ASSERT_EQ(bodies.size(), 3U);
  EXPECT_EQ(bodies[1]["prompt"], Json({9, 7}));
  EXPECT_EQ(bodies[1]["logit_bias"][0][0], 3);
  EXPECT_EQ(bodies[1]["cache_prompt"], true);
  EXPECT_EQ(bodies[1]["ignore_eos"], false);
  EXPECT_EQ(bodies[1]["n_probs"], 3);
  EXPECT_EQ(server.token_log_probs(tokens), (std::vector<double>{-0.5, -3.0, -4.0}));
  EXPECT_EQ(server.score_tokens(tokens, 3).size(), 1U);
}

TEST_F(FakeLlamaServer, LooksUpTokensThatComeWithoutTheirProbability) {
  const LlamaServer server(model(), options("good"));
  const std::vector<TokenScore> scores =
      server.score_tokens(std::vector<std::int32_t>{9, 7, 150, 1500}, 1, 2);
  EXPECT_DOUBLE_EQ(scores.at(1).log_prob, -51.0);
  EXPECT_EQ(scores.at(1).top_token, 7);
  EXPECT_EQ(scores.at(1).top.size(), 2U);
  EXPECT_DOUBLE_EQ(scores.at(2).log_prob, -103.28) << "no lower than a float goes";
  const std::vector<Json> bodies = requests();
  ASSERT_EQ(bodies.size(), 6U);  // 7; 150 twice; 1500 three times
  EXPECT_EQ(bodies[2]["logit_bias"][0][0], 7) << "forces what worked before";
  EXPECT_EQ(bodies[2]["prompt"], Json({9, 7}));
  EXPECT_EQ(bodies[5]["n_probs"], 1 << 24);
  EXPECT_PUZZLE_ERROR((void)server.score_tokens(std::vector<std::int32_t>{9, 9999}), ErrorKind::kIo,
                      "token 9999 is not among the probabilities of all tokens");
}

TEST_F(FakeLlamaServer, RefusesWhatDoesNotFitTheContext) {
  const LlamaServer server(model(), options("good"));
  EXPECT_PUZZLE_ERROR((void)server.score_tokens(std::vector<std::int32_t>(65, 1)),
                      ErrorKind::kUsage, "65 tokens do not fit the context of 64");
}

TEST_F(FakeLlamaServer, ALogProbabilityThatUnderflowedStaysFinite) {
  const LlamaServer server(model(), options("underflow"));
  EXPECT_NEAR(server.token_log_probs(std::vector<std::int32_t>{1, 2}).at(0), -103.28, 1e-9);
}

TEST_F(FakeLlamaServer, ReadsHiddenStates) {
  LlamaServerOptions two = options("good");
  two.parallel = 2;
  const LlamaServer server(model(), two, LlamaServerMode::kHiddenStates);
  EXPECT_THAT(
      server.log_tail(),
      testing::HasSubstr("-c 64 -np 1 -t 1 -tb 1 --embeddings --pooling none -b 64 -ub 64"));
  const HiddenStates states = server.hidden_states(std::vector<std::int32_t>{3, 8});
  EXPECT_EQ(states.num_tokens, 2);
  EXPECT_EQ(states.width, 2);
  EXPECT_EQ(states.values, (std::vector<float>{3.0F, 3.5F, 8.0F, 8.5F}));
  EXPECT_PUZZLE_ERROR((void)server.complete(std::vector<std::int32_t>{1}, {}), ErrorKind::kInternal,
                      "started for other calls");
}

TEST_F(FakeLlamaServer, QuotesWhatADyingServerPrinted) {
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), options("die")), ErrorKind::kIo,
                      "llama-server on model.gguf: ended with exit status 1");
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), options("die")), ErrorKind::kIo,
                      "unknown model architecture: 'mamba9'");
}

TEST_F(FakeLlamaServer, GivesUpOnAServerThatIsNeverReady) {
  for (const char* mode : {"silent", "loading"}) {
    LlamaServerOptions impatient = options(mode);
    impatient.start_timeout_s = 1.0;
    EXPECT_PUZZLE_ERROR(LlamaServer(model(), impatient), ErrorKind::kIo, "not ready after 1.0 s");
  }
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), options("no-health")), ErrorKind::kIo,
                      "/health answers with status 404");
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), options("other-model")), ErrorKind::kIo,
                      "has loaded other.gguf; name another port");
}

TEST_F(FakeLlamaServer, SaysWhatWasWrongWithAnAnswer) {
  struct Case {
    const char* mode;
    const char* message;
  };
  const Case cases[] = {
      {"status-500", "/completion: status 500: the cache is on fire"},
      {"status-500-text", "status 500: no JSON here"},
      {"malformed", "found '{\"tokens\": [1, 2' where JSON is expected"},
      {"empty", "no list \"tokens\"; is it another version of llama.cpp?"},
      {"cut", "the connection ended in the middle of an answer"},
      {"crash", "ended with exit status 6"},
      {"few-tokens", "1 tokens generated, expected 2"},
      {"no-timings", "\"timings\" is missing"},
      {"negative-time", "\"prompt_ms\" is -1"},
      {"text-time", "\"predicted_ms\" is \"fast\""},
      {"text-token", "found \"the\" where a token id is expected"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.mode);
    const LlamaServer server(model(), options(bad.mode));
    EXPECT_PUZZLE_ERROR((void)server.complete(std::vector<std::int32_t>{1, 2}, {.num_tokens = 2}),
                        ErrorKind::kIo, bad.message);
  }
}

TEST_F(FakeLlamaServer, SaysWhatWasWrongWithAScore) {
  struct Case {
    const char* mode;
    const char* message;
  };
  const Case cases[] = {{"other-token", "token 4 came out, expected 3"},
                        {"null-logprob", "\"logprob\" is missing"},
                        {"biased", "log-probability 0 where the most probable token has -0.5"},
                        {"crash", "GGML_ASSERT(n > 0) failed"}};
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.mode);
    const LlamaServer server(model(), options(bad.mode));
    EXPECT_PUZZLE_ERROR((void)server.score_tokens(std::vector<std::int32_t>{1, 3}), ErrorKind::kIo,
                        bad.message);
  }
}

TEST_F(FakeLlamaServer, SaysWhatWasWrongWithHiddenStates) {
  struct Case {
    const char* mode;
    const char* message;
  };
  const Case cases[] = {{"ragged", "vectors of different lengths"},
                        {"few-rows", "1 vectors for 2 tokens"},
                        {"null-value", "found null in a vector"}};
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.mode);
    const LlamaServer server(model(), options(bad.mode), LlamaServerMode::kHiddenStates);
    EXPECT_PUZZLE_ERROR((void)server.hidden_states(std::vector<std::int32_t>{1, 2}), ErrorKind::kIo,
                        bad.message);
  }
}

TEST_F(FakeLlamaServer, CountsTheAnswersOfABatch) {
  LlamaServerOptions two = options("few-answers");
  two.parallel = 2;
  const LlamaServer server(model(), two);
  EXPECT_PUZZLE_ERROR((void)server.complete_batch({{1}, {2}}, {}), ErrorKind::kIo,
                      "1 answers to 2 prompts");
}

TEST_F(FakeLlamaServer, StopsWaitingForAnAnswerInTime) {
  LlamaServerOptions impatient = options("hang");
  impatient.request_timeout_s = 0.5;
  const LlamaServer server(model(), impatient);
  EXPECT_PUZZLE_ERROR((void)server.complete(std::vector<std::int32_t>{1}, {}), ErrorKind::kIo,
                      "/completion: no answer within 0.5 s");
}

TEST_F(FakeLlamaServer, NoticesThatTheServerWasKilledInTheMiddle) {
  const LlamaServer server(model(), options("hang"));
  const auto process = static_cast<pid_t>(server.process_id());
  const std::jthread killer([process] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ::kill(process, SIGKILL);
  });
  EXPECT_PUZZLE_ERROR((void)server.complete(std::vector<std::int32_t>{1}, {}), ErrorKind::kIo,
                      "ended with signal 9");
}

TEST_F(FakeLlamaServer, NamesProgramsThatAreMissing) {
  LlamaServerOptions missing;
  missing.program = "/nowhere/llama-server";
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), missing), ErrorKind::kIo,
                      "/nowhere/llama-server: no such program; pip install xllamacpp");
  missing.program = "xllamacpp";
  missing.python = "/nowhere/python";
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), missing), ErrorKind::kIo, "/nowhere/python");
  EXPECT_PUZZLE_ERROR(LlamaServer("/nowhere/model.gguf", missing), ErrorKind::kIo,
                      "/nowhere/model.gguf: no such file");
}

TEST_F(FakeLlamaServer, SaysHowToInstallTheMissingPythonPackage) {
  // -S hides site-packages, so that this Python has no xllamacpp.
  const std::filesystem::path python = folder_ / "bare-python";
  write_text_file(python, "#!/bin/sh\nexec /usr/bin/env python3 -S \"$@\"\n");
  ::chmod(python.c_str(), 0755);
  LlamaServerOptions bare;
  bare.program = "xllamacpp";
  bare.python = python.string();
  EXPECT_PUZZLE_ERROR(LlamaServer(model(), bare), ErrorKind::kIo, "pip install xllamacpp");
}

TEST_F(FakeLlamaServer, KeepsTheLogWhereItIsWanted) {
  LlamaServerOptions logged = options("good");
  logged.log_file = (folder_ / "server.log").string();
  {
    const LlamaServer server(model(), logged);
  }
  EXPECT_THAT(read_text_file(logged.log_file), testing::HasSubstr("arguments --host"));
}

TEST(LlamaServerOptions, AreDeclaredOnce) {
  LlamaServerOptions options;
  OptionList list;
  options.visit(list);
  list.set("parallel", "4", "test");
  list.set("start_timeout_s", "7.5", "test");
  EXPECT_EQ(options.parallel, 4);
  EXPECT_EQ(options.start_timeout_s, 7.5);
  EXPECT_PUZZLE_ERROR(list.set("port", "70000", "test"), ErrorKind::kUsage, "port");
}

}  // namespace
}  // namespace puzzle
