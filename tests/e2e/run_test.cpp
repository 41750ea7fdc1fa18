// The program from the outside: whole runs on a tiny random parent, killed and resumed, split over
// ranks.
#include <filesystem>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/run_db.h"
#include "support/run_program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using test::ProgramResult;
using test::run_program;

const fs::path kSource = PUZZLE_SOURCE_DIR;

// A random parent with a real tokenizer, and the project's own pages as corpus.
void make_inputs(const fs::path& folder) {
  ModelSpec spec = test::tiny_spec(3);
  const Json tokenizer = load_json(kSource / "tests/golden/tokenizer_gpt2/tokenizer.json");
  std::int64_t vocab = 0;
  for (const auto& [piece, id] : tokenizer.at("model").at("vocab").items()) {
    vocab = std::max(vocab, id.get<std::int64_t>() + 1);
  }
  for (const Json& token : tokenizer.at("added_tokens")) {
    vocab = std::max(vocab, token.at("id").get<std::int64_t>() + 1);
  }
  spec.vocab_size = vocab;
  make_folder(folder / "parent");
  const ModelWeights parent = random_model(spec, 11);
  save_weights(folder / "parent/model.safetensors", parent, at::kFloat, {});
  save_json(folder / "parent/config.json", make_nemotron_nas_config(spec, "float32"));
  for (const auto& file : fs::directory_iterator(kSource / "tests/golden/tokenizer_gpt2")) {
    fs::copy(file.path(), folder / "parent");
  }
  make_folder(folder / "corpus");
  fs::copy(kSource / "LICENSE", folder / "corpus/license.txt");
  fs::copy(kSource / "docs/architecture.md", folder / "corpus/architecture.txt");
  fs::copy(kSource / "docs/formats.md", folder / "corpus/formats.txt");
}

std::vector<std::string> arguments(const std::string& verb, const fs::path& inputs,
                                   const fs::path& run) {
  std::vector<std::string> words = {verb,       (inputs / "parent").string(),
                                    "--corpus", (inputs / "corpus").string(),
                                    "--run",    run.string(),
                                    "--target", "roofline",
                                    "--budget", "parameters <= 0.9x"};
  for (const char* setting : {"data.window=32",
                              "data.group_windows=2",
                              "data.calibration_tokens=1024",
                              "data.scoring_tokens=512",
                              "data.validation_tokens=512",
                              "data.test_tokens=512",
                              "data.train_tokens=2048",
                              "scenario.prompt_tokens=32",
                              "scenario.generated_tokens=32",
                              "measure.hardware.preset=cpu",
                              "measure.types=f32",
                              "search.types=f32",
                              "distill_blocks.num_tokens=512",
                              "distill_child.num_tokens=1024",
                              "distill_child.batch_windows=4",
                              "distill_child.validate_every=2",
                              "distill_child.save_every_s=0.01",
                              "export_child.types=f32",
                              "export_child.formats=[gguf, hf]",
                              "throughput.enabled=false",
                              "threads=2"}) {
    words.insert(words.end(), {"--set", setting});
  }
  return words;
}

// Everything that two equal runs share: rows without times, and the bytes of what they made.
Json fingerprint(const fs::path& run) {
  Json result;
  result["db"] =
      RunDb(run / "run.db", RunDbMode::kRead).dump_json({.times = false, .rows = RowSet::kCurrent});
  for (const char* gone :
       {"metas", "meta", "stages"}) {  // commands differ; stages are in order of finishing
    result["db"].erase(gone);
  }
  for (const char* file :
       {"children/child/model.safetensors", "exports/child.gguf", "exports/child-hf/config.json"}) {
    result[file] = hash_file(run / file);
  }
  return result;
}

