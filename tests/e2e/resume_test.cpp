// Runs that are killed: at any moment of any stage, and one of several ranks.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "e2e/tiny_run.h"
#include "puzzle/app/pipeline.h"
#include "puzzle/engine/cost_table_file.h"
#include "support/file_size_limit.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using test::ProgramResult;
using test::run_program;

// The costs that a run found, as a table for other runs.
void save_costs(const fs::path& run, const fs::path& table) {
  CostTable costs;
  for (const CostRow& row : RunDb(run / "run.db", RunDbMode::kRead).costs()) {
    costs.rows.push_back({row.subblock, parse_phase(row.phase, "run.db"), row.batch, row.context,
                          row.seconds, row.p10_s, row.p90_s, row.samples});
  }
  save_cost_table(table, costs);
}

// "score took 1.2 s" lines of --debug: what each stage of an undisturbed run took, in order.
struct StageTime {
  std::string name;
  double seconds = 0.0;
};

std::vector<StageTime> stage_times(const std::string& log) {
  std::vector<StageTime> times;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t took = line.find(" took ");
    if (took != std::string::npos && line.ends_with(" s")) {
      const std::size_t start = line.rfind(' ', took - 1);
      times.push_back({line.substr(start + 1, took - start - 1), std::stod(line.substr(took + 6))});
    }
  }
  return times;
}

// The rows of `a` that `b` does not hold, one a line.
std::string rows_only_in(const Json& a, const Json& b) {
  std::string rows;
  for (const Json& row : a) {
    rows += std::find(b.begin(), b.end(), row) == b.end() ? row.dump() + "\n" : "";
  }
  return rows;
}

