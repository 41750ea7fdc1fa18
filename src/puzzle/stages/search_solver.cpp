#include "puzzle/stages/search_solver.h"

#include <algorithm>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/mip/baselines.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/mip/pareto.h"
#include "puzzle/stages/search_depth.h"
#include "puzzle/stages/search_problem.h"

namespace puzzle {
namespace {

void keep_better(MethodAnswer answer, MethodAnswer& best) {
  best.timed_out = best.timed_out || answer.timed_out;
  best.is_proven = best.is_proven && answer.is_proven;
  best.why.insert(best.why.end(), answer.why.begin(), answer.why.end());
  if (!answer.found.empty() &&
      (best.found.empty() || answer.found.front().objective < best.found.front().objective)) {
    best.found = std::move(answer.found);
  }
}

constexpr const char* kLeftOut = "none/none";

std::optional<std::size_t> position_of(const std::vector<Choice>& choices,
                                       const std::string& name) {
  for (std::size_t c = 0; c < choices.size(); ++c) {
    if (choices[c].name == name) {
      return c;
    }
  }
  return std::nullopt;
}

std::vector<Solution> as_list(std::optional<Solution> solution) {
  return solution ? std::vector{*std::move(solution)} : std::vector<Solution>();
}

// Of a rule without a bound.
Solution as_solution(const Problem& problem, const Assignment& choices) {
  Solution solution;
  solution.choices = choices;
  solution.objective = evaluate(problem, choices).objective;
  return solution;
}

}  // namespace

Assignment choices_of(const Problem& problem, const Architecture& layers) {
  Assignment choices;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const auto position = position_of(problem.layers[layer], layers[layer].name());
    PUZZLE_CHECK(position.has_value(), "layer {}: no choice {}", layer, layers[layer].name());
    choices.push_back(*position);
  }
  return choices;
}

SearchSolver::SearchSolver(const RunContext& context, const LoadedModel& parent,
                           const SearchSpace& space, const Scenario& scenario,
                           const std::vector<MeasuredCost>& costs, const SearchOptions& options,
                           SearchProbe& probe)
    : options_(options),
      scenario_(scenario),
      parent_(parent.weights.spec),
      space_(space),
      probe_(probe),
      scores_(context.db.scores(), parent.weights.spec, options.metric),
      budgets_(parse_budgets(options.budgets)),
      seed_(static_cast<std::uint64_t>(context.seed)) {
  if (!costs.empty()) {
    times_ = std::make_unique<CostModel>(costs, "measured costs");
  }
  for (const std::int64_t batch : scenario.batch) {
    settings_.push_back(cost_setting(parent_, parent.path, options, scenario, batch, times_.get()));
  }
}

MethodAnswer SearchSolver::solve(const std::string& method, std::int64_t solutions) const {
  MethodAnswer best{.found = {}, .why = {}, .is_proven = true};
  for (const CostSetting& setting : settings_) {
    keep_better(solve_at(method, solutions, setting), best);
  }
  for (FoundArchitecture& found : best.found) {
    found.budget = join(options_.budgets, ", ");
  }
  return best;
}

std::vector<FoundArchitecture> SearchSolver::sweep() const {
  const BudgetSpec first =
      parse_budget(sweep_budget_text(options_.sweep, options_.sweep_values.front()));
  std::vector<BudgetSpec> held = budgets_;
  std::erase_if(
      held, [&](const BudgetSpec& budget) { return budget.summed_cost() == first.summed_cost(); });
  std::vector<MethodAnswer> points(options_.sweep_values.size());
  for (const CostSetting& setting : settings_) {
    sweep_at(held, setting, points);
  }
  std::vector<FoundArchitecture> found;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::string& value = options_.sweep_values[i];
    if (points[i].found.empty()) {
      log_warning("search: sweep {}: {}", sweep_budget_text(options_.sweep, value),
                  join(points[i].why, "; "));
      continue;
    }
    FoundArchitecture point = std::move(points[i].found.front());
    point.name = "sweep-" + value;
    describe_point(held, value, point);
    found.push_back(std::move(point));
  }
  return found;
}

