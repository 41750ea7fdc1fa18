#include "puzzle/stages/search.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/mip/baselines.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/mip/pareto.h"
#include "puzzle/stages/score_table.h"
#include "puzzle/stages/search_check.h"
#include "puzzle/stages/search_problem.h"
#include "puzzle/stages/search_rows.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

constexpr int kSearchVersion = 2;

// What a method gave at one batch size, or over all of them.
struct MethodAnswer {
  std::vector<FoundArchitecture> found;
  std::vector<std::string> why;  // nothing was found, one reason per batch size
  bool timed_out = false;        // at one batch size at least, so nothing is ruled out
};

Json result_or_error(const std::function<SearchResult()>& make) {
  try {
    return search_json(make());
  } catch (const Error& error) {
    return {{"kind", static_cast<int>(error.kind())}, {"error", error.what()}};
  }
}

class Searcher {
 public:
  Searcher(const RunContext& context, const LoadedModel& parent, const SearchSpace& space,
           const Scenario& scenario, const std::vector<MeasuredCost>& costs,
           const SearchOptions& options)
      : options_(options),
        scenario_(scenario),
        parent_(parent.weights.spec),
        space_(space),
        scores_(context.db.scores(), parent.weights.spec, options.metric),
        budgets_(parse_budgets(options.budgets)),
        seed_(static_cast<std::uint64_t>(context.seed)) {
    if (!costs.empty()) {
      times_ = std::make_unique<CostModel>(costs, "measured costs");
    }
    for (const std::int64_t batch : scenario.batch) {
      settings_.push_back({&parent_, parse_export_target(options.target),
                           deployed_types(options.types, scenario, parent.path), times_.get(),
                           Workload{batch, scenario.prompt_tokens, scenario.generated_tokens}});
    }
  }

  // The batch size with the best first answer wins.
  [[nodiscard]] MethodAnswer solve(const std::string& method, std::int64_t solutions) const {
    MethodAnswer best;
    for (const CostSetting& setting : settings_) {
      keep_better(solve_at(method, solutions, setting), best);
    }
    for (FoundArchitecture& found : best.found) {
      found.budget = join(options_.budgets, ", ");
    }
    return best;
  }

