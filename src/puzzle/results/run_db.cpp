#include "puzzle/results/run_db.h"

#include <array>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/results/machine.h"
#include "puzzle/results/row_io.h"
#include "puzzle/results/run_connection.h"

namespace puzzle {
namespace {

constexpr std::int64_t kApplicationId = 0x505a4c31;  // "PZL1": tells our files from other SQLite

std::string_view table_name(RunTable table) {
  static constexpr std::array<std::string_view, 9> kNames = {
      "stages",   "scores", "costs",       "curves",    "architectures",
      "variants", "models", "evaluations", "throughput"};
  return kNames.at(static_cast<std::size_t>(table));
}

SqliteFile open_file(const std::filesystem::path& path, RunDbMode mode) {
  if (mode == RunDbMode::kRead && !std::filesystem::exists(path)) {
    fail(ErrorKind::kIo, "{}: not found, expected the database of a run", path.string());
  }
  // Read-write also for readers: what a killed writer left behind has to be rolled back first.
  const int create = mode == RunDbMode::kWrite ? SQLITE_OPEN_CREATE : 0;
  return {path.string(), SQLITE_OPEN_READWRITE | create};
}

// A write-ahead log while the file is open for writing: one fsync a write instead of three, and
// readers do not wait. A rollback journal when it is closed: then the run is one plain file,
// readable from a read-only folder too. Refused where another process has the file open, which is
// as well: either mode is safe.
void try_journal_mode(const SqliteFile& file, const char* mode) {
  const std::string sql = fmt::format("PRAGMA journal_mode = {}", mode);
  sqlite3_exec(file.handle(), sql.c_str(), nullptr, nullptr, nullptr);
}

bool is_empty(const SqliteFile& file) {
  return file.query_int("PRAGMA application_id") == 0 &&
         file.query_int("PRAGMA user_version") == 0 &&
         file.query_int("SELECT COUNT(*) FROM sqlite_schema") == 0;
}

void create_schema(const SqliteFile& file) {
  SqliteScope scope(file);
  if (!is_empty(file)) {
    return;  // another process was faster
  }
  visit_tables([&file](const auto* row) {
    file.execute(schema_sql<std::remove_cvref_t<decltype(*row)>>());
  });
  file.execute("CREATE TABLE metas (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT");
  file.execute(
      "CREATE TABLE current_scopes (tab TEXT, scope TEXT, PRIMARY KEY(tab, scope)) STRICT");
  file.execute(
      "CREATE TABLE current_keys (tab TEXT, scope TEXT, key TEXT, PRIMARY KEY(tab, key, scope)) "
      "STRICT");
  file.execute(fmt::format("PRAGMA application_id = {}", kApplicationId));
  file.execute(fmt::format("PRAGMA user_version = {}", RunDb::kSchemaVersion));
  scope.commit();
}

void check_schema(const SqliteFile& file) {
  if (file.query_int("PRAGMA application_id") != kApplicationId) {
    fail(ErrorKind::kFormat, "{}: an SQLite file of another program, expected a run database",
         file.place());
  }
  const std::int64_t version = file.query_int("PRAGMA user_version");
  if (version != RunDb::kSchemaVersion) {
    fail(
        ErrorKind::kFormat,
        "{}: schema version {}, expected {}; the run folder is from another version of puzzle: use "
        "that one, or start a new run folder",
        file.place(), version, RunDb::kSchemaVersion);
  }
}

template <class Row>
void put_rows(const SqliteFile& file, std::span<const Row> rows) {
  if (rows.empty()) {
    return;
  }
  SqliteScope scope(file);
  SqliteStatement statement(file, insert_sql<Row>());
  for (const Row& row : rows) {
    insert_row(statement, row, file.place());
  }
  scope.commit();
}

template <class Row>
std::vector<Row> list_rows(const SqliteFile& file, RowSet rows) {
  return select_rows<Row>(
      file, fmt::format("{} ORDER BY {}", row_set_clause<Row>(rows), Table<Row>::kOrder));
}

template <class Row>
std::vector<Row> rows_of_key(const SqliteFile& file, const std::string& key) {
  return select_rows<Row>(file, fmt::format("WHERE key = ? ORDER BY {}", Table<Row>::kOrder),
                          {key});
}

}  // namespace

RunDb::RunDb(const std::filesystem::path& path, RunDbMode mode)
    : path_(path), connection_(new Connection{open_file(path, mode), mode == RunDbMode::kRead}) {
  const SqliteFile& file = connection_->file;
  if (mode == RunDbMode::kRead) {
    check_schema(file);
    file.execute("PRAGMA query_only = ON");
    return;
  }
  file.execute("PRAGMA synchronous = FULL");
  if (is_empty(file)) {
    create_schema(file);
  }
  check_schema(file);
  try_journal_mode(file, "WAL");
}

RunDb::~RunDb() {
  if (!connection_->is_reader) {
    sqlite3_busy_timeout(connection_->file.handle(), 0);
    try_journal_mode(connection_->file, "DELETE");
  }
}

bool RunDb::has_stage(const std::string& key) const { return has(RunTable::kStages, key); }

std::optional<StageRecord> RunDb::find_stage(const std::string& key) const {
  std::vector<StageRecord> rows = rows_of_key<StageRecord>(connection_->file, key);
  return rows.empty() ? std::nullopt : std::optional(std::move(rows.front()));
}

bool RunDb::has(RunTable table, const std::string& key) const {
  SqliteStatement statement(
      connection_->file, fmt::format("SELECT 1 FROM {} WHERE key = ? LIMIT 1", table_name(table)));
  statement.bind(0, std::string_view(key));
  return statement.step();
}

std::set<std::string> RunDb::keys(RunTable table) const {
  SqliteStatement statement(connection_->file,
                            fmt::format("SELECT DISTINCT key FROM {}", table_name(table)));
  std::set<std::string> keys;
  while (statement.step()) {
    keys.insert(statement.text(0));
  }
  return keys;
}

void RunDb::put(const StageRecord& row) {
  StageRecord dated = row;
  if (dated.finished_at.empty()) {
    dated.finished_at = utc_now();
  }
  put_rows(connection_->file, std::span<const StageRecord>(&dated, 1));
}

void RunDb::put(std::span<const ScoreRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const CostRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const CurveRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const ArchitectureRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const VariantRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const ModelRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const EvaluationRow> rows) { put_rows(connection_->file, rows); }
void RunDb::put(std::span<const ThroughputRow> rows) { put_rows(connection_->file, rows); }

void RunDb::put_meta(const std::string& name, const std::string& value) {
  SqliteScope scope(connection_->file);
  SqliteStatement statement(connection_->file,
                            "INSERT OR REPLACE INTO metas (name, value) VALUES (?, ?)");
  statement.bind(0, std::string_view(name));
  statement.bind(1, std::string_view(value));
  statement.step();
  scope.commit();
}

std::vector<StageRecord> RunDb::stages(RowSet rows) const {
  return list_rows<StageRecord>(connection_->file, rows);
}

std::vector<StageRecord> RunDb::stages_of(const std::string& stage, RowSet rows) const {
  std::vector<StageRecord> records = stages(rows);
  std::erase_if(records, [&stage](const StageRecord& record) { return record.stage != stage; });
  return records;
}

std::vector<ScoreRow> RunDb::scores(RowSet rows) const {
  return list_rows<ScoreRow>(connection_->file, rows);
}
std::vector<CostRow> RunDb::costs(RowSet rows) const {
  return list_rows<CostRow>(connection_->file, rows);
}
std::vector<CurveRow> RunDb::curves(RowSet rows) const {
  return list_rows<CurveRow>(connection_->file, rows);
}
std::vector<ArchitectureRow> RunDb::architectures(RowSet rows) const {
  return list_rows<ArchitectureRow>(connection_->file, rows);
}
std::vector<VariantRow> RunDb::variants(RowSet rows) const {
  return list_rows<VariantRow>(connection_->file, rows);
}
std::vector<ModelRow> RunDb::models(RowSet rows) const {
  return list_rows<ModelRow>(connection_->file, rows);
}
std::vector<EvaluationRow> RunDb::evaluations(RowSet rows) const {
  return list_rows<EvaluationRow>(connection_->file, rows);
}
std::vector<ThroughputRow> RunDb::throughput(RowSet rows) const {
  return list_rows<ThroughputRow>(connection_->file, rows);
}

std::vector<MetaRow> RunDb::metas() const {
  SqliteStatement statement(connection_->file, "SELECT name, value FROM metas ORDER BY name");
  std::vector<MetaRow> rows;
  while (statement.step()) {
    rows.push_back({statement.text(0), statement.text(1)});
  }
  return rows;
}

std::optional<std::string> RunDb::meta(const std::string& name) const {
  SqliteStatement statement(connection_->file, "SELECT value FROM metas WHERE name = ?");
  statement.bind(0, std::string_view(name));
  return statement.step() ? std::optional(statement.text(0)) : std::nullopt;
}

std::vector<ScoreRow> RunDb::scores_of(const std::string& key) const {
  return rows_of_key<ScoreRow>(connection_->file, key);
}
std::vector<CostRow> RunDb::costs_of(const std::string& key) const {
  return rows_of_key<CostRow>(connection_->file, key);
}
std::vector<ArchitectureRow> RunDb::architectures_of(const std::string& key) const {
  return rows_of_key<ArchitectureRow>(connection_->file, key);
}
std::vector<EvaluationRow> RunDb::evaluations_of(const std::string& key) const {
  return rows_of_key<EvaluationRow>(connection_->file, key);
}

std::set<std::string> RunDb::current_keys(RunTable table, const std::string& scope) const {
  SqliteStatement statement(connection_->file,
                            "SELECT key FROM current_keys WHERE tab = ? AND scope = ?");
  statement.bind(0, table_name(table));
  statement.bind(1, std::string_view(scope));
  std::set<std::string> keys;
  while (statement.step()) {
    keys.insert(statement.text(0));
  }
  return keys;
}

void RunDb::set_current(RunTable table, const std::string& scope,
                        const std::vector<std::string>& keys) {
  const SqliteFile& file = connection_->file;
  const std::string_view tab = table_name(table);
  SqliteScope transaction(file);
  for (const char* sql : {"DELETE FROM current_keys WHERE tab = ? AND scope = ?",
                          "INSERT OR REPLACE INTO current_scopes (tab, scope) VALUES (?, ?)"}) {
    SqliteStatement statement(file, sql);
    statement.bind(0, tab);
    statement.bind(1, std::string_view(scope));
    statement.step();
  }
  SqliteStatement insert(file,
                         "INSERT OR IGNORE INTO current_keys (tab, scope, key) VALUES (?, ?, ?)");
  for (const std::string& key : keys) {
    insert.bind(0, tab);
    insert.bind(1, std::string_view(scope));
    insert.bind(2, std::string_view(key));
    insert.step();
    insert.reset();
  }
  transaction.commit();
}

RunTransaction::RunTransaction(RunDb& db) : db_(db) {
  PUZZLE_CHECK(!db.connection_->file.in_transaction(), "transactions do not nest");
  db.connection_->file.execute("BEGIN IMMEDIATE");
}

RunTransaction::~RunTransaction() {
  const SqliteFile& file = db_.connection_->file;
  if (open_ && file.in_transaction()) {
    sqlite3_exec(file.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

void RunTransaction::commit() {
  db_.connection_->file.execute("COMMIT");
  open_ = false;
}

Json record_detail(const RunDb& db, const StageRecord& record) {
  return parse_json(record.detail_json, db.path().string() + ": " + record.stage);
}

}  // namespace puzzle