MethodAnswer SearchSolver::solve_at(const std::string& method, std::int64_t solutions,
                                    const CostSetting& setting) const {
  const std::vector<BoundBudget> bounds = resolve_budgets(budgets_, setting);
  Problem problem = make_problem(space_, &scores_, bounds, setting);
  problem.num_solutions = solutions;
  problem.max_shared_fraction = options_.max_shared_fraction;
  const HighsSolver solver;
  if (method == "greedy") {
    return answer_of(method, as_list(solve_greedy(problem)), problem, setting);
  }
  if (method == "uniform") {
    return answer_of(method, solve_uniform(problem), problem, setting);
  }
  if (method == "random") {
    const std::uint64_t seed = derive_seed(seed_, "search/random");
    return answer_of(method, as_list(solve_random(solver, problem, seed, solve_options())), problem,
                     setting);
  }
  if (method == "depth-only" || method == "no-op-only") {
    problem = restricted(problem, method == "depth-only");
  }
  const SolveResult result = method == "max-parameters"
                                 ? solve_max_cost(solver, problem, "parameters", solve_options())
                                 : solver.solve(problem, solve_options());
  MethodAnswer answer = answer_of(method, result, problem, bounds, setting);
  const bool is_measured = method == "depth-only" && options_.depth == "iterative";
  return is_measured && !answer.found.empty() ? solve_depth(problem, setting) : answer;
}

// Of a problem that can be met.
MethodAnswer SearchSolver::solve_depth(const Problem& problem, const CostSetting& setting) const {
  DepthChoices depth{.kept = parent_choices(problem), .dropped = {}};
  for (const std::vector<Choice>& choices : problem.layers) {
    depth.dropped.push_back(position_of(choices, kLeftOut));
  }
  const auto measure = [&](const std::vector<Assignment>& children, const Assignment& base) {
    std::vector<Architecture> layers;
    for (const Assignment& child : children) {
      layers.push_back(chosen_blocks(problem, child));
    }
    return probe_.measure(layers, chosen_blocks(problem, base));
  };
  const std::optional<Assignment> choices = drop_layers(problem, depth, measure);
  MethodAnswer answer;
  if (!choices) {
    answer.why.push_back(at_batch(setting.workload.batch, scenario_,
                                  "dropping layers one by one did not meet the budgets"));
    return answer;
  }
  answer.found.push_back(as_found("depth-only", as_solution(problem, *choices), problem, setting));
  return answer;
}

Problem SearchSolver::problem_at(std::int64_t batch) const {
  const CostSetting& setting = setting_at(batch);
  return make_problem(space_, &scores_, resolve_budgets(budgets_, setting), setting);
}

const CostSetting& SearchSolver::setting_at(std::int64_t batch) const {
  return *std::find_if(settings_.begin(), settings_.end(),
                       [&](const CostSetting& setting) { return setting.workload.batch == batch; });
}

Assignment SearchSolver::parent_choices(const Problem& problem) const {
  Assignment choices;
  for (std::size_t layer = 0; layer < problem.layers.size(); ++layer) {
    const std::vector<Choice>& blocks = problem.layers[layer];
    const auto best =
        std::min_element(blocks.begin(), blocks.end(),
                         [](const Choice& a, const Choice& b) { return a.score < b.score; });
    choices.push_back(position_of(blocks, parent_.layers[layer].name())
                          .value_or(static_cast<std::size_t>(best - blocks.begin())));
  }
  return choices;
}

std::optional<Assignment> SearchSolver::best_of(const Problem& problem) const {
  SolveOptions options = solve_options();
  options.explain = false;
  const SolveResult result = HighsSolver().solve(problem, options);
  return result.solutions.empty() ? std::nullopt : std::optional(result.solutions.front().choices);
}

FoundArchitecture SearchSolver::found_as(const std::string& method, const Problem& problem,
                                         const Assignment& choices, std::int64_t batch) const {
  FoundArchitecture found =
      as_found(method, as_solution(problem, choices), problem, setting_at(batch));
  found.budget = join(options_.budgets, ", ");
  return found;
}

// Of a rule.
MethodAnswer SearchSolver::answer_of(const std::string& method,
                                     const std::vector<Solution>& solutions, const Problem& problem,
                                     const CostSetting& setting) const {
  MethodAnswer answer;
  for (const Solution& solution : solutions) {
    answer.found.push_back(as_found(method, solution, problem, setting));
  }
  if (solutions.empty()) {
    answer.why.push_back(at_batch(setting.workload.batch, scenario_,
                                  method + " found no architecture that meets the budgets"));
  }
  return answer;
}