  // One architecture per value that can be met, in the order given.
  [[nodiscard]] std::vector<FoundArchitecture> sweep() const {
    const BudgetSpec first =
        parse_budget(sweep_budget_text(options_.sweep, options_.sweep_values.front()));
    std::vector<BudgetSpec> held = budgets_;
    std::erase_if(held, [&](const BudgetSpec& budget) {
      return budget.summed_cost() == first.summed_cost();
    });
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

 private:
  static void keep_better(MethodAnswer answer, MethodAnswer& best) {
    best.timed_out = best.timed_out || answer.timed_out;
    best.why.insert(best.why.end(), answer.why.begin(), answer.why.end());
    if (!answer.found.empty() &&
        (best.found.empty() || answer.found.front().objective < best.found.front().objective)) {
      best.found = std::move(answer.found);
    }
  }

  [[nodiscard]] MethodAnswer solve_at(const std::string& method, std::int64_t solutions,
                                      const CostSetting& setting) const {
    const std::vector<BoundBudget> bounds = resolve_budgets(budgets_, setting);
    Problem problem = make_problem(space_, &scores_, bounds, setting);
    problem.num_solutions = solutions;
    problem.max_shared_fraction = options_.max_shared_fraction;
    const HighsSolver solver;
    if (method == "greedy") {
      return answer_of(method, solve_greedy(problem), problem, setting);
    }
    if (method == "uniform") {
      return answer_of(method, solve_uniform(problem), problem, setting);
    }
    if (method == "random") {
      const std::uint64_t seed = derive_seed(seed_, "search/random");
      return answer_of(method, solve_random(solver, problem, seed, solve_options()), problem,
                       setting);
    }
    if (method == "depth-only" || method == "no-op-only") {
      problem = restricted(problem, method == "depth-only");
    }
    const SolveResult result = method == "max-parameters"
                                   ? solve_max_cost(solver, problem, "parameters", solve_options())
                                   : solver.solve(problem, solve_options());
    return answer_of(method, result, problem, bounds, setting);
  }

  // A rule's answer: one architecture or none.
  [[nodiscard]] MethodAnswer answer_of(const std::string& method,
                                       const std::optional<Solution>& solution,
                                       const Problem& problem, const CostSetting& setting) const {
    MethodAnswer answer;
    if (solution) {
      answer.found.push_back(as_found(method, *solution, problem, setting));
    } else {
      answer.why.push_back(at_batch(setting.workload.batch, scenario_,
                                    method + " found no architecture that meets the budgets"));
    }
    return answer;
  }

  [[nodiscard]] MethodAnswer answer_of(const std::string& method, const SolveResult& result,
                                       const Problem& problem,
                                       const std::vector<BoundBudget>& bounds,
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

  [[nodiscard]] FoundArchitecture as_found(const std::string& method, const Solution& solution,
                                           const Problem& problem,
                                           const CostSetting& setting) const {
    FoundArchitecture found;
    found.method = method;
    found.layers = chosen_blocks(problem, solution.choices);
    found.batch = setting.workload.batch;
    found.objective = solution.objective;
    found.gap = solution.gap;
    found.costs = model_costs(found.layers, setting);
    return found;
  }

  void sweep_at(const std::vector<BudgetSpec>& held, const CostSetting& setting,
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

  void describe_point(const std::vector<BudgetSpec>& held, const std::string& value,
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

  [[nodiscard]] SolveOptions solve_options() const {
    return {.time_limit_s = options_.time_limit_s};
  }

  // Depth only: whole layers stay or go. No-op only: each half stays or goes.
  [[nodiscard]] Problem restricted(const Problem& problem, bool depth_only) const {
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

  const SearchOptions& options_;
  const Scenario& scenario_;
  const ModelSpec& parent_;
  const SearchSpace& space_;
  ScoreTable scores_;
  std::vector<BudgetSpec> budgets_;
  std::uint64_t seed_;
  std::unique_ptr<CostModel> times_;
  std::vector<CostSetting> settings_;  // one per batch size
};

std::string search_key(const RunContext& context, const LoadedModel& parent,
                       const SearchSpace& space, const Scenario& scenario,
                       const std::vector<MeasuredCost>& costs, const SearchOptions& options) {
  KeyBuilder key;
  key.add("stage", "search").add("version", kSearchVersion);
  key.add("parent", parent.key).add("seed", context.seed);
  for (const LayerSpace& layer : space.layers) {
    key.add("layer", "");
    for (const AttentionSpec& attention : layer.attention) {
      key.add("attention", attention.name());
    }
    for (const FfnSpec& ffn : layer.ffn) {
      key.add("ffn", ffn.name());
    }
  }
  for (const ScoreRow& row : context.db.scores()) {
    key.add("score", row.key).add("metric", row.metric).add("value", row.value);
  }
  for (const MeasuredCost& row : costs) {
    key.add("cost", row.subblock).add("phase", static_cast<int>(row.phase));
    key.add("batch", row.batch).add("context", row.context).add("seconds", row.seconds);
  }
  add_options_to_key(key, scenario);
  add_options_to_key(key, options);
  return key.key();
}

SearchResult search_here(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                         const Scenario& scenario, const std::vector<MeasuredCost>& costs,
                         const SearchOptions& options) {
  const Stopwatch watch;
  check_search_options(options, scenario, parent.path);
  const std::string key = search_key(context, parent, space, scenario, costs, options);
  if (std::optional<SearchResult> earlier = find_search(context.db, key)) {
    return *std::move(earlier);
  }
  const Searcher searcher(context, parent, space, scenario, costs, options);
  MethodAnswer ours = searcher.solve(options.method, options.solutions);
  if (ours.found.empty()) {
    fail(ours.timed_out ? ErrorKind::kNumeric : ErrorKind::kInfeasible, "search: {}{}",
         ours.timed_out ? "" : "no child meets the budgets: ", join(ours.why, "; "));
  }
  SearchResult result{.key = key, .found = std::move(ours.found)};
  for (std::size_t i = 0; i < result.found.size(); ++i) {
    result.found[i].name = i == 0 ? "child" : fmt::format("child-{}", i + 1);
  }
  for (const std::string& method : options.baselines) {
    MethodAnswer answer = searcher.solve(method, 1);
    if (answer.found.empty()) {
      log_warning("search: baseline {}: {}", method, join(answer.why, "; "));
      continue;
    }
    answer.found.front().name = method;
    result.found.push_back(std::move(answer.found.front()));
  }
  if (!options.sweep.empty()) {
    auto points = searcher.sweep();
    std::move(points.begin(), points.end(), std::back_inserter(result.found));
  }
  record_search(context.db, result, options.method, watch.seconds());
  return result;
}

}  // namespace

const std::vector<std::string>& search_methods() {
  static const std::vector<std::string> kMethods = {
      "mip", "greedy", "max-parameters", "uniform", "depth-only", "no-op-only", "random"};
  return kMethods;
}

std::string sweep_budget_text(const std::string& cost, const std::string& value) {
  const SearchCost* known = find_search_cost(cost);
  if (known == nullptr) {
    fail(ErrorKind::kUsage, "search.sweep: there is no cost {}; known are {}", cost,
         join(search_cost_names(), ", "));
  }
  return fmt::format("{} {} {}", cost, known->is_rate() ? ">=" : "<=", value);
}

std::string at_batch(std::int64_t batch, const Scenario& scenario, const std::string& text) {
  return scenario.batch.size() == 1 ? text : fmt::format("batch {}: {}", batch, text);
}

void SearchOptions::visit(OptionList& list) {
  list.add("budgets", budgets,
           "Bounds on the whole child, e.g. \"parameters <= 0.7x\", \"generation_tokens_per_s >= "
           "1.3x\", \"memory_bytes <= 6GiB\"; x is relative to the parent at the same batch size.");
  list.add("method", method, Choices{search_methods()}, "How the architecture is chosen.");
  list.add("baselines", baselines, Choices{search_methods()},
           "Further methods to compare with, under the same budgets.");
  list.add("metric", metric, Choices{{"kl", "lm_loss", "top1", "downstream"}},
           "Score that is added up and minimised.");
  list.add("target", target, Choices{{"deci", "nemotron-nas", "native"}},
           "Export target whose costs and rules count: deci is llama.cpp.");
  list.add("types", types, "Weight types of that export, for bytes; see measure.types.");
  list.add("solutions", solutions, Range<std::int64_t>{1, 1000}, "Diverse solutions, best first.");
  list.add("max_shared_fraction", max_shared_fraction, Range<double>{0.0, 1.0},
           "Fraction of layers that two solutions may have in common.");
  list.add("time_limit_s", time_limit_s, Range<double>{0.1, 1e6}, "Seconds per solution.");
  list.add("sweep", sweep,
           "A cost or rate to solve for at several bounds (Pareto curve), all other budgets kept; "
           "empty for none.");
  list.add("sweep_values", sweep_values,
           "Bounds of the sweep: from above for a cost, from below for a rate.");
}

const FoundArchitecture* SearchResult::find(const std::string& name) const {
  const auto entry = std::find_if(found.begin(), found.end(),
                                  [&](const FoundArchitecture& f) { return f.name == name; });
  return entry == found.end() ? nullptr : &*entry;
}

SearchResult search(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                    const Scenario& scenario, const std::vector<MeasuredCost>& costs,
                    const SearchOptions& options) {
  // Rank 0 solves; an error there must reach every rank, or the others would wait for ever.
  Json message;
  if (context.communicator.is_first()) {
    message = result_or_error(
        [&] { return search_here(context, parent, space, scenario, costs, options); });
  }
  message = parse_json(context.communicator.broadcast_string(message.dump(), 0), "search result");
  if (message.contains("error")) {
    fail_with(static_cast<ErrorKind>(message.at("kind").get<int>()),
              message.at("error").get<std::string>());
  }
  return parse_search(message);
}

}  // namespace puzzle
