// JSON files with errors that name the file and the path inside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace puzzle {

using Json = nlohmann::json;

// Throws Error(kFormat) with line and column of the first mistake; duplicate keys are mistakes.
[[nodiscard]] Json parse_json(std::string_view text, const std::string& place);
[[nodiscard]] Json load_json(const std::filesystem::path& path);
void save_json(const std::filesystem::path& path, const Json& value);

// The member `key` of an object; null where it is absent or null.
[[nodiscard]] const Json* find_json_member(const Json& object, const char* key);

// Throws Error(kFormat) for what is no object, and for a member that is not `known`.
void check_json_keys(const Json& object, const std::vector<std::string>& known,
                     const std::string& place);

// The member `key` of the object `value`, converted. `place` is the file, used in messages.
// Throw Error(kFormat) for another type, and where it is absent or null and there is no fallback to
// return.
[[nodiscard]] std::int64_t json_int(const Json& value, const char* key, const std::string& place);
[[nodiscard]] std::int64_t json_int(const Json& value, const char* key, const std::string& place,
                                    std::int64_t fallback);
[[nodiscard]] double json_double(const Json& value, const char* key, const std::string& place);
[[nodiscard]] double json_double(const Json& value, const char* key, const std::string& place,
                                 double fallback);
[[nodiscard]] bool json_bool(const Json& value, const char* key, const std::string& place,
                             bool fallback);
[[nodiscard]] std::string json_string(const Json& value, const char* key, const std::string& place);
[[nodiscard]] std::string json_string(const Json& value, const char* key, const std::string& place,
                                      const std::string& fallback);
[[nodiscard]] std::vector<double> json_doubles(const Json& value, const char* key,
                                               const std::string& place);

// The number, or null where there is none.
[[nodiscard]] Json optional_json(std::optional<double> value);
[[nodiscard]] Json optional_json(std::optional<std::int64_t> value);

}  // namespace puzzle
