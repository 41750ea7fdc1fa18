// The cells of `puzzle compare`: several recipes, one child each.
#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

// Names of grids are names of files; those of sections and charts have no other signs than these.
std::string section_id(const Comparison& comparison) {
  std::string id = "cells-" + comparison.name;
  std::ranges::replace_if(id, [](unsigned char sign) { return std::isalnum(sign) == 0; }, '-');
  return id;
}

std::string settings_sentence(const Comparison& comparison) {
  return comparison.settings.empty() ? "" : "All cells: " + comparison.settings + ". ";
}

std::string cells_chart(const Comparison& comparison) {
  BarChart chart;
  chart.text = {section_id(comparison) + "-kl", "KL of every cell's child",
                "Bars of the KL from the parent to each cell's child; lines are one standard error "
                "to each side."};
  chart.value_label = "KL, nats per token";
  chart.series = {{"KL", 0, {}}};
  for (const ComparedCell& cell : comparison.cells) {
    if (!cell.kl_sums.empty()) {
      const SumRatio kl = cell.kl();
      chart.groups.push_back(cell.name);
      chart.series[0].values.push_back(
          BarValue{kl.value, kl.value - kl.standard_error, kl.value + kl.standard_error});
    }
  }
  return render_chart(chart);
}

TableRow cell_row(const Comparison& comparison, const ComparedCell& cell) {
  if (cell.kl_sums.empty()) {
    return {{cell.name, "no child found", "–", "–", "–", "–", "–", cell.settings}};
  }
  const SumRatio kl = cell.kl();
  const std::string settings = cell.settings.empty() ? "–" : cell.settings;
  return {{cell.name, format_with_error(kl.value, kl.standard_error), ratio_text(comparison, cell),
           cell.predicted ? format_significant(*cell.predicted) : "–",
           format_percent(cell.parameters), used_text(cell), human_seconds(cell.seconds), settings},
          comparison.reference_of(cell) == &cell};
}

}  // namespace

PageSection cells_section(const Comparison& comparison) {
  PageSection section{
      section_id(comparison), "Recipes compared: " + comparison.title,
      comparison.about + (comparison.about.empty() ? "" : " ") + settings_sentence(comparison) +
          "Children of several recipes on text that nothing else saw. The ratio is to the cell "
          "with ratio 1 above, unit of text by unit of text, with its 95 % interval; predicted is "
          "the search's sum of scores; used is what budgets bound, of the parent's; time is that "
          "of what no cell above had made.",
      ""};
  Markup out;
  out.raw(cells_chart(comparison));
  std::vector<TableRow> rows;
  for (const ComparedCell& cell : comparison.cells) {
    rows.push_back(cell_row(comparison, cell));
  }
  add_table(out,
            {{"cell", false},
             {"KL"},
             {"ratio"},
             {"predicted"},
             {"parameters"},
             {"used", false},
             {"time"},
             {"settings", false}},
            rows);
  section.body = out.str();
  return section;
}

}  // namespace puzzle
