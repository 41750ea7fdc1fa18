// Stage `search`: one block per layer under the budgets (paper section 5).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/engine/measured_cost.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/stages/search_probe.h"

namespace puzzle {

class OptionList;

// Every way to choose an architecture; all but "mip" also serve as baselines (paper F.2).
[[nodiscard]] const std::vector<std::string>& search_methods();

struct SearchOptions {
  std::vector<std::string> budgets = {"parameters <= 0.7x"};  // all must hold; search_budgets.h
  std::string method = "mip";
  std::vector<std::string> baselines;  // further methods, for comparison, under the same budgets
  std::string metric = "kl";           // of the scores that are added up
  std::string target = "deci";         // export target whose costs and rules count
  std::string types = "like-parent";   // weight types of that export
  std::int64_t solutions = 1;          // diverse ones, best first
  double max_shared_fraction = 0.8;    // of layers that two of them may have in common
  double time_limit_s = 60.0;          // per solution
  std::string sweep;                   // a cost or rate to sweep, e.g. "generation_s"; empty = none
  std::vector<std::string> sweep_values = {"0.9x", "0.8x", "0.7x", "0.6x", "0.5x"};
  std::string depth = "iterative";   // depth-only: or "one-shot"
  std::int64_t validate = 0;         // solutions that are measured, the best wins; 0 = none
  std::int64_t rounds = 4;           // of scores taken anew around the child; 0 = none
  std::int64_t round_layers = 0;     // that may change in a round; 0 = twice an equal share
  std::int64_t local_forwards = 60;  // children that the local search may measure; 0 = none
  std::int64_t num_tokens = 4096;    // of the validation part, to measure on; 0 = all of it
  std::int64_t round_tokens = 0;     // of the scoring part, for rounds; 0 = all of it
  std::int64_t round_samples = 4;    // labels drawn per position, for rounds
  std::int64_t batch_windows = 8;
  std::int64_t state_mib = 1024;  // of one child's hidden states kept, per rank

  // Whether layers are dropped one by one, and whether whole children are measured at all.
  [[nodiscard]] bool drops_layers() const;
  [[nodiscard]] bool measures() const { return refines() || drops_layers(); }
  // Whether children are looked for beyond the sum of scores.
  [[nodiscard]] bool refines() const {
    return validate > 0 || makes_rounds() || searches_locally();
  }
  // Both go on from "mip" and "kl" only: the other methods are there to be compared with, and
  // other metrics are not what they lower.
  [[nodiscard]] bool makes_rounds() const { return goes_on() && rounds > 0; }
  [[nodiscard]] bool searches_locally() const { return goes_on() && local_forwards > 0; }
  [[nodiscard]] bool goes_on() const { return method == "mip" && metric == "kl"; }

  void visit(OptionList& list);
};

// Of a whole child, as assembled, on validation text.
struct FoundMeasurement {
  ScoreValue kl;           // KL(parent ‖ child), nats per token
  ScoreValue minus_child;  // less that of "child", paired; 0 for itself
  std::int64_t tokens = 0;
};

struct FoundArchitecture {
  std::string name;    // "child", "child-2" (further ones), a baseline's method, "sweep-0.8x"
  std::string method;  // search_methods(), "rounds", "local"
  Architecture layers;
  std::int64_t batch = 1;               // the batch size it was found for
  double objective = 0.0;               // sum of scores
  double gap = 0.0;                     // proven relative gap
  std::map<std::string, double> costs;  // recomputed for the whole child, rates included
  std::string budget;                   // what it had to meet, for people
  std::string swept_cost;               // of a point of the sweep; empty otherwise
  std::string curve;                    // what the sweep holds and varies, for people
  std::optional<FoundMeasurement> measured;
};

struct SearchResult {
  std::string key;
  std::vector<FoundArchitecture> found;  // "child" first

  [[nodiscard]] const FoundArchitecture* find(const std::string& name) const;
};

// The budget of one point of a sweep: "generation_s <= 0.8x", "generation_tokens_per_s >= 1.2x".
// Throws Error(kUsage) for a cost that does not exist.
[[nodiscard]] std::string sweep_budget_text(const std::string& cost, const std::string& value);

// "batch 4: …" where the scenario leaves a choice of batch sizes, else the text alone.
[[nodiscard]] std::string at_batch(std::int64_t batch, const Scenario& scenario,
                                   const std::string& text);

// For every batch size of the scenario the problem is solved, and the best objective wins. Scores
// are those that run.db holds as current; `costs` may be empty if no budget bounds a time. The
// sweep replaces the budget on the swept cost and keeps all others, so its curve, the child and the
// baselines differ in that cost alone. Records ArchitectureRows; a search of the same key is read
// from there and not made again.
//
// Scores add up only roughly, so options may ask for more, all of it on whole children made of
// `source` and measured on its validation text (search_probe.h): the `validate` best solutions;
// one found in rounds of scores taken anew around the current child (search_rounds.h); and swaps
// around the best of these (search_local.h). "child" is then the one with the lowest measured KL,
// the others follow in that order. Method depth-only drops layers one by one (search_depth.h)
// unless `depth` is one-shot. Tokens are split over ranks; what was measured once is read from
// run.db.
//
// Throws Error(kInfeasible) with, for each budget and batch size, the tightest value attainable;
// Error(kNumeric) where the time limit ends before any architecture is found. An answer that the
// limit leaves unproven is used, with a warning that says its gap. A baseline or a point of the
// sweep that finds nothing is logged and left out.
SearchResult search(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                    const Scenario& scenario, const std::vector<MeasuredCost>& costs,
                    const SearchOptions& options, const ChildSource& source = {});

}  // namespace puzzle
