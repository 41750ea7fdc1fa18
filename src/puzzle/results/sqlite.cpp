#include "puzzle/results/sqlite.h"

#include <utility>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

constexpr int kBusyTimeoutMs = 30'000;

}  // namespace

SqliteFile::SqliteFile(std::string path, int flags) : path_(std::move(path)) {
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path_.c_str(), &handle, flags, nullptr);
  handle_.reset(handle);  // to be closed even where opening failed
  if (code != SQLITE_OK) {
    const char* reason = handle == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle);
    fail(ErrorKind::kIo, "{}: cannot be opened: {}; does the folder exist, may it be written?",
         path_, reason);
  }
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
}

void SqliteFile::fail_sqlite(int code) const {
  const std::string reason = sqlite3_errmsg(handle());
  switch (code & 0xff) {
    case SQLITE_NOTADB:
      fail(ErrorKind::kFormat, "{}: not an SQLite file, expected a run database", path_);
    case SQLITE_CORRUPT:
      fail(ErrorKind::kFormat, "{}: damaged ({}); restore it or start another run folder", path_,
           reason);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      fail(ErrorKind::kIo,
           "{}: locked by another process for more than {} s; is another run using "
           "this folder?",
           path_, kBusyTimeoutMs / 1000);
    case SQLITE_FULL:
      fail(ErrorKind::kIo, "{}: the disk is full; nothing recorded before is lost", path_);
    case SQLITE_IOERR:
      fail(ErrorKind::kIo, "{}: {}; is there room on the disk? Nothing recorded before is lost",
           path_, reason);
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
      fail(ErrorKind::kInternal, "{}: {}", path_, reason);
    default:
      fail(ErrorKind::kIo, "{}: {}", path_, reason);
  }
}

void SqliteFile::execute(const std::string& sql) const {
  const int code = sqlite3_exec(handle(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) {
    fail_sqlite(code);
  }
}

std::int64_t SqliteFile::query_int(const std::string& sql) const {
  SqliteStatement statement(*this, sql);
  PUZZLE_CHECK(statement.step(), "no answer to {}", sql);
  return statement.integer(0);
}

SqliteStatement::SqliteStatement(const SqliteFile& file, const std::string& sql) : file_(file) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(file.handle(), sql.data(), static_cast<int>(sql.size()),
                                      &statement, nullptr);
  statement_.reset(statement);
  check(code);
}

void SqliteStatement::check(int code) const {
  if (code != SQLITE_OK) {
    file_.fail_sqlite(code);
  }
}

void SqliteStatement::bind(int index, std::string_view text) {
  // A null pointer would store NULL instead of the empty text.
  const char* data = text.data() == nullptr ? "" : text.data();
  check(sqlite3_bind_text64(statement_.get(), index + 1, data, text.size(), SQLITE_TRANSIENT,
                            SQLITE_UTF8));
}

void SqliteStatement::bind(int index, std::int64_t value) {
  check(sqlite3_bind_int64(statement_.get(), index + 1, value));
}

void SqliteStatement::bind(int index, double value) {
  check(sqlite3_bind_double(statement_.get(), index + 1, value));
}

void SqliteStatement::bind_null(int index) {
  check(sqlite3_bind_null(statement_.get(), index + 1));
}

bool SqliteStatement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) {
    return true;
  }
  if (code != SQLITE_DONE) {
    file_.fail_sqlite(code);
  }
  return false;
}

void SqliteStatement::reset() { check(sqlite3_reset(statement_.get())); }

bool SqliteStatement::is_null(int index) const {
  return sqlite3_column_type(statement_.get(), index) == SQLITE_NULL;
}

void SqliteStatement::fail_type(int index, const char* expected) const {
  fail(ErrorKind::kFormat, "{}: column {} of \"{}\" is not {}; was the file edited by hand?",
       file_.place(), sqlite3_column_name(statement_.get(), index), sqlite3_sql(statement_.get()),
       expected);
}

std::string SqliteStatement::text(int index) const {
  if (sqlite3_column_type(statement_.get(), index) != SQLITE_TEXT) {
    fail_type(index, "text");
  }
  const unsigned char* data = sqlite3_column_text(statement_.get(), index);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), index));
  return {reinterpret_cast<const char*>(data), size};
}

std::int64_t SqliteStatement::integer(int index) const {
  if (sqlite3_column_type(statement_.get(), index) != SQLITE_INTEGER) {
    fail_type(index, "a whole number");
  }
  return sqlite3_column_int64(statement_.get(), index);
}

double SqliteStatement::real(int index) const {
  const int type = sqlite3_column_type(statement_.get(), index);
  if (type != SQLITE_FLOAT && type != SQLITE_INTEGER) {
    fail_type(index, "a number");
  }
  return sqlite3_column_double(statement_.get(), index);
}

SqliteScope::SqliteScope(const SqliteFile& file) : file_(file), nested_(file.in_transaction()) {
  // IMMEDIATE: take the write lock now, where waiting for it is possible, not at the first insert.
  file_.execute(nested_ ? "SAVEPOINT puzzle_put" : "BEGIN IMMEDIATE");
}

SqliteScope::~SqliteScope() {
  // After a failed write (a full disk) SQLite may have rolled back by itself.
  if (!done_ && file_.in_transaction()) {
    const char* undo = nested_ ? "ROLLBACK TO puzzle_put; RELEASE puzzle_put" : "ROLLBACK";
    sqlite3_exec(file_.handle(), undo, nullptr, nullptr, nullptr);
  }
}

void SqliteScope::commit() {
  file_.execute(nested_ ? "RELEASE puzzle_put" : "COMMIT");
  done_ = true;
}

}  // namespace puzzle
