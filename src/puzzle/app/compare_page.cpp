// What `puzzle compare` shows: a Markdown page, and the same as JSON.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "puzzle/app/compare.h"
#include "puzzle/app/version.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/results/machine.h"

namespace puzzle {
namespace {

constexpr double kNormal95 = 1.96;  // standard errors on each side of a 95 % interval

const CellResult& reference_of(const CompareGrid& grid, const std::vector<CellResult>& results) {
  const auto found = std::ranges::find(results, grid.options.reference, &CellResult::name);
  PUZZLE_CHECK(found != results.end(), "no cell {}", grid.options.reference);
  return *found;
}

bool is_comparable(const CellResult& cell, const CellResult& reference) {
  return !cell.kl_sums.empty() && cell.unit_tokens == reference.unit_tokens;
}

std::string ratio_text(const CellResult& cell, const CellResult& reference) {
  if (!is_comparable(cell, reference)) {
    return "-";
  }
  if (&cell == &reference) {
    return "1";
  }
  const RatioOfSums::Result ratio = cell.kl_ratio_to(reference);
  const double half = kNormal95 * ratio.standard_error;
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]", ratio.value, ratio.value - half,
                     ratio.value + half);
}

// Metrics that any cell has, but for differences and those that the columns show.
std::vector<std::string> shown_metrics(const std::vector<CellResult>& results) {
  std::vector<std::string> names;
  for (const CellResult& cell : results) {
    for (const auto& [name, value] : cell.metrics) {
      const bool is_shown =
          name.ends_with("/perplexity") || name.ends_with("/top1") || name.ends_with("/accuracy");
      if (is_shown && std::ranges::find(names, name) == names.end()) {
        names.push_back(name);
      }
    }
  }
  std::ranges::sort(names);
  return names;
}

std::string row_text(const CellResult& cell, const CellResult& reference,
                     const std::vector<std::string>& metrics) {
  if (cell.kl_sums.empty()) {
    return fmt::format("| {} | no child meets the budgets |\n", cell.name);
  }
  const RatioOfSums::Result kl = cell.kl();
  std::string row =
      fmt::format("| {} | {:.4f} ± {:.4f} | {} | {:.3f} | {:.3f} |", cell.name, kl.value,
                  kl.standard_error, ratio_text(cell, reference), cell.predicted, cell.parameters);
  for (const std::string& name : metrics) {
    const auto found = cell.metrics.find(name);
    row += found == cell.metrics.end() ? " - |" : fmt::format(" {:.4g} |", found->second);
  }
  return row + fmt::format(" {} |\n", human_seconds(cell.seconds));
}

}  // namespace

std::string compare_page(const CompareGrid& grid, const std::vector<CellResult>& results,
                         const std::string& command) {
  const CellResult& reference = reference_of(grid, results);
  const std::vector<std::string> metrics = shown_metrics(results);
  std::string page = fmt::format(
      "# {}\n\nWritten by `{}` (puzzle {}). KL: nats per token from the parent to the child, on "
      "test "
      "text that nothing else saw, ± standard error; ratio: to {}, unit of text by unit of text, "
      "with "
      "its 95 % interval; predicted: the search's sum of scores; parameters: of the parent's; "
      "time: "
      "of what no cell above had made.\n\n",
      grid.file.stem().string(), command, kPuzzleVersion, grid.options.reference);
  page += "| cell | KL | ratio | predicted | parameters |";
  std::string rule = "| --- | --- | --- | --- | --- |";
  for (const std::string& name : metrics) {
    page += " " + name + " |";
    rule += " --- |";
  }
  page += " time |\n" + rule + " --- |\n";
  for (const CellResult& cell : results) {
    page += row_text(cell, reference, metrics);
  }
  page += "\n## Settings\n\nAll cells: " + grid.options.recipe;
  for (const std::string& setting : grid.options.set) {
    page += "; `" + setting + "`";
  }
  page += ".\n\n";
  for (const CellResult& cell : results) {
    page += fmt::format("- {}: {}", cell.name,
                        cell.settings.empty() ? "as that" : "`" + cell.settings + "`");
    page += cell.budget.empty() ? "\n" : fmt::format(" ({})\n", cell.budget);
  }
  const MachineFacts machine = read_machine();
  page += "\nMachine: " + machine.cpu + ".\n";
  return page;
}

Json compare_json(const CompareGrid& grid, const std::vector<CellResult>& results) {
  const CellResult& reference = reference_of(grid, results);
  Json cells = Json::array();
  for (const CellResult& cell : results) {
    Json entry = {{"name", cell.name}, {"settings", cell.settings}};
    if (!cell.kl_sums.empty()) {
      const RatioOfSums::Result kl = cell.kl();
      entry["kl"] = {{"value", kl.value}, {"standard_error", kl.standard_error}};
      entry["parameters"] = cell.parameters;
      entry["predicted"] = cell.predicted;
      entry["metrics"] = cell.metrics;
      entry["seconds"] = cell.seconds;
    }
    if (is_comparable(cell, reference)) {
      const RatioOfSums::Result ratio = cell.kl_ratio_to(reference);
      entry["kl_ratio"] = {{"value", ratio.value}, {"standard_error", ratio.standard_error}};
    }
    cells.push_back(std::move(entry));
  }
  return {{"reference", grid.options.reference}, {"cells", std::move(cells)}};
}

}  // namespace puzzle
