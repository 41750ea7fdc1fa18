// The box at the top: faster by, quality kept, smaller by, each with its error.
#include <algorithm>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

struct Tile {
  std::string name;
  std::string number;  // "1.42"
  std::string rest;    // "± 0.03 ×", smaller
  std::string what;
};

void add_tile(Markup& out, const Tile& tile) {
  out.open("div", {{"class", "tile"}});
  out.element("div", {{"class", "name"}}, tile.name);
  out.open("div", {{"class", "number"}}).text(tile.number);
  if (!tile.rest.empty()) {
    out.element("small", " " + tile.rest);
  }
  out.close();
  out.element("div", {{"class", "what"}}, tile.what);
  out.close();
}

// "1.42 ± 0.03×" as a large "1.42×" and a small "± 0.03".
Tile make_tile(const std::string& name, const std::string& formatted, const std::string& unit,
               const std::string& what) {
  const std::string separator = " ± ";
  const std::size_t at = formatted.find(separator);
  if (at == std::string::npos) {
    return {name, formatted, "", what};
  }
  std::string error = formatted.substr(at + separator.size());
  if (error.ends_with(unit)) {
    error.resize(error.size() - unit.size());
  }
  return {name, formatted.substr(0, at) + unit, "± " + error, what};
}

std::optional<Tile> speed_tile(const ReportData& data) {
  const std::vector<TimedPair> pairs = speed_pairs(data, child_name(data));
  if (pairs.empty()) {
    return std::nullopt;
  }
  const TimedPair& pair = pairs.front();
  const Estimate ratio = generation_speed_up(pair);
  const std::string samples =
      ratio.error > 0.0 ? fmt::format("; ± is the spread of {} runs each", pair.model->samples)
                        : "";
  return make_tile("Generation speed", format_ratio(ratio.value, ratio.error), "×",
                   fmt::format("{} against {} tokens/s in {}{}",
                               format_significant(*pair.model->measured_generation_per_s),
                               format_significant(*pair.parent->measured_generation_per_s),
                               workload_text(*pair.model), samples));
}

std::optional<Tile> quality_tile(const ReportData& data) {
  const std::string child = child_name(data);
  if (const auto retention = mean_retention(data, child); retention.has_value()) {
    return make_tile("Quality kept", format_percent(retention->mean.value, retention->mean.error),
                     " %",
                     fmt::format("mean of child ÷ parent over {} task{}", retention->num_tasks,
                                 retention->num_tasks == 1 ? "" : "s"));
  }
  if (const EvaluationRow* row = find_metric(data, child, "top1"); row != nullptr) {
    return make_tile("Quality kept", format_percent(row->value, row->standard_error), " %",
                     fmt::format("next tokens on which child and parent agree, {}", row->task));
  }
  return std::nullopt;
}

std::optional<Tile> damage_tile(const ReportData& data) {
  const EvaluationRow* row = find_metric(data, child_name(data), "kl");
  if (row == nullptr) {
    return std::nullopt;
  }
  return make_tile("KL to the parent", format_with_error(row->value, row->standard_error), "",
                   fmt::format("nats per token, {}, {} tokens", row->task, row->count));
}

std::optional<Tile> size_tile(const ReportData& data) {
  const ModelRow* parent = find_role(data, "parent");
  const ModelRow* child = find_role(data, "child");
  if (parent == nullptr || child == nullptr) {
    return std::nullopt;
  }
  const bool files = parent->file_bytes.has_value() && child->file_bytes.has_value();
  const double before = static_cast<double>(files ? *parent->file_bytes : parent->weight_bytes);
  const double after = static_cast<double>(files ? *child->file_bytes : child->weight_bytes);
  if (before <= 0.0) {
    return std::nullopt;
  }
  return Tile{files ? "File size" : "Weights in memory", format_ratio(after / before), "",
              fmt::format("{} against {} (exact)", human_bytes(after), human_bytes(before))};
}

// "parameters 0.64×, KV cache per token 0.61×"
std::string size_sentence(const ReportData& data) {
  const ModelRow* parent = find_role(data, "parent");
  const ModelRow* child = find_role(data, "child");
  if (parent == nullptr || child == nullptr || parent->parameters <= 0) {
    return {};
  }
  std::string text =
      fmt::format("Parameters: {} of {} ({}).", human_count(static_cast<double>(child->parameters)),
                  human_count(static_cast<double>(parent->parameters)),
                  format_percent(static_cast<double>(child->parameters) /
                                 static_cast<double>(parent->parameters)));
  const std::int64_t parent_kv = parent->kv_bytes_per_token.value_or(0);
  if (parent_kv > 0 && child->kv_bytes_per_token.has_value()) {
    const auto kv = static_cast<double>(*child->kv_bytes_per_token);
    text += fmt::format(" KV cache: {} of {} per token ({}).", human_bytes(kv),
                        human_bytes(static_cast<double>(parent_kv)),
                        format_percent(kv / static_cast<double>(parent_kv)));
  }
  return text;
}

}  // namespace

PageSection result_section(const ReportData& data) {
  PageSection section{"result", "Result", "", ""};
  Markup out;
  std::vector<Tile> tiles;
  for (const auto& tile :
       {speed_tile(data), quality_tile(data), damage_tile(data), size_tile(data)}) {
    if (tile.has_value()) {
      tiles.push_back(*tile);
    }
  }
  if (tiles.empty()) {
    add_nothing(out, "No child has been measured or evaluated yet.");
  } else {
    out.open("div", {{"class", "tiles"}});
    for (const Tile& tile : tiles) {
      add_tile(out, tile);
    }
    out.close();
  }
  const ArchitectureRow* architecture = child_architecture(data);
  if (architecture != nullptr && !architecture->budget.empty()) {
    out.element("p", "Budget of the search: " + architecture->budget + ".");
  }
  if (const std::string sizes = size_sentence(data); !sizes.empty()) {
    out.element("p", sizes);
  }
  section.body = out.str();
  return section;
}

}  // namespace puzzle