TEST(Run, GoesFromParentToReportAndThenHasNothingLeftToDo) {
  const test::TempDir folder;
  make_inputs(folder.path());
  std::vector<std::string> words = arguments("run", folder.path(), folder / "run");
  words.push_back("--json");
  const ProgramResult first = run_program(words);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const Json summary = parse_json(first.out, "stdout");
  EXPECT_EQ(summary.at("architectures").at("child").at("blocks").size(), 3U);
  const double parent_parameters = static_cast<double>(
      model_cost(load_model_spec(folder / "parent"), ExportTarget::kNative, WeightTypes{})
          .parameters);
  EXPECT_LE(summary.at("architectures").at("child").at("costs").at("parameters").get<double>(),
            0.9 * parent_parameters);
  EXPECT_GT(
      summary.at("evaluations").at("child").at("held-out text").at("kl").at("value").get<double>(),
      0);
  EXPECT_TRUE(fs::exists(folder / "run/report.html"));
  EXPECT_EQ(load_model_spec(folder / "run/children/child").num_layers(), 3);
  const Json before = fingerprint(folder / "run");
  const ProgramResult second = run_program(words);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(fingerprint(folder / "run"), before);
  EXPECT_EQ(parse_json(second.out, "stdout"), summary);
}

TEST(Run, KilledAnywhereItEndsWithTheBitsOfAnUninterruptedRun) {
  const test::TempDir folder;
  make_inputs(folder.path());
  const auto start = std::chrono::steady_clock::now();
  const ProgramResult whole = run_program(arguments("run", folder.path(), folder / "whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto took =
      std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start);
  int kills = 0;
  for (int attempt = 0; attempt < 12; ++attempt) {
    // Each attempt gets some way further; where exactly it dies is a matter of chance.
    const auto after = took * (20 + 7 * attempt) / 100;
    const ProgramResult part =
        run_program(arguments("run", folder.path(), folder / "killed"), after);
    kills += part.was_killed ? 1 : 0;
    if (!part.was_killed) {
      ASSERT_EQ(part.exit_code, 0) << part.err;
      break;
    }
  }
  EXPECT_GE(kills, 1);
  const ProgramResult last = run_program(arguments("run", folder.path(), folder / "killed"));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_EQ(fingerprint(folder / "killed"), fingerprint(folder / "whole"));
}

TEST(Run, TwoRanksGiveTheScoresOfOne) {
  const test::TempDir folder;
  make_inputs(folder.path());
  const ProgramResult one = run_program(arguments("score", folder.path(), folder / "one"));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  std::vector<std::string> words = arguments("score", folder.path(), folder / "two");
  words.insert(words.begin(), {"--launch", "2"});
  const ProgramResult two = run_program(words);
  ASSERT_EQ(two.exit_code, 0) << two.err;
  const auto a = RunDb(folder / "one/run.db", RunDbMode::kRead).scores();
  const auto b = RunDb(folder / "two/run.db", RunDbMode::kRead).scores();
  ASSERT_EQ(a.size(), b.size());
  ASSERT_GT(a.size(), 20U);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].block, b[i].block);
    EXPECT_NEAR(a[i].value, b[i].value, 2e-3 * (1.0 + std::abs(a[i].value)))
        << a[i].layer << a[i].metric;
  }
}

TEST(Cli, ErrorsAreOneLineWithTheCodeOfTheirKind) {
  const test::TempDir folder;
  make_inputs(folder.path());
  const auto expect = [&](const std::vector<std::string>& words, int code,
                          const std::string& part) {
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_THAT(result.err, ::testing::HasSubstr(part));
  };
  auto infeasible = arguments("search", folder.path(), folder / "run");
  infeasible.insert(infeasible.end(), {"--set", "search.budgets=[\"parameters <= 1\"]"});
  expect(infeasible, 5, "parameters");
  auto typo = arguments("plan", folder.path(), folder / "run");
  typo.insert(typo.end(), {"--set", "distill_child.num_token=3"});
  expect(typo, 2, "did you mean distill_child.num_tokens?");
  expect({"inspect", (folder / "nowhere").string()}, 4, "no such file");
  expect({"run"}, 2, "recipe");
  expect({"fly"}, 2, "");
}

TEST(Cli, TheOptionsPageIsTheProgramsOwn) {
  const ProgramResult result = run_program({"options"});
  ASSERT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, read_text_file(kSource / "docs/options.md"))
      << "write it anew: build/puzzle options > docs/options.md";
}

}  // namespace
}  // namespace puzzle
