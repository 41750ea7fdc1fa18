// Rows to and from SQLite, and to JSON, by the column lists of row_columns.h. Private to this
// layer.
#pragma once

#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/base/error.h"
#include "puzzle/results/row_columns.h"
#include "puzzle/results/sqlite.h"

namespace puzzle {

// A list of texts is stored as a JSON array.
[[nodiscard]] std::string list_to_text(const std::vector<std::string>& list);
[[nodiscard]] std::vector<std::string> text_to_list(const std::string& text,
                                                    const std::string& place);
[[nodiscard]] bool is_json(const std::string& text);

// Binds one row's columns in order.
template <class Row>
class RowBinder {
 public:
  RowBinder(SqliteStatement& statement, const Row& row, const std::string& place)
      : statement_(statement), row_(row), place_(place) {}

  template <class Field>
  void operator()(const char* column, Field Row::* member, ColumnRole role) {
    const Field& value = row_.*member;
    if constexpr (std::is_same_v<Field, std::string>) {
      PUZZLE_CHECK(role != ColumnRole::kKey || !value.empty(), "{}: a row without a key",
                   Table<Row>::kName);
      PUZZLE_CHECK(role != ColumnRole::kJson || is_json(value), "{}: {} is not JSON: {}",
                   Table<Row>::kName, column, value);
      statement_.bind(index_++, std::string_view(value));
    } else if constexpr (std::is_same_v<Field, std::vector<std::string>>) {
      statement_.bind(index_++, std::string_view(list_to_text(value)));
    } else if constexpr (std::is_arithmetic_v<Field>) {
      bind_number(column, value);
    } else if (value.has_value()) {
      bind_number(column, *value);
    } else {
      statement_.bind_null(index_++);
    }
  }

 private:
  template <class Number>
  void bind_number(const char* column, Number value) {
    if constexpr (std::is_floating_point_v<Number>) {
      if (std::isnan(value)) {
        fail(ErrorKind::kNumeric, "{}: {}.{} of key {} is NaN, expected a number", place_,
             Table<Row>::kName, column, row_.key);
      }
    }
    statement_.bind(index_++, value);
  }

  SqliteStatement& statement_;
  const Row& row_;
  const std::string& place_;
  int index_ = 0;
};

// Reads one row's columns in order.
template <class Row>
class RowReader {
 public:
  RowReader(const SqliteStatement& statement, Row& row, const std::string& place)
      : statement_(statement), row_(row), place_(place) {}

  template <class Field>
  void operator()(const char* /*column*/, Field Row::* member, ColumnRole /*role*/) {
    Field& value = row_.*member;
    if constexpr (std::is_same_v<Field, std::string>) {
      value = statement_.text(index_);
    } else if constexpr (std::is_same_v<Field, std::vector<std::string>>) {
      value = text_to_list(statement_.text(index_), place_);
    } else if constexpr (std::is_arithmetic_v<Field>) {
      value = number<Field>();
    } else if (statement_.is_null(index_)) {
      value.reset();
    } else {
      value = number<typename Field::value_type>();
    }
    ++index_;
  }

 private:
  template <class Number>
  [[nodiscard]] Number number() const {
    if constexpr (std::is_floating_point_v<Number>) {
      return statement_.real(index_);
    } else {
      return statement_.integer(index_);
    }
  }

  const SqliteStatement& statement_;
  Row& row_;
  const std::string& place_;
  int index_ = 0;
};

template <class Row>
[[nodiscard]] std::string column_names() {
  std::string names;
  Table<Row>::visit([&names](const char* column, auto, ColumnRole) {
    names += (names.empty() ? "" : ", ") + std::string(column);
  });
  return names;
}

// CREATE TABLE and the index on the content key.
template <class Row>
[[nodiscard]] std::string schema_sql() {
  std::string columns;
  std::string primary_key;
  Table<Row>::visit([&](const char* column, auto member, ColumnRole role) {
    using Field = std::remove_cvref_t<decltype(std::declval<Row>().*member)>;
    // ANY keeps a double as it is; REAL columns would turn -0.0 into 0.0.
    const char* type = "ANY NOT NULL";
    if constexpr (std::is_same_v<Field, std::string> ||
                  std::is_same_v<Field, std::vector<std::string>>) {
      type = "TEXT NOT NULL";
    } else if constexpr (std::is_integral_v<Field>) {
      type = "INTEGER NOT NULL";
    } else if constexpr (std::is_same_v<Field, std::optional<std::int64_t>>) {
      type = "INTEGER";
    } else if constexpr (std::is_same_v<Field, std::optional<double>>) {
      type = "ANY";
    }
    columns += fmt::format("{} {}, ", column, type);
    if (role == ColumnRole::kAbout) {
      primary_key += std::string(column) + ", ";
    }
  });
  const char* name = Table<Row>::kName;
  return fmt::format(
      "CREATE TABLE {0} ({1}PRIMARY KEY({2}key)) STRICT; "
      "CREATE INDEX {0}_key ON {0}(key);",
      name, columns, primary_key);
}

template <class Row>
void insert_row(SqliteStatement& statement, const Row& row, const std::string& place) {
  Table<Row>::visit(RowBinder<Row>(statement, row, place));
  statement.step();
  statement.reset();
}

template <class Row>
[[nodiscard]] std::string insert_sql() {
  std::string marks;
  Table<Row>::visit(
      [&marks](const char*, auto, ColumnRole) { marks += marks.empty() ? "?" : ", ?"; });
  return fmt::format("INSERT OR REPLACE INTO {} ({}) VALUES ({})", Table<Row>::kName,
                     column_names<Row>(), marks);
}

// Rows of `SELECT … FROM table <clause>`; `parameters` are its texts.
template <class Row>
[[nodiscard]] std::vector<Row> select_rows(const SqliteFile& file, const std::string& clause,
                                           const std::vector<std::string>& parameters = {}) {
  SqliteStatement statement(
      file, fmt::format("SELECT {} FROM {} {}", column_names<Row>(), Table<Row>::kName, clause));
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    statement.bind(static_cast<int>(i), std::string_view(parameters[i]));
  }
  std::vector<Row> rows;
  while (statement.step()) {
    Row& row = rows.emplace_back();
    Table<Row>::visit(RowReader<Row>(statement, row, file.place()));
  }
  return rows;
}

}  // namespace puzzle
