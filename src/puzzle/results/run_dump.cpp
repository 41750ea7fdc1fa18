// RunDb::dump_json and the JSON forms of single columns.
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "puzzle/results/row_io.h"
#include "puzzle/results/run_connection.h"

namespace puzzle {
namespace {

bool is_time_name(std::string_view name) { return name.ends_with("_s") || name.ends_with("_at"); }

void drop_times(Json& value) {
  if (value.is_object()) {
    for (auto member = value.begin(); member != value.end();) {
      member = is_time_name(member.key()) ? value.erase(member) : std::next(member);
    }
  }
  if (value.is_structured()) {
    for (Json& element : value) {
      drop_times(element);
    }
  }
}

Json number_to_json(double value) {
  if (std::isinf(value)) {
    return value > 0 ? "inf" : "-inf";
  }
  return value;
}

// One row as an object.
template <class Row>
class RowDumper {
 public:
  RowDumper(const Row& row, bool times, Json& object) : row_(row), times_(times), object_(object) {}

  template <class Field>
  void operator()(const char* column, Field Row::* member, ColumnRole role) {
    if (role == ColumnRole::kTime && !times_) {
      return;
    }
    Json& target = object_[column];
    const Field& value = row_.*member;
    if constexpr (std::is_same_v<Field, double>) {
      target = number_to_json(value);
    } else if constexpr (std::is_same_v<Field, std::optional<double>>) {
      target = value.has_value() ? number_to_json(*value) : Json();
    } else if constexpr (std::is_same_v<Field, std::optional<std::int64_t>>) {
      target = optional_json(value);
    } else if constexpr (std::is_same_v<Field, std::string>) {
      target = role == ColumnRole::kJson ? Json::parse(value) : Json(value);
      // An architecture's costs are predictions, so their seconds are results, not times.
      if (role == ColumnRole::kJson && !times_ && std::string_view(column) == "detail") {
        drop_times(target);
      }
    } else {
      target = value;
    }
  }

 private:
  const Row& row_;
  bool times_;
  Json& object_;
};

template <class Row>
Json dump_table(const SqliteFile& file, const DumpOptions& options) {
  // Stages by name: the order in which they ended is no result.
  const std::string order =
      std::is_same_v<Row, StageRecord> ? "stage, what, key" : Table<Row>::kOrder;
  Json table = Json::array();
  for (const Row& row : select_rows<Row>(
           file, fmt::format("{} ORDER BY {}", row_set_clause<Row>(options.rows), order))) {
    Json object = Json::object();
    Table<Row>::visit(RowDumper<Row>(row, options.times, object));
    table.push_back(std::move(object));
  }
  return table;
}

Json dump_current(const SqliteFile& file) {
  Json current = Json::object();
  SqliteStatement scopes(file, "SELECT tab, scope FROM current_scopes ORDER BY tab, scope");
  while (scopes.step()) {
    current[scopes.text(0)][scopes.text(1)] = Json::array();
  }
  SqliteStatement keys(file, "SELECT tab, scope, key FROM current_keys ORDER BY tab, scope, key");
  while (keys.step()) {
    current[keys.text(0)][keys.text(1)].push_back(keys.text(2));
  }
  return current;
}

}  // namespace

std::string list_to_text(const std::vector<std::string>& list) { return Json(list).dump(); }

std::vector<std::string> text_to_list(const std::string& text, const std::string& place) {
  const Json value = parse_json(text, place);
  const auto is_text = [](const Json& element) { return element.is_string(); };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_text)) {
    fail(ErrorKind::kFormat, "{}: {} is not a list of texts; was the file edited by hand?", place,
         text);
  }
  return value.get<std::vector<std::string>>();
}

bool is_json(const std::string& text) { return Json::accept(text); }

Json RunDb::dump_json(const DumpOptions& options) const {
  const SqliteFile& file = connection_->file;
  Json dump = Json::object();
  dump["schema"] = kSchemaVersion;
  visit_tables([&](const auto* null_row) {
    using Row = std::remove_cvref_t<decltype(*null_row)>;
    dump[Table<Row>::kName] = dump_table<Row>(file, options);
  });
  Json& metas_object = dump["meta"] = Json::object();
  for (const MetaRow& row : metas()) {
    if (options.times || !is_time_name(row.name)) {
      metas_object[row.name] = row.value;
    }
  }
  if (options.rows == RowSet::kAll) {
    dump["current"] = dump_current(file);
  }
  return dump;
}

}  // namespace puzzle
