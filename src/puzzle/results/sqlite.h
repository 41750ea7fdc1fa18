// The little of SQLite that run_db.cpp needs, with our errors: statements as values, typed columns.
// Private to this layer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <sqlite3.h>

namespace puzzle {

// An open file. Errors open with its path, as given.
class SqliteFile {
 public:
  // `flags` are sqlite3_open_v2's. Throws Error(kIo).
  SqliteFile(std::string path, int flags);

  [[nodiscard]] sqlite3* handle() const { return handle_.get(); }
  [[nodiscard]] const std::string& place() const { return path_; }
  [[nodiscard]] bool in_transaction() const { return sqlite3_get_autocommit(handle()) == 0; }

  void execute(const std::string& sql) const;
  // The first column of the first row of a query that gives one.
  [[nodiscard]] std::int64_t query_int(const std::string& sql) const;
  // Throws what `code` (of the call that just failed) means: kFormat for a damaged or foreign file,
  // kInternal for our own mistakes in SQL, kIo for the rest.
  [[noreturn]] void fail_sqlite(int code) const;

 private:
  struct Closer {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Closer> handle_;
  std::string path_;
};

// A prepared statement; parameters and columns are numbered from 0.
class SqliteStatement {
 public:
  SqliteStatement(const SqliteFile& file, const std::string& sql);

  void bind(int index, std::string_view text);
  void bind(int index, std::int64_t value);
  void bind(int index, double value);  // not NaN
  void bind_null(int index);

  // To the next row; false after the last.
  bool step();
  void reset();

  [[nodiscard]] bool is_null(int index) const;
  // Throw Error(kFormat) where the file holds another type.
  [[nodiscard]] std::string text(int index) const;
  [[nodiscard]] std::int64_t integer(int index) const;
  [[nodiscard]] double real(int index) const;

 private:
  void check(int code) const;
  [[noreturn]] void fail_type(int index, const char* expected) const;

  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  const SqliteFile& file_;
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
};

// All or nothing around one write: a transaction, or a savepoint inside one that is already open.
class SqliteScope {
 public:
  explicit SqliteScope(const SqliteFile& file);
  ~SqliteScope();
  SqliteScope(const SqliteScope&) = delete;
  SqliteScope& operator=(const SqliteScope&) = delete;

  void commit();

 private:
  const SqliteFile& file_;
  bool nested_;
  bool done_ = false;
};

}  // namespace puzzle
