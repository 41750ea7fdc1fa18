#include "puzzle/mip/problem_file.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr const char* kProblemFormat = "puzzle-problem";
constexpr const char* kSolutionFormat = "puzzle-solution";
constexpr int kProblemVersion = 1;

// The member `key`, an array; an empty one where it is absent and may be.
const Json& array_member(const Json& object, const char* key, const std::string& place,
                         bool is_required) {
  static const Json kEmpty = Json::array();
  const auto found = object.find(key);
  if (found == object.end()) {
    if (is_required) {
      fail(ErrorKind::kFormat, "{}: \"{}\" is missing", place, key);
    }
    return kEmpty;
  }
  if (!found->is_array()) {
    fail(ErrorKind::kFormat, "{}: \"{}\" is {}, expected an array", place, key, found->type_name());
  }
  return *found;
}

// Names of an object of numbers.
std::set<std::string> cost_keys(const Json& costs, const std::string& place) {
  if (!costs.is_object()) {
    fail(ErrorKind::kFormat, "{}: \"costs\" is {}, expected an object of numbers", place,
         costs.type_name());
  }
  std::set<std::string> names;
  for (const auto& [key, value] : costs.items()) {
    names.insert(key);
  }
  return names;
}

std::string choice_place(const std::string& place, std::size_t layer, const Json& choice,
                         std::size_t index) {
  const auto name = choice.is_object() ? choice.find("name") : choice.end();
  return choice.is_object() && name != choice.end() && name->is_string()
             ? fmt::format("{}: layer {}, choice \"{}\"", place, layer, name->get<std::string>())
             : fmt::format("{}: layer {}, choice {}", place, layer, index);
}

Choice parse_choice(const Json& json, const std::vector<std::string>& cost_names,
                    const std::string& place) {
  check_json_keys(json, {"name", "score", "costs"}, place);
  Choice choice;
  choice.name = json_string(json, "name", place);
  choice.score = json_double(json, "score", place);
  if (cost_names.empty()) {
    return choice;
  }
  if (!json.contains("costs")) {
    fail(ErrorKind::kFormat, "{}: \"costs\" is missing", place);
  }
  const Json& costs = json["costs"];
  const std::string where = place + ", costs";
  for (const std::string& name : cost_names) {
    if (!costs.contains(name)) {
      fail(ErrorKind::kFormat, "{}: \"{}\" is missing; other choices state it", where, name);
    }
    choice.costs.push_back(json_double(costs, name.c_str(), where));
  }
  return choice;
}

void parse_layers(const Json& json, const std::string& place, Problem* problem) {
  const Json& layers = array_member(json, "layers", place, true);
  if (layers.empty()) {
    fail(ErrorKind::kFormat, "{}: \"layers\" is empty, expected one list of choices per layer",
         place);
  }
  std::set<std::string> names;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (!layers[l].is_array()) {
      fail(ErrorKind::kFormat, "{}: layer {} is {}, expected an array of choices", place, l,
           layers[l].type_name());
    }
    for (std::size_t j = 0; j < layers[l].size(); ++j) {
      const Json& choice = layers[l][j];
      const std::string where = choice_place(place, l, choice, j);
      if (choice.is_object() && choice.contains("costs")) {
        names.merge(cost_keys(choice["costs"], where));
      }
    }
  }
  problem->cost_names.assign(names.begin(), names.end());
  problem->layers.resize(layers.size());
  for (std::size_t l = 0; l < layers.size(); ++l) {
    for (std::size_t j = 0; j < layers[l].size(); ++j) {
      problem->layers[l].push_back(
          parse_choice(layers[l][j], problem->cost_names, choice_place(place, l, layers[l][j], j)));
    }
  }
}

Budget parse_budget(const Json& json, const std::string& place) {
  check_json_keys(json, {"cost", "at_most", "at_least"}, place);
  Budget budget;
  budget.cost = json_string(json, "cost", place);
  const std::string where = fmt::format("{} ({})", place, budget.cost);
  if (json.contains("at_most")) {
    budget.at_most = json_double(json, "at_most", where);
  }
  if (json.contains("at_least")) {
    budget.at_least = json_double(json, "at_least", where);
  }
  return budget;
}

void parse_fixed_costs(const Json& json, const std::string& place, Problem* problem) {
  if (!json.contains("fixed_costs")) {
    return;
  }
  const Json& fixed = json["fixed_costs"];
  check_json_keys(fixed, problem->cost_names, place + ": fixed_costs");
  for (const std::string& name : problem->cost_names) {
    problem->fixed_costs.push_back(
        fixed.contains(name) ? json_double(fixed, name.c_str(), place + ": fixed_costs") : 0.0);
  }
}

