// The command line: words, help, JSON, exit codes.
#include <cstdlib>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "e2e/tiny_run.h"
#include "puzzle/app/recipe.h"
#include "puzzle/stages/search_costs.h"
#include "support/shared_data.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::run_program;
using ::testing::HasSubstr;

void expect_error(const std::vector<std::string>& words, int code, const std::string& part) {
  const ProgramResult result = run_program(words);
  EXPECT_EQ(result.exit_code, code) << result.err;
  EXPECT_THAT(result.err, HasSubstr(part));
  EXPECT_TRUE(result.err.starts_with("puzzle: ")) << result.err;
  EXPECT_EQ(result.out, "");
  auto with_json = words;
  with_json.push_back("--json");
  const ProgramResult answer = run_program(with_json);
  EXPECT_EQ(answer.exit_code, code) << answer.err;
  const Json error = parse_json(answer.out, "stdout").at("error");
  EXPECT_EQ(error.at("exit_code"), code);
  EXPECT_THAT(error.at("message").get<std::string>(), HasSubstr(part));
}

TEST(Cli, WordsThatItDoesNotKnowAreNamedWithTheNearestOne) {
  expect_error({"frobnicate"}, 2, "there is no verb 'frobnicate'");
  expect_error({"scroe", "x.yaml"}, 2, "did you mean score?");
  expect_error({"run"}, 2, "recipe is required");
  expect_error({"inspect", "/nowhere/at/all"}, 4, "no such file");
  expect_error({"--launch", "2", "inspect", "/nowhere"}, 2, "inspect runs in one process");
  expect_error({"generate", "m.gguf", "--prompt", "x", "--threads", "-5"}, 2, "--threads");
  expect_error({"generate", "m.gguf", "--prompt", "x", "--temperature", "-1"}, 2,
               "--temperature: -1, expected a number of 0 or more");
  expect_error({"solve", "p.json", "--time-limit", "0"}, 2,
               "--time-limit: 0, expected a number above 0");
  expect_error({"solve", "p.json", "--time-limit", "abc"}, 2, "'abc' is not a number");
  expect_error({"run", "m.gguf", "--set", "distill_child.num_token=3"}, 2,
               "did you mean distill_child.num_tokens?");
}

TEST(Cli, AnAnswerThatCannotBeWrittenIsAnError) {
  const test::TempDir folder;
  const std::string err = (folder / "err").string();
  for (const std::string json : {"", " --json"}) {
    const std::string command = "'" PUZZLE_BINARY "' options" + json + " > /dev/full 2> " + err;
    const int status = std::system(command.c_str());
    EXPECT_EQ(WEXITSTATUS(status), 4);
    EXPECT_THAT(read_text_file(err), HasSubstr("the answer cannot be written: No space left"));
  }
}

TEST(Cli, ValuesThatAreEmptyAreNotPassedOver) {
  const std::string recipe = (test::kSource / "recipes/tiny.yaml").string();  // names no parent
  expect_error({"plan", recipe}, 2, "recipe: model is empty; name the parent");
  expect_error({"run", recipe}, 2, "recipe: model is empty; name the parent");
  expect_error({"compare", "grid.yaml", "--run", ""}, 2, "--run: is empty, expected a folder");
  expect_error({"run", ""}, 2, "recipe: is empty, expected a recipe or a model");
}

Json config_of(std::vector<std::string> words) {
  words.insert(words.end(), {"--print-config", "--json"});
  const ProgramResult result = run_program(words);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return parse_json(result.out, "stdout");
}

TEST(Cli, TheModelMayStandBehindOptionsThatRepeat) {
  const Json one = config_of(
      {"run", "--corpus", "a", "--corpus", "b", "--budget", "parameters <= 0.5x", "dir/M.gguf"});
  EXPECT_EQ(one.at("model"), "dir/M.gguf");
  EXPECT_EQ(one.at("data").at("sources"), Json({"a", "b"}));
  EXPECT_EQ(one.at("search").at("budgets"), Json({"parameters <= 0.5x"}));
  const Json two = config_of(
      {"run", "--set", "seed=3", "--corpus", "a", (test::kSource / "recipes/tiny.yaml").string()});
  EXPECT_EQ(two.at("run"), "runs/tiny");
  EXPECT_EQ(two.at("seed"), 3);
}

