#include "puzzle/results/run_db.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "results/rows.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::cost_row;
using test::score_row;
using test::TempDir;

// Runs SQL on a file behind the back of the code under test.
void run_sql(const std::filesystem::path& path, const std::string& sql) {
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &handle), SQLITE_OK);
  char* message = nullptr;
  ASSERT_EQ(sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
  sqlite3_close(handle);
}

TEST(RunDb, GivesBackEveryFieldAfterReopening) {
  TempDir folder;
  {
    RunDb db(folder / "run.db");
    test::fill(db);
  }
  const RunDb db(folder / "run.db", RunDbMode::kRead);

  const StageRecord stage = db.find_stage("a").value();
  EXPECT_EQ(stage.stage, "score");
  EXPECT_EQ(stage.what, "layer 0");
  EXPECT_EQ(stage.seconds, 12.5);
  EXPECT_EQ(stage.finished_at, "2026-10-31T12:00:00Z");
  EXPECT_EQ(stage.detail_json, R"({"tokens": 1024, "forward_s": 3.5})");

  const ScoreRow score = db.scores().at(0);
  EXPECT_EQ(score.key, "b");
  EXPECT_EQ(score.layer, 1);
  EXPECT_EQ(score.block, "kv3/w768");
  EXPECT_EQ(score.method, "replace-one");
  EXPECT_EQ(score.metric, "kl");
  EXPECT_EQ(score.value, 0.125);
  EXPECT_EQ(score.standard_error, 0.125 / 16);
  EXPECT_EQ(score.tokens, 1024);

  const CostRow cost = db.costs().at(0);
  EXPECT_EQ(cost.engine, "llama-server");
  EXPECT_EQ(cost.subblock, "attention/kv1");
  EXPECT_EQ(cost.phase, "generate");
  EXPECT_EQ(cost.batch, 4);
  EXPECT_EQ(cost.context, 256);
  EXPECT_EQ(cost.seconds, 0.001);
  EXPECT_EQ(cost.p10_s, 0.001 * 0.9);
  EXPECT_EQ(cost.p90_s, 0.001 * 1.2);
  EXPECT_EQ(cost.samples, 7);
  EXPECT_EQ(cost.detail_json, R"({"stack": 10})");

  const CurveRow curve = db.curves().at(0);
  EXPECT_EQ(curve.stage, "distill-child");
  EXPECT_EQ(curve.series, "child");
  EXPECT_EQ(curve.metric, "kl");
  EXPECT_EQ(curve.step, 20);
  EXPECT_EQ(curve.tokens, 40960);
  EXPECT_EQ(curve.value, 0.5);

  const ArchitectureRow architecture = db.architectures().at(0);
  EXPECT_EQ(architecture.name, "child");
  EXPECT_EQ(architecture.method, "mip");
  EXPECT_EQ(architecture.solution, 1);
  EXPECT_EQ(architecture.blocks, (std::vector<std::string>{"kv3/w768", "none/linear"}));
  EXPECT_EQ(architecture.objective, 0.75);
  EXPECT_EQ(architecture.costs_json, R"({"parameters": 1000, "total_s": 1.5})");
  EXPECT_EQ(architecture.budget, "total_s <= 2");
  EXPECT_EQ(architecture.gap, 1e-7);

  const VariantRow variant = db.variants().at(0);
  EXPECT_EQ(variant.variant, "ffn/w768");
  EXPECT_EQ(variant.stage, "distill-blocks");
  EXPECT_EQ(variant.init, "least-squares");
  EXPECT_EQ(variant.error_before, 0.25);
  EXPECT_EQ(variant.error_after, 0.125);
  EXPECT_EQ(variant.loss_before, 0.5);
  EXPECT_EQ(variant.loss_after, std::nullopt);
  EXPECT_EQ(variant.tokens, 16384);
  EXPECT_EQ(variant.kept, "after");

  const ModelRow model = db.models().at(0);
  EXPECT_EQ(model.role, "child");
  EXPECT_EQ(model.label, "Our child");
  EXPECT_EQ(model.architecture, "child");
  EXPECT_EQ(model.parameters, 1000);
  EXPECT_EQ(model.weight_bytes, 4000);
  EXPECT_EQ(model.file_bytes, std::nullopt);
  EXPECT_EQ(model.kv_bytes_per_token, 64);

  const EvaluationRow evaluation = db.evaluations().at(0);
  EXPECT_EQ(evaluation.task, "blimp");
  EXPECT_EQ(evaluation.metric, "accuracy");
  EXPECT_EQ(evaluation.value, 0.75);
  EXPECT_EQ(evaluation.standard_error, 0.0625);
  EXPECT_EQ(evaluation.count, 48);

  const ThroughputRow throughput = db.throughput().at(0);
  EXPECT_EQ(throughput.model, "child");
  EXPECT_EQ(throughput.prompt_tokens, 128);
  EXPECT_EQ(throughput.generated_tokens, 64);
  EXPECT_EQ(throughput.predicted_prefill_s, 0.5);
  EXPECT_EQ(throughput.measured_prefill_s, 0.625);
  EXPECT_EQ(throughput.predicted_generation_per_s, 160.0);
  EXPECT_EQ(throughput.measured_generation_per_s, std::nullopt);
  EXPECT_EQ(throughput.prefill_p90_s, 0.75);
  EXPECT_EQ(throughput.samples, 5);

  EXPECT_EQ(db.meta("version"), "0.1.0");
  EXPECT_EQ(db.meta("absent"), std::nullopt);
}

