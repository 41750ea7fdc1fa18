// What `puzzle compare` shows: a Markdown page, and the same as JSON.
#include <algorithm>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "puzzle/app/compare.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

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
  for (std::size_t i = 0; i < num_metrics + 5; ++i) {  // ratio to used, metrics, time
    row += " - |";
  }
  return row + "\n";
}

std::string metrics_text(const std::map<std::string, double>& values,
                         const std::vector<std::string>& metrics) {
  std::string text;
  for (const std::string& name : metrics) {
    const auto found = values.find(name);
    text += found == values.end() ? " - |" : fmt::format(" {:.4g} |", found->second);
  }
  return text;
}

std::string row_text(const Comparison& comparison, const ComparedCell& cell,
                     const std::vector<std::string>& metrics) {
  if (cell.kl_sums.empty()) {
    return empty_row(cell.name, "no child found", metrics.size());
  }
  const SumRatio kl = cell.kl();
  const std::string predicted = cell.predicted ? fmt::format("{:.3f}", *cell.predicted) : "–";
  std::string row = fmt::format("| {} | {:.4f} ± {:.4f} | {} | {} | {:.3f} | {} |", cell.name,
                                kl.value, kl.standard_error, ratio_text(comparison, cell),
                                predicted, cell.parameters, used_text(cell));
  return row + metrics_text(cell.metrics, metrics) +
         fmt::format(" {} |\n", human_seconds(cell.seconds));
}

// What the cells' metrics start from; nothing where no cell says.
std::string parent_row(const Comparison& comparison, const std::vector<std::string>& metrics) {
  std::map<std::string, double> values;
  for (const ComparedCell& cell : comparison.cells) {
    values.insert(cell.parent_metrics.begin(), cell.parent_metrics.end());
  }
  return values.empty()
             ? ""
             : "| parent | 0 | - | - | 1 | - |" + metrics_text(values, metrics) + " - |\n";
}

std::string table_text(const CompareGrid& grid, const Comparison& comparison) {
  const std::vector<std::string> metrics = shown_metrics(comparison);
  std::string table = "| cell | KL | ratio | predicted | parameters | used |";
  std::string rule = "| --- | --- | --- | --- | --- | --- |";
  for (const std::string& name : metrics) {
    table += " " + name + " |";
    rule += " --- |";
  }
  table += " time |\n" + rule + " --- |\n";
  table += parent_row(comparison, metrics);
  for (const CompareCell& cell : grid.cells) {
    const ComparedCell* made = comparison.find(cell.name);
    table += made == nullptr ? empty_row(cell.name, "not run yet", metrics.size())
                             : row_text(comparison, *made, metrics);
  }
  return table;
}

std::string settings_text(const CompareGrid& grid, const Comparison& comparison) {
  std::string text =
      fmt::format("All cells: `{}`",
                  (grid.file.parent_path() / grid.options.recipe).lexically_normal().string());
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

constexpr std::string_view kPageTitle = "# Recipes compared";
// Opens the part of a page that is of one grid, so that it is found again.
constexpr std::string_view kMark = "<!-- grid ";
constexpr std::string_view kMarkEnd = " -->\n";

struct PageSection {
  std::string grid;  // its page_name()
  std::string text;  // with its mark
};

// What a page that was written before holds; nothing for a page without marks.
std::vector<PageSection> page_sections(const std::string& page) {
  std::vector<PageSection> sections;
  for (std::size_t at = page.find(kMark); at != std::string::npos;) {
    const std::size_t next = page.find(kMark, at + kMark.size());
    const std::size_t name = at + kMark.size();
    const std::size_t name_end = std::min(page.find(kMarkEnd, name), page.size());
    sections.push_back(
        {page.substr(name, name_end - name), std::string(trim(page.substr(at, next - at))) + "\n"});
    at = next;
  }
  return sections;
}

std::vector<std::string> command_settings(const CompareGrid& grid) {
  const std::vector<std::string>& set = grid.options.set;
  return {set.end() - static_cast<std::ptrdiff_t>(grid.num_command_settings), set.end()};
}

// The command that makes the table, and who made what it holds.
std::string origin_text(const CompareGrid& grid, const Comparison& comparison) {
  std::string text = "Made by `puzzle compare " + shell_word(grid.file.string());
  text += grid.is_command_run ? " --run " + shell_word(grid.options.run) : "";
  for (const std::string& setting : command_settings(grid)) {
    text += " --set " + shell_word(setting);
  }
  text += "`";
  std::set<std::string> makers;
  for (const ComparedCell& cell : comparison.cells) {
    if (!cell.made_by.empty()) {
      makers.insert(cell.made_by);
    }
  }
  text += makers.empty() ? "" : ": " + join({makers.begin(), makers.end()}, "; ");
  return text + ".\n";
}

std::string section_text(const ComparedGrid& each) {
  const auto& [grid, comparison] = each;
  std::string text =
      fmt::format("{}{}{}## {}\n\n", kMark, grid.page_name(), kMarkEnd, grid.options.title);
  text += grid.options.about.empty() ? "" : std::string(trim(grid.options.about)) + "\n\n";
  text += table_text(grid, comparison) + "\n" + settings_text(grid, comparison);
  return text + "\n" + origin_text(grid, comparison);
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
    entry["used"] = cell.used;
    entry["predicted"] = optional_json(cell.predicted);
    entry["metrics"] = cell.metrics;
    entry["seconds"] = cell.seconds;
  }
  const ComparedCell* other = comparison.reference_of(cell);
  if (other != nullptr) {
    entry["reference"] = other->name;
    if (const auto ratio = cell.kl_ratio_to(*other)) {
      add("kl_ratio", *ratio);
      if (const auto interval = ratio->interval_95()) {
        entry["kl_ratio"]["interval_95"] = *interval;
      }
    }
  }
  return entry;
}

}  // namespace

std::string CompareGrid::page_name() const {
  const std::vector<std::string> more = command_settings(*this);
  return join({file.stem().string(), join(more, "; ")}, more.empty() ? "" : " ");
}

bool is_compare_page(const std::string& text) {
  return trim(text).empty() || text.starts_with(kPageTitle);
}

std::string compare_page(const std::vector<ComparedGrid>& grids, const std::string& earlier) {
  std::vector<PageSection> sections = page_sections(earlier);
  for (const ComparedGrid& each : grids) {
    const std::string name = each.grid.page_name();
    auto section = std::ranges::find(sections, name, &PageSection::grid);
    if (section == sections.end()) {
      section = sections.insert(sections.end(), {name, ""});
    }
    section->text = section_text(each);
  }
  std::string page =
      std::string(kPageTitle) +
      "\n\nKL: nats per token from the parent to the child, on test text that "
      "nothing else saw, ± standard error; ratio: to the cell with ratio 1, unit of text by unit "
      "of text, with its 95 % interval (Student's t). The intervals are about the text: they say "
      "nothing of other seeds or libraries, which matter where a ratio is near 1.\n\n"
      "predicted: the search's sum of scores, in their metric; parameters: of the parent's; used: "
      "of the parent's, what a budget bounds, as the search counts it (with what the engine's file "
      "needs beside the model; times: the sum of what was measured of the parts); SET/top1: share "
      "of positions where the likeliest token is the parent's; SET/accuracy: of questions answered "
      "right; time: of what no cell above had made, so that it says little of a cell on its own.\n";
  for (const PageSection& section : sections) {
    page += "\n" + section.text;
  }
  return page;
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
