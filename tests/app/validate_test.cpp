#include "puzzle/app/validate.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;

// A recipe with nothing wrong for tiny_spec().
class Validate : public ::testing::Test {
 protected:
  Validate() {
    write_text_file(folder_ / "text.txt", "Once upon a time.");
    set("data.sources=[" + (folder_ / "text.txt").string() + "]");
    set("data.window=64");
    set("scenario.prompt_tokens=64");
    set("scenario.generated_tokens=64");
    set("model=" + (folder_ / "parent").string());
    spec_ = test::tiny_spec();
  }

  void set(const std::string& assignment) {
    OptionList list;
    recipe_.visit(list);
    list.set_assignment(assignment);
  }

  test::TempDir folder_;
  Recipe recipe_;
  ModelSpec spec_;
};

TEST_F(Validate, AcceptsWhatIsRight) { EXPECT_NO_THROW(validate(recipe_, spec_)); }

TEST_F(Validate, AScenarioHasABatchSize) {
  set("scenario.batch=[]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "scenario.batch is empty");
}

TEST_F(Validate, NamesEveryProblemAtOnce) {
  set("data.sources=[/nowhere/text.txt]");
  set("data.test_tokens=0");
  set("data.window=4096");
  set("search.budgets=[\"paramters <= 0.5x\", \"total_tokens_per_s <= 2x\"]");
  set("search.sweep=speed");
  set("init_library.layers=[0, 7]");
  set("evaluate.minimal_pairs=[/nowhere/pairs]");
  set("measure.table=t.json");
  set("distill_blocks.sources=[elsewhere]");
  try {
    validate(recipe_, spec_);
    FAIL() << "nothing was found";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    for (const char* part :
         {"/nowhere/text.txt", "data.test_tokens is 0", "data.window is 4096", "paramters",
          "total_tokens_per_s", "speed", "init_library.layers names layer 7", "/nowhere/pairs",
          "measure.table has no effect",
          "distill_blocks.sources: 'elsewhere' is none of data.sources"}) {
      EXPECT_THAT(error.what(), HasSubstr(part));
    }
  }
}

TEST_F(Validate, WhereRecipesShareAFileSettingsMayDecideNothing) {
  set("measure.table=t.json");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "measure.table has no effect");
  EXPECT_NO_THROW(validate(recipe_, spec_, UselessSettings::kLetPass));
}

TEST_F(Validate, WhatWouldFailInALaterStageIsSaidAtOnce) {
  set("search.metric=lm_loss");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "search.metric is lm_loss, which score.method hybrid does not give; set "
                      "score.method to replace-one");
  set("score.method=replace-one");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("search.metric=downstream");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "set score.method to downstream");
  set("search.metric=kl");
  set("distill_child.kl_weight=0");
  set("distill_child.cosine_weight=0");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "cosine_weight, kl_weight and lm_weight are all 0");
  set("distill_child.kl_weight=1");
  set("repair.lambdas=[]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "repair.lambdas is empty");
}

TEST_F(Validate, TextsMayBeMissingWhereTheyAreNotRead) {
  set("data.sources=[nowhere.txt]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "data.sources: there is no file or folder 'nowhere.txt'; --corpus");
  EXPECT_NO_THROW(validate(recipe_, spec_, UselessSettings::kRefuse, CorpusCheck::kMayBeMissing));
}

TEST_F(Validate, TwoSetsOfOneNameAreRefused) {
  set("evaluate.minimal_pairs=[/nowhere/a/test.jsonl]");
  set("evaluate.last_word=[/nowhere/b/test.txt]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "evaluate: /nowhere/a/test.jsonl and /nowhere/b/test.txt are both called "
                      "'test'");
}

TEST_F(Validate, QuestionsThatAreNotThereAreNamed) {
  set("score.method=downstream");
  set("search.metric=downstream");
  set("score.minimal_pairs=[/nowhere/a.jsonl]");
  set("evaluate.multiple_choice=[/nowhere/b.jsonl]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "score.minimal_pairs: there is no file or folder '/nowhere/a.jsonl'");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "evaluate.multiple_choice: there is no file or folder '/nowhere/b.jsonl'");
}

TEST_F(Validate, BudgetsThatNoChildCanMeetAreInfeasible) {
  set("search.budgets=[\"parameters <= 1\"]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kInfeasible, "parameters <= 1");
  set("data.test_tokens=0");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "data.test_tokens");
}

TEST_F(Validate, AGgufNeedsItsOwnTargetAndTypes) {
  set("search.target=native");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "holds gguf, but search.target is native");
  set("search.target=deci");
  set("search.types=q8_0");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "export_child.types is like-parent, but search.types");
  set("export_child.types=q8_0");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("search.types=q3");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "q3");
}

TEST_F(Validate, AParentThatLlamaCppCannotHoldIsRefused) {
  spec_.rope.kind = RopeKind::kYarn;
  spec_.rope.truncate = false;
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "cannot hold the parent: yarn");
}

