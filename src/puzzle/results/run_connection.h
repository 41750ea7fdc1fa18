// What RunDb hides. Private to this layer.
#pragma once

#include <string>

#include <fmt/format.h>

#include "puzzle/results/row_columns.h"
#include "puzzle/results/run_db.h"
#include "puzzle/results/sqlite.h"

namespace puzzle {

struct RunDb::Connection {
  SqliteFile file;
  bool is_reader;
};

// The WHERE clause of a row set, with a leading WHERE; empty for all rows.
template <class Row>
[[nodiscard]] std::string row_set_clause(RowSet rows) {
  if (rows == RowSet::kAll) {
    return "";
  }
  return fmt::format(
      "WHERE (NOT EXISTS (SELECT 1 FROM current_scopes WHERE tab = '{0}') OR "
      "key IN (SELECT key FROM current_keys WHERE tab = '{0}'))",
      Table<Row>::kName);
}

}  // namespace puzzle
