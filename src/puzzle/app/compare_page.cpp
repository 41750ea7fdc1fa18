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

// A row of a cell without numbers, as wide as the others.
std::string empty_row(const std::string& cell, const char* why, std::size_t num_metrics) {
  std::string row = fmt::format("| {} | {} |", cell, why);
  for (std::size_t i = 0; i < num_metrics + 4; ++i) {  // ratio, predicted, parameters, …, time
    row += " - |";
  }
  return row + "\n";
}

std::string row_text(const Comparison& comparison, const ComparedCell& cell,
                     const std::vector<std::string>& metrics) {
  if (cell.kl_sums.empty()) {
    return empty_row(cell.name, "no child meets the budgets", metrics.size());
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

std::string table_text(const CompareGrid& grid, const Comparison& comparison) {
  const std::vector<std::string> metrics = shown_metrics(comparison);
  std::string table = "| cell | KL | ratio | predicted | parameters |";
  std::string rule = "| --- | --- | --- | --- | --- |";
  for (const std::string& name : metrics) {
    table += " " + name + " |";
    rule += " --- |";
  }
  table += " time |\n" + rule + " --- |\n";
  for (const CompareCell& cell : grid.cells) {
    const ComparedCell* made = comparison.find(cell.name);
    table += made == nullptr ? empty_row(cell.name, "not run yet", metrics.size())
                             : row_text(comparison, *made, metrics);
  }
  return table;
}

std::string settings_text(const CompareGrid& grid, const Comparison& comparison) {
  std::string text = "All cells: " + grid.options.recipe;
  for (const std::string& setting : grid.options.set) {
    text += "; `" + setting + "`";
  }
  text += ".\n\n";
  for (const CompareCell& cell : grid.cells) {
    text += fmt::format("- {}{}: {}", cell.name,
                        cell.reference.empty() ? "" : ", against " + cell.reference,
                        cell.settings.empty() ? "as that" : "`" + join(cell.settings, "; ") + "`");
    if (const ComparedCell* made = comparison.find(cell.name); made != nullptr) {
      text += made->budget.empty() ? "" : fmt::format(" ({})", made->budget);
      text += made->folder.empty() ? "" : fmt::format(", in `{}`", made->folder);
    }
    text += "\n";
  }
  return text;
}

Json cell_json(const Comparison& comparison, const ComparedCell& cell) {
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
  return entry;
}

}  // namespace

std::string compare_page(const std::vector<ComparedGrid>& grids, const std::string& command) {
  std::string page = fmt::format(
      "# Recipes compared\n\nWritten by `{}` (puzzle {}). KL: nats per token from the parent to "
      "the child, on test text that nothing else saw, ± standard error; ratio: to the cell with "
      "ratio 1, unit of text by unit of text, with its 95 % interval; predicted: the search's sum "
      "of scores; parameters: of the parent's; time: of what no cell above had made.\n",
      command, kPuzzleVersion);
  for (const auto& [grid, comparison] : grids) {
    page += fmt::format("\n## {}\n\n", grid.options.title);
    page += grid.options.about.empty() ? "" : std::string(trim(grid.options.about)) + "\n\n";
    page += table_text(grid, comparison) + "\n" + settings_text(grid, comparison);
  }
  return page + fmt::format("\nMachine: {}.\n", read_machine().cpu);
}

Json compare_json(const std::vector<ComparedGrid>& grids) {
  Json all = Json::array();
  for (const auto& [grid, comparison] : grids) {
    Json cells = Json::array();
    for (const ComparedCell& cell : comparison.cells) {
      cells.push_back(cell_json(comparison, cell));
    }
    all.push_back({{"name", comparison.name},
                   {"reference", comparison.reference},
                   {"cells", std::move(cells)}});
  }
  return {{"grids", std::move(all)}};
}

}  // namespace puzzle
