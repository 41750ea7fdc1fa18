#include "puzzle/app/stage_times.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

constexpr const char* kPeakMember = "peak_memory_bytes";

std::string whole_stage_key(const std::string& stage) {
  return KeyBuilder().add("whole stage", stage).key();
}

bool is_part(const StageRecord& row) { return row.key != whole_stage_key(row.stage); }

std::int64_t peak_of(const RunDb& db, const StageRecord& whole) {
  return json_int(record_detail(db, whole), kPeakMember, db.path().string(), 0);
}

}  // namespace

StageSitting::StageSitting(const RunDb& db, std::string stage)
    : stage_(std::move(stage)), num_evaluations_(db.keys(RunTable::kEvaluations).size()) {
  for (const StageRecord& row : db.stages(RowSet::kAll)) {
    if (is_part(row)) {
      parts_.insert(row.key);
    }
  }
}

void StageSitting::record(RunDb& db, double seconds, std::int64_t peak_memory_bytes) const {
  double in_parts_s = 0.0;
  bool did_something = db.keys(RunTable::kEvaluations).size() != num_evaluations_;
  for (const StageRecord& row : db.stages(RowSet::kAll)) {
    if (is_part(row) && !parts_.contains(row.key)) {
      in_parts_s += row.seconds;
      did_something = true;
    }
  }
  const std::string key = whole_stage_key(stage_);
  const std::optional<StageRecord> earlier = db.find_stage(key);
  if (earlier && !did_something) {
    return;
  }
  const double earlier_s = earlier ? earlier->seconds : 0.0;
  const std::int64_t earlier_peak = earlier ? peak_of(db, *earlier) : 0;
  db.put({.key = key,
          .stage = stage_,
          .what = "everything else",
          .seconds = earlier_s + std::max(0.0, seconds - in_parts_s),
          .detail_json = Json{{kPeakMember, std::max(earlier_peak, peak_memory_bytes)}}.dump()});
}

std::vector<StageTotal> stage_totals(const RunDb& db, const std::vector<std::string>& stages) {
  std::map<std::string, StageTotal> by_stage;
  for (const StageRecord& row : db.stages(RowSet::kAll)) {
    StageTotal& total = by_stage[row.stage];
    total.stage = row.stage;
    total.seconds += row.seconds;
    if (!is_part(row)) {
      total.peak_memory_bytes = peak_of(db, row);
    }
  }
  std::vector<StageTotal> totals;
  for (const std::string& stage : stages) {
    if (const auto found = by_stage.find(stage); found != by_stage.end()) {
      totals.push_back(found->second);
    }
  }
  return totals;
}

}  // namespace puzzle
