// Whole runs from the outside: from the parent to the report, again, cleaned up, and without a
// llama.cpp that works.
#include <filesystem>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "e2e/tiny_run.h"
#include "puzzle/app/pipeline.h"
#include "puzzle/arch/cost.h"
#include "puzzle/base/folder_lock.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::run_program;
using ::testing::HasSubstr;

double parameters_of(const ModelSpec& spec) {
  return static_cast<double>(model_cost(spec, ExportTarget::kNative, WeightTypes{}).parameters);
}

// A parent as odd as they come, and then its child as a parent.
TEST(Run, AChildOfAnyParentCanBeAParent) {
  const test::TempDir folder;
  ModelSpec spec = test::tiny_spec(4);
  spec.qk_norm = true;
  spec.attention_bias = true;
  spec.tie_embeddings = true;
  spec.layers[1] = parse_block("none/w64");
  spec.layers[2] = parse_block("linear/linear");
  spec.layers[3] = parse_block("kv2/none");
  test::make_run_inputs(folder.path(), spec);
  const std::vector<std::string> settings = {"search.target=nemotron-nas",
                                             "export_child.formats=[hf]",
                                             "export_child.types=like-parent", "compare=[]"};
  std::vector<std::string> words = test::run_arguments("run", folder.path(), folder / "run");
  test::add_training(words);
  test::add_settings(words, settings);
  const ProgramResult first = run_program(words);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const fs::path child = folder / "run/exports/child-hf";
  const ModelSpec child_spec = load_model_spec(child);
  EXPECT_TRUE(child_spec.qk_norm && child_spec.attention_bias && child_spec.tie_embeddings);
  EXPECT_FALSE(child_spec.attention_output_bias);
  EXPECT_LE(parameters_of(child_spec), 0.9 * parameters_of(load_model_spec(folder / "parent")));

  words = test::run_arguments("run", folder.path(), folder / "second");
  words[1] = child.string();
  test::add_settings(words, settings);
  test::add_settings(words, {"train_blocks=false", "train_child=false"});
  const ProgramResult second = run_program(words);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  const ModelSpec grandchild = load_model_spec(folder / "second/exports/child-hf");
  EXPECT_LE(parameters_of(grandchild), 0.9 * parameters_of(child_spec));
}

TEST(Run, GoesFromParentToReportAndThenHasNothingLeftToDo) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  std::vector<std::string> words = test::run_arguments("run", folder.path(), folder / "run");
  test::add_training(words);
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
  const Json& budget = summary.at("budgets").at(0);
  EXPECT_EQ(budget.at("budget"), "parameters <= 0.9x");
  EXPECT_EQ(budget.at("met"), true);
  EXPECT_EQ(budget.at("met_by"), "exact");
  EXPECT_LE(budget.at("predicted_ratio").get<double>(), 0.9);
  EXPECT_GT(
      summary.at("evaluations").at("child").at("held-out text").at("kl").at("value").get<double>(),
      0);
  EXPECT_EQ(summary.at("stages").size(), stage_names().size());
  for (const Json& stage : summary.at("stages")) {
    EXPECT_GT(stage.at("peak_memory_bytes").get<double>(), 1e7) << stage;
  }
  EXPECT_TRUE(fs::exists(folder / "run/report.html"));
  EXPECT_EQ(load_model_spec(folder / "run/children/child").num_layers(), 3);
  EXPECT_THAT(read_text_file(folder / "run/exports/child.md"), HasSubstr("license: mit"));
  const Json before = test::fingerprint(folder / "run");
  const ProgramResult second = run_program(words);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(test::fingerprint(folder / "run"), before);
  EXPECT_EQ(parse_json(second.out, "stdout"), summary);

  // A repair after training takes the trained child as it is, and never makes it worse.
  std::vector<std::string> again = words;
  test::add_settings(again, {"repair_trained=true"});
  const ProgramResult repaired = run_program(again);
  ASSERT_EQ(repaired.exit_code, 0) << repaired.err;
  EXPECT_TRUE(fs::exists(folder / "run/children/child-trained/config.json"));
  const Json evaluated = parse_json(repaired.out, "stdout").at("evaluations");
  EXPECT_TRUE(evaluated.contains("child-trained"));
  EXPECT_TRUE(evaluated.contains("child-repaired"));
  const auto kl_of = [&evaluated](const char* model) {
    return evaluated.at(model).at("held-out text").at("kl").at("value").get<double>();
  };
  int repairs = 0;
  const RunDb db(folder / "run/run.db", RunDbMode::kRead);
  for (const StageRecord& record : db.stages()) {
    if (record.stage == "repair" && record.what == "child") {
      const Json detail = parse_json(record.detail_json, "run.db");
      const bool is_kept = detail.at("refitted").get<int>() > 0;
      const auto kl_before = detail.at("kl_before").get<double>();
      const auto kl_after = detail.at("kl_after").get<double>();
      EXPECT_LE(kl_after, kl_before);
      EXPECT_EQ(is_kept, kl_after < kl_before);
      EXPECT_EQ(kl_of("child") != kl_of("child-trained"), is_kept);
      ++repairs;
    }
  }
  EXPECT_EQ(repairs, 1);
  for (const CurveRow& row : db.curves()) {
    EXPECT_NE(row.series, "child") << "its training is no longer part of the run";
  }

  // Another recipe's rows do not stay current: without distill-blocks there is nothing about it.
  std::vector<std::string> without = test::run_arguments("run", folder.path(), folder / "run");
  test::add_settings(without, {"train_blocks=false", "train_child=false", "compare=[]"});
  const ProgramResult third = run_program(without);
  ASSERT_EQ(third.exit_code, 0) << third.err;
  EXPECT_THAT(third.out, HasSubstr("parameters <= 0.9x: met"));
  EXPECT_THAT(third.out, HasSubstr("KL to the parent"));
  for (const VariantRow& row : RunDb(folder / "run/run.db", RunDbMode::kRead).variants()) {
    EXPECT_NE(row.stage, "distill-blocks");
  }
}

