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

// Metrics that any cell has, but for differences and those that the columns show.
std::vector<std::string> shown_metrics(const Comparison& comparison) {
  std::vector<std::string> names;
  for (const ComparedCell& cell : comparison.cells) {
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

std::string row_text(const Comparison& comparison, const ComparedCell& cell,
                     const std::vector<std::string>& metrics) {
  if (cell.kl_sums.empty()) {
    return fmt::format("| {} | no child meets the budgets |\n", cell.name);
  }
  const SumRatio kl = cell.kl();
  std::string row =
      fmt::format("| {} | {:.4f} ± {:.4f} | {} | {:.3f} | {:.3f} |", cell.name, kl.value,
                  kl.standard_error, ratio_text(comparison, cell), cell.predicted, cell.parameters);
  for (const std::string& name : metrics) {
    const auto found = cell.metrics.find(name);
    row += found == cell.metrics.end() ? " - |" : fmt::format(" {:.4g} |", found->second);
  }
  return row + fmt::format(" {} |\n", human_seconds(cell.seconds));
}

}  // namespace

std::string compare_page(const CompareGrid& grid, const Comparison& comparison,
                         const std::string& command) {
  const std::vector<std::string> metrics = shown_metrics(comparison);
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
  for (const ComparedCell& cell : comparison.cells) {
    page += row_text(comparison, cell, metrics);
  }
  page += "\n## Settings\n\nAll cells: " + grid.options.recipe;
  for (const std::string& setting : grid.options.set) {
    page += "; `" + setting + "`";
  }
  page += ".\n\n";
  for (const ComparedCell& cell : comparison.cells) {
    page += fmt::format("- {}{}: {}", cell.name,
                        cell.reference.empty() ? "" : ", against " + cell.reference,
                        cell.settings.empty() ? "as that" : "`" + cell.settings + "`");
    page += cell.budget.empty() ? "" : fmt::format(" ({})", cell.budget);
    page += cell.folder.empty() ? "\n" : fmt::format(", in `{}`\n", cell.folder);
  }
  const MachineFacts machine = read_machine();
  page += "\nMachine: " + machine.cpu + ".\n";
  return page;
}

Json compare_json(const Comparison& comparison) {
  Json cells = Json::array();
  for (const ComparedCell& cell : comparison.cells) {
    Json entry = {{"name", cell.name}, {"settings", cell.settings}};
    const auto add = [&](const char* name, const SumRatio& ratio) {
      entry[name] = {{"value", ratio.value}, {"standard_error", ratio.standard_error}};
    };
    if (!cell.kl_sums.empty()) {
      add("kl", cell.kl());
      entry["folder"] = cell.folder;
      entry["parameters"] = cell.parameters;
      entry["predicted"] = cell.predicted;
      entry["metrics"] = cell.metrics;
      entry["seconds"] = cell.seconds;
    }
    const ComparedCell* other = comparison.reference_of(cell);
    if (other != nullptr) {
      entry["reference"] = other->name;
      if (const auto ratio = cell.kl_ratio_to(*other)) {
        add("kl_ratio", *ratio);
      }
    }
    cells.push_back(std::move(entry));
  }
  return {{"reference", comparison.reference}, {"cells", std::move(cells)}};
}

}  // namespace puzzle
