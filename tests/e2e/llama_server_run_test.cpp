// A child for llama.cpp from the outside: measured in it, exported for it, timed in it beside the
// parent, and tabled. The server is made up, so that every file's true speed is known. (A left-out
// FFN is a narrow one in the file, which this server charges more for than a real one.)
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "e2e/tiny_run.h"
#include "support/fake_llama_server.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::run_program;
using ::testing::HasSubstr;

TEST(LlamaServerRun, IsAsFastAsItsFilesAre) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  test::write_fake_llama_server(folder / "server", "stacks", folder / "requests.jsonl");
  auto words = test::run_arguments("run", folder.path(), folder / "run", "llama-server");
  words.insert(words.end(), {"--budget", "generation_tokens_per_s >= 1.2x", "--json"});
  test::add_settings(
      words, {"measure.types=f32", "train_blocks=false", "train_child=false", "compare=[]",
              "export_child.formats=[gguf]", "search_space.ffn=[parent, '0.66', '0.34']",
              "llama_server.program=" + (folder / "server").string(), "timing.samples=2",
              "timing.max_rounds=1", "scenarios.enabled=true", "scenarios.lengths=[32/32, 16/48]",
              "scenarios.batch=[1, 2]"});
  const ProgramResult result = run_program(words);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json summary = parse_json(result.out, "stdout");
  const auto true_rate = [&](const char* file) {
    return 1.0 / test::made_up_seconds(load_model_spec(folder / "run/exports" / file).layers);
  };
  const Json& timed = summary.at("throughput");
  for (const auto& [model, file] :
       {std::pair{"parent", "parent.gguf"}, std::pair{"child", "child.gguf"}}) {
    const double rate = true_rate(file);
    EXPECT_NEAR(timed.at(model).at("generation_tokens_per_s").get<double>(), rate, 1e-6 * rate);
    EXPECT_NEAR(timed.at(model).at("predicted_generation_tokens_per_s").get<double>(), rate,
                0.02 * rate)
        << model;
    EXPECT_NEAR(timed.at(model).at("prefill_s").get<double>(), 32.0 / rate, 1e-6 / rate);
  }
  const double speedup = true_rate("child.gguf") / true_rate("parent.gguf");
  EXPECT_GE(speedup, 1.2);

  bool is_judged = false;
  for (const Json& budget : summary.at("budgets")) {
    EXPECT_EQ(budget.at("met"), true) << budget;
    if (budget.at("budget") == "generation_tokens_per_s >= 1.2x") {
      EXPECT_EQ(budget.at("met_by"), "measurement");
      EXPECT_NEAR(budget.at("measured_ratio").get<double>(), speedup, 1e-5);
      is_judged = true;
    }
  }
  EXPECT_TRUE(is_judged);
  EXPECT_EQ(summary.at("scenarios").size(), 4U) << summary.at("scenarios");
  EXPECT_THAT(read_text_file(folder / "run/report.html"), HasSubstr("llama-server"));
}

}  // namespace
}  // namespace puzzle
