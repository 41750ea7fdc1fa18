#include "puzzle/base/json.h"

#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

TEST(Json, BrokenTextNamesPlaceLineAndColumn) {
  EXPECT_PUZZLE_ERROR((void)parse_json("{\n  \"a\": 1,\n  \"b\": }", "config.json"),
                      ErrorKind::kFormat, "config.json: not valid JSON");
  EXPECT_PUZZLE_ERROR((void)parse_json("{\n  \"a\": 1,\n  \"b\": }", "config.json"),
                      ErrorKind::kFormat,
                      "config.json: not valid JSON: parse error at line 3, column");
  for (const char* text :
       {"", "{", "[1,", "{\"a\" 1}", "nul", "{\"a\":1}x", "\"\xff\"", "[1e999]"}) {
    EXPECT_PUZZLE_ERROR((void)parse_json(text, "f"), ErrorKind::kFormat, "f: not valid JSON");
    try {
      (void)parse_json(text, "f");
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find("json.exception"), std::string::npos)
          << error.what();
    }
  }
}

TEST(Json, DuplicateKeysAreMistakesAtAnyDepth) {
  for (const char* text : {R"({"a": 1, "a": 2})", R"({"b": {"a": 1, "a": 1}})",
                           R"([{"b": 1}, {"x": [], "a": {}, "a": []}])"}) {
    EXPECT_PUZZLE_ERROR((void)parse_json(text, "f"), ErrorKind::kFormat,
                        "\"a\" stands twice in one object");
  }
  EXPECT_EQ(parse_json(R"([{"a": {"a": 1}}, {"a": 2}])", "f").size(), 2U);
}

TEST(Json, DeepNestingIsRefusedNotACrash) {
  const std::string deep(1'000'000, '[');
  EXPECT_PUZZLE_ERROR((void)parse_json(deep, "f"), ErrorKind::kFormat, "f: ");
  const std::string closed = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_PUZZLE_ERROR((void)parse_json(closed, "f"), ErrorKind::kFormat, "nested");
}

TEST(Json, MembersAreConverted) {
  const Json value = parse_json(
      R"({"n": 7, "x": 0.5, "whole": 8.0, "t": true, "s": "é", "null": null, "a": [1, 0.5]})", "f");
  EXPECT_EQ(json_int(value, "n", "f"), 7);
  EXPECT_EQ(json_int(value, "whole", "f"), 8);
  EXPECT_EQ(json_double(value, "n", "f"), 7.0);
  EXPECT_EQ(json_double(value, "x", "f"), 0.5);
  EXPECT_TRUE(json_bool(value, "t", "f", false));
  EXPECT_EQ(json_string(value, "s", "f"), "é");
  EXPECT_EQ(json_doubles(value, "a", "f"), (std::vector<double>{1.0, 0.5}));
  EXPECT_EQ(json_int(value, "absent", "f", 3), 3);
  EXPECT_EQ(json_int(value, "null", "f", 3), 3);
  EXPECT_EQ(json_double(value, "absent", "f", 0.25), 0.25);
  EXPECT_EQ(json_string(value, "null", "f", "x"), "x");
  EXPECT_FALSE(json_bool(value, "absent", "f", false));
}

TEST(Json, MistakesNameFileKeyFoundAndExpected) {
  const Json value = parse_json(R"({"n": 7, "x": 0.5, "s": "text", "a": [1], "big": 1e17})", "f");
  EXPECT_PUZZLE_ERROR((void)json_int(value, "absent", "f"), ErrorKind::kFormat,
                      "f: \"absent\" is missing");
  EXPECT_PUZZLE_ERROR((void)json_int(value, "x", "f"), ErrorKind::kFormat,
                      "f: \"x\" is 0.5, expected a whole number");
  EXPECT_PUZZLE_ERROR((void)json_int(value, "s", "f", 1), ErrorKind::kFormat,
                      "\"s\" is \"text\", expected a whole number");
  EXPECT_PUZZLE_ERROR((void)json_int(value, "big", "f"), ErrorKind::kFormat, "a whole number");
  EXPECT_PUZZLE_ERROR((void)json_double(value, "a", "f"), ErrorKind::kFormat,
                      "\"a\" is [1], expected a number");
  EXPECT_PUZZLE_ERROR((void)json_doubles(value, "n", "f"), ErrorKind::kFormat,
                      "\"n\" is 7, expected a list of numbers");
  EXPECT_PUZZLE_ERROR((void)json_bool(value, "n", "f", true), ErrorKind::kFormat,
                      "\"n\" is 7, expected true or false");
  EXPECT_PUZZLE_ERROR((void)json_string(value, "n", "f"), ErrorKind::kFormat,
                      "\"n\" is 7, expected a string");
  EXPECT_PUZZLE_ERROR((void)json_int(parse_json("[1]", "f"), "n", "f"), ErrorKind::kFormat,
                      "found array where an object with \"n\" is expected");
}

TEST(Json, WholeNumbersBeyondInt64AreRefused) {
  const Json value = parse_json(R"({"n": 18446744073709551615, "m": 9223372036854775807})", "f");
  EXPECT_PUZZLE_ERROR((void)json_int(value, "n", "f"), ErrorKind::kFormat, "a whole number");
  EXPECT_EQ(json_int(value, "m", "f"), std::numeric_limits<std::int64_t>::max());
}

TEST(Json, LongValuesAreCutInMessages) {
  const Json value = {{"s", std::string(1000, 'x')}};
  try {
    (void)json_int(value, "s", "f");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 140U) << error.what();
  }
}

TEST(Json, FilesRoundTripToTheSameBytes) {
  const test::TempDir folder;
  const Json value =
      parse_json(R"({"b": [1, 0.1, -0.0, 1e-320], "a": "\u00e9\n\"", "z": null})", "f");
  save_json(folder / "x.json", value);
  save_json(folder / "y.json", load_json(folder / "x.json"));
  EXPECT_EQ(load_json(folder / "x.json"), value);
  EXPECT_EQ(read_text_file(folder / "x.json"), read_text_file(folder / "y.json"));
  write_text_file(folder / "broken.json", "{");
  EXPECT_PUZZLE_ERROR((void)load_json(folder / "broken.json"), ErrorKind::kFormat, "broken.json");
  EXPECT_PUZZLE_ERROR((void)load_json(folder / "absent.json"), ErrorKind::kIo, "absent.json");
}

}  // namespace
}  // namespace puzzle