TEST(RunDb, KeepsDoublesBitByBit) {
  TempDir folder;
  using Limits = std::numeric_limits<double>;
  const std::vector<double> values = {0.0,
                                      -0.0,
                                      1.0,
                                      0.1,
                                      1.0 / 3.0,
                                      -1e-310,
                                      Limits::min(),
                                      Limits::max(),
                                      Limits::denorm_min(),
                                      9007199254740993.0,
                                      Limits::infinity(),
                                      -Limits::infinity()};
  std::vector<ScoreRow> rows;
  for (std::size_t i = 0; i < values.size(); ++i) {
    rows.push_back(score_row("k", static_cast<std::int64_t>(i), "kv1/w8", 1.0));
    rows.back().value = values[i];
    rows.back().standard_error = 0.0;
  }
  {
    RunDb(folder / "run.db").put(rows);
  }
  const std::vector<ScoreRow> read = RunDb(folder / "run.db").scores();
  ASSERT_EQ(read.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint64_t>(read[i].value), std::bit_cast<std::uint64_t>(values[i]))
        << values[i];
  }
}

TEST(RunDb, RefusesNanAndKeepsNothingOfThatCall) {
  TempDir folder;
  RunDb db(folder / "run.db");
  const std::vector<ScoreRow> rows = {score_row("a", 0, "kv1/w8", 1.0),
                                      score_row("b", 1, "kv1/w8", std::nan(""))};
  EXPECT_PUZZLE_ERROR(db.put(rows), ErrorKind::kNumeric, "run.db: scores.value of key b is NaN");
  EXPECT_TRUE(db.scores().empty());
  VariantRow variant{.key = "c", .variant = "ffn/none", .stage = "distill-blocks"};
  variant.loss_after = std::nan("");
  EXPECT_PUZZLE_ERROR(db.put_one(variant), ErrorKind::kNumeric, "variants.loss_after");
}

TEST(RunDb, RefusesARowWithoutKeyAndBrokenJson) {
  TempDir folder;
  RunDb db(folder / "run.db");
  EXPECT_PUZZLE_ERROR(db.put_one(score_row("", 0, "kv1/w8", 1.0)), ErrorKind::kInternal,
                      "without a key");
  CostRow cost = cost_row("k", "fixed", 1.0);
  cost.detail_json = "{";
  EXPECT_PUZZLE_ERROR(db.put_one(cost), ErrorKind::kInternal, "is not JSON");
}

