#include "puzzle/results/comparison.h"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/results/rows.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

constexpr std::string_view kComparisonMeta = "comparison/";  // and the grid's name

std::map<std::string, double> parse_metrics(const Json& value, const char* key,
                                            const std::string& place) {
  std::map<std::string, double> metrics;
  if (const Json* held = find_json_member(value, key)) {
    for (const auto& [name, metric] : held->items()) {
      metrics[name] = json_double(*held, name.c_str(), place);
    }
  }
  return metrics;
}

Comparison parse_comparison(const std::string& text, const std::string& place) {
  const Json value = parse_json(text, place);
  Comparison comparison;
  comparison.title = json_string(value, "title", place);
  comparison.about = json_string(value, "about", place);
  comparison.settings = json_string(value, "settings", place);
  comparison.reference = json_string(value, "reference", place);
  if (!value.contains("cells") || !value["cells"].is_array()) {
    fail(ErrorKind::kFormat, "{}: expected cells", place);
  }
  for (const Json& cell : value["cells"]) {
    comparison.cells.push_back(parse_compared_cell(cell, place));
  }
  return comparison;
}

}  // namespace

SumRatio ComparedCell::kl() const { return ratio_of_sums(kl_sums, unit_tokens); }

std::optional<SumRatio> ComparedCell::kl_ratio_to(const ComparedCell& other) const {
  if (kl_sums.empty() || other.kl_sums.empty() || text != other.text ||
      unit_tokens != other.unit_tokens) {
    return std::nullopt;
  }
  return ratio_of_sums(kl_sums, other.kl_sums);
}

const ComparedCell* Comparison::find(const std::string& cell_name) const {
  const auto found = std::ranges::find(cells, cell_name, &ComparedCell::name);
  return found == cells.end() ? nullptr : &*found;
}

const ComparedCell* Comparison::reference_of(const ComparedCell& cell) const {
  return find(cell.reference.empty() ? reference : cell.reference);
}

Json to_json(const ComparedCell& cell) {
  return {{"name", cell.name},
          {"reference", cell.reference},
          {"settings", cell.settings},
          {"key", cell.key},
          {"budget", cell.budget},
          {"folder", cell.folder},
          {"text", cell.text},
          {"kl_sums", cell.kl_sums},
          {"unit_tokens", cell.unit_tokens},
          {"parameters", cell.parameters},
          {"used", cell.used},
          {"metrics", cell.metrics},
          {"parent_metrics", cell.parent_metrics},
          {"predicted", optional_json(cell.predicted)},
          {"seconds", cell.seconds},
          {"made_by", cell.made_by}};
}

ComparedCell parse_compared_cell(const Json& value, const std::string& place) {
  ComparedCell cell;
  cell.name = json_string(value, "name", place);
  cell.reference = json_string(value, "reference", place);
  cell.settings = json_string(value, "settings", place);
  cell.key = json_string(value, "key", place);
  cell.budget = json_string(value, "budget", place);
  cell.folder = json_string(value, "folder", place);
  // Folders of earlier versions lack these.
  cell.text = json_string(value, "text", place, "");
  cell.made_by = json_string(value, "made_by", place, "");
  cell.kl_sums = json_doubles(value, "kl_sums", place);
  cell.unit_tokens = json_doubles(value, "unit_tokens", place);
  cell.parameters = json_double(value, "parameters", place);
  cell.used = parse_metrics(value, "used", place);
  cell.metrics = parse_metrics(value, "metrics", place);
  cell.parent_metrics = parse_metrics(value, "parent_metrics", place);
  if (!value.contains("predicted") || !value["predicted"].is_null()) {
    cell.predicted = json_double(value, "predicted", place);
  }
  cell.seconds = json_double(value, "seconds", place);
  return cell;
}

void put_comparison(RunDb& db, const Comparison& comparison) {
  Json cells = Json::array();
  for (const ComparedCell& cell : comparison.cells) {
    cells.push_back(to_json(cell));
  }
  db.put_meta(std::string(kComparisonMeta) + comparison.name,
              Json{{"title", comparison.title},
                   {"about", comparison.about},
                   {"settings", comparison.settings},
                   {"reference", comparison.reference},
                   {"cells", cells}}
                  .dump());
}

std::vector<Comparison> load_comparisons(const RunDb& db) {
  std::vector<Comparison> comparisons;
  for (const MetaRow& row : db.metas()) {
    if (row.name.starts_with(kComparisonMeta)) {
      comparisons.push_back(parse_comparison(row.value, db.path().string() + ": meta " + row.name));
      comparisons.back().name = row.name.substr(kComparisonMeta.size());
    }
  }
  return comparisons;
}

std::string ratio_text(const Comparison& comparison, const ComparedCell& cell) {
  const ComparedCell* other = comparison.reference_of(cell);
  const std::optional<SumRatio> ratio = other == nullptr ? std::nullopt : cell.kl_ratio_to(*other);
  if (!ratio) {
    return "–";
  }
  if (other == &cell) {
    return "1";
  }
  const auto interval = ratio->interval_95();
  return interval
             ? fmt::format("{:.3f} [{:.3f}, {:.3f}]", ratio->value, (*interval)[0], (*interval)[1])
             : fmt::format("{:.3f}", ratio->value);
}

std::string used_text(const ComparedCell& cell) {
  std::vector<std::string> parts;
  for (const auto& [cost, fraction] : cell.used) {
    parts.push_back(fmt::format("{} {:.3f}", cost, fraction));
  }
  return parts.empty() ? "–" : join(parts, ", ");
}

}  // namespace puzzle
