#include "puzzle/stages/search_rows.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"

namespace puzzle {
namespace {

Json measured_json(const FoundMeasurement& measured) {
  return {{"measured_kl", measured.kl.value},
          {"measured_kl_se", measured.kl.standard_error},
          {"measured_minus_child", measured.minus_child.value},
          {"measured_minus_child_se", measured.minus_child.standard_error},
          {"measured_tokens", measured.tokens}};
}

std::optional<FoundMeasurement> measured_of(const Json& detail) {
  if (!detail.contains("measured_kl")) {
    return std::nullopt;
  }
  const auto value = [&](const std::string& name) {
    return ScoreValue{detail.at(name).get<double>(), detail.at(name + "_se").get<double>()};
  };
  return FoundMeasurement{.kl = value("measured_kl"),
                          .minus_child = value("measured_minus_child"),
                          .tokens = detail.at("measured_tokens").get<std::int64_t>()};
}

// `index` keeps the order in which answers were found.
ArchitectureRow as_row(const FoundArchitecture& found, const std::string& key, std::int64_t index) {
  ArchitectureRow row;
  row.key = key;
  row.name = found.name;
  row.method = found.method;
  row.solution = index;
  row.blocks = block_names(found.layers);
  row.objective = found.objective;
  row.costs_json = Json(found.costs).dump();
  row.budget = found.budget;
  row.gap = found.gap;
  Json detail = {{"batch", found.batch}};
  if (!found.swept_cost.empty()) {
    detail["swept_cost"] = found.swept_cost;
    detail["curve"] = found.curve;
  }
  if (found.measured) {
    detail.update(measured_json(*found.measured));
  }
  row.detail_json = detail.dump();
  return row;
}

FoundArchitecture from_row(const ArchitectureRow& row, const std::string& place) {
  const Json detail = parse_json(row.detail_json, place);
  FoundArchitecture found;
  found.name = row.name;
  found.method = row.method;
  found.layers = parse_blocks(row.blocks);
  found.batch = json_int(detail, "batch", place);
  found.objective = row.objective;
  found.gap = row.gap;
  found.costs = parse_json(row.costs_json, place).get<std::map<std::string, double>>();
  found.budget = row.budget;
  if (detail.contains("swept_cost")) {
    found.swept_cost = json_string(detail, "swept_cost", place);
    found.curve = json_string(detail, "curve", place);
  }
  found.measured = measured_of(detail);
  return found;
}

}  // namespace

void record_search(RunDb& db, const SearchResult& result, const std::string& method,
                   double seconds) {
  std::vector<ArchitectureRow> rows;
  for (const FoundArchitecture& found : result.found) {
    rows.push_back(as_row(found, result.key, std::ssize(rows)));
  }
  RunTransaction transaction(db);
  db.put(rows);
  db.put({.key = result.key,
          .stage = "search",
          .what = method,
          .seconds = seconds,
          .detail_json = "{}"});
  transaction.commit();
  db.set_current(RunTable::kArchitectures, "search", {result.key});
}

std::optional<SearchResult> find_search(RunDb& db, const std::string& key) {
  if (!db.has_stage(key)) {
    return std::nullopt;
  }
  std::vector<ArchitectureRow> rows = db.architectures_of(key);
  std::sort(rows.begin(), rows.end(), [](const ArchitectureRow& a, const ArchitectureRow& b) {
    return a.solution < b.solution;
  });
  SearchResult result{.key = key, .found = {}};
  for (const ArchitectureRow& row : rows) {
    result.found.push_back(from_row(row, db.path().string()));
  }
  db.set_current(RunTable::kArchitectures, "search", {key});
  return result;
}

Json search_json(const SearchResult& result) {
  Json list = Json::array();
  for (const FoundArchitecture& found : result.found) {
    list.push_back({{"name", found.name},
                    {"method", found.method},
                    {"blocks", block_names(found.layers)},
                    {"batch", found.batch},
                    {"objective", found.objective},
                    {"gap", found.gap},
                    {"costs", found.costs},
                    {"budget", found.budget},
                    {"swept_cost", found.swept_cost},
                    {"curve", found.curve}});
    if (found.measured) {
      list.back().update(measured_json(*found.measured));
    }
  }
  return {{"key", result.key}, {"found", list}};
}

SearchResult parse_search(const Json& json) {
  SearchResult result{.key = json.at("key").get<std::string>(), .found = {}};
  for (const Json& entry : json.at("found")) {
    FoundArchitecture found;
    found.name = entry.at("name").get<std::string>();
    found.method = entry.at("method").get<std::string>();
    found.layers = parse_blocks(entry.at("blocks").get<std::vector<std::string>>());
    found.batch = entry.at("batch").get<std::int64_t>();
    found.objective = entry.at("objective").get<double>();
    found.gap = entry.at("gap").get<double>();
    found.costs = entry.at("costs").get<std::map<std::string, double>>();
    found.budget = entry.at("budget").get<std::string>();
    found.swept_cost = entry.at("swept_cost").get<std::string>();
    found.curve = entry.at("curve").get<std::string>();
    found.measured = measured_of(entry);
    result.found.push_back(std::move(found));
  }
  return result;
}

}  // namespace puzzle