TEST(Resume, KilledInEveryStageARunEndsWithTheBitsOfAnUninterruptedOne) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  ASSERT_EQ(run_program(test::run_arguments("measure", folder.path(), folder / "costs")).exit_code,
            0);
  save_costs(folder / "costs", folder / "costs.json");
  const auto words = [&](const fs::path& run) {
    auto arguments = test::run_arguments("run", folder.path(), run, "table");
    test::add_training(arguments);
    test::add_settings(arguments, {"measure.table=" + (folder / "costs.json").string(),
                                   "compare=[paper-init, greedy]", "search.rounds=2",
                                   "search.validate=2", "search.local_forwards=4"});
    arguments.push_back("--budget");
    arguments.push_back("generation_s <= 0.97x");
    arguments.push_back("--debug");
    return arguments;
  };
  const ProgramResult whole = run_program(words(folder / "whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const std::vector<StageTime> times = stage_times(whole.err);
  ASSERT_EQ(times.size(), stage_names().size()) << whole.err;

  std::mt19937_64 random(20);
  std::uniform_real_distribution<double> part(0.0, 1.0);
  int kills = 0;
  for (std::size_t s = 0; s < times.size(); ++s) {
    // Somewhere within the stage: after the line that ends the one before it.
    const std::string before = s == 0 ? "" : times[s - 1].name + " took ";
    const milliseconds wait(static_cast<std::int64_t>(1000.0 * part(random) * times[s].seconds));
    milliseconds seen{-1};
    const ProgramResult killed =
        run_program(words(folder / "killed"), [&](pid_t, milliseconds now, const std::string& err) {
          if (seen.count() < 0 && err.find(before) != std::string::npos) {
            seen = now;
          }
          return seen.count() >= 0 && now - seen >= wait;
        });
    kills += killed.was_killed ? 1 : 0;
    ASSERT_TRUE(killed.was_killed || killed.exit_code == 0) << times[s].name << killed.err;
  }
  EXPECT_GE(kills, 8);
  const ProgramResult last = run_program(words(folder / "killed"));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  const Json expected = test::fingerprint(folder / "whole");
  const Json found = test::fingerprint(folder / "killed");
  EXPECT_EQ(found.at("files"), expected.at("files"));
  for (const auto& [table, rows] : expected.at("db").items()) {
    EXPECT_EQ(rows_only_in(found.at("db").at(table), rows), "") << table << " of the killed run";
    EXPECT_EQ(rows_only_in(rows, found.at("db").at(table)), "") << table << " of the whole run";
  }
  for (const auto& entry : fs::recursive_directory_iterator(folder / "killed")) {
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

// The process that runs as rank 1 of a launcher; 0 while there is none.
pid_t find_rank_one(pid_t launcher) {
  std::ifstream children(fs::path("/proc") / std::to_string(launcher) / "task" /
                         std::to_string(launcher) / "children");
  for (pid_t child = 0; children >> child;) {
    const std::string place = "/proc/" + std::to_string(child) + "/environ";
    std::ifstream file(place, std::ios::binary);
    std::ostringstream environment;
    environment << file.rdbuf();
    if ((std::string(1, '\0') + environment.str()).find(std::string("\0RANK=1\0", 8)) !=
        std::string::npos) {
      return child;
    }
  }
  return 0;
}

// How often a run says that it failed.
std::size_t num_errors(const std::string& log) {
  std::size_t errors = 0;
  for (std::size_t at = log.find("puzzle: "); at != std::string::npos;
       at = log.find("puzzle: ", at + 1)) {
    ++errors;
  }
  return errors;
}

TEST(Resume, WithoutRoomToWriteItIsOneClearErrorAndNothingIsLost) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const auto words = [&](const char* run) {
    auto arguments = test::run_arguments("run", folder.path(), folder / run);
    test::add_training(arguments);
    return arguments;
  };
  ASSERT_EQ(run_program(words("whole")).exit_code, 0);
  std::set<std::string> messages;
  for (const rlim_t kib : {24, 96, 192, 384, 512}) {
    const test::FileSizeLimit limit(kib * 1024);
    const ProgramResult stopped = run_program(words("run"));
    if (stopped.exit_code != 0) {
      EXPECT_EQ(stopped.exit_code, 4) << kib << " KiB\n" << stopped.err;
      EXPECT_EQ(num_errors(stopped.err), 1U) << kib << " KiB\n" << stopped.err;
      messages.insert(stopped.err.substr(stopped.err.find("puzzle: ")));
    }
  }
  EXPECT_GE(messages.size(), 3U) << "the limits should fail different writers";
  const ProgramResult last = run_program(words("run"));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_EQ(test::fingerprint(folder / "run").at("files"),
            test::fingerprint(folder / "whole").at("files"));
}

TEST(Resume, AKilledRankIsOneClearErrorAndNothingIsLost) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  auto words = test::run_arguments("score", folder.path(), folder / "run");
  auto ranks = words;
  ranks.insert(ranks.begin(), {"--launch", "2"});
  bool done = false;
  const ProgramResult killed =
      run_program(ranks, [&](pid_t launcher, milliseconds, const std::string&) {
        // The folder is open, but no layer can be finished without rank 1.
        if (!done && fs::exists(folder / "run/recipe.yaml")) {
          const pid_t rank = find_rank_one(launcher);
          done = rank > 0 && ::kill(rank, SIGKILL) == 0;
        }
        return false;
      });
  ASSERT_TRUE(done);
  EXPECT_EQ(killed.exit_code, 7) << killed.err;
  EXPECT_THAT(killed.err, ::testing::HasSubstr("rank 1"));
  EXPECT_EQ(num_errors(killed.err), 1U) << killed.err;
  ASSERT_EQ(run_program(words).exit_code, 0);
  ASSERT_EQ(run_program(test::run_arguments("score", folder.path(), folder / "whole")).exit_code,
            0);
  const auto scores = [&](const char* run) {
    return RunDb(folder / run / "run.db", RunDbMode::kRead)
        .dump_json({.times = false, .rows = RowSet::kCurrent})
        .at("scores");
  };
  EXPECT_EQ(scores("run"), scores("whole"));
}

}  // namespace
}  // namespace puzzle
