#include "puzzle/app/plan.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/app/plan_work.h"
#include "puzzle/arch/cost.h"
#include "puzzle/base/file.h"
#include "puzzle/model/checkpoint.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kPlanRecipes = fs::path(PUZZLE_SOURCE_DIR) / "recipes";

Recipe load_recipe(const std::string& name) {
  Recipe recipe;
  OptionList list;
  recipe.visit(list);
  list.load_yaml(kPlanRecipes / name);
  return recipe;
}

ModelSpec smollm2() {
  ModelSpec spec;
  spec.name = "SmolLM2-135M";
  spec.hidden_size = 576;
  spec.num_heads = 9;
  spec.head_dim = 64;
  spec.vocab_size = 49'152;
  spec.tie_embeddings = true;
  spec.context_length = 8192;
  spec.layers.assign(30, BlockSpec{AttentionSpec::gqa(3), FfnSpec::swiglu(1536)});
  return spec;
}

// The demo's recipe, wherever its corpus and its parent's file are.
Recipe demo_recipe() {
  Recipe recipe = load_recipe("smollm2-cpu.yaml");
  recipe.model = "parent";
  recipe.data.sources = {"nowhere"};
  recipe.search.types = recipe.measure.types = recipe.export_child.types = "q4_1";
  return recipe;
}

std::map<std::string, StagePlan> by_name(const Plan& plan) {
  std::map<std::string, StagePlan> stages;
  for (const StagePlan& stage : plan.stages) {
    stages[stage.stage] = stage;
  }
  return stages;
}

// Large fp32 products on the two cores of the demo, and what its stages really took there.
constexpr double kTwoCoresFlopsPerS = 170e9;

TEST(Plan, TimesOfTheDemoAreThoseMeasured) {
  Recipe recipe = demo_recipe();
  recipe.score.method = "replace-one";
  recipe.distill_child.compute = "float32";
  recipe.repair.inputs = false;
  recipe.data.calibration_tokens = 32'768;
  recipe.data.validation_tokens = 4096;
  recipe.data.scoring_tokens = 1024;
  recipe.distill_blocks.num_tokens = 16'384;
  recipe.distill_child.num_tokens = 40'960;  // 20 steps of 2,048
  recipe.evaluate.num_tokens = 8192;
  const auto stages = by_name(make_plan(recipe, smollm2(), kTwoCoresFlopsPerS));
  const std::map<std::string, double> measured_s = {
      {"init-library", 146}, {"distill-blocks", 277}, {"score", 314},
      {"measure", 158},      {"repair", 174},         {"distill-child", 289},
      {"paper-init", 58},    {"evaluate", 86},        {"throughput", 105}};
  for (const auto& [stage, seconds] : measured_s) {
    ASSERT_TRUE(stages.contains(stage)) << stage;
    EXPECT_GT(stages.at(stage).seconds, 0.75 * seconds) << stage;
    EXPECT_LT(stages.at(stage).seconds, 1.35 * seconds) << stage;
  }
  // Short ones, in seconds at most.
  for (const auto& [stage, seconds] :
       {std::pair{"data", 2.0}, {"assemble", 2.0}, {"export", 1.0}, {"report", 0.1}}) {
    EXPECT_LT(stages.at(stage).seconds, seconds) << stage;
  }
  // Mixed precision is faster, and holds the parent's matrices once more.
  recipe.distill_child.compute = "bfloat16";
  const StagePlan mixed =
      by_name(make_plan(recipe, smollm2(), kTwoCoresFlopsPerS)).at("distill-child");
  EXPECT_LT(mixed.seconds, 0.8 * stages.at("distill-child").seconds);
  EXPECT_GT(mixed.memory_bytes, stages.at("distill-child").memory_bytes);
  EXPECT_TRUE(stages.contains("search"));
  EXPECT_FALSE(stages.contains("compare"));
}

