// Two ranks give what one gives, but for rounding: from one library, which is made once.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <thread>
#include <tuple>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "e2e/tiny_run.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::run_program;

constexpr double kRounding = 1e-5;

void expect_same(double a, double b, const std::string& what) {
  EXPECT_NEAR(a, b, kRounding * (1.0 + std::abs(a))) << what;
}

TEST(Ranks, TwoGiveTheScoresAndEvaluationsOfOne) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const auto words = [&](const std::string& verb, const fs::path& run) {
    auto arguments = test::run_arguments(verb, folder.path(), run);
    test::add_settings(arguments, {"repair_child=false", "train_child=false", "compare=[uniform]"});
    return arguments;
  };
  const ProgramResult library = run_program(words("distill-blocks", folder / "one"));
  ASSERT_EQ(library.exit_code, 0) << library.err;
  fs::copy(folder / "one", folder / "two", fs::copy_options::recursive);
  const ProgramResult one = run_program(words("evaluate", folder / "one"));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  auto launched = words("evaluate", folder / "two");
  launched.insert(launched.begin(), {"--launch", "2"});
  const ProgramResult two = run_program(launched);
  ASSERT_EQ(two.exit_code, 0) << two.err;

  const RunDb db_one(folder / "one/run.db", RunDbMode::kRead);
  const RunDb db_two(folder / "two/run.db", RunDbMode::kRead);
  const auto a = db_one.scores();
  const auto b = db_two.scores();
  ASSERT_EQ(a.size(), b.size());
  ASSERT_GT(a.size(), 20U);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].block, b[i].block);
    EXPECT_EQ(a[i].tokens, b[i].tokens);
    expect_same(a[i].value, b[i].value, a[i].block + " " + a[i].metric);
    expect_same(a[i].standard_error, b[i].standard_error, a[i].block + " error");
  }
  const auto c = db_one.evaluations();
  const auto d = db_two.evaluations();
  ASSERT_EQ(c.size(), d.size());
  ASSERT_GT(c.size(), 8U);
  for (std::size_t i = 0; i < c.size(); ++i) {
    EXPECT_EQ(c[i].model + c[i].metric, d[i].model + d[i].metric);
    EXPECT_EQ(c[i].count, d[i].count);
    expect_same(c[i].value, d[i].value, c[i].model + " " + c[i].metric);
  }
}

// A whole run: the same child, trained, and all that it is compared with, trained as well.
TEST(Ranks, TwoMakeTheChildrenOfOne) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const auto summary_of = [&](const char* run, const std::vector<std::string>& launch) {
    auto words = test::run_arguments("run", folder.path(), folder / run);
    test::add_training(words);
    test::add_settings(words, {"compare=[paper-init, greedy]", "compare_distilled=true",
                               "distill_child.compute=float32", "search.rounds=2",
                               "search.validate=3", "search.local_forwards=4"});
    words.emplace_back("--json");
    words.insert(words.begin(), launch.begin(), launch.end());
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? parse_json(result.out, "stdout") : Json();
  };
  const Json one = summary_of("one", {});
  const Json two = summary_of("two", {"--launch", "2"});
  ASSERT_TRUE(one.is_object() && two.is_object());
  EXPECT_EQ(two.at("architectures").at("child").at("blocks"),
            one.at("architectures").at("child").at("blocks"));
  const Json& models = one.at("evaluations");
  for (const char* name : {"parent", "child", "child-assembled", "child-repaired", "paper-init",
                           "greedy", "paper-init-distilled", "greedy-distilled"}) {
    ASSERT_TRUE(models.contains(name)) << name;
  }
  EXPECT_EQ(models.size(), 8U) << models;
  for (const auto& [name, tasks] : models.items()) {
    const auto value = [](const Json& evaluations, const char* metric) {
      return evaluations.at("held-out text").at(metric).at("value").get<double>();
    };
    const Json& other = two.at("evaluations").at(name);
    const double loss = value(tasks, "loss");
    EXPECT_NEAR(value(other, "loss"), loss, 1e-4 * loss) << name;
    if (name != "parent") {
      const double kl = value(tasks, "kl");
      EXPECT_NEAR(value(other, "kl"), kl, 1e-3 * kl) << name;
    }
  }
  // The paper has no repair; what is trained is better than it was.
  const auto kl = [&](const char* name) {
    return models.at(name).at("held-out text").at("kl").at("value").get<double>();
  };
  EXPECT_FALSE(fs::exists(folder / "one/children/paper-init-repaired"));
  EXPECT_TRUE(fs::exists(folder / "one/children/greedy-repaired"));
  EXPECT_LT(kl("paper-init-distilled"), kl("paper-init"));
}

// Ranks share the machine's cores, a recipe's own number counts for each, and one process alone
// takes all cores whatever the environment says.
TEST(Ranks, HaveTheThreadsThatTheyAreGiven) {
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  const auto expect_threads = [&](int ranks, int option, unsigned expected) {
    auto words = test::run_arguments("init-library", folder.path(), folder / "run");
    test::add_settings(words, {fmt::format("threads={}", option)});
    words.insert(words.begin(), {"--debug", "--launch", std::to_string(ranks)});
    const ProgramResult result = run_program(words);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    for (int rank = 0; rank < ranks; ++rank) {
      const std::string prefix = ranks == 1 ? "" : fmt::format("rank {}: ", rank);
      EXPECT_THAT(result.err,
                  ::testing::HasSubstr(fmt::format("{}cpu, {} thread", prefix, expected)));
    }
  };
  const char* const before = std::getenv("OMP_NUM_THREADS");
  const std::string kept = before == nullptr ? "" : before;
  ::unsetenv("OMP_NUM_THREADS");
  expect_threads(2, 0, std::max(1U, cores / 2));
  expect_threads(2, 3, 3);
  ::setenv("OMP_NUM_THREADS", std::to_string(cores).c_str(), 1);
  expect_threads(2, 0, cores);
  ::setenv("OMP_NUM_THREADS", "1", 1);
  expect_threads(1, 0, cores);
  ::unsetenv("OMP_NUM_THREADS");
  if (before != nullptr) {
    ::setenv("OMP_NUM_THREADS", kept.c_str(), 1);
  }
}

}  // namespace
}  // namespace puzzle
