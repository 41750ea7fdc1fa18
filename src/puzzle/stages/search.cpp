#include "puzzle/stages/search.h"

#include <algorithm>
#include <memory>
#include <optional>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/mip/baselines.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/score_table.h"
#include "puzzle/stages/search_problem.h"

namespace puzzle {
namespace {

const std::vector<std::string> kSearchMethods = {
    "mip", "greedy", "max-parameters", "uniform", "depth-only", "no-op-only", "random"};

class Searcher {
 public:
  Searcher(const RunContext& context, const LoadedModel& parent, const SearchSpace& space,
           const SearchOptions& options)
      : options_(options),
        parent_(parent.weights.spec),
        space_(space),
        scores_(context.db.scores(), parent.weights.spec, options.metric),
        seed_(static_cast<std::uint64_t>(context.seed)) {
    for (const std::string& text : options.budgets) {
      budgets_.push_back(parse_budget(text));
    }
  }

  // The answers of one method at one batch size; empty with `why` set where there is none.
  std::vector<FoundArchitecture> solve(const std::string& method, const CostSetting& setting,
                                       const std::vector<BudgetSpec>& budgets,
                                       std::int64_t solutions, std::string* why) const {
    Problem problem = make_problem(space_, scores_, budgets, setting);
    problem.num_solutions = solutions;
    problem.max_shared_fraction = options_.max_shared_fraction;
    const HighsSolver solver;
    const SolveOptions solve_options{.time_limit_s = options_.time_limit_s};
    if (method == "depth-only" || method == "no-op-only") {
      problem = restricted(problem, method == "depth-only");
    }
    std::vector<Solution> answers;
    if (method == "greedy") {
      append(solve_greedy(problem), answers);
    } else if (method == "uniform") {
      append(solve_uniform(problem), answers);
    } else if (method == "random") {
      append(solve_random(solver, problem, derive_seed(seed_, "search/random"), solve_options),
             answers);
    } else {
      const SolveResult result = method == "max-parameters"
                                     ? solve_max_cost(solver, problem, "parameters", solve_options)
                                     : solver.solve(problem, solve_options);
      if (result.infeasibility) {
        *why = describe(*result.infeasibility);
      }
      answers = result.solutions;
    }
    if (answers.empty() && why->empty()) {
      *why = "it found no architecture that meets the budgets";
    }
    std::vector<FoundArchitecture> found;
    for (const Solution& answer : answers) {
      const Architecture layers = chosen_blocks(problem, answer.choices);
      found.push_back({.name = "",
                       .method = method,
                       .layers = layers,
                       .batch = setting.workload.batch,
                       .objective = answer.objective,
                       .gap = answer.gap,
                       .costs = model_costs(layers, setting)});
    }
    return found;
  }

  [[nodiscard]] const std::vector<BudgetSpec>& budgets() const { return budgets_; }

