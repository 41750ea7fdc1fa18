#include "puzzle/report/run_report.h"

#include <cstdlib>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/results/run_db.h"
#include "report/check_page.h"
#include "report/synthetic_run.h"
#include "results/made_up_comparison.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::expect_sound_page;
using test::TempDir;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(RunReport, OfASmallRunIsTheGoldenPage) {
  TempDir folder;
  RunDb db(folder / "run.db");
  test::fill_synthetic_run(db, {.num_layers = 4, .is_long = false});
  const std::string page = render_report(db);
  expect_sound_page(page);
  const std::filesystem::path golden =
      std::filesystem::path(PUZZLE_SOURCE_DIR) / "tests/report/golden/small_run.html";
  if (std::getenv("PUZZLE_UPDATE_GOLDEN") != nullptr) {
    write_text_file(golden, page);
  }
  // Not EXPECT_EQ: two pages of 60 kB help nobody.
  if (page != read_text_file(golden)) {
    write_text_file("small_run.html", page);
    FAIL() << "the page changed: compare small_run.html here with " << golden.string()
           << "; if the change is meant, run with PUZZLE_UPDATE_GOLDEN=1";
  }
}

// PUZZLE_REPORT_OUT=page.html keeps the page to look at in a browser.
TEST(RunReport, OfADeepRunIsSound) {
  TempDir folder;
  RunDb db(folder / "run.db");
  test::fill_synthetic_run(db, {});
  const std::string page = render_report(db);
  expect_sound_page(page);
  EXPECT_LT(page.size(), 600'000U);
  EXPECT_THAT(page, Not(HasSubstr("class=\"nothing\""))) << "every section has data";
  if (const char* out = std::getenv("PUZZLE_REPORT_OUT"); out != nullptr) {
    write_report(db, out);
    EXPECT_EQ(read_text_file(out), page);
  }
}

TEST(RunReport, ShowsTheRecipesThatWereCompared) {
  TempDir folder;
  RunDb db(folder / "run.db");
  test::fill_synthetic_run(db, {.num_layers = 4, .is_long = false});
  EXPECT_THAT(render_report(db), Not(HasSubstr("Recipes compared")));
  Comparison comparison = test::made_up_comparison();
  comparison.cells[1].name = "<other>";
  put_comparison(db, comparison);
  comparison.name = "an.other";
  comparison.title = "Another";
  put_comparison(db, comparison);
  const std::string page = render_report(db);
  expect_sound_page(page);
  EXPECT_THAT(page, HasSubstr("Recipes compared: Made up"));
  EXPECT_THAT(page, HasSubstr("Recipes compared: Another"));
  EXPECT_THAT(page, HasSubstr("id=\"cells-an-other\""));
  EXPECT_THAT(page, HasSubstr("Three cells. All cells: threads=2. Children of"));
  EXPECT_THAT(page, HasSubstr("2.000 [1.503, 2.497]"));
  EXPECT_THAT(page, HasSubstr("&lt;other&gt;"));
  EXPECT_THAT(page, HasSubstr("no child found"));
}

TEST(RunReport, OfAnEmptyRunSaysWhatIsMissing) {
  TempDir folder;
  RunDb db(folder / "run.db");
  const std::string page = render_report(db);
  expect_sound_page(page);
  for (const char* line :
       {"No child has been measured or evaluated yet.", "No architecture has been chosen yet.",
        "Nothing has been scored yet.", "The search has not run yet.",
        "speed has been predicted or measured yet.", "The library has not been built yet.",
        "The child has not been distilled.", "Nothing has been evaluated yet.",
        "There are no children to compare yet.", "No stage has finished yet.",
        "The run has not recorded its machine and versions."}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
  EXPECT_THAT(page, Not(HasSubstr("<svg")));
}

TEST(RunReport, ShowsCurrentRowsOnly) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put(std::vector<EvaluationRow>{
      {.key = "old", .model = "child", .task = "old task", .metric = "top1", .value = 0.5},
      {.key = "new", .model = "child", .task = "new task", .metric = "top1", .value = 0.75}});
  db.set_current(RunTable::kEvaluations, "child", {"new"});
  const std::string page = render_report(db);
  EXPECT_THAT(page, HasSubstr("new task"));
  EXPECT_THAT(page, Not(HasSubstr("old task")));
}

TEST(RunReport, EscapesWhatTheRunSays) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put_one(EvaluationRow{.key = "k",
                           .model = "child",
                           .task = "</table><script>alert(1)</script>\x01\xff",
                           .metric = "top1",
                           .value = 0.5});
  db.put_meta("recipe", "a: \"<b>\"\n");
  const std::string page = render_report(db);
  expect_sound_page(page);
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(1)"));
  EXPECT_THAT(page, HasSubstr("a: &quot;&lt;b&gt;&quot;"));
}

