// What a child costs, by the names that budgets use.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/scenario.h"
#include "puzzle/engine/cost_model.h"

namespace puzzle {

struct SearchOptions;

// One thing that can be bounded. Everything is that of the child as the export target stores it.
struct SearchCost {
  std::string_view name;
  std::string_view unit;     // "" for counts, "bytes", "s", "tokens/s"
  std::string_view help;     // one line
  bool is_measured = false;  // known only with measured or modelled times
  std::string_view time;     // a rate: the cost whose upper bound a lower bound on the rate is

  [[nodiscard]] bool is_rate() const { return !time.empty(); }
};

// The only list of them, in the order in which help shows them.
[[nodiscard]] const std::vector<SearchCost>& search_costs();
// Null for a name that is none of them.
[[nodiscard]] const SearchCost* find_search_cost(std::string_view name);
[[nodiscard]] std::vector<std::string> search_cost_names();

// What costs depend on besides the child.
struct CostSetting {
  const ModelSpec* parent = nullptr;
  ExportTarget target = ExportTarget::kDeci;
  WeightTypes types;
  const CostModel* times = nullptr;  // null: no times
  Workload workload;
};

// What a search with these options counts at one batch size; `model` is the parent's file, whose
// types its own may be. The parent and `times` must outlive the setting.
[[nodiscard]] CostSetting cost_setting(const ModelSpec& parent, const std::filesystem::path& model,
                                       const SearchOptions& options, const Scenario& scenario,
                                       std::int64_t batch, const CostModel* times = nullptr);

// Every cost of a whole model by name, rates included: recomputed from the model, not from sums.
[[nodiscard]] std::map<std::string, double> model_costs(const Architecture& layers,
                                                        const CostSetting& setting);

// The costs that add up over blocks (rates do not), and their values for one part of a model in the
// same order. Times are left out where the setting has none.
[[nodiscard]] std::vector<std::string> summed_cost_names(const CostSetting& setting);
[[nodiscard]] std::vector<double> summed_costs(const PartCost& cost, const PhaseSeconds& seconds,
                                               const CostSetting& setting);

// Tokens that a rate counts: b (G - 1) for generation, whose first token comes out of prefill, and
// b (P + G) for the total.
[[nodiscard]] double counted_tokens(const SearchCost& rate, const Workload& workload);

}  // namespace puzzle