// 2.1 ms a token forward, 0.28 GFLOP.
TEST(PlanWork, ATokenForwardIsThatOfTheModel) {
  const ModelSpec spec = smollm2();
  const Work token = layers_work(spec, 256) + head_work(spec, 256);
  const double expected =
      static_cast<double>(model_flops(spec, {.batch = 1, .new_tokens = 256})) / 256.0;
  EXPECT_NEAR(token.flops(), expected, 1e-6 * expected);
  EXPECT_NEAR(1e3 * token.seconds(kTwoCoresFlopsPerS), 2.1, 0.2);
}

TEST(PlanWork, OnlyWhatIsTrainedCosts) {
  const ModelSpec spec = smollm2();
  Recipe recipe = demo_recipe();
  recipe.search_space.attention = {"parent", "none"};
  recipe.search_space.ffn = {"parent", "none"};
  const auto blocks = [&] {
    return distill_blocks_work(recipe, spec, make_search_space(recipe.search_space, spec)).flops();
  };
  const double tokens = static_cast<double>(recipe.distill_blocks.num_tokens) + 4096.0;
  EXPECT_NEAR(blocks(), tokens * layers_work(spec, 256).flops(), 1.0);
  // An FFN of half the width: forward, and backward for weights and inputs.
  recipe.search_space.ffn = {"parent", "0.5", "none"};
  const double half = 30.0 * 6.0 * 576.0 * 768.0;
  const double once = static_cast<double>(recipe.distill_blocks.num_tokens) * 3.0 * half;
  const double judged = 2.0 * 4096.0 * half;
  EXPECT_NEAR(blocks(), tokens * layers_work(spec, 256).flops() + once + judged, 1e6);
  recipe.distill_blocks.epochs = 3;
  EXPECT_NEAR(blocks(),
              (tokens + 2.0 * 16'384.0) * layers_work(spec, 256).flops() + 3.0 * once + judged,
              1e6);
}

// Candidate i of L runs L - i layers and the head; the parent runs as a whole twice.
TEST(PlanWork, ScoresStartAtTheirLayer) {
  const ModelSpec spec = smollm2();
  Recipe recipe = demo_recipe();
  recipe.score.method = "replace-one";
  recipe.search_space.attention = {"parent"};
  recipe.search_space.ffn = {"parent", "none"};
  const double layer = layers_work(spec, 256).flops() / 30.0;
  const double ffn = 6.0 * 576.0 * 1536.0;
  const double head = head_work(spec, 256).flops();
  double expected = 2.0 * 30.0 * layer;
  for (int i = 0; i < 30; ++i) {
    expected += (30 - i) * layer - ffn + 2.0 * head;
  }
  const SearchSpace space = make_search_space(recipe.search_space, spec);
  EXPECT_NEAR(score_work(recipe, spec, space).flops(), 1024.0 * expected, 1e6);
  EXPECT_EQ(num_variants(spec, space), 30);
}

TEST(Plan, LongTextsAreReadByEveryModel) {
  Recipe recipe = demo_recipe();
  const ModelSpec spec = smollm2();
  const double before = evaluate_work(recipe, spec, 0.5, 3).flops();
  recipe.evaluate.long_text.lengths = {512, 4096};
  recipe.evaluate.long_text.tasks = {"single_needle", "question"};
  recipe.evaluate.long_text.samples = 7;
  // Matrices of 135 M parameters but for the head, and 30 × 4·576 FLOPs per pair of tokens.
  const double matrices = 2.0 * (30.0 * (576.0 * (576 + 192 + 192 + 576) + 3.0 * 576 * 1536));
  double expected = 0.0;
  for (const double length : {512.0, 4096.0}) {
    const double pairs = (length + 1) / 2.0;
    expected += 2 * 7 * length * (matrices + 30.0 * 4.0 * 576.0 * pairs) * (1.0 + 0.5 * 3);
  }
  EXPECT_NEAR((evaluate_work(recipe, spec, 0.5, 3).flops() - before) / expected, 1.0, 0.02);
}

// Two questions of two texts of 40 bytes: 40 tokens by the size of their text.
TEST(Plan, QuestionsAreReadByEveryModelThatIsScored) {
  const test::TempDir folder;
  const fs::path file = folder / "pairs.jsonl";
  const std::string text(40, 'a');
  const std::string line =
      R"({"sentence_good": ")" + text + R"(", "sentence_bad": ")" + text + "\"}\n";
  write_text_file(file, line + line);
  const ModelSpec spec = smollm2();
  const double layers = layers_work(spec, 256).flops();
  const double head = head_work(spec, 256).flops();
  Recipe recipe = demo_recipe();
  const double before = evaluate_work(recipe, spec, 0.5, 3).flops();
  recipe.evaluate.questions.minimal_pairs = {file.string(), "nowhere.jsonl"};
  EXPECT_NEAR(evaluate_work(recipe, spec, 0.5, 3).flops() - before,
              40.0 * (2.5 * layers + 4.0 * head), 1e6);
  recipe.score.questions.multiple_choice = {"nowhere.jsonl"};
  recipe.score.method = "replace-one";
  const SearchSpace space = make_search_space(recipe.search_space, spec);
  const double exact = score_work(recipe, spec, space).flops();
  recipe.score.method = "downstream";
  EXPECT_EQ(score_work(recipe, spec, space).flops(), 0.0);
  recipe.score.questions.minimal_pairs = {file.string()};
  EXPECT_NEAR(score_work(recipe, spec, space).flops(),
              exact * 40.0 / static_cast<double>(recipe.data.scoring_tokens), 1e6);
  recipe.score.sets.max_questions = 1;
  EXPECT_EQ(score_tokens(recipe), 20);
}

