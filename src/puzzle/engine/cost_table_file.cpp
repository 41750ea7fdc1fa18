#include "puzzle/engine/cost_table_file.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <tuple>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr const char* kCostFormat = "puzzle-costs";
constexpr std::int64_t kCostVersion = 1;
constexpr std::int64_t kMaxCostCount = std::int64_t{1} << 40;

double cost_seconds(const Json& row, const char* key, const std::string& place, double fallback) {
  const double value =
      std::isnan(fallback) ? json_double(row, key, place) : json_double(row, key, place, fallback);
  if (!std::isfinite(value) || value < 0.0) {
    fail(ErrorKind::kFormat, "{}: \"{}\" is {}, expected seconds", place, key, value);
  }
  return value;
}

std::int64_t cost_count(const Json& row, const char* key, const std::string& place,
                        std::int64_t low) {
  const std::int64_t value = json_int(row, key, place);
  if (value < low || value > kMaxCostCount) {
    fail(ErrorKind::kFormat, "{}: \"{}\" is {}, expected {} … 2^40", place, key, value, low);
  }
  return value;
}

MeasuredCost parse_cost_row(const Json& row, const std::string& place) {
  check_json_keys(row,
                  {"subblock", "phase", "batch", "context", "seconds", "p10_s", "p90_s", "samples"},
                  place);
  MeasuredCost cost;
  cost.subblock = json_string(row, "subblock", place);
  check_subblock_name(cost.subblock, place);
  cost.phase = parse_phase(json_string(row, "phase", place), place);
  cost.batch = cost_count(row, "batch", place, 1);
  cost.context = cost_count(row, "context", place, cost.phase == Phase::kPrefill ? 1 : 0);
  cost.seconds = cost_seconds(row, "seconds", place, std::nan(""));
  cost.p10_s = cost_seconds(row, "p10_s", place, cost.seconds);
  cost.p90_s = cost_seconds(row, "p90_s", place, cost.seconds);
  if (row.contains("samples")) {
    cost.samples = cost_count(row, "samples", place, 0);
  }
  if (cost.p10_s > cost.seconds || cost.p90_s < cost.seconds) {
    fail(ErrorKind::kFormat, "{}: p10_s {} and p90_s {} do not enclose seconds {}", place,
         cost.p10_s, cost.p90_s, cost.seconds);
  }
  return cost;
}

}  // namespace

CostTable parse_cost_table(std::string_view text, const std::string& place) {
  const Json root = parse_json(text, place);
  check_json_keys(root, {"format", "version", "engine", "hardware", "rows"}, place);
  if (json_string(root, "format", place) != kCostFormat ||
      json_int(root, "version", place) != kCostVersion) {
    fail(ErrorKind::kFormat, "{}: format {} version {}, expected {} version {}", place,
         json_string(root, "format", place), json_int(root, "version", place), kCostFormat,
         kCostVersion);
  }
  CostTable table;
  table.engine = json_string(root, "engine", place, "");
  table.hardware = json_string(root, "hardware", place, "");
  const auto rows = root.find("rows");
  if (rows == root.end() || !rows->is_array() || rows->empty()) {
    fail(ErrorKind::kFormat, "{}: \"rows\" must be a list of at least one row", place);
  }
  std::map<std::tuple<std::string, Phase, std::int64_t, std::int64_t>, std::size_t> seen;
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const std::string row_place = fmt::format("{}: row {}", place, i);
    MeasuredCost cost = parse_cost_row((*rows)[i], row_place);
    const auto [first, is_new] =
        seen.emplace(std::tuple(cost.subblock, cost.phase, cost.batch, cost.context), i);
    if (!is_new) {
      fail(ErrorKind::kFormat, "{}: {} {} of batch {} at context {} is already in row {}",
           row_place, cost.subblock, phase_name(cost.phase), cost.batch, cost.context,
           first->second);
    }
    table.rows.push_back(std::move(cost));
  }
  return table;
}

CostTable load_cost_table(const std::filesystem::path& path) {
  return parse_cost_table(read_text_file(path), path.string());
}

void save_cost_table(const std::filesystem::path& path, const CostTable& table) {
  Json root = {{"format", kCostFormat}, {"version", kCostVersion}, {"rows", Json::array()}};
  if (!table.engine.empty()) {
    root["engine"] = table.engine;
  }
  if (!table.hardware.empty()) {
    root["hardware"] = table.hardware;
  }
  for (const MeasuredCost& cost : table.rows) {
    root["rows"].push_back({{"subblock", cost.subblock},
                            {"phase", std::string(phase_name(cost.phase))},
                            {"batch", cost.batch},
                            {"context", cost.context},
                            {"seconds", cost.seconds},
                            {"p10_s", cost.p10_s},
                            {"p90_s", cost.p90_s},
                            {"samples", cost.samples}});
  }
  save_json(path, root);
}

}  // namespace puzzle
