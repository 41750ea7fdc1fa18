#include "puzzle/results/throughput_rows.h"

#include <set>
#include <string>

namespace puzzle {
namespace {

std::vector<ThroughputRow> rows_where(const RunDb& db, bool in_table) {
  const std::set<std::string> keys = db.current_keys(RunTable::kThroughput, kScenarioScope);
  std::vector<ThroughputRow> rows = db.throughput();
  std::erase_if(rows, [&](const ThroughputRow& row) { return keys.contains(row.key) != in_table; });
  return rows;
}

bool same_workload(const ThroughputRow& a, const ThroughputRow& b) {
  return a.engine == b.engine && a.batch == b.batch && a.prompt_tokens == b.prompt_tokens &&
         a.generated_tokens == b.generated_tokens;
}

}  // namespace

std::vector<ThroughputRow> run_throughput(const RunDb& db) { return rows_where(db, false); }

std::vector<ThroughputRow> scenario_throughput(const RunDb& db) { return rows_where(db, true); }

std::vector<TimedPair> timed_pairs(const std::vector<ThroughputRow>& rows,
                                   const std::string& parent, const std::string& model) {
  const auto is_timed = [](const ThroughputRow& row, const std::string& name) {
    return row.model == name && row.measured_generation_per_s.value_or(0.0) > 0.0;
  };
  std::vector<TimedPair> pairs;
  for (const ThroughputRow& row : rows) {
    for (const ThroughputRow& other : rows) {
      if (is_timed(row, model) && is_timed(other, parent) && same_workload(row, other)) {
        pairs.push_back({&other, &row});
      }
    }
  }
  return pairs;
}

double measured_generation_s(const ThroughputRow& row) {
  const double per_s = row.measured_generation_per_s.value_or(0.0);
  return per_s > 0.0 ? static_cast<double>(row.batch * (row.generated_tokens - 1)) / per_s : 0.0;
}

double measured_total_s(const ThroughputRow& row) {
  return row.measured_prefill_s.value_or(0.0) + measured_generation_s(row);
}

}  // namespace puzzle