TEST(Plan, TheTableOfScenariosGrowsWithWhatIsTimed) {
  Recipe recipe = demo_recipe();
  EXPECT_FALSE(by_name(make_plan(recipe, smollm2(), 1e11)).contains("scenarios"));
  recipe.scenarios.enabled = true;
  recipe.scenarios.predict = false;
  recipe.scenarios.lengths = {"128/128", "512/64"};
  const StagePlan one = by_name(make_plan(recipe, smollm2(), 1e11)).at("scenarios");
  EXPECT_EQ(one.tokens, 128 + 128 + 512 + 64);
  recipe.scenarios.batch = {1, 4};
  const StagePlan both = by_name(make_plan(recipe, smollm2(), 1e11)).at("scenarios");
  EXPECT_EQ(both.tokens, 5 * one.tokens);
  EXPECT_GT(both.seconds, 2.0 * one.seconds);
  recipe.scenarios.predict = true;
  EXPECT_GT(by_name(make_plan(recipe, smollm2(), 1e11)).at("scenarios").seconds, both.seconds);
}

TEST(Plan, ComparedChildrenAndSpilledStatesCount) {
  Recipe recipe = demo_recipe();
  const ModelSpec spec = smollm2();
  const auto before = by_name(make_plan(recipe, spec, 1e11));
  recipe.compare_distilled = true;
  recipe.distill_blocks.state_memory_mib = 1;
  const auto after = by_name(make_plan(recipe, spec, 1e11));
  EXPECT_NEAR(after.at("compare").seconds, 3.0 * before.at("distill-child").seconds, 1e-6);
  EXPECT_GT(after.at("evaluate").memory_bytes, before.at("evaluate").memory_bytes);
  const double states = (16'384.0 + 4096.0) * 576.0 * 4.0;
  EXPECT_NEAR(after.at("distill-blocks").disk_bytes - before.at("distill-blocks").disk_bytes,
              states - 1048576.0, 1.0);
  recipe.train_child = false;
  recipe.compare_distilled = false;
  recipe.compare.clear();
  recipe.throughput.enabled = false;
  const auto bare = by_name(make_plan(recipe, spec, 1e11));
  for (const char* stage : {"distill-child", "paper-init", "throughput"}) {
    EXPECT_FALSE(bare.contains(stage)) << stage;
  }
}

// The paper's child takes one variant of each half, whatever the space holds besides.
TEST(Plan, ThePapersLibraryIsThatOfOneChild) {
  Recipe recipe = demo_recipe();
  const ModelSpec spec = smollm2();
  const auto paper = [&] { return by_name(make_plan(recipe, spec, 1e11)).at("paper-init").flops; };
  recipe.search_space.attention = {"parent", "none"};
  recipe.search_space.ffn = {"parent", "0.5"};
  const double tokens = static_cast<double>(recipe.data.calibration_tokens) + 4096.0;
  const double expected =
      tokens * layers_work(spec, 256).flops() + 4096.0 * 30.0 * 6.0 * 576.0 * 768.0;
  EXPECT_NEAR(paper(), expected, 1e6);
  recipe.search_space.ffn = {"parent", "0.5", "0.25", "linear", "none"};
  EXPECT_NEAR(paper(), expected, 1e6);
}

TEST(Plan, TheChildIsAsLargeAsItsBudgetsLeaveIt) {
  const ModelSpec spec = smollm2();
  Recipe recipe = demo_recipe();
  const auto fraction = [&](std::vector<std::string> budgets) {
    recipe.search.budgets = std::move(budgets);
    return make_plan(recipe, spec, 1e11).child_fraction;
  };
  EXPECT_EQ(fraction({}), 1.0);
  EXPECT_EQ(fraction({"parameters <= 0.8x", "total_s <= 0.9x"}), 0.8);
  EXPECT_NEAR(fraction({"generation_tokens_per_s >= 1.25x", "weight_bytes <= 0.9x"}), 0.8, 1e-12);
  EXPECT_EQ(fraction({"total_s <= 3", "generation_tokens_per_s >= 100"}), 1.0);
  EXPECT_NEAR(fraction({"parameters <= 100M"}), 100.0 / 134.515008, 1e-6);
}

TEST(Plan, SpeaksInSiPrefixes) {
  Plan plan = make_plan(demo_recipe(), smollm2(), 32.3e9);
  EXPECT_THAT(plan_text(plan), HasSubstr("32.3 GFLOP/s"));
  plan.flops_per_s = 989e12;
  EXPECT_THAT(plan_text(plan), HasSubstr("989 TFLOP/s"));
  plan.flops_per_s = 999.9e12;
  EXPECT_THAT(plan_text(plan), HasSubstr("1 PFLOP/s"));
}

TEST(Plan, BudgetsOutOfReachAreRefused) {
  Recipe recipe = demo_recipe();
  recipe.search.budgets = {"weight_bytes <= 0.1x"};
  EXPECT_PUZZLE_ERROR((void)make_plan(recipe, smollm2(), 1e11), ErrorKind::kInfeasible,
                      "the smallest attainable");
  recipe.search.budgets = {"weight <= 0.1x"};
  EXPECT_PUZZLE_ERROR((void)make_plan(recipe, smollm2(), 1e11), ErrorKind::kUsage, "weight_bytes");
}

// The paper's recipes can be met as far as bytes go, and fit a node's memory.
TEST(Plan, PaperRecipesAreSatisfiable) {
  for (const auto& [name, parent, parameters] :
       {std::tuple{"llama-3.1-8b.yaml", "llama-3.1-8b", 8.03e9},
        std::tuple{"llama-3.1-70b.yaml", "llama-3.1-70b", 70.6e9}}) {
    Recipe recipe = load_recipe(name);
    recipe.model = (kPlanRecipes / "parents" / parent).string();
    const Plan plan = make_plan(recipe, load_model_spec(recipe.model), 40e12);
    EXPECT_NEAR(static_cast<double>(plan.parent_parameters), parameters, 0.01 * parameters);
    for (const StagePlan& stage : plan.stages) {
      EXPECT_LT(stage.memory_bytes, 60.0 * parameters) << name << ": " << stage.stage;
    }
    // Global distillation: at least 8 FLOPs a parameter and token (parent once, child thrice).
    const auto stages = by_name(plan);
    EXPECT_GT(stages.at("distill-child").flops,
              4.0 * parameters * static_cast<double>(recipe.distill_child.num_tokens));
    EXPECT_LT(stages.at("distill-child").flops,
              20.0 * parameters * static_cast<double>(recipe.distill_child.num_tokens));
  }
}

}  // namespace
}  // namespace puzzle
