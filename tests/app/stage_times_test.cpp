#include "puzzle/app/stage_times.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

class StageTimes : public ::testing::Test {
 protected:
  void put_part(const std::string& key, const std::string& stage, double seconds) {
    db_.put(StageRecord{.key = key, .stage = stage, .what = key, .seconds = seconds});
  }
  void put_evaluation(const std::string& key) {
    db_.put_one(EvaluationRow{.key = key, .model = key, .task = "t", .metric = "kl", .value = 1.0});
  }
  [[nodiscard]] StageTotal total(const std::string& stage) const {
    const std::vector<StageTotal> totals = stage_totals(db_, {stage});
    return totals.empty() ? StageTotal{} : totals.front();
  }

  test::TempDir folder_;
  RunDb db_{folder_ / "run.db"};
};

TEST_F(StageTimes, PartsOfEarlierSittingsCountOnce) {
  // The first sitting was killed after one part of 10 s.
  put_part("layer 0", "score", 10.0);
  const StageSitting second(db_, "score");
  put_part("layer 1", "score", 20.0);
  second.record(db_, 21.5, 100);
  EXPECT_EQ(total("score").seconds, 10.0 + 21.5);
  EXPECT_EQ(total("score").peak_memory_bytes, 100);
}

TEST_F(StageTimes, SittingsAddUp) {
  const StageSitting first(db_, "evaluate");
  put_evaluation("child");
  first.record(db_, 60.0, 300);
  const StageSitting second(db_, "evaluate");
  put_evaluation("uniform");
  second.record(db_, 30.0, 200);
  EXPECT_EQ(total("evaluate").seconds, 90.0);
  EXPECT_EQ(total("evaluate").peak_memory_bytes, 300);
}

TEST_F(StageTimes, ASittingThatFoundAllDoneIsNotCounted) {
  const StageSitting first(db_, "search");
  put_part("mip", "search", 5.0);
  first.record(db_, 5.5, 100);
  const Json before = db_.dump_json();
  StageSitting(db_, "search").record(db_, 0.25, 400);
  EXPECT_EQ(db_.dump_json(), before);
}

TEST_F(StageTimes, APartOfAnotherStageCountsThere) {
  const StageSitting sitting(db_, "evaluate");
  put_part("paper's layer 0", "init-library", 40.0);
  put_evaluation("paper-init");
  sitting.record(db_, 100.0, 100);
  EXPECT_EQ(total("init-library").seconds, 40.0);
  EXPECT_EQ(total("evaluate").seconds, 60.0);
}

// A run that is resumed after the last part has the same records as one never stopped.
TEST_F(StageTimes, AStageWithoutWorkHasARecordToo) {
  put_part("layer 0", "score", 10.0);
  StageSitting(db_, "score").record(db_, 0.125, 100);
  EXPECT_EQ(total("score").seconds, 10.125);
  EXPECT_EQ(db_.stages().size(), 2U);
}

TEST_F(StageTimes, PartsNeverMakeLessThanNothing) {
  const StageSitting sitting(db_, "score");
  put_part("layer 0", "score", 10.0);
  sitting.record(db_, 9.0, 100);
  EXPECT_EQ(total("score").seconds, 10.0);
}

TEST_F(StageTimes, TotalsComeInTheOrderAsked) {
  for (const char* stage : {"search", "score"}) {
    StageSitting(db_, stage).record(db_, 1.0, 1);
  }
  const std::vector<StageTotal> totals = stage_totals(db_, {"score", "measure", "search"});
  ASSERT_EQ(totals.size(), 2U);
  EXPECT_EQ(totals[0].stage, "score");
  EXPECT_EQ(totals[1].stage, "search");
}

}  // namespace
}  // namespace puzzle
