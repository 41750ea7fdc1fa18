#include "puzzle/results/facts.h"

#include <gtest/gtest.h>

#include "puzzle/results/run_db.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::TempDir;

ParentFacts some_parent() {
  ParentFacts parent;
  parent.name = "SmolLM2";
  parent.license = "apache-2.0";
  parent.weights_key = "0123";
  parent.parameters = 134'515'008;
  parent.file_bytes = 98'000'000;
  parent.hidden_size = 576;
  parent.num_heads = 9;
  parent.head_dim = 64;
  parent.vocab_size = 49152;
  parent.blocks = {{AttentionSpec::gqa(3), FfnSpec::swiglu(1536)},
                   {AttentionSpec::gqa(3), FfnSpec::swiglu(1536)}};
  return parent;
}

TEST(Facts, AreGivenBackAsPut) {
  TempDir folder;
  RunDb db(folder / "run.db");
  EXPECT_EQ(load_parent(db), std::nullopt);
  EXPECT_EQ(load_machine(db), std::nullopt);
  EXPECT_EQ(load_facts(db).version, "");

  put_parent(db, some_parent());
  const MachineFacts machine{"CPU", 2, 1 << 30, "Debian", "Linux"};
  put_machine(db, machine);
  put_facts(db, {"0.1.0", "g++ 12", "score:\n  num_tokens: 8\n", -7, "puzzle run recipe.yaml"});
  EXPECT_EQ(load_parent(db), some_parent());
  EXPECT_EQ(load_machine(db), machine);
  const RunFacts facts = load_facts(db);
  EXPECT_EQ(facts.version, "0.1.0");
  EXPECT_EQ(facts.build, "g++ 12");
  EXPECT_EQ(facts.recipe_yaml, "score:\n  num_tokens: 8\n");
  EXPECT_EQ(facts.seed, -7);
  EXPECT_EQ(facts.command, "puzzle run recipe.yaml");
}

TEST(Facts, OfAParentComeFromItsSpec) {
  ModelSpec spec;
  spec.name = "tiny";
  spec.hidden_size = 32;
  spec.num_heads = 4;
  spec.head_dim = 8;
  spec.vocab_size = 100;
  spec.layers = {{AttentionSpec::gqa(2), FfnSpec::swiglu(64)}};
  const ParentFacts parent = parent_facts(spec);
  EXPECT_EQ(parent.name, "tiny");
  EXPECT_EQ(parent.head_dim, 8);
  const std::int64_t attention = 32 + 2 * 32 * 32 + 2 * 16 * 32;  // norm; q, o; k, v
  const std::int64_t ffn = 32 + 3 * 64 * 32;
  EXPECT_EQ(parent.parameters, attention + ffn + 2 * 100 * 32 + 32);
  ASSERT_EQ(parent.blocks.size(), 1U);
  EXPECT_EQ(parent.blocks[0].name(), "kv2/w64");
}

// Keys of two recipes of one run folder: what another child went through does not count.
TEST(Facts, AChildIsMadeByTheStepsThatWereKept) {
  TempDir folder;
  RunDb db(folder / "run.db");
  const auto put = [&db](const char* key, const char* stage, const char* detail) {
    db.put(StageRecord{.key = key, .stage = stage, .what = "child", .detail_json = detail});
  };
  put("assembled", "assemble", "{}");
  put("repaired", "repair", R"({"refitted": 25})");
  put("not repaired", "repair", R"({"refitted": 0})");
  put("trained", "distill-child", R"({"best_step": 8})");
  put("not trained", "distill-child", R"({"best_step": 0})");
  using Steps = std::vector<ChildStep>;
  EXPECT_EQ(child_making(db, {"assembled"}), ChildMaking{});
  EXPECT_EQ(child_making(db, {"assembled", "not repaired", "not trained"}), ChildMaking{});
  EXPECT_EQ(child_making(db, {"assembled", "repaired", "absent"}).steps, Steps{ChildStep::kRepair});
  const ChildMaking all = child_making(db, {"assembled", "repaired", "trained", "repaired"});
  EXPECT_EQ(
      steps_text(all.steps),
      "repaired in closed form, then distilled from the parent, then repaired in closed form");
  EXPECT_FALSE(all.blocks_trained);
  EXPECT_EQ(steps_text({}), "");

  VariantRow variant{.key = "v",
                     .variant = "ffn/w8",
                     .stage = "distill-blocks",
                     .init = "paper",
                     .kept = "before"};
  db.put_one(variant);
  EXPECT_FALSE(child_making(db, {"assembled"}).blocks_trained);
  variant.kept = "after";
  db.put_one(variant);
  EXPECT_TRUE(child_making(db, {"assembled"}).blocks_trained);
}

TEST(Facts, DamagedOnesAreNamed) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put_meta("parent", R"({"name": "x"})");
  EXPECT_PUZZLE_ERROR((void)load_parent(db), ErrorKind::kFormat,
                      "run.db: meta parent: \"license\" is missing");
  db.put_meta("seed", "seven");
  EXPECT_PUZZLE_ERROR((void)load_facts(db), ErrorKind::kFormat, "run.db: meta seed is seven");
  db.put_meta("machine", "{");
  EXPECT_PUZZLE_ERROR((void)load_machine(db), ErrorKind::kFormat, "meta machine");
}

}  // namespace
}  // namespace puzzle