 private:
  static void append(const std::optional<Solution>& answer, std::vector<Solution>& answers) {
    if (answer) {
      answers.push_back(*answer);
    }
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
  const ModelSpec& parent_;
  const SearchSpace& space_;
  ScoreTable scores_;
  std::vector<BudgetSpec> budgets_;
  std::uint64_t seed_;
};

struct Settings {
  std::unique_ptr<CostModel> times;
  std::vector<CostSetting> per_batch;
};

Settings make_settings(const LoadedModel& parent, const Scenario& scenario,
                       const std::vector<MeasuredCost>& costs, const SearchOptions& options) {
  Settings settings;
  if (!costs.empty()) {
    settings.times = std::make_unique<CostModel>(costs, "measured costs");
  }
  for (const std::int64_t batch : scenario.batch) {
    settings.per_batch.push_back(
        {&parent.weights.spec, parse_export_target(options.target),
         gguf_weight_types(options.types, parent.path), settings.times.get(),
         Workload{batch, scenario.prompt_tokens, scenario.generated_tokens}});
  }
  return settings;
}

// The batch size with the best first answer; empty with `why` of the last batch size.
std::vector<FoundArchitecture> best_over_batches(const Searcher& searcher,
                                                 const std::string& method,
                                                 const Settings& settings,
                                                 const std::vector<BudgetSpec>& budgets,
                                                 std::int64_t solutions, std::string* why) {
  std::vector<FoundArchitecture> best;
  for (const CostSetting& setting : settings.per_batch) {
    auto found = searcher.solve(method, setting, budgets, solutions, why);
    if (!found.empty() && (best.empty() || found.front().objective < best.front().objective)) {
      best = std::move(found);
    }
  }
  return best;
}

std::vector<FoundArchitecture> swept(const Searcher& searcher, const Settings& settings,
                                     const SearchOptions& options) {
  std::vector<FoundArchitecture> points;
  for (const std::string& value : options.sweep_values) {
    const BudgetSpec budget = parse_budget(options.sweep + " <= " + value);
    std::string why;
    auto found = best_over_batches(searcher, "mip", settings, {budget}, 1, &why);
    if (found.empty()) {
      log_warning("search: sweep {}: {}", budget.text, why);
      continue;
    }
    found.front().name = "sweep-" + value;
    points.push_back(std::move(found.front()));
  }
  return points;
}

std::string search_key(const RunContext& context, const LoadedModel& parent,
                       const Scenario& scenario, const std::vector<MeasuredCost>& costs,
                       const SearchOptions& options) {
  KeyBuilder key;
  key.add("stage", "search").add("version", 1).add("parent", parent.key).add("seed", context.seed);
  for (const ScoreRow& row : context.db.scores()) {
    key.add("score", row.key).add("metric", row.metric).add("value", row.value);
  }
  for (const MeasuredCost& row : costs) {
    key.add("cost", row.subblock).add("context", row.context).add("seconds", row.seconds);
  }
  add_options_to_key(key, scenario);
  add_options_to_key(key, options);
  return key.key();
}

void record(RunContext& context, const SearchResult& result, const SearchOptions& options) {
  std::vector<ArchitectureRow> rows;
  for (std::size_t i = 0; i < result.found.size(); ++i) {
    const FoundArchitecture& found = result.found[i];
    ArchitectureRow row;
    row.key = KeyBuilder().add("search", result.key).add("name", found.name).key();
    row.name = found.name;
    row.method = found.method;
    row.solution = static_cast<std::int64_t>(i);
    for (const BlockSpec& block : found.layers) {
      row.blocks.push_back(block.name());
    }
    row.objective = found.objective;
    row.costs_json = Json(found.costs).dump();
    row.budget = options.sweep.empty() || !found.name.starts_with("sweep-")
                     ? fmt::format("{}", fmt::join(options.budgets, ", "))
                     : options.sweep + " <= " + found.name.substr(6);
    row.gap = found.gap;
    Json detail = {{"batch", found.batch}};
    if (found.name.starts_with("sweep-")) {
      detail["swept_cost"] = options.sweep;
    }
    row.detail_json = detail.dump();
    rows.push_back(std::move(row));
  }
  std::vector<std::string> keys;
  for (const ArchitectureRow& row : rows) {
    keys.push_back(row.key);
  }
  context.db.put(rows);
  context.db.set_current(RunTable::kArchitectures, "search", keys);
}

Json as_json(const SearchResult& result) {
  Json list = Json::array();
  for (const FoundArchitecture& found : result.found) {
    std::vector<std::string> blocks;
    for (const BlockSpec& block : found.layers) {
      blocks.push_back(block.name());
    }
    list.push_back({{"name", found.name},
                    {"method", found.method},
                    {"blocks", blocks},
                    {"batch", found.batch},
                    {"objective", found.objective},
                    {"gap", found.gap},
                    {"costs", found.costs}});
  }
  return list;
}

SearchResult from_json(const std::string& key, const Json& list) {
  SearchResult result;
  result.key = key;
  for (const Json& entry : list) {
    FoundArchitecture found;
    found.name = entry.at("name").get<std::string>();
    found.method = entry.at("method").get<std::string>();
    for (const auto& block : entry.at("blocks")) {
      found.layers.push_back(parse_block(block.get<std::string>()));
    }
    found.batch = entry.at("batch").get<std::int64_t>();
    found.objective = entry.at("objective").get<double>();
    found.gap = entry.at("gap").get<double>();
    found.costs = entry.at("costs").get<std::map<std::string, double>>();
    result.found.push_back(std::move(found));
  }
  return result;
}

SearchResult search_here(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                         const Scenario& scenario, const std::vector<MeasuredCost>& costs,
                         const SearchOptions& options) {
  const Stopwatch watch;
  SearchResult result;
  result.key = search_key(context, parent, scenario, costs, options);
  const Settings settings = make_settings(parent, scenario, costs, options);
  const Searcher searcher(context, parent, space, options);
  std::string why;
  result.found = best_over_batches(searcher, options.method, settings, searcher.budgets(),
                                   options.solutions, &why);
  if (result.found.empty()) {
    fail(ErrorKind::kInfeasible, "search: {}", why);
  }
  for (std::size_t i = 0; i < result.found.size(); ++i) {
    result.found[i].name = i == 0 ? "child" : fmt::format("child-{}", i + 1);
  }
  for (const std::string& method : options.baselines) {
    why.clear();
    auto found = best_over_batches(searcher, method, settings, searcher.budgets(), 1, &why);
    if (found.empty()) {
      log_warning("search: baseline {}: {}", method, why);
      continue;
    }
    found.front().name = method;
    result.found.push_back(std::move(found.front()));
  }
  if (!options.sweep.empty()) {
    auto points = swept(searcher, settings, options);
    std::move(points.begin(), points.end(), std::back_inserter(result.found));
  }
  record(context, result, options);
  context.db.put({.key = result.key,
                  .stage = "search",
                  .what = options.method,
                  .seconds = watch.seconds(),
                  .detail_json = "{}"});
  return result;
}

}  // namespace

void SearchOptions::visit(OptionList& list) {
  list.add("budgets", budgets,
           "Bounds on the whole child, e.g. \"parameters <= 0.7x\", \"generation_tokens_per_s >= "
           "1.3x\", "
           "\"memory_bytes <= 6GiB\"; x is relative to the parent.");
  list.add("method", method, Choices{kSearchMethods}, "How the architecture is chosen.");
  list.add("baselines", baselines, Choices{kSearchMethods},
           "Further methods to compare with, under the same budgets.");
  list.add("metric", metric, Choices{{"kl", "lm_loss", "top1"}},
           "Score that is added up and minimised.");
  list.add("target", target, Choices{{"deci", "nemotron-nas", "native"}},
           "Export target whose costs and rules count: deci is llama.cpp.");
  list.add("types", types, "Weight types of that export, for bytes; see measure.types.");
  list.add("solutions", solutions, Range<std::int64_t>{1, 1000}, "Diverse solutions, best first.");
  list.add("max_shared_fraction", max_shared_fraction, Range<double>{0.0, 1.0},
           "Fraction of layers that two solutions may have in common.");
  list.add("time_limit_s", time_limit_s, Range<double>{0.1, 1e6}, "Seconds per solution.");
  list.add("sweep", sweep, "A cost to solve for at several bounds (Pareto curve); empty for none.");
  list.add("sweep_values", sweep_values, "Upper bounds of the sweep.");
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
    try {
      const SearchResult result = search_here(context, parent, space, scenario, costs, options);
      message = {{"key", result.key}, {"found", as_json(result)}};
    } catch (const Error& error) {
      message = {{"kind", static_cast<int>(error.kind())}, {"error", error.what()}};
    }
  }
  const std::string text = context.communicator.broadcast_string(message.dump(), 0);
  message = parse_json(text, "search result");
  if (message.contains("error")) {
    fail_with(static_cast<ErrorKind>(message.at("kind").get<int>()),
              message.at("error").get<std::string>());
  }
  return from_json(message.at("key").get<std::string>(), message.at("found"));
}

}  // namespace puzzle