TEST(Cli, TheRunFolderIsNamedAfterTheWholeModel) {
  const std::map<std::string, std::string> folders = {{"models/Llama-3.1-8B", "runs/Llama-3.1-8B"},
                                                      {"foo/", "runs/foo"},
                                                      {"a/b.Q4_1.gguf", "runs/b.Q4_1"},
                                                      {"stories15M.bin", "runs/stories15M"}};
  for (const auto& [model, folder] : folders) {
    EXPECT_EQ(config_of({"run", model}).at("run"), folder);
  }
}

TEST(Cli, ATargetSetsEngineExportAndTimingTogether) {
  const Json native = config_of({"run", "m.gguf", "--target", "native"});
  EXPECT_EQ(native.at("measure").at("engine"), "native");
  EXPECT_EQ(native.at("export_child").at("formats"), Json({"hf"}));
  EXPECT_EQ(native.at("throughput").at("enabled"), false);
  const Json server = config_of({"run", "m.gguf", "--target", "llama-server"});
  EXPECT_EQ(server.at("measure").at("engine"), "llama-server");
  EXPECT_EQ(server.at("search").at("target"), "deci");
  EXPECT_EQ(server.at("throughput").at("enabled"), true);
}

TEST(Cli, HelpIsEnoughToWriteABudgetAndToFindEveryOption) {
  const std::string help = run_program({"run", "--help"}).out;
  for (const std::string& cost : search_cost_names()) {
    EXPECT_THAT(help, HasSubstr(cost));
  }
  EXPECT_THAT(help, HasSubstr("times the parent's"));
  EXPECT_THAT(help, HasSubstr("puzzle options"));
  EXPECT_THAT(help, HasSubstr("llama2.c"));
}

TEST(Cli, HelpTellsTheExitCodesAndWhatEveryVerbTakes) {
  const std::string help = run_program({"--help"}).out;
  for (const char* part : {"puzzle run MODEL.gguf", "same command", "5 no child", "130 stopped"}) {
    EXPECT_THAT(help, HasSubstr(part));
  }
  for (const char* verb : {"run", "score", "inspect", "solve"}) {
    EXPECT_THAT(run_program({verb, "--help"}).out, HasSubstr("--json")) << verb;
  }
  EXPECT_EQ(run_program({"help"}).out, help);
  EXPECT_EQ(run_program({"--quiet", "help", "run"}).out, run_program({"help", "run"}).out);
  EXPECT_EQ(run_program({"help", "run"}).out, run_program({"run", "--help"}).out);
  EXPECT_THAT(run_program({"help", "rum"}).err, HasSubstr("did you mean run?"));
  EXPECT_THAT(run_program({}).err, HasSubstr("`puzzle --help`"));
}

TEST(Cli, TheEnginesPageIsTheProgramsOwn) {
  const ProgramResult result = run_program({"engines"});
  ASSERT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, read_text_file(test::kSource / "docs/engines.md"))
      << "write it anew: build/puzzle engines > docs/engines.md";
  const ProgramResult json = run_program({"engines", "--json"});
  ASSERT_EQ(json.exit_code, 0);
  const Json cells = parse_json(json.out, "stdout").at("cells");
  EXPECT_EQ(cells.size(), 2U * 16U * 3U * 5U);  // models, pairs of kinds, positions, formats
}

TEST(Cli, TheOptionsPageIsTheProgramsOwn) {
  const ProgramResult result = run_program({"options"});
  ASSERT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, read_text_file(test::kSource / "docs/options.md"))
      << "write it anew: build/puzzle options > docs/options.md";
  const ProgramResult json = run_program({"options", "--json"});
  ASSERT_EQ(json.exit_code, 0);
  const Json answer = parse_json(json.out, "stdout");
  bool found = false;
  for (const Json& option : answer.at("options")) {
    found =
        found || (option.at("name") == "data.window" && option.at("value") == Recipe{}.data.window);
  }
  EXPECT_TRUE(found);
}

