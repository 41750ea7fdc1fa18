#include "puzzle/stages/search.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/score_table.h"
#include "puzzle/stages/search_check.h"
#include "puzzle/stages/search_rows.h"
#include "puzzle/stages/search_solver.h"
#include "puzzle/stages/search_validate.h"

namespace puzzle {
namespace {

constexpr int kSearchVersion = 3;

std::string search_key(const RunContext& context, const LoadedModel& parent,
                       const SearchSpace& space, const Scenario& scenario,
                       const std::vector<MeasuredCost>& costs, const SearchOptions& options,
                       const ChildSource& source) {
  KeyBuilder key;
  key.add("stage", "search").add("version", kSearchVersion);
  key.add("parent", parent.key).add("seed", context.seed);
  add_space_to_key(key, space);
  for (const ScoreRow& row : context.db.scores()) {
    key.add("score", row.key).add("metric", row.metric).add("value", row.value);
  }
  for (const MeasuredCost& row : costs) {
    key.add("cost", row.subblock).add("phase", static_cast<int>(row.phase));
    key.add("batch", row.batch).add("context", row.context).add("seconds", row.seconds);
  }
  if (options.measures()) {
    key.add("library", source.library_key).add("text", source.validation->content_key());
  }
  if (options.makes_rounds()) {
    key.add("rounds", source.scoring->content_key());
  }
  add_options_to_key(key, scenario);
  add_options_to_key(key, options);
  return key.key();
}

void check_source(const SearchOptions& options, const ChildSource& source) {
  const auto check = [](const TokenPart* part, const char* what, const char* option) {
    PUZZLE_CHECK(part != nullptr, "a search that measures was given no text");
    if (part->num_windows() == 0) {
      fail(ErrorKind::kUsage, "search: the {} part, which {} needs, has no windows; set data.{}",
           part->name(), what, option);
    }
  };
  if (options.measures()) {
    check(source.validation, "measuring children", "validation_tokens");
  }
  if (options.makes_rounds()) {
    check(source.scoring, "search.rounds", "scoring_tokens");
  }
}

double recorded_seconds(const RunDb& db) {
  double sum = 0.0;
  for (const StageRecord& row : db.stages_of("search", RowSet::kAll)) {
    sum += row.seconds;
  }
  return sum;
}

// Rank 0's part.
class SearchRun {
 public:
  SearchRun(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
            const Scenario& scenario, const std::vector<MeasuredCost>& costs,
            const SearchOptions& options, SearchProbe& probe)
      : options_(options),
        probe_(probe),
        solver_(context, parent, space, scenario, costs, options, probe) {}

  [[nodiscard]] std::vector<FoundArchitecture> found() const {
    std::vector<FoundArchitecture> found = ours();
    for (const std::string& method : options_.baselines) {
      beside_ours("baseline " + method, [&] {
        MethodAnswer answer = solver_.solve(method, 1);
        if (answer.found.empty()) {
          log_warning("search: baseline {}: {}", method, join(answer.why, "; "));
          return;
        }
        answer.found.front().name = method;
        found.push_back(std::move(answer.found.front()));
      });
    }
    if (!options_.sweep.empty()) {
      beside_ours("sweep", [&] {
        auto points = solver_.sweep();
        std::move(points.begin(), points.end(), std::back_inserter(found));
      });
    }
    return found;
  }

 private:
  // What a solver that gives up or numbers that are not finite cost is left out, not our child.
  static void beside_ours(const std::string& what, const std::function<void()>& add) {
    try {
      add();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNumeric) {
        throw;
      }
      log_warning("search: {} is left out: {}", what, error.what());
    }
  }

  [[nodiscard]] std::vector<FoundArchitecture> ours() const {
    MethodAnswer answer =
        solver_.solve(options_.method, std::max(options_.solutions, options_.validate));
    if (answer.found.empty()) {
      fail(answer.timed_out ? ErrorKind::kNumeric : ErrorKind::kInfeasible, "search: {}{}",
           answer.is_proven ? "no child meets the budgets: " : "", join(answer.why, "; "));
    }
    if (options_.refines()) {
      refine(options_, solver_, probe_, answer.found);
    }
    for (std::size_t i = 0; i < answer.found.size(); ++i) {
      answer.found[i].name = i == 0 ? "child" : fmt::format("child-{}", i + 1);
    }
    return std::move(answer.found);
  }

