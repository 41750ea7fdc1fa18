#include "puzzle/app/unused_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace puzzle {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> unused_of(const std::vector<std::string>& settings) {
  Recipe recipe;
  OptionList list;
  recipe.visit(list);
  for (const std::string& setting : settings) {
    list.set_assignment(setting);
  }
  return unused_settings(recipe);
}

TEST(UnusedSettings, DefaultsAreNeverInTheWay) {
  EXPECT_THAT(unused_of({}), IsEmpty());
  EXPECT_THAT(unused_of({"export_child.formats=[hf]", "throughput.enabled=false"}), IsEmpty());
}

// A setting, what makes it count, and the sentence where that is missing.
struct UnusedCase {
  std::string setting;
  std::string reason_to_count;
  std::string sentence;
};

TEST(UnusedSettings, EachNeedsAnotherSettingAndSaysWhich) {
  const std::vector<UnusedCase> cases = {
      {"measure.table=a.json", "measure.engine=table",
       "measure.table has no effect: measure.engine is native"},
      {"measure.hardware.preset=cpu", "measure.engine=roofline",
       "measure.hardware.preset has no effect: measure.engine is native"},
      {"data.marker=---", "data.split=marker", "data.marker has no effect: data.split is file"},
      {"evaluate.sets.seed=1", "evaluate.last_word=[x.jsonl]",
       "evaluate.sets.seed has no effect: evaluate names no set of questions"},
      {"evaluate.long_text.samples=3", "evaluate.long_text.lengths=[1024]",
       "evaluate.long_text.samples has no effect: evaluate.long_text.lengths is empty"},
      {"export_child.hf_dtype=float16", "export_child.formats=[gguf, hf]",
       "export_child.hf_dtype has no effect: export_child.formats holds no hf"},
      {"export_child.hf_dtype=bfloat16", "export_child.formats=[gguf, hf-padded]",
       "export_child.hf_dtype has no effect: export_child.formats holds no hf"},
      {"scenarios.batch=[4]", "scenarios.enabled=true",
       "scenarios.batch has no effect: scenarios.enabled is false"},
      {"search.max_shared_fraction=0.5", "search.solutions=2",
       "search.max_shared_fraction has no effect: search.solutions is 1"}};
  for (const UnusedCase& c : cases) {
    EXPECT_THAT(unused_of({c.setting}), ElementsAre(c.sentence));
    EXPECT_THAT(unused_of({c.setting, c.reason_to_count}), IsEmpty()) << c.setting;
  }
}

TEST(UnusedSettings, RoundsAndSwapsAreOfMipAndKl) {
  for (const char* setting : {"search.rounds=2", "search.local_forwards=6"}) {
    const std::string name = std::string(setting).substr(0, std::string(setting).find('='));
    EXPECT_THAT(unused_of({setting}), IsEmpty());
    EXPECT_THAT(unused_of({setting, "search.method=greedy"}),
                ElementsAre(name + " has no effect: search.method is greedy and search.metric kl"));
    EXPECT_THAT(
        unused_of({setting, "search.metric=lm_loss"}),
        ElementsAre(name + " has no effect: search.method is mip and search.metric lm_loss"));
  }
}

TEST(UnusedSettings, AStageIsSwitchedOffByOneSetting) {
  EXPECT_THAT(unused_of({"train_blocks=false", "distill_blocks.num_tokens=7"}), IsEmpty());
  EXPECT_THAT(unused_of({"train_child=false", "distill_child.num_tokens=7"}), IsEmpty());
  EXPECT_THAT(unused_of({"repair_child=false", "repair.num_tokens=7"}), IsEmpty());
  EXPECT_THAT(unused_of({"throughput.enabled=false", "throughput.quality_tokens=7"}), IsEmpty());
  EXPECT_THAT(unused_of({"search.sweep=", "search.sweep_values=[\"0.9x\"]"}), IsEmpty());
  EXPECT_THAT(unused_of({"init_library.init=paper", "init_library.lambda=0.5"}),
              ElementsAre("init_library.lambda has no effect: init_library.init is paper"));
}

}  // namespace
}  // namespace puzzle
