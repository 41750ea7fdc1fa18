// Children of several recipes side by side, as `puzzle compare` leaves them in run.db's meta table,
// one entry for each grid that was run there.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/results/sum_ratio.h"

namespace puzzle {

class RunDb;

// One recipe and its child. `kl_sums` is empty where no child within the budgets was found.
struct ComparedCell {
  std::string name{};
  std::string reference{};  // cell that it is compared with; empty: the comparison's
  std::string settings{};   // "; " between them
  std::string key{};        // of all settings, resolved: cells of one key are the same
  std::string budget{};     // what it had to meet, for people
  std::string folder{};     // of the child, below the run's; cells may share one
  std::string text{};       // content key of the parent and the test text that KL is of
  // Of independent units of that text: Σ KL(parent ‖ child) in nats, and tokens.
  std::vector<double> kl_sums{};
  std::vector<double> unit_tokens{};
  double parameters = 0.0;  // as a fraction of the parent's
  // By cost, for those that a budget bounds: the child's as a fraction of the parent's, as the
  // search counts them.
  std::map<std::string, double> used{};
  std::map<std::string, double> metrics{};  // "held-out text/perplexity", "blimp/accuracy", …
  std::map<std::string, double> parent_metrics{};  // the same of the parent, as far as it has them
  std::optional<double> predicted{};               // sum of scores; none where no search chose
  double seconds = 0.0;                            // of what no cell before had made
  std::string made_by{};  // program, build and machine; empty: not recorded

  [[nodiscard]] SumRatio kl() const;  // nats per token
  // KL over another cell's, paired; empty where one has none or they are not of the same text.
  [[nodiscard]] std::optional<SumRatio> kl_ratio_to(const ComparedCell& other) const;
};

struct Comparison {
  std::string name;     // of the grid and the settings that all cells have; of signs of file names
  std::string title{};  // for people
  std::string about{};  // what is compared and what came out, for people; may be empty
  std::string settings{};  // of all cells, "; " between them
  std::string reference;   // name of the cell that those without another are compared with
  std::vector<ComparedCell> cells;

  // Null where there is none of that name.
  [[nodiscard]] const ComparedCell* find(const std::string& cell_name) const;
  // What `cell` is compared with. Null as long as that is not there.
  [[nodiscard]] const ComparedCell* reference_of(const ComparedCell& cell) const;
};

[[nodiscard]] nlohmann::json to_json(const ComparedCell& cell);
// Throws Error(kFormat).
[[nodiscard]] ComparedCell parse_compared_cell(const nlohmann::json& value,
                                               const std::string& place);

// Replaces the one of the same name.
void put_comparison(RunDb& db, const Comparison& comparison);
// By name; empty where nothing was compared. Throws Error(kFormat) for damaged values.
[[nodiscard]] std::vector<Comparison> load_comparisons(const RunDb& db);

// "1.234 [1.100, 1.368]": the ratio with its 95 % interval where there are two units of text;
// "1" for a reference, "–" without one.
[[nodiscard]] std::string ratio_text(const Comparison& comparison, const ComparedCell& cell);
// "generation_s 0.698, parameters 0.803": how much of the parent's; "–" where nothing is bounded.
[[nodiscard]] std::string used_text(const ComparedCell& cell);

}  // namespace puzzle
