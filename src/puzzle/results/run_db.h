// run.db: everything a run has found out, in one SQLite file.
//
// Every write is one transaction with a write-ahead log and fsync, so the process can be killed at
// any moment and the file stays whole: on next open a transaction is there completely or not at
// all. (Its log run.db-wal belongs to it until then; a run that ends leaves run.db alone.) Several
// processes of one host may use the file, e.g. a report during a run; a writer waits up to 30 s for
// another. One RunDb belongs to one thread at a time, and not to a forked child. A commit costs
// some ms: put rows in batches.
//
// Kept and current: a changed option gives new content keys, and old rows stay, so that changing it
// back costs nothing. To keep readers from mixing them, a stage names its keys first
// (`set_current`); list methods leave out rows of other keys.
//
// Errors: kIo (disk, lock), kFormat (not a run.db, other schema version, damaged), kNumeric (NaN).
// Messages open with the file's path, as given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/results/rows.h"

namespace puzzle {

enum class RunTable {
  kStages,
  kScores,
  kCosts,
  kCurves,
  kArchitectures,
  kVariants,
  kModels,
  kEvaluations,
  kThroughput,
};

enum class RunDbMode {
  kWrite,  // created if absent
  kRead,   // kIo if absent; writes are refused
};

// kCurrent: rows that set_current names; all rows of a table for which it never was called.
enum class RowSet { kCurrent, kAll };

struct DumpOptions {
  // Leaves out what differs between two equal runs: wall times, dates and measured throughput (cost
  // rows stay: they are the search's input).
  bool times = true;
  RowSet rows = RowSet::kAll;
};

class RunDb {
 public:
  static constexpr int kSchemaVersion = 1;

  explicit RunDb(const std::filesystem::path& path, RunDbMode mode = RunDbMode::kWrite);
  ~RunDb();
  RunDb(const RunDb&) = delete;
  RunDb& operator=(const RunDb&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  // Whether work with this content key is recorded as done.
  [[nodiscard]] bool has_stage(const std::string& key) const;
  [[nodiscard]] std::optional<StageRecord> find_stage(const std::string& key) const;

  // Whether a table holds a row of this key, and all keys it holds.
  [[nodiscard]] bool has(RunTable table, const std::string& key) const;
  [[nodiscard]] std::set<std::string> keys(RunTable table) const;

  // Insert or replace; all rows of one call in one transaction.
  void put(const StageRecord& row);
  void put(std::span<const ScoreRow> rows);
  void put(std::span<const CostRow> rows);
  void put(std::span<const CurveRow> rows);
  void put(std::span<const ArchitectureRow> rows);
  void put(std::span<const VariantRow> rows);
  void put(std::span<const ModelRow> rows);
  void put(std::span<const EvaluationRow> rows);
  void put(std::span<const ThroughputRow> rows);
  void put_meta(const std::string& name, const std::string& value);
  template <class Row>
  void put(const std::vector<Row>& rows) {
    put(std::span<const Row>(rows));
  }
  template <class Row>
  void put_one(const Row& row) {
    put(std::span<const Row>(&row, 1));
  }

  // Ordered by what the row is about (layer, block, …: the order of the fields marked PK with the
  // key last), whatever the order of insertion. `stages` come in the order in which they were put.
  [[nodiscard]] std::vector<StageRecord> stages(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<StageRecord> stages_of(const std::string& stage,
                                                   RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<ScoreRow> scores(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<CostRow> costs(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<CurveRow> curves(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<ArchitectureRow> architectures(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<VariantRow> variants(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<ModelRow> models(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<EvaluationRow> evaluations(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<ThroughputRow> throughput(RowSet rows = RowSet::kCurrent) const;
  [[nodiscard]] std::vector<MetaRow> metas() const;
  [[nodiscard]] std::optional<std::string> meta(const std::string& name) const;

  // Rows of one key (of the work), whether current or not.
  [[nodiscard]] std::vector<ScoreRow> scores_of(const std::string& key) const;
  [[nodiscard]] std::vector<CostRow> costs_of(const std::string& key) const;
  [[nodiscard]] std::vector<ArchitectureRow> architectures_of(const std::string& key) const;
  [[nodiscard]] std::vector<EvaluationRow> evaluations_of(const std::string& key) const;

  // The keys that one user of a table works with from now on, replacing what that user named
  // before; call it when a stage starts. `scope` tells users of one table apart, e.g. the child
  // evaluated.
  void set_current(RunTable table, const std::string& scope, const std::vector<std::string>& keys);
  // What that user named last; empty if it never did.
  [[nodiscard]] std::set<std::string> current_keys(RunTable table, const std::string& scope) const;

  // Every row of every table: {"schema": 1, "scores": [{"layer": 0, …}, …], …}. Infinities are the
  // strings "inf" and "-inf". Same contents, same bytes when dumped.
  [[nodiscard]] nlohmann::json dump_json(const DumpOptions& options = {}) const;

 private:
  friend class RunTransaction;
  struct Connection;

  std::filesystem::path path_;
  std::unique_ptr<Connection> connection_;
};

// What the work recorded besides its seconds. Throws Error(kFormat) naming file and stage.
[[nodiscard]] nlohmann::json record_detail(const RunDb& db, const StageRecord& record);

// Several puts that appear together or not at all, e.g. scores and the stage record that says they
// are done. Without commit() everything is undone. They do not nest.
class RunTransaction {
 public:
  explicit RunTransaction(RunDb& db);
  ~RunTransaction();
  RunTransaction(const RunTransaction&) = delete;
  RunTransaction& operator=(const RunTransaction&) = delete;

  void commit();

 private:
  RunDb& db_;
  bool open_ = true;
};

}  // namespace puzzle
