#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "puzzle/results/run_db.h"
#include "results/rows.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::score_row;
using test::TempDir;

TEST(RunDump, HoldsEveryTable) {
  TempDir folder;
  RunDb db(folder / "run.db");
  test::fill(db);
  const Json dump = db.dump_json();
  EXPECT_EQ(dump.at("schema"), 1);
  EXPECT_EQ(dump.at("stages"), Json::parse(R"([{"key": "a", "stage": "score", "what": "layer 0",
      "seconds": 12.5, "finished_at": "2026-10-31T12:00:00Z",
      "detail": {"tokens": 1024, "forward_s": 3.5}}])"));
  EXPECT_EQ(dump.at("scores"), Json::parse(R"([{"key": "b", "layer": 1, "block": "kv3/w768",
      "method": "replace-one", "metric": "kl", "value": 0.125, "standard_error": 0.0078125,
      "tokens": 1024}])"));
  EXPECT_EQ(dump.at("architectures").at(0).at("blocks"),
            Json::parse(R"(["kv3/w768", "none/linear"])"));
  EXPECT_EQ(dump.at("architectures").at(0).at("costs").at("total_s"), 1.5);
  EXPECT_TRUE(dump.at("variants").at(0).at("loss_after").is_null());
  EXPECT_EQ(dump.at("models").at(0).at("kv_bytes_per_token"), 64);
  EXPECT_EQ(dump.at("throughput").at(0).at("measured_prefill_s"), 0.625);
  EXPECT_EQ(dump.at("meta").at("version"), "0.1.0");
  for (const char* table : {"costs", "curves", "evaluations"}) {
    EXPECT_EQ(dump.at(table).size(), 1U) << table;
  }
}

TEST(RunDump, LeavesOutTimesAndNothingElse) {
  TempDir folder;
  RunDb db(folder / "run.db");
  test::fill(db);
  const Json dump = db.dump_json({.times = false});
  EXPECT_EQ(dump.at("stages"), Json::parse(R"([{"key": "a", "stage": "score", "what": "layer 0",
      "detail": {"tokens": 1024}}])"));
  EXPECT_EQ(dump.at("throughput"), Json::parse(R"([{"key": "i", "model": "child",
      "engine": "llama-server", "batch": 1, "prompt_tokens": 128, "generated_tokens": 64,
      "predicted_prefill_s": 0.5, "predicted_generation_per_s": 160.0}])"));
  EXPECT_EQ(dump.at("architectures").at(0).at("detail"), Json::parse(R"({"batch": 2})"));
  EXPECT_EQ(dump.at("architectures").at(0).at("costs").at("total_s"), 1.5);
  EXPECT_EQ(dump.at("costs").at(0).at("seconds"), 0.001);
  EXPECT_EQ(dump.at("meta"), Json::parse(R"({"version": "0.1.0"})"));
}

TEST(RunDump, EqualRunsGiveEqualBytes) {
  TempDir folder;
  std::vector<ScoreRow> rows;
  for (std::int64_t layer = 0; layer < 5; ++layer) {
    rows.push_back(score_row("k", layer, "kv1/w8", 0.1 * static_cast<double>(layer)));
  }
  RunDb straight(folder / "straight.db");
  straight.put(rows);
  straight.put(StageRecord{.key = "x", .stage = "score", .what = "layer 0", .seconds = 1.0});
  straight.put(StageRecord{.key = "y", .stage = "score", .what = "layer 1", .seconds = 1.0});
  RunDb resumed(folder / "resumed.db");
  resumed.put(StageRecord{.key = "y", .stage = "score", .what = "layer 1", .seconds = 2.0});
  resumed.put(StageRecord{.key = "x", .stage = "score", .what = "layer 0", .seconds = 3.0});
  std::reverse(rows.begin(), rows.end());
  resumed.put(rows);
  resumed.put(rows);
  const DumpOptions options{.times = false};
  EXPECT_EQ(straight.dump_json(options).dump(), resumed.dump_json(options).dump());
  rows[0].value = std::nextafter(rows[0].value, 1.0);
  resumed.put(rows);
  EXPECT_NE(straight.dump_json(options).dump(), resumed.dump_json(options).dump())
      << "one bit shows";
}

TEST(RunDump, WritesInfinitiesAsTexts) {
  TempDir folder;
  RunDb db(folder / "run.db");
  ScoreRow row = score_row("k", 0, "kv1/w8", 0.0);
  row.value = -std::numeric_limits<double>::infinity();
  db.put_one(row);
  EXPECT_EQ(db.dump_json().at("scores").at(0).at("value"), "-inf");
}

TEST(RunDump, TellsCurrentFromKeptRows) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put(std::vector<ScoreRow>{score_row("old", 0, "kv1/w8", 1.0),
                               score_row("new", 0, "kv1/w8", 2.0)});
  db.set_current(RunTable::kScores, "replace-one", {"new"});
  const Json all = db.dump_json();
  EXPECT_EQ(all.at("scores").size(), 2U);
  EXPECT_EQ(all.at("current"), Json::parse(R"({"scores": {"replace-one": ["new"]}})"));
  const Json current = db.dump_json({.rows = RowSet::kCurrent});
  EXPECT_EQ(current.at("scores").size(), 1U);
  EXPECT_FALSE(current.contains("current"));
}

}  // namespace
}  // namespace puzzle
