#include "puzzle/report/run_report.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "puzzle/base/file.h"
#include "puzzle/report/page.h"
#include "puzzle/report/report_data.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

std::string page_title(const ReportData& data) {
  return data.parent.has_value() ? "A child of " + data.parent->name : "A Puzzle run";
}

std::string page_subtitle(const ReportData& data) {
  std::string text =
      "A parent model and the faster child that Puzzle built from it: what was chosen in every "
      "layer, what it gains, what it costs, and why.";
  if (!data.stages.empty()) {
    // Dates in ISO form order as texts.
    std::string latest;
    for (const StageRecord& record : data.stages) {
      latest = std::max(latest, record.finished_at);
    }
    text += fmt::format(" State of {}.", latest.substr(0, latest.find('T')));
  }
  return text;
}

}  // namespace

std::string render_report(const RunDb& db) {
  const ReportData data = load_report_data(db);
  Page page;
  page.title = page_title(data);
  page.subtitle = page_subtitle(data);
  page.sections = {result_section(data),
                   architecture_section(data),
                   score_section(data),
                   search_section(data),
                   speed_section(data),
                   block_distillation_section(data),
                   child_distillation_section(data),
                   evaluation_section(data),
                   comparison_section(data),
                   time_section(data),
                   recipe_section(data)};
  std::vector<PageSection> compared;
  std::ranges::transform(data.comparisons, std::back_inserter(compared), cells_section);
  page.sections.insert(page.sections.begin(), compared.begin(), compared.end());
  page.footer = "Written by puzzle report from run.db, which holds every number on this page.";
  return render_page(page);
}

void write_report(const RunDb& db, const std::filesystem::path& path) {
  write_text_file(path, render_report(db));
}

}  // namespace puzzle
