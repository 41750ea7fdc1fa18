#include "puzzle/mip/problem_file.h"

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "mip/random_problem.h"
#include "puzzle/base/file.h"
#include "puzzle/mip/highs_solver.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

constexpr const char* kProblemText = R"({"format": "puzzle-problem", "version": 1,
 "layers": [
  [{"name": "parent", "score": 0, "costs": {"memory_mib": 100, "step_ms": 1.5}},
   {"name": "half", "score": 0.25, "costs": {"memory_mib": 50, "step_ms": 0.9}}],
  [{"name": "parent", "score": 0, "costs": {"memory_mib": 100, "step_ms": 1.5}},
   {"name": "none", "score": 3e-1, "costs": {"memory_mib": 0, "step_ms": 0}}]],
 "budgets": [{"cost": "memory_mib", "at_most": 180}],
 "fixed_costs": {"memory_mib": 20},
 "covers": [{"name": "one parent", "at_least": 1, "layers": [["parent"], []]}],
 "solutions": 3, "max_shared_fraction": 0.8})";

Json problem_with(const char* patch) {
  return parse_json(kProblemText, "text").patch(parse_json(patch, "patch"));
}

TEST(ProblemFile, ReadsTheDocumentedForm) {
  const Problem problem = parse_problem(parse_json(kProblemText, "p.json"), "p.json");
  EXPECT_EQ(problem.cost_names, (std::vector<std::string>{"memory_mib", "step_ms"}));
  ASSERT_EQ(problem.layers.size(), 2U);
  EXPECT_EQ(problem.layers[1][1].name, "none");
  EXPECT_EQ(problem.layers[1][1].score, 0.3);
  EXPECT_EQ(problem.layers[0][1].costs, (std::vector<double>{50.0, 0.9}));
  EXPECT_EQ(problem.fixed_costs, (std::vector<double>{20.0, 0.0}));
  EXPECT_EQ(problem.budgets[0].at_most, 180.0);
  EXPECT_FALSE(problem.budgets[0].at_least.has_value());
  EXPECT_EQ(problem.covers[0].choices_per_layer, (std::vector<std::vector<std::size_t>>{{0}, {}}));
  EXPECT_EQ(problem.num_solutions, 3);
  EXPECT_EQ(problem.max_shared_fraction, 0.8);
}

TEST(ProblemFile, LeavesOutWhatMayBeLeftOut) {
  const Problem problem = parse_problem(parse_json(R"({"format": "puzzle-problem", "version": 1,
                     "layers": [[{"name": "a", "score": 1}]]})",
                                                   "p.json"),
                                        "p.json");
  EXPECT_TRUE(problem.cost_names.empty());
  EXPECT_EQ(problem.num_solutions, 1);
}