TEST(Cli, InspectReadsAConfigurationAlone) {
  const fs::path folder = test::kSource / "recipes/parents/llama-3.1-8b";
  for (const fs::path& path : {folder, folder / "config.json"}) {
    const ProgramResult result = run_program({"inspect", path.string(), "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("BF16"));
    EXPECT_THAT(result.out, ::testing::Not(HasSubstr("\"F32\"")));
  }
}

// The codes and words of docs/formats.md's table.
TEST(Cli, SolveSaysWhatBecameOfAProblem) {
  const test::TempDir folder;
  const auto solve = [&](double at_most) {
    write_text_file(folder / "problem.json",
                    fmt::format(R"({{"format": "puzzle-problem", "version": 1,
        "layers": [[{{"name": "own", "score": 0.0, "costs": {{"bytes": 60}}}},
                    {{"name": "half", "score": 0.04, "costs": {{"bytes": 30}}}}],
                   [{{"name": "own", "score": 0.0, "costs": {{"bytes": 60}}}},
                    {{"name": "half", "score": 0.02, "costs": {{"bytes": 30}}}}]],
        "budgets": [{{"cost": "bytes", "at_most": {}}}]}})",
                                at_most));
    return run_program({"solve", (folder / "problem.json").string(), "--json"});
  };
  const ProgramResult optimal = solve(100.0);
  ASSERT_EQ(optimal.exit_code, 0) << optimal.err;
  const Json answer = parse_json(optimal.out, "stdout");
  EXPECT_EQ(answer.at("status"), "optimal");
  EXPECT_EQ(answer.at("solutions").at(0).at("choices"), Json({"own", "half"}));
  EXPECT_EQ(answer.at("solutions").at(0).at("costs").at("bytes"), 90);

  const ProgramResult infeasible = solve(50.0);
  EXPECT_EQ(infeasible.exit_code, 5);
  EXPECT_THAT(infeasible.err, HasSubstr("problem.json"));
  const Json why = parse_json(infeasible.out, "stdout");
  EXPECT_EQ(why.at("status"), "infeasible");
  EXPECT_EQ(why.at("infeasible").at("budgets").at(0).at("attainable_alone"), 60);
  EXPECT_EQ(why.at("error").at("kind"), "infeasible");

  write_text_file(folder / "problem.json", "{");
  EXPECT_EQ(run_program({"solve", (folder / "problem.json").string()}).exit_code, 3);
}

TEST(Cli, GenerateContinuesAPrompt) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const std::vector<std::string> words = {
      "generate", (folder / "parent").string(), "--prompt", "the", "--max-tokens", "5"};
  const ProgramResult plain = run_program(words);
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  auto as_json = words;
  as_json.emplace_back("--json");
  const ProgramResult result = run_program(as_json);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json answer = parse_json(result.out, "stdout");
  EXPECT_GE(answer.at("generated_tokens").get<int>(), 1);
  EXPECT_LE(answer.at("generated_tokens").get<int>(), 5);
  EXPECT_THAT(plain.out, HasSubstr(answer.at("text").get<std::string>()));
}

TEST(Cli, InfeasibleBudgetsAreKnownBeforeAnythingIsWritten) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  auto words = test::run_arguments("run", folder.path(), folder / "run");
  test::add_settings(words, {"search.budgets=[\"parameters <= 1\"]"});
  expect_error(words, 5, "parameters <= 1");
  EXPECT_FALSE(fs::exists(folder / "run"));
  words.front() = "plan";
  expect_error(words, 5, "parameters <= 1");
  test::add_settings(words, {"search.budgets=[\"parameter <= 1\"]", "measure.table=x.json"});
  expect_error(words, 2, "there is no cost parameter, did you mean parameters?");
  expect_error(words, 2, "measure.table has no effect");
}

