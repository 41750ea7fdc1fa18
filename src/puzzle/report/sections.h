// The report's sections. Each says in one line what is missing where the run has no data for it.
// Private to this layer.
#pragma once

#include <string>

#include "puzzle/report/chart.h"
#include "puzzle/report/page.h"
#include "puzzle/report/report_data.h"

namespace puzzle {

[[nodiscard]] PageSection result_section(const ReportData& data);
[[nodiscard]] PageSection architecture_section(const ReportData& data);
[[nodiscard]] PageSection score_section(const ReportData& data);
[[nodiscard]] PageSection search_section(const ReportData& data);
[[nodiscard]] PageSection speed_section(const ReportData& data);
[[nodiscard]] PageSection block_distillation_section(const ReportData& data);
[[nodiscard]] PageSection child_distillation_section(const ReportData& data);
[[nodiscard]] PageSection evaluation_section(const ReportData& data);
[[nodiscard]] PageSection comparison_section(const ReportData& data);
// One of data.comparisons.
[[nodiscard]] PageSection cells_section(const Comparison& comparison);
[[nodiscard]] PageSection time_section(const ReportData& data);
[[nodiscard]] PageSection recipe_section(const ReportData& data);

// An evaluation's value: percent for fractions, the error beside it.
[[nodiscard]] Cell evaluation_cell(const EvaluationRow* row);
// A cost in its unit, by its name's ending: seconds, bytes, MiB, a rate, else a count.
[[nodiscard]] std::string cost_text(const std::string& name, double value);

// At most `limit` points: means of neighbours.
[[nodiscard]] std::vector<ChartPoint> thin_out(const std::vector<ChartPoint>& points,
                                               std::size_t limit);

}  // namespace puzzle