CoverConstraint parse_cover(const Json& json, const Problem& problem, const std::string& place) {
  check_json_keys(json, {"name", "at_least", "layers"}, place);
  CoverConstraint cover;
  cover.name = json_string(json, "name", place);
  cover.at_least = json_int(json, "at_least", place, 1);
  const Json& layers = array_member(json, "layers", place, true);
  if (layers.size() != problem.layers.size()) {
    fail(ErrorKind::kFormat, "{} (\"{}\"): found lists for {} layers, expected {}", place,
         cover.name, layers.size(), problem.layers.size());
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::string where = fmt::format("{} (\"{}\"): layer {}", place, cover.name, l);
    if (!layers[l].is_array()) {
      fail(ErrorKind::kFormat, "{} is {}, expected an array of choice names", where,
           layers[l].type_name());
    }
    cover.choices_per_layer.emplace_back();
    for (const Json& name : layers[l]) {
      const auto& choices = problem.layers[l];
      const auto found = std::find_if(choices.begin(), choices.end(), [&](const Choice& choice) {
        return name.is_string() && choice.name == name.get<std::string>();
      });
      if (found == choices.end()) {
        fail(ErrorKind::kFormat, "{} has no choice {}", where, name.dump());
      }
      cover.choices_per_layer.back().push_back(static_cast<std::size_t>(found - choices.begin()));
    }
  }
  return cover;
}

Json cost_object(const Problem& problem, const std::vector<double>& costs) {
  Json object = Json::object();
  for (std::size_t k = 0; k < costs.size(); ++k) {
    object[problem.cost_names[k]] = costs[k];
  }
  return object;
}

Json infeasibility_json(const Infeasibility& infeasibility) {
  Json budgets = Json::array();
  for (const BudgetReach& reach : infeasibility.budgets) {
    budgets.push_back({{"cost", reach.cost},
                       {"bound", reach.is_upper ? "at_most" : "at_least"},
                       {"asked", reach.asked},
                       {"attainable_alone", optional_json(reach.alone)},
                       {"attainable_with_others", optional_json(reach.with_others)},
                       {"proven", reach.proven}});
  }
  return {{"budgets", budgets}, {"covers_in_way", infeasibility.covers_in_way}};
}

}  // namespace

Problem parse_problem(const Json& json, const std::string& place) {
  check_json_keys(json,
                  {"format", "version", "layers", "budgets", "fixed_costs", "covers", "solutions",
                   "max_shared_fraction"},
                  place);
  const std::string format = json_string(json, "format", place);
  const std::int64_t version = json_int(json, "version", place);
  if (format != kProblemFormat || version != kProblemVersion) {
    fail(ErrorKind::kFormat, "{}: found format \"{}\" version {}, expected \"{}\" version {}",
         place, format, version, kProblemFormat, kProblemVersion);
  }
  Problem problem;
  parse_layers(json, place, &problem);
  const Json& budgets = array_member(json, "budgets", place, false);
  for (std::size_t b = 0; b < budgets.size(); ++b) {
    problem.budgets.push_back(parse_budget(budgets[b], fmt::format("{}: budget {}", place, b)));
  }
  parse_fixed_costs(json, place, &problem);
  const Json& covers = array_member(json, "covers", place, false);
  for (std::size_t c = 0; c < covers.size(); ++c) {
    problem.covers.push_back(
        parse_cover(covers[c], problem, fmt::format("{}: cover {}", place, c)));
  }
  problem.num_solutions = json_int(json, "solutions", place, problem.num_solutions);
  problem.max_shared_fraction =
      json_double(json, "max_shared_fraction", place, problem.max_shared_fraction);
  check_problem(problem, ErrorKind::kFormat, place);
  return problem;
}

Problem load_problem(const std::filesystem::path& path) {
  return parse_problem(load_json(path), path.string());
}

Json result_json(const Problem& problem, const SolveResult& result) {
  Json solutions = Json::array();
  for (const Solution& solution : result.solutions) {
    solutions.push_back({{"choices", choice_names(problem, solution.choices)},
                         {"objective", solution.objective},
                         {"bound", solution.bound},
                         {"gap", solution.gap},
                         {"proven", solution.proven},
                         {"seconds", solution.seconds},
                         {"costs", cost_object(problem, solution.costs)}});
  }
  Json json = {{"format", kSolutionFormat},
               {"version", kProblemVersion},
               {"status", status_name(result.status)},
               {"seconds", result.seconds},
               {"solutions", solutions},
               {"no_more_solutions", result.no_more_solutions}};
  if (result.infeasibility) {
    json["infeasible"] = infeasibility_json(*result.infeasibility);
  }
  return json;
}

}  // namespace puzzle