TEST(RunDb, ReplacesARowOfEqualPrimaryKey) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put_one(score_row("k", 3, "kv1/w8", 1.0));
  db.put_one(score_row("k", 3, "kv1/w8", 2.0));
  ScoreRow other_metric = score_row("k", 3, "kv1/w8", 3.0);
  other_metric.metric = "top1";
  db.put_one(other_metric);
  const std::vector<ScoreRow> rows = db.scores();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].value, 2.0);
  EXPECT_EQ(rows[1].value, 3.0);
}

TEST(RunDb, ListsInOneOrderWhateverTheOrderOfInsertion) {
  TempDir folder;
  std::vector<ScoreRow> rows;
  for (const std::int64_t layer : {10, 2, 0}) {
    for (const char* block : {"none/w8", "kv1/w8", "kv1/none"}) {
      rows.push_back(score_row(fmt::format("k{}", layer), layer, block, 1.0));
    }
  }
  RunDb forward(folder / "forward.db");
  forward.put(rows);
  std::reverse(rows.begin(), rows.end());
  RunDb backward(folder / "backward.db");
  backward.put(rows);
  std::vector<std::string> order;
  for (const ScoreRow& row : forward.scores()) {
    order.push_back(fmt::format("{} {}", row.layer, row.block));
  }
  EXPECT_EQ(order, (std::vector<std::string>{"0 kv1/none", "0 kv1/w8", "0 none/w8", "2 kv1/none",
                                             "2 kv1/w8", "2 none/w8", "10 kv1/none", "10 kv1/w8",
                                             "10 none/w8"}));
  std::vector<std::string> other;
  for (const ScoreRow& row : backward.scores()) {
    other.push_back(fmt::format("{} {}", row.layer, row.block));
  }
  EXPECT_EQ(other, order);
}

TEST(RunDb, StagesComeInTheOrderTheyWerePut) {
  TempDir folder;
  RunDb db(folder / "run.db");
  for (const char* key : {"z", "m", "a"}) {
    db.put(StageRecord{.key = key, .stage = key == std::string("m") ? "score" : "search"});
  }
  ASSERT_EQ(db.stages().size(), 3U);
  EXPECT_EQ(db.stages()[0].key, "z");
  EXPECT_EQ(db.stages()[2].key, "a");
  ASSERT_EQ(db.stages_of("score").size(), 1U);
  EXPECT_EQ(db.stages_of("score")[0].key, "m");
  EXPECT_TRUE(db.has_stage("m"));
  EXPECT_FALSE(db.has_stage("q"));
  EXPECT_EQ(db.find_stage("q"), std::nullopt);
  // "2026-10-31T12:00:00Z"
  EXPECT_EQ(db.stages()[0].finished_at.size(), 20U);
}

TEST(RunDb, IsOnePlainFileWhenClosed) {
  TempDir folder;
  {
    RunDb db(folder / "run.db");
    test::fill(db);
    const RunDb reader(folder / "run.db", RunDbMode::kRead);
    EXPECT_EQ(reader.scores().size(), 1U);
  }
  {
    RunDb db(folder / "run.db");
  }
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    names.push_back(entry.path().filename().string());
  }
  EXPECT_EQ(names, std::vector<std::string>{"run.db"});
  EXPECT_EQ(RunDb(folder / "run.db").scores().size(), 1U);
}

TEST(RunDb, FindsRowsByKey) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put(std::vector<ScoreRow>{score_row("a", 0, "kv1/w8", 1.0), score_row("a", 1, "kv1/w8", 2.0),
                               score_row("b", 2, "kv1/w8", 3.0)});
  EXPECT_TRUE(db.has(RunTable::kScores, "b"));
  EXPECT_FALSE(db.has(RunTable::kScores, "c"));
  EXPECT_FALSE(db.has(RunTable::kCosts, "b"));
  EXPECT_EQ(db.keys(RunTable::kScores), (std::set<std::string>{"a", "b"}));
  ASSERT_EQ(db.scores_of("a").size(), 2U);
  EXPECT_EQ(db.scores_of("a")[1].value, 2.0);
}