TEST(Run, ScarceTextToTrainOnIsNamed) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  auto words = test::run_arguments("distill-blocks", folder.path(), folder / "run");
  test::add_settings(words, {"distill_blocks.num_tokens=4096"});
  const ProgramResult scarce = run_program(words);
  ASSERT_EQ(scarce.exit_code, 0) << scarce.err;
  EXPECT_THAT(scarce.err, HasSubstr("distill_blocks.num_tokens is 4096, the train part has 2048"));

  test::add_settings(words, {"data.test_tokens=20000000"});
  const ProgramResult none = run_program(words);
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("lower data.*_tokens"));
}

TEST(Run, AFolderIsOneProcesss) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const fs::path run = folder / "run";
  make_folder(run);
  const auto words = test::run_arguments("init-library", folder.path(), run);
  {
    const FolderLock held(run);
    const ProgramResult refused = run_program(words);
    EXPECT_EQ(refused.exit_code, 4);
    EXPECT_THAT(refused.err, HasSubstr(fmt::format("process {} of ", ::getpid())));
    EXPECT_FALSE(fs::exists(run / "run.db"));
    write_text_file(run / "run.db", "");
    EXPECT_EQ(run_program({"clean", run.string(), "--force"}).exit_code, 4);
  }
  EXPECT_EQ(run_program(words).exit_code, 0);
}

TEST(Run, QuestionsThatCannotBeReadShowBeforeAnyWork) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  write_text_file(folder / "pairs.jsonl", "{\"sentence_good\": \"no bad one\"}\n");
  auto words = test::run_arguments("run", folder.path(), folder / "run");
  test::add_settings(words, {"evaluate.minimal_pairs=[" + (folder / "pairs.jsonl").string() + "]"});
  const ProgramResult refused = run_program(words);
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.err, HasSubstr("pairs.jsonl:1"));
  EXPECT_FALSE(fs::exists(folder / "run/library"));
}

TEST(Run, TheSearchSaysWhatItChose) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  auto words = test::run_arguments("search", folder.path(), folder / "run");
  const ProgramResult found = run_program(words);
  ASSERT_EQ(found.exit_code, 0) << found.err;
  EXPECT_THAT(found.err, HasSubstr("search: child: 0"));
  EXPECT_THAT(found.err, ::testing::Not(HasSubstr("the parent itself")));
  test::add_settings(words, {"search.budgets=[parameters <= 2x]"});
  const ProgramResult parent = run_program(words);
  ASSERT_EQ(parent.exit_code, 0) << parent.err;
  EXPECT_THAT(parent.err, HasSubstr("the parent itself is within the budgets (parameters <= 2x)"));
}