TEST(Cli, AVerbAnswersWithItsOwnResult) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const auto answer = [&](const std::string& verb) {
    auto words = test::run_arguments(verb, folder.path(), folder / "run");
    words.push_back("--json");
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "stdout");
  };
  const Json library = answer("init-library");
  EXPECT_GT(library.at("variants").size(), 3U);
  EXPECT_EQ(library.at("variants").at(0).at("stage"), "init-library");
  EXPECT_GT(answer("score").at("scores").size(), 20U);
  EXPECT_GT(answer("measure").at("costs").size(), 4U);
  EXPECT_TRUE(answer("search").at("architectures").contains("child"));
  EXPECT_THAT(RunDb(folder / "run/run.db", RunDbMode::kRead).meta("command").value(),
              HasSubstr("--budget 'parameters <= 0.9x'"))
      << "to be pasted into a shell";
  auto left_out = test::run_arguments("distill-child", folder.path(), folder / "run");
  test::add_settings(left_out, {"train_child=false"});
  expect_error(left_out, 2, "train_child is false");
}

// The published sizes and the paper's token counts, to an order of magnitude.
TEST(Cli, EveryRecipeCanBePlanned) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const std::map<std::string, double> expected_parameters = {
      {"llama-3.1-8b", 8.03e9},       {"llama-3.1-70b", 70.6e9},     {"smollm2-cpu", 134.5e6},
      {"smollm2-ablations", 134.5e6}, {"smollm2-evidence", 134.5e6}, {"tiny", 0.0}};
  for (const auto& entry : fs::directory_iterator(test::kSource / "recipes")) {
    if (entry.path().extension() != ".yaml") {
      continue;
    }
    const std::string name = entry.path().stem().string();
    ASSERT_TRUE(expected_parameters.contains(name)) << name;
    // The texts need not be there.
    std::vector<std::string> words = {"plan", entry.path().string(), "--hardware", "h100-sxm",
                                      "--json"};
    if (name == "tiny") {
      test::add_settings(words, {"model=" + (folder / "parent").string(),
                                 "data.sources=[" + (folder / "corpus").string() + "]"});
    } else if (name.starts_with("smollm2-") && !fs::exists(test::parent_gguf())) {
      continue;  // the parent is fetched by the demo
    } else {
      test::add_settings(
          words,
          {"model=" + (test::kSource /
                       config_of({"plan", entry.path().string()}).at("model").get<std::string>())
                          .string()});
    }
    const ProgramResult result = run_program(words);
    ASSERT_EQ(result.exit_code, 0) << name << result.err;
    const Json plan = parse_json(result.out, "stdout");
    if (name == "tiny") {
      continue;
    }
    const double parameters = expected_parameters.at(name);
    EXPECT_NEAR(plan.at("parameters").get<double>(), parameters, 0.01 * parameters);
    const Json config = config_of({"plan", entry.path().string()});
    // Forward, backward twice that, the parent's forward; less for what the child leaves out.
    const double flops =
        8.0 * parameters * config.at("distill_child").at("num_tokens").get<double>();
    for (const Json& stage : plan.at("stages")) {
      if (stage.at("stage") == "distill-child") {
        const double ratio = stage.at("flops").get<double>() / flops;
        EXPECT_GT(ratio, 0.5) << name;
        EXPECT_LT(ratio, 1.3) << name;
      }
      if (stage.at("flops").get<double>() > 0.0) {
        EXPECT_GE(stage.at("memory_bytes").get<double>(), plan.at("parameters").get<double>())
            << stage;
      }
    }
  }
}

TEST(Cli, TheDemoRefusesAnUnknownKind) {
  const test::TempDir folder;
  const std::string command = "DEMO=longer bash '" + (test::kSource / "demo.sh").string() +
                              "' 2> '" + (folder / "err").string() + "'";
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(read_text_file(folder / "err"), HasSubstr("DEMO is 'longer'"));
}

}  // namespace
}  // namespace puzzle
