#include "puzzle/stages/search_budgets.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

double suffix_factor(const std::string& suffix, const BudgetSpec& budget) {
  static const std::map<std::string, double> kDecimal = {
      {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1e9}};
  static const std::map<std::string, double> kBinary = {
      {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  std::vector<std::string> known = {"x"};
  if (budget.cost->unit != "s") {
    known.insert(known.end(), {"K", "M", "G"});
  }
  if (budget.cost->unit == "bytes") {  // where a B would be taken for bytes
    known.insert(known.end(), {"KiB", "MiB", "GiB"});
  } else if (budget.cost->unit != "s") {
    known.emplace_back("B");
  }
  if (suffix.empty() || suffix == "x") {
    return 1.0;
  }
  if (std::find(known.begin(), known.end(), suffix) == known.end()) {
    fail(ErrorKind::kUsage,
         "budget '{}': unknown suffix '{}'; expected none or {} (x is relative to the parent)",
         budget.text, suffix, join(known, ", "));
  }
  const auto decimal = kDecimal.find(suffix);
  return decimal != kDecimal.end() ? decimal->second : kBinary.at(suffix);
}

const SearchCost* named_cost(const std::string& name, const std::string& text) {
  if (name.empty()) {
    fail(ErrorKind::kUsage, "budget '{}': names no cost, e.g. parameters <= 0.7x", text);
  }
  const SearchCost* cost = find_search_cost(name);
  if (cost == nullptr) {
    const std::vector<std::string> names = search_cost_names();
    const std::string close = nearest(name, names);
    fail(ErrorKind::kUsage, "budget '{}': there is no cost {}{}; known are {}", text, name,
         close.empty() ? "" : ", did you mean " + close + "?", join(names, ", "));
  }
  return cost;
}

// Rounded to `digits` significant ones, upwards or downwards.
double rounded_outwards(double value, int digits, bool upwards) {
  if (value == 0.0 || !std::isfinite(value)) {
    return value;
  }
  const double unit = std::pow(10.0, std::floor(std::log10(std::abs(value))) - (digits - 1));
  // A value that has so few digits already stays what it is.
  const double steps = value / unit;
  const double doubt = 1e-9 * std::abs(steps);
  return unit * (upwards ? std::ceil(steps - doubt) : std::floor(steps + doubt));
}

// One value of the budget's cost, with its ratio to the parent's where the budget is relative.
std::string value_text(const BudgetSpec& budget, double value, double parent_value) {
  const bool is_whole = !budget.cost->is_measured && value < 1e15;
  std::string text = is_whole
                         ? fmt::format("{:.0f}", value)
                         : fmt::format("{:g}", rounded_outwards(value, 6, !budget.cost->is_rate()));
  if (budget.relative && parent_value > 0.0) {
    text +=
        fmt::format(" ({:g}x)", rounded_outwards(value / parent_value, 4, !budget.cost->is_rate()));
  }
  return text;
}

std::string reach_in_words(const BudgetReach& reach, const BoundBudget& budget,
                           const CostSetting& setting) {
  const BudgetSpec& spec = budget.spec;
  const double parent =
      model_costs(setting.parent->layers, setting).at(std::string(spec.cost->name));
  const auto in_words = [&](double sum) {
    const double value =
        spec.cost->is_rate() ? counted_tokens(*spec.cost, setting.workload) / sum : sum;
    return value_text(spec, value, parent);
  };
  const char* extreme = spec.cost->is_rate() ? "largest" : "smallest";
  std::string text = spec.text;
  if (spec.relative) {
    text += fmt::format(" ({:g})", spec.value * parent);
  }
  text += ": ";
  if (!reach.alone) {
    text += reach.proven ? "no choice of blocks can be built at all" : "nothing was found in time";
    return text;
  }
  if (reach.with_others) {
    text += fmt::format("the {} attainable with the other budgets held is {}", extreme,
                        in_words(*reach.with_others));
  } else {
    text += "the other budgets cannot be met even without this one";
  }
  text += fmt::format(", on its own {}", in_words(*reach.alone));
  return reach.proven ? text : text + " (time limit: not proven)";
}

}  // namespace

std::string BudgetSpec::summed_cost() const {
  return std::string(cost->is_rate() ? cost->time : cost->name);
}

BudgetSpec parse_budget(const std::string& text) {
  BudgetSpec budget;
  budget.text = text;
  const std::size_t less = text.find("<=");
  const std::size_t more = text.find(">=");
  const std::size_t at = std::min(less, more);
  if (at == std::string::npos) {
    fail(ErrorKind::kUsage,
         "budget '{}': expected a cost, <= or >=, and a number, e.g. parameters <= 0.7x", text);
  }
  budget.cost = named_cost(std::string(trim(std::string_view(text).substr(0, at))), text);
  if (budget.cost->is_rate() != (more < less)) {
    fail(ErrorKind::kUsage, "budget '{}': {} is bounded from {}; write {}", text, budget.cost->name,
         budget.cost->is_rate() ? "below" : "above", budget.cost->is_rate() ? ">=" : "<=");
  }
  const std::string number(trim(std::string_view(text).substr(at + 2)));
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), budget.value);
  if (error != std::errc() || !std::isfinite(budget.value) || budget.value < 0.0) {
    fail(ErrorKind::kUsage, "budget '{}': '{}' is no number, expected one that is not negative",
         text, number);
  }
  if (budget.cost->is_rate() && budget.value <= 0.0) {
    fail(ErrorKind::kUsage, "budget '{}': a throughput of 0 bounds nothing; take it out", text);
  }
  const std::string suffix(trim(std::string_view(end, number.data() + number.size() - end)));
  budget.relative = suffix == "x";
  budget.value *= suffix_factor(suffix, budget);
  if (!std::isfinite(budget.value)) {
    fail(ErrorKind::kUsage, "budget '{}': the number is too large", text);
  }
  return budget;
}