// All but the parent's own halves of the child and of the next solutions, and far from all there
// are.
TEST(Run, WhatTheSearchChoosesIsScoredExactly) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path(), test::tiny_spec(6));
  auto words = test::run_arguments("search", folder.path(), folder / "run");
  test::add_settings(words, {"train_blocks=false", "score.exact_above=1000", "score.exact_share=1",
                             "search.solutions=3", "compare=[]"});
  const ProgramResult found = run_program(words);
  ASSERT_EQ(found.exit_code, 0) << found.err;
  EXPECT_THAT(found.err, HasSubstr("of the chosen variants are now scored exactly"));
  const RunDb db(folder / "run/run.db", RunDbMode::kRead);
  std::map<std::string, std::set<std::pair<std::int64_t, std::string>>> scored;
  for (const ScoreRow& row : db.scores()) {
    if (row.metric == "kl") {
      scored[row.method].emplace(row.layer, row.block);
    }
  }
  EXPECT_LT(scored["replace-one"].size(), scored["gradient"].size());
  const BlockSpec own = test::tiny_spec(1).layers[0];
  int checked = 0;
  for (const ArchitectureRow& row : db.architectures()) {
    for (std::size_t layer = 0; layer < row.blocks.size(); ++layer) {
      const BlockSpec block = parse_block(row.blocks[layer]);
      for (const BlockSpec& half :
           {BlockSpec{block.attention, own.ffn}, BlockSpec{own.attention, block.ffn}}) {
        if (half != own) {
          EXPECT_TRUE(
              scored["replace-one"].contains({static_cast<std::int64_t>(layer), half.name()}))
              << row.name << " " << layer << " " << half.name();
          ++checked;
        }
      }
    }
  }
  EXPECT_GT(checked, 0);
}

TEST(Run, RepairRefitsOnTheTextAskedFor) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  std::set<std::string> contents;
  for (const std::string part : {"calibration", "train"}) {
    auto words = test::run_arguments("repair", folder.path(), folder / "run");
    test::add_settings(words, {"train_blocks=false", "train_child=false", "compare=[]",
                               "repair.num_tokens=1024", "repair.part=" + part});
    const ProgramResult repaired = run_program(words);
    ASSERT_EQ(repaired.exit_code, 0) << repaired.err;
    contents.insert(read_text_file(folder / "run/children/child/model.safetensors"));
  }
  EXPECT_EQ(contents.size(), 2U);
}

TEST(Run, CleanRemovesWhatAFinishedRunNoLongerNeedsAndNothingOfAnother) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const fs::path run = folder / "run";
  ASSERT_EQ(run_program(test::run_arguments("search", folder.path(), run)).exit_code, 0);
  const ProgramResult refused = run_program({"clean", run.string()});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("has not finished"));
  EXPECT_TRUE(fs::exists(run / "library"));

  auto words = test::run_arguments("run", folder.path(), run);
  test::add_training(words);
  ASSERT_EQ(run_program(words).exit_code, 0);
  const std::string start = "children/child-assembled";
  ASSERT_TRUE(fs::exists(run / start));
  write_text_file(run / "exports/child.gguf.tmp-999999999-0", "left by a killed writer");
  const ProgramResult cleaned = run_program({"clean", run.string(), "--json"});
  ASSERT_EQ(cleaned.exit_code, 0) << cleaned.err;
  const Json removed = parse_json(cleaned.out, "stdout").at("removed");
  for (const std::string& gone : {std::string("library"), std::string("data"), start,
                                  std::string("exports/child.gguf.tmp-999999999-0")}) {
    EXPECT_FALSE(fs::exists(run / gone)) << gone;
    EXPECT_THAT(removed.dump(), HasSubstr(gone));
  }
  EXPECT_EQ(load_model_spec(run / "children/child").num_layers(), 3);
  EXPECT_TRUE(fs::exists(run / "exports/child.gguf"));
  const ProgramResult page = run_program({"report", run.string(), "--json"});
  ASSERT_EQ(page.exit_code, 0) << page.err;
  EXPECT_TRUE(fs::exists(parse_json(page.out, "stdout").at("report").get<std::string>()));
}

TEST(Run, WithoutAWorkingLlamaServerTheReportIsStillWritten) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  auto words = test::run_arguments("run", folder.path(), folder / "run");
  test::add_settings(words, {"train_child=false", "compare=[]", "throughput.enabled=true",
                             "llama_server.program=/nowhere/llama-server"});
  const ProgramResult missing = run_program(words);
  EXPECT_EQ(missing.exit_code, 4) << missing.err;
  EXPECT_THAT(missing.err, HasSubstr("tools/setup.sh --with-server"));
  EXPECT_FALSE(fs::exists(folder / "run/library")) << "hours before it is needed";

  // What an earlier run timed is not about this child.
  words.back() = "throughput.enabled=false";
  ASSERT_EQ(run_program(words).exit_code, 0);
  {
    RunDb db(folder / "run/run.db");
    ThroughputRow row;
    row.key = "earlier";
    row.model = "child";
    row.engine = "llama-server";
    db.put_one(row);
    db.set_current(RunTable::kThroughput, "throughput", {"earlier"});
  }
  words.back() = "llama_server.program=/bin/false";
  const ProgramResult broken = run_program(words);
  EXPECT_EQ(broken.exit_code, 4) << broken.err;
  EXPECT_TRUE(fs::exists(folder / "run/report.html"));
  EXPECT_TRUE(RunDb(folder / "run/run.db", RunDbMode::kRead).throughput().empty());
}

}  // namespace
}  // namespace puzzle