TEST(RunDb, ListsOnlyCurrentRowsOnceAStageNamesItsKeys) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put(std::vector<ScoreRow>{score_row("old", 0, "kv1/w8", 1.0),
                               score_row("new", 0, "kv1/w8", 2.0),
                               score_row("other", 5, "kv1/w8", 3.0)});
  EXPECT_EQ(db.scores().size(), 3U);
  db.set_current(RunTable::kScores, "replace-one", {"new", "not yet there"});
  ASSERT_EQ(db.scores().size(), 1U);
  EXPECT_EQ(db.scores()[0].key, "new");
  EXPECT_EQ(db.scores(RowSet::kAll).size(), 3U);
  db.set_current(RunTable::kScores, "pairs", {"other", "other"});
  EXPECT_EQ(db.scores().size(), 2U);
  db.set_current(RunTable::kScores, "replace-one", {"old"});
  ASSERT_EQ(db.scores().size(), 2U);
  EXPECT_EQ(db.scores()[0].key, "old");
  db.set_current(RunTable::kScores, "replace-one", {});
  db.set_current(RunTable::kScores, "pairs", {});
  EXPECT_TRUE(db.scores().empty());
  db.put_one(cost_row("k", "fixed", 1.0));
  EXPECT_EQ(db.costs().size(), 1U) << "other tables are not touched";
}

TEST(RunDb, ATransactionAppearsWholeOrNotAtAll) {
  TempDir folder;
  RunDb db(folder / "run.db");
  RunDb reader(folder / "run.db", RunDbMode::kRead);
  {
    RunTransaction transaction(db);
    db.put_one(score_row("a", 0, "kv1/w8", 1.0));
    db.put(StageRecord{.key = "a", .stage = "score"});
    EXPECT_TRUE(db.has_stage("a"));
    EXPECT_FALSE(reader.has_stage("a"));
  }
  EXPECT_FALSE(db.has_stage("a"));
  EXPECT_TRUE(db.scores().empty());
  {
    RunTransaction transaction(db);
    db.put_one(score_row("a", 0, "kv1/w8", 1.0));
    // A refused put undoes only itself.
    EXPECT_PUZZLE_ERROR(db.put(std::vector<ScoreRow>{score_row("b", 1, "kv1/w8", 1.0),
                                                     score_row("c", 1, "kv1/w8", std::nan(""))}),
                        ErrorKind::kNumeric, "NaN");
    db.put(StageRecord{.key = "a", .stage = "score"});
    EXPECT_PUZZLE_ERROR(RunTransaction nested(db), ErrorKind::kInternal, "do not nest");
    transaction.commit();
  }
  EXPECT_TRUE(reader.has_stage("a"));
  EXPECT_EQ(reader.scores().size(), 1U);
}