TEST(ProblemFile, BrokenFilesAreNamed) {
  struct Case {
    const char* patch;
    const char* message;
  };
  const std::vector<Case> cases = {
      {R"([{"op": "replace", "path": "/format", "value": "gguf"}])",
       "p.json: found format \"gguf\" version 1, expected \"puzzle-problem\""},
      {R"([{"op": "replace", "path": "/version", "value": 2}])", "version 2"},
      {R"([{"op": "remove", "path": "/layers"}])", "p.json: \"layers\" is missing"},
      {R"([{"op": "replace", "path": "/layers", "value": {}}])", "\"layers\" is object"},
      {R"([{"op": "replace", "path": "/layers", "value": []}])", "\"layers\" is empty"},
      {R"([{"op": "replace", "path": "/layers/1", "value": 3}])", "layer 1 is number"},
      {R"([{"op": "replace", "path": "/layers/1", "value": []}])", "layer 1 has 0 choices"},
      {R"([{"op": "replace", "path": "/layers/1/1", "value": 3}])",
       "layer 1, choice 1: found number"},
      {R"([{"op": "remove", "path": "/layers/1/1/name"}])",
       "layer 1, choice 1: \"name\" is missing"},
      {R"([{"op": "remove", "path": "/layers/1/1/score"}])",
       "p.json: layer 1, choice \"none\": \"score\" is missing"},
      {R"([{"op": "replace", "path": "/layers/1/1/score", "value": "low"}])",
       "choice \"none\": \"score\" is \"low\", expected a number"},
      {R"([{"op": "replace", "path": "/layers/1/1/score", "value": null}])",
       "\"score\" is missing"},
      {R"([{"op": "add", "path": "/layers/1/1/sore", "value": 1}])",
       "choice \"none\": unknown key \"sore\"; did you mean score?"},
      {R"([{"op": "remove", "path": "/layers/1/1/costs"}])",
       "layer 1, choice \"none\": \"costs\" is missing"},
      {R"([{"op": "replace", "path": "/layers/1/1/costs", "value": [1, 2]}])",
       "choice \"none\": \"costs\" is array"},
      {R"([{"op": "remove", "path": "/layers/1/1/costs/step_ms"}])",
       "layer 1, choice \"none\", costs: \"step_ms\" is missing"},
      {R"([{"op": "add", "path": "/layers/1/1/costs/extra", "value": 1}])",
       "layer 0, choice \"parent\", costs: \"extra\" is missing"},
      {R"([{"op": "replace", "path": "/layers/1/1/costs/step_ms", "value": -1}])",
       "layer 1, choice \"none\": the cost step_ms is -1"},
      {R"([{"op": "replace", "path": "/layers/1/1/name", "value": "parent"}])",
       "layer 1, choice \"parent\": the name stands twice"},
      {R"([{"op": "replace", "path": "/budgets/0/cost", "value": "memory_mb"}])",
       "the budget of memory_mb: no choice has such a cost; did you mean memory_mib?"},
      {R"([{"op": "replace", "path": "/budgets/0/at_most", "value": "80 GB"}])",
       "budget 0 (memory_mib): \"at_most\" is \"80 GB\""},
      {R"([{"op": "remove", "path": "/budgets/0/at_most"}])", "neither at_most nor at_least"},
      {R"([{"op": "add", "path": "/budgets/0/atmost", "value": 1}])", "did you mean at_most?"},
      {R"([{"op": "add", "path": "/fixed_costs/memory", "value": 1}])",
       "fixed_costs: unknown key \"memory\""},
      {R"([{"op": "replace", "path": "/fixed_costs/memory_mib", "value": -20}])",
       "the fixed cost memory_mib is -20"},
      {R"([{"op": "replace", "path": "/covers/0/layers", "value": [["parent"]]}])",
       "cover 0 (\"one parent\"): found lists for 1 layers, expected 2"},
      {R"([{"op": "replace", "path": "/covers/0/layers/0", "value": ["paren"]}])",
       "layer 0 has no choice \"paren\""},
      {R"([{"op": "replace", "path": "/covers/0/layers/0", "value": [7]}])",
       "layer 0 has no choice 7"},
      {R"([{"op": "replace", "path": "/covers/0/layers/0", "value": "parent"}])",
       "layer 0 is string"},
      {R"([{"op": "replace", "path": "/solutions", "value": 1.5}])", "\"solutions\" is 1.5"},
      {R"([{"op": "replace", "path": "/solutions", "value": -1}])", "-1 solutions"},
      {R"([{"op": "replace", "path": "/max_shared_fraction", "value": 2}])",
       "is 2, expected 0 to 1"},
      {R"([{"op": "add", "path": "/max_shared_fractio", "value": 2}])",
       "did you mean max_shared_fraction?"},
  };
  for (const Case& broken : cases) {
    EXPECT_PUZZLE_ERROR((void)parse_problem(problem_with(broken.patch), "p.json"),
                        ErrorKind::kFormat, broken.message);
  }
  EXPECT_PUZZLE_ERROR((void)parse_problem(parse_json("[]", "p.json"), "p.json"), ErrorKind::kFormat,
                      "found array");
}

TEST(ProblemFile, NonFiniteNumbersAreNotJson) {
  for (const char* number : {"NaN", "Infinity", "1e999"}) {
    std::string text = kProblemText;
    text.replace(text.find("3e-1"), 4, number);
    EXPECT_PUZZLE_ERROR((void)parse_json(text, "p.json"), ErrorKind::kFormat, "p.json");
  }
}

TEST(ProblemFile, WritesSolutions) {
  Problem problem = parse_problem(parse_json(kProblemText, "p.json"), "p.json");
  const Json json = result_json(problem, HighsSolver().solve(problem));
  EXPECT_EQ(json["format"], "puzzle-solution");
  EXPECT_EQ(json["status"], "optimal");
  EXPECT_EQ(json["solutions"][0]["choices"], (std::vector<std::string>{"parent", "none"}));
  EXPECT_EQ(json["solutions"][0]["objective"], 0.3);
  EXPECT_EQ(json["solutions"][0]["costs"]["memory_mib"], 120.0);
  EXPECT_LE(json["solutions"][0]["gap"].get<double>(), 1e-6);
  EXPECT_EQ(json["solutions"][0]["proven"], true);
  EXPECT_EQ(json["no_more_solutions"], true);  // only the cover's and the budget's two are left
  problem.budgets[0].at_most = 10.0;
  const Json infeasible = result_json(problem, HighsSolver().solve(problem));
  EXPECT_EQ(infeasible["status"], "infeasible");
  EXPECT_EQ(infeasible["infeasible"]["budgets"][0]["attainable_with_others"], 120.0);
  EXPECT_EQ(infeasible["infeasible"]["budgets"][0]["cost"], "memory_mib");
}

}  // namespace
}  // namespace puzzle