TEST(RunReport, TheTableOfScenariosHasARowAndBarsForEachWorkload) {
  TempDir folder;
  RunDb db(folder / "run.db");
  std::vector<ThroughputRow> rows;
  for (const std::int64_t batch : {1, 4}) {
    for (const char* model : {"parent", "child"}) {
      ThroughputRow row{.key = "s", .model = model, .engine = "llama-server", .batch = batch};
      row.prompt_tokens = 2048;
      row.generated_tokens = 129;
      row.measured_prefill_s = row.model == "parent" ? 4.0 : 2.0;
      row.measured_generation_per_s = row.model == "parent" ? 128.0 : 512.0;
      row.predicted_prefill_s = 2.2;
      rows.push_back(row);
    }
  }
  db.put(rows);
  db.set_current(RunTable::kThroughput, "scenarios", {"s"});
  const std::string page = render_report(db);
  expect_sound_page(page);
  EXPECT_THAT(page, HasSubstr("2048 / 129"));
  EXPECT_THAT(page, HasSubstr("2048/129 ×4"));
  EXPECT_THAT(page, HasSubstr("−9.1 %")) << "the child's predicted rate of prefill";
  EXPECT_THAT(page, HasSubstr("2.22×")) << "5 s against 2.25 s at batch 1";
  EXPECT_THAT(page, Not(HasSubstr("No model's speed")));
}

// A run of the future, or one stopped half-way: rows without their counterparts.
TEST(RunReport, SurvivesPartialRuns) {
  TempDir folder;
  RunDb db(folder / "run.db");
  db.put_one(ArchitectureRow{.key = "a", .name = "child", .method = "mip", .blocks = {"kv1/w8"}});
  db.put_one(ThroughputRow{.key = "t",
                           .model = "child",
                           .engine = "native",
                           .prompt_tokens = 8,
                           .generated_tokens = 8,
                           .predicted_prefill_s = 0.5});
  db.put_one(ModelRow{.key = "m", .name = "child", .role = "child", .architecture = "absent"});
  db.put_one(ScoreRow{.key = "s", .layer = 99, .block = "none/none", .method = "x", .metric = "y"});
  db.put_one(VariantRow{.key = "v",
                        .layer = 0,
                        .variant = "ffn/linear",
                        .stage = "init-library",
                        .init = "paper",
                        .error_before = 0.0});
  const std::string page = render_report(db);
  expect_sound_page(page);
  EXPECT_THAT(page, HasSubstr("No curves: the variants were not trained."));
}

// Every second once, whichever record it is in; a stage without work is no row.
TEST(RunReport, TimesAreSumsPerStageLongestFirst) {
  TempDir folder;
  RunDb db(folder / "run.db");
  const auto put = [&db](const char* key, const char* stage, double seconds) {
    db.put(StageRecord{.key = key, .stage = stage, .what = key, .seconds = seconds});
  };
  put("a", "init-library", 30.0);
  put("b", "score", 200.0);
  put("c", "repair", 0.002);
  put("d", "init-library", 40.5);
  const std::string page = render_report(db);
  expect_sound_page(page);
  const std::size_t score =
      page.find("<th scope=\"row\">score</th><td class=\"n\">3 min 20 s</td>");
  const std::size_t library =
      page.find("<th scope=\"row\">init-library</th><td class=\"n\">1 min 11 s</td>");
  ASSERT_NE(score, std::string::npos);
  ASSERT_NE(library, std::string::npos);
  EXPECT_LT(score, library);
  EXPECT_THAT(page, Not(HasSubstr(">repair<")));
  EXPECT_THAT(page, HasSubstr("Together 4 min 31 s."));
}

}  // namespace
}  // namespace puzzle