TEST(RunDb, AWriterWaitsForAnother) {
  TempDir folder;
  RunDb first(folder / "run.db");
  auto transaction = std::make_unique<RunTransaction>(first);
  first.put_one(score_row("a", 0, "kv1/w8", 1.0));
  std::thread other([&folder] {
    RunDb second(folder / "run.db");
    second.put_one(score_row("b", 0, "kv1/w8", 2.0));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  transaction->commit();
  other.join();
  EXPECT_EQ(first.scores().size(), 2U);
}

TEST(RunDb, ReadersMayNotWriteAndNeedAFile) {
  TempDir folder;
  EXPECT_PUZZLE_ERROR(RunDb(folder / "run.db", RunDbMode::kRead), ErrorKind::kIo, "not found");
  EXPECT_FALSE(std::filesystem::exists(folder / "run.db"));
  {
    RunDb db(folder / "run.db");
  }
  RunDb reader(folder / "run.db", RunDbMode::kRead);
  EXPECT_PUZZLE_ERROR(reader.put_one(score_row("a", 0, "kv1/w8", 1.0)), ErrorKind::kIo, "run.db");
  EXPECT_PUZZLE_ERROR(RunDb(folder / "absent" / "run.db"), ErrorKind::kIo,
                      (folder / "absent" / "run.db").string() + ": cannot be opened");
}

TEST(RunDb, NamesForeignAndDamagedFiles) {
  TempDir folder;
  std::ofstream(folder / "text.db") << std::string(5000, 'x');
  EXPECT_PUZZLE_ERROR(RunDb(folder / "text.db"), ErrorKind::kFormat,
                      (folder / "text.db").string() + ": not an SQLite file");
  run_sql(folder / "foreign.db", "CREATE TABLE songs (title TEXT)");
  EXPECT_PUZZLE_ERROR(RunDb(folder / "foreign.db"), ErrorKind::kFormat, "of another program");
  std::ofstream(folder / "empty.db").flush();
  EXPECT_PUZZLE_ERROR(RunDb(folder / "empty.db", RunDbMode::kRead), ErrorKind::kFormat,
                      "expected a run database");
  {
    RunDb db(folder / "future.db");
  }
  run_sql(folder / "future.db", "PRAGMA user_version = 7");
  EXPECT_PUZZLE_ERROR(RunDb(folder / "future.db"), ErrorKind::kFormat,
                      "future.db: schema version 7, expected 1; the run folder is from another");

  {
    RunDb db(folder / "torn.db");
    test::fill(db);
  }
  const auto size = std::filesystem::file_size(folder / "torn.db");
  std::filesystem::resize_file(folder / "torn.db", size / 2);
  EXPECT_PUZZLE_ERROR((void)RunDb(folder / "torn.db").dump_json(), ErrorKind::kFormat,
                      (folder / "torn.db").string() + ": damaged");
  {
    RunDb db(folder / "edited.db");
    test::fill(db);
  }
  run_sql(folder / "edited.db", "UPDATE scores SET value = 'much'");
  EXPECT_PUZZLE_ERROR((void)RunDb(folder / "edited.db").scores(), ErrorKind::kFormat,
                      "edited by hand");
}

// Writes batches for ever, each with its stage record; one byte into `progress` after each.
[[noreturn]] void write_batches(const std::filesystem::path& path, std::int64_t first,
                                std::int64_t num_rows, int progress) {
  RunDb db(path);
  for (std::int64_t batch = first;; ++batch) {
    std::vector<ScoreRow> rows;
    for (std::int64_t i = 0; i < num_rows; ++i) {
      rows.push_back(score_row(fmt::format("key {}", batch), i, "kv1/w8", 0.5));
    }
    RunTransaction transaction(db);
    db.put(rows);
    db.put(StageRecord{.key = fmt::format("key {}", batch), .stage = "score"});
    transaction.commit();
    if (write(progress, "x", 1) != 1) {
      _exit(1);
    }
  }
}

// Whatever the moment of its end, the file holds whole batches only, loses none that was reported,
// and takes up the work again.
TEST(RunDb, SurvivesBeingKilledWhileWriting) {
  TempDir folder;
  constexpr std::int64_t kRows = 200;
  std::int64_t batches_before = 0;
  for (int kill = 0; kill < 12; ++kill) {
    int ends[2] = {};
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      write_batches(folder / "run.db", batches_before, kRows, ends[1]);
    }
    close(ends[1]);
    // The first kills hit the creation of the file, the others the middle of a batch.
    std::int64_t reported = 0;
    for (char byte = 0; reported < kill / 3 && read(ends[0], &byte, 1) == 1;) {
      ++reported;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + 2 * kill));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself, status " << status;
    for (char byte = 0; read(ends[0], &byte, 1) == 1;) {
      ++reported;
    }
    close(ends[0]);

    const RunDb db(folder / "run.db");
    const auto batches = static_cast<std::int64_t>(db.stages().size());
    EXPECT_GE(batches, batches_before + reported);
    EXPECT_EQ(static_cast<std::int64_t>(db.scores().size()), batches * kRows);
    EXPECT_EQ(db.keys(RunTable::kScores).size(), db.stages().size());
    batches_before = batches;
  }
  EXPECT_GE(batches_before, 18);
}

}  // namespace
}  // namespace puzzle