TEST_F(Validate, NormsOfQAndKNeedTheHfFolder) {
  spec_.qk_norm = true;
  set("measure.engine=llama-server");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "search.target deci cannot hold the parent: q and k have norms");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "use hf with search.target nemotron-nas");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "measure.engine is llama-server, whose files cannot hold the parent");
  set("measure.engine=native");
  set("search.target=nemotron-nas");
  set("export_child.formats=[hf]");
  EXPECT_NO_THROW(validate(recipe_, spec_));
}

TEST_F(Validate, TiedModelsWithNormsOfQAndKHaveAGgufOfTheirOwn) {
  spec_.qk_norm = spec_.tie_embeddings = true;
  EXPECT_PUZZLE_ERROR(
      validate(recipe_, spec_), ErrorKind::kUsage,
      "would not load them; use gguf-openelm with search.target openelm, or hf with "
      "search.target nemotron-nas");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "search.target deci cannot hold the parent: q and k have norms (Qwen3): "
                      "llama.cpp's deci would not load them; use openelm, native or nemotron-nas");
  set("export_child.formats=[gguf-openelm]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "holds gguf-openelm, but search.target is deci");
  set("search.target=openelm");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("scenarios.enabled=true");
  set("scenarios.lengths=[9223372036854775807/2]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "at most 1048576");
  set("scenarios.lengths=[32/8]");
  EXPECT_PUZZLE_ERROR(
      validate(recipe_, spec_), ErrorKind::kUsage,
      "scenarios.predict times sub-blocks in llama-server, whose files cannot hold");
  set("scenarios.enabled=false");
  spec_.tie_embeddings = false;
  EXPECT_PUZZLE_ERROR(
      validate(recipe_, spec_), ErrorKind::kUsage,
      "holds gguf-openelm, which cannot hold the parent: the head is a matrix of its "
      "own, and openelm's is the embedding; use hf with");
  spec_.tie_embeddings = true;
  set("export_child.formats=[gguf, gguf-openelm]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage, "both gguf and gguf-openelm");
}

TEST_F(Validate, AFolderMustHoldEveryVariantOfTheSearchSpace) {
  set("search_space.attention=[parent, linear, none]");
  set("search_space.ffn=[parent, linear, none]");
  set("search.target=nemotron-nas");
  set("export_child.formats=[hf, hf-padded]");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("export_child.formats=[hf, hf-anymodel]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "export_child.formats holds hf-anymodel, which cannot hold linear of "
                      "search_space.attention: a linear sub-block");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "which cannot hold linear of search_space.ffn: a linear sub-block");
  set("search_space.attention=[parent, none]");
  set("search_space.ffn=[parent, none]");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  spec_.qk_norm = true;
  set("export_child.formats=[hf-padded]");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("search_space.ffn=[parent, linear, none]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "holds hf-padded, which cannot hold linear of search_space.ffn");
  spec_.mlp_bias = true;
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "holds hf-padded, which cannot hold the parent: no class of transformers");
}

TEST_F(Validate, NothingRunsBeyondAContextThatEndsEarly) {
  set("scenario.prompt_tokens=100");
  set("scenario.generated_tokens=29");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "scenario: 129 tokens of prompt and answer, the parent's context 128");
  set("throughput.enabled=false");  // llama.cpp is not asked to go there
  EXPECT_NO_THROW(validate(recipe_, spec_));
  limit_context(spec_, 128, kSlidingWindowLimit);
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "scenario: 129 tokens of prompt and answer, the parent's context 128: beyond "
                      "it attention would slide a window");
  set("scenario.generated_tokens=28");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("data.window=129");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "data.window is 129, the parent's context 128: beyond it attention");
  set("data.window=64");
  set("evaluate.last_word=[" + (folder_ / "text.txt").string() + "]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "evaluate.sets.max_tokens is 1024, the parent's context 128: beyond it");
  set("evaluate.sets.max_tokens=128");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("evaluate.long_text.lengths=[100, 129]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "evaluate.long_text.lengths holds 129, the parent's context 128: beyond it");
  set("evaluate.long_text.lengths=[128]");
  EXPECT_NO_THROW(validate(recipe_, spec_));
  set("evaluate.long_text.tasks=[]");
  EXPECT_PUZZLE_ERROR(validate(recipe_, spec_), ErrorKind::kUsage,
                      "evaluate.long_text.tasks is empty");
}

TEST_F(Validate, AMissingServerIsKnownAtTheStart) {
  set("llama_server.program=/nowhere/llama-server");
  EXPECT_NO_THROW(check_programs(recipe_, "search"));
  EXPECT_PUZZLE_ERROR(check_programs(recipe_, "report"), ErrorKind::kIo,
                      "tools/setup.sh --with-server");
  set("throughput.enabled=false");
  EXPECT_NO_THROW(check_programs(recipe_, "report"));
  set("measure.engine=llama-server");
  EXPECT_PUZZLE_ERROR(check_programs(recipe_, "search"), ErrorKind::kIo, "no such program");
  EXPECT_NO_THROW(check_programs(recipe_, "score"));
}

}  // namespace
}  // namespace puzzle
