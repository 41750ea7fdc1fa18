#include "puzzle/base/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr std::uint64_t kLargestInt = std::numeric_limits<std::int64_t>::max();
// Writing and comparing recurse; no file of ours or of a model comes near.
constexpr int kMaxDepth = 200;

const Json* find_member(const Json& value, const char* key, const std::string& place) {
  if (!value.is_object()) {
    fail(ErrorKind::kFormat, "{}: found {} where an object with \"{}\" is expected", place,
         value.type_name(), key);
  }
  return find_json_member(value, key);
}

const Json& require_member(const Json& value, const char* key, const std::string& place) {
  const Json* member = find_member(value, key, place);
  if (member == nullptr) {
    fail(ErrorKind::kFormat, "{}: \"{}\" is missing", place, key);
  }
  return *member;
}

[[noreturn]] void fail_type(const Json& member, const char* key, const std::string& place,
                            const char* expected) {
  std::string found = member.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (found.size() > 80) {
    found = found.substr(0, 77) + "...";
  }
  fail(ErrorKind::kFormat, "{}: \"{}\" is {}, expected {}", place, key, found, expected);
}

std::int64_t as_int(const Json& member, const char* key, const std::string& place) {
  if (member.is_number_unsigned() && member.get<std::uint64_t>() > kLargestInt) {
    fail_type(member, key, place, "a whole number below 2^63");
  }
  if (member.is_number_integer()) {
    return member.get<std::int64_t>();
  }
  if (member.is_number_float()) {
    const double number = member.get<double>();
    if (std::floor(number) == number && std::abs(number) < 9e15) {
      return static_cast<std::int64_t>(number);
    }
  }
  fail_type(member, key, place, "a whole number");
}

double as_double(const Json& member, const char* key, const std::string& place) {
  if (!member.is_number()) {
    fail_type(member, key, place, "a number");
  }
  return member.get<double>();
}

// A message of nlohmann's without its opening, "[json.exception.parse_error.101] ".
std::string_view without_json_id(std::string_view message) {
  const std::size_t end = message.find("] ");
  return message.starts_with("[json.exception.") && end != std::string_view::npos
             ? message.substr(end + 2)
             : message;
}

std::string as_string(const Json& member, const char* key, const std::string& place) {
  if (!member.is_string()) {
    fail_type(member, key, place, "a string");
  }
  return member.get<std::string>();
}

}  // namespace

const Json* find_json_member(const Json& object, const char* key) {
  const auto member = object.find(key);
  return member == object.end() || member->is_null() ? nullptr : &*member;
}

void check_json_keys(const Json& object, const std::vector<std::string>& known,
                     const std::string& place) {
  if (!object.is_object()) {
    fail(ErrorKind::kFormat, "{}: found {}, expected an object with {}", place, object.type_name(),
         join(known, ", "));
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      const std::string close = nearest(key, known);
      fail(ErrorKind::kFormat, "{}: unknown key \"{}\"{}", place, key,
           close.empty() ? "; known are " + join(known, ", ") : "; did you mean " + close + "?");
    }
  }
}

Json parse_json(std::string_view text, const std::string& place) {
  // nlohmann keeps the last of two equal keys silently; a model file with two is broken.
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const Json::parser_callback_t watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) {
      fail(ErrorKind::kFormat, "{}: nested more than {} levels deep", place, kMaxDepth);
    }
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key && !keys.empty() &&
               !keys.back().insert(parsed.get<std::string>()).second && duplicate.empty()) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  Json value;
  try {
    value = Json::parse(text, watch);
  } catch (const Json::exception& error) {
    fail(ErrorKind::kFormat, "{}: not valid JSON: {}", place, without_json_id(error.what()));
  }
  if (!duplicate.empty()) {
    fail(ErrorKind::kFormat, "{}: the key \"{}\" stands twice in one object", place, duplicate);
  }
  return value;
}

Json load_json(const std::filesystem::path& path) {
  return parse_json(read_text_file(path), path.string());
}

void save_json(const std::filesystem::path& path, const Json& value) {
  write_text_file(path, value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::int64_t json_int(const Json& value, const char* key, const std::string& place) {
  return as_int(require_member(value, key, place), key, place);
}

std::int64_t json_int(const Json& value, const char* key, const std::string& place,
                      std::int64_t fallback) {
  const Json* member = find_member(value, key, place);
  return member == nullptr ? fallback : as_int(*member, key, place);
}

double json_double(const Json& value, const char* key, const std::string& place) {
  return as_double(require_member(value, key, place), key, place);
}

double json_double(const Json& value, const char* key, const std::string& place, double fallback) {
  const Json* member = find_member(value, key, place);
  return member == nullptr ? fallback : as_double(*member, key, place);
}

bool json_bool(const Json& value, const char* key, const std::string& place, bool fallback) {
  const Json* member = find_member(value, key, place);
  if (member == nullptr) {
    return fallback;
  }
  if (!member->is_boolean()) {
    fail_type(*member, key, place, "true or false");
  }
  return member->get<bool>();
}

std::string json_string(const Json& value, const char* key, const std::string& place) {
  return as_string(require_member(value, key, place), key, place);
}

std::string json_string(const Json& value, const char* key, const std::string& place,
                        const std::string& fallback) {
  const Json* member = find_member(value, key, place);
  return member == nullptr ? fallback : as_string(*member, key, place);
}

std::vector<double> json_doubles(const Json& value, const char* key, const std::string& place) {
  const Json& member = require_member(value, key, place);
  const auto is_number = [](const Json& element) { return element.is_number(); };
  if (!member.is_array() || !std::all_of(member.begin(), member.end(), is_number)) {
    fail_type(member, key, place, "a list of numbers");
  }
  return member.get<std::vector<double>>();
}

Json optional_json(std::optional<double> value) { return value ? Json(*value) : Json(); }

Json optional_json(std::optional<std::int64_t> value) { return value ? Json(*value) : Json(); }

}  // namespace puzzle