std::vector<BudgetSpec> parse_budgets(const std::vector<std::string>& texts) {
  std::vector<BudgetSpec> budgets;
  budgets.reserve(texts.size());
  for (const std::string& text : texts) {
    budgets.push_back(parse_budget(text));
  }
  return budgets;
}

BoundBudget resolve_budget(const BudgetSpec& spec, const CostSetting& setting) {
  const auto parent_costs = model_costs(setting.parent->layers, setting);
  const auto parent = parent_costs.find(std::string(spec.cost->name));
  if (parent == parent_costs.end()) {
    fail(ErrorKind::kUsage,
         "budget '{}': no times are known here; run `puzzle measure` first, or bound another cost",
         spec.text);
  }
  const double value = spec.relative ? spec.value * parent->second : spec.value;
  if (!spec.cost->is_rate()) {
    return {spec, value};
  }
  const double tokens = counted_tokens(*spec.cost, setting.workload);
  if (tokens <= 0.0 || value <= 0.0) {
    fail(ErrorKind::kUsage,
         "budget '{}': there is no such rate where one token is generated only; raise "
         "scenario.generated_tokens",
         spec.text);
  }
  return {spec, tokens / value};
}

std::vector<BoundBudget> resolve_budgets(const std::vector<BudgetSpec>& specs,
                                         const CostSetting& setting) {
  std::vector<BoundBudget> tightest;
  for (const BudgetSpec& spec : specs) {
    BoundBudget bound = resolve_budget(spec, setting);
    const auto same = std::find_if(tightest.begin(), tightest.end(), [&](const BoundBudget& other) {
      return other.spec.summed_cost() == spec.summed_cost();
    });
    if (same == tightest.end()) {
      tightest.push_back(std::move(bound));
    } else if (bound.at_most < same->at_most) {
      *same = std::move(bound);
    }
  }
  return tightest;
}

std::string describe_unreachable(const Infeasibility& infeasibility,
                                 const std::vector<BoundBudget>& budgets,
                                 const CostSetting& setting) {
  std::vector<std::string> parts;
  for (const BudgetReach& reach : infeasibility.budgets) {
    for (const BoundBudget& budget : budgets) {
      if (budget.spec.summed_cost() == reach.cost) {
        parts.push_back(reach_in_words(reach, budget, setting));
      }
    }
  }
  for (const std::string& cover : infeasibility.covers_in_way) {
    parts.push_back(fmt::format("without the need for {} all budgets can be met", cover));
  }
  return parts.empty() ? "no choice of blocks can be built for this target" : join(parts, "; ");
}

}  // namespace puzzle