MethodAnswer SearchSolver::answer_of(const std::string& method, const SolveResult& result,
                                     const Problem& problem, const std::vector<BoundBudget>& bounds,
                                     const CostSetting& setting) const {
  MethodAnswer answer;
  for (const Solution& solution : result.solutions) {
    answer.found.push_back(as_found(method, solution, problem, setting));
    if (!solution.proven) {
      log_warning("search: {}: {}", method,
                  at_batch(setting.workload.batch, scenario_,
                           fmt::format("the limit of {:g} s left a gap of {:.2g} %; raise "
                                       "search.time_limit_s for a proven answer",
                                       options_.time_limit_s, 100.0 * solution.gap)));
    }
  }
  if (result.infeasibility) {
    answer.is_proven = true;
    answer.why.push_back(at_batch(setting.workload.batch, scenario_,
                                  describe_unreachable(*result.infeasibility, bounds, setting)));
  } else if (result.status == SolveStatus::kUnknown) {
    answer.timed_out = true;
    answer.why.push_back(
        at_batch(setting.workload.batch, scenario_,
                 fmt::format("no architecture was found in {:g} s, and none is ruled out; raise "
                             "search.time_limit_s",
                             options_.time_limit_s)));
  }
  return answer;
}

FoundArchitecture SearchSolver::as_found(const std::string& method, const Solution& solution,
                                         const Problem& problem, const CostSetting& setting) const {
  FoundArchitecture found;
  found.method = method;
  found.layers = chosen_blocks(problem, solution.choices);
  found.batch = setting.workload.batch;
  found.objective = solution.objective;
  found.gap = solution.gap;
  found.costs = model_costs(found.layers, setting);
  return found;
}

void SearchSolver::sweep_at(const std::vector<BudgetSpec>& held, const CostSetting& setting,
                            std::vector<MethodAnswer>& points) const {
  const std::vector<BoundBudget> held_bounds = resolve_budgets(held, setting);
  const Problem problem = make_problem(space_, &scores_, held_bounds, setting);
  std::vector<BoundBudget> swept;
  std::vector<double> values;
  for (const std::string& value : options_.sweep_values) {
    swept.push_back(
        resolve_budget(parse_budget(sweep_budget_text(options_.sweep, value)), setting));
    values.push_back(swept.back().at_most);
  }
  const std::vector<ParetoPoint> curve = sweep_budget(
      HighsSolver(), problem, swept.front().spec.summed_cost(), values, solve_options());
  for (std::size_t i = 0; i < curve.size(); ++i) {
    std::vector<BoundBudget> bounds = held_bounds;
    bounds.push_back(swept[i]);
    keep_better(answer_of("mip", curve[i].result, problem, bounds, setting), points[i]);
  }
}

void SearchSolver::describe_point(const std::vector<BudgetSpec>& held, const std::string& value,
                                  FoundArchitecture& point) const {
  std::vector<std::string> others;
  for (const BudgetSpec& budget : held) {
    others.push_back(budget.text);
  }
  point.swept_cost = options_.sweep;
  point.curve = "search at bounds on " + options_.sweep +
                (others.empty() ? "" : ", with " + join(others, ", "));
  others.insert(others.begin(), sweep_budget_text(options_.sweep, value));
  point.budget = join(others, ", ");
}

// Depth only: whole layers stay or go. No-op only: each half stays or goes.
Problem SearchSolver::restricted(const Problem& problem, bool depth_only) const {
  return restrict_choices(problem, [&](std::size_t layer, const Choice& choice) {
    const BlockSpec block = parse_block(choice.name);
    const BlockSpec& own = parent_.layers[layer];
    const bool attention_kept = block.attention == own.attention;
    const bool ffn_kept = block.ffn == own.ffn;
    const bool attention_gone = block.attention.kind == AttentionKind::kNone;
    const bool ffn_gone = block.ffn.kind == FfnKind::kNone;
    if (depth_only) {
      return (attention_kept && ffn_kept) || (attention_gone && ffn_gone);
    }
    return (attention_kept || attention_gone) && (ffn_kept || ffn_gone);
  });
}

}  // namespace puzzle