  const SearchOptions& options_;
  SearchProbe& probe_;
  SearchSolver solver_;
};

}  // namespace

const std::vector<std::string>& search_methods() {
  static const std::vector<std::string> kMethods = {
      "mip", "greedy", "max-parameters", "uniform", "depth-only", "no-op-only", "random"};
  return kMethods;
}

bool SearchOptions::drops_layers() const {
  const bool is_asked = method == "depth-only" || std::find(baselines.begin(), baselines.end(),
                                                            "depth-only") != baselines.end();
  return is_asked && depth == "iterative";
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
  list.add("metric", metric, Choices{score_metrics()}, "Score that is added up and minimised.");
  list.add("target", target, Choices{{"deci", "openelm", "nemotron-nas", "native"}},
           "Export target whose costs and rules count: deci is llama.cpp, openelm llama.cpp for "
           "tied models with norms of q and k.");
  list.add("types", types, "Weight types of that export, for bytes; see measure.types.");
  list.add("solutions", solutions, Range<std::int64_t>{1, 1000}, "Diverse solutions, best first.");
  list.add("max_shared_fraction", max_shared_fraction, Range<double>{0.0, 1.0},
           "Fraction of layers that two solutions may have in common.");
  list.add("time_limit_s", time_limit_s, Range<double>{0.1, 1e6}, "Seconds per solution.");
  list.add("depth", depth, Choices{{"iterative", "one-shot"}},
           "Method depth-only: layers dropped one by one, each time the one whose loss costs least "
           "KL on validation text, or by their scores all at once.");
  list.add("validate", validate, Range<std::int64_t>{0, 1000},
           "Diverse solutions whose KL is really measured on validation text; the best becomes the "
           "child. 0 trusts the scores.");
  list.add("rounds", rounds, Range<std::int64_t>{0, 100},
           "Rounds in which the search nears the budgets, each on estimates taken anew around the "
           "child of the one before; its result is measured beside the others. 0 for none. Of "
           "method mip and metric kl.");
  list.add("round_layers", round_layers, Range<std::int64_t>{0, 1 << 20},
           "Layers that may change in a round; 0 is twice an equal share of all layers.");
  list.add("local_forwards", local_forwards, Range<std::int64_t>{0, 1 << 20},
           "Children that a local search around the best one may measure: swaps of one or two "
           "layers' blocks, kept where the measured KL falls. 0 for none. Of method mip and metric "
           "kl.");
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the validation part on which whole children are measured; 0 uses all of it.");
  list.add("round_tokens", round_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the scoring part for the estimates of rounds; 0 uses all of it.");
  list.add("round_samples", round_samples, Range<std::int64_t>{1, 1024},
           "Labels drawn per position for the estimates of rounds.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per forward pass of what is measured.");
  list.add("state_mib", state_mib, Range<std::int64_t>{1, 1 << 24},
           "MiB of one child's hidden states kept per process, so that children that begin alike "
           "share the beginning.");
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
                    const SearchOptions& options, const ChildSource& source) {
  SearchProbe probe(context, parent, space, source,
                    {.num_tokens = options.num_tokens,
                     .batch_windows = options.batch_windows,
                     .state_mib = options.state_mib,
                     .estimate_tokens = options.round_tokens,
                     .estimate_samples = options.round_samples});
  return parse_search(probe.lead([&] {
    const Stopwatch watch;
    check_search_options(options, scenario, parent.path);
    check_source(options, source);
    const std::string key = search_key(context, parent, space, scenario, costs, options, source);
    if (const std::optional<SearchResult> earlier = find_search(context.db, key)) {
      return search_json(*earlier);
    }
    const double before = recorded_seconds(context.db);
    const SearchRun run(context, parent, space, scenario, costs, options, probe);
    const SearchResult result{.key = key, .found = run.found()};
    // What was measured has its own records, with its seconds.
    const double measured_s = recorded_seconds(context.db) - before;
    record_search(context.db, result, options.method, std::max(0.0, watch.seconds() - measured_s));
    return search_json(result);
  }));
}

}  // namespace puzzle
