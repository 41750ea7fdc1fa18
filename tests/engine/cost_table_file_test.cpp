#include "puzzle/engine/cost_table_file.h"

#include <string>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

std::string table_with_rows(const std::string& rows) {
  return R"({"format": "puzzle-costs", "version": 1, "rows": [)" + rows + "]}";
}

constexpr const char* kGoodRow =
    R"({"subblock": "ffn/w8", "phase": "generate", "batch": 1, "context": 0, "seconds": 0.5})";

TEST(CostTableFile, ReadsWhatTheFormatAllows) {
  const CostTable table = parse_cost_table(
      R"({"format": "puzzle-costs", "version": 1, "engine": "vllm 0.11", "hardware": "H100",
          "rows": [
            {"subblock": "attention/kv8", "phase": "prefill", "batch": 64, "context": 2048, "seconds": 0.0121},
            {"subblock": "fixed", "phase": "generate", "batch": 2, "context": 0, "seconds": 4e-4,
             "p10_s": 3e-4, "p90_s": 5e-4, "samples": 20}]})",
      "t.json");
  EXPECT_EQ(table.engine, "vllm 0.11");
  EXPECT_EQ(table.hardware, "H100");
  const std::vector<MeasuredCost> expected = {
      {"attention/kv8", Phase::kPrefill, 64, 2048, 0.0121, 0.0121, 0.0121, 0},
      {"fixed", Phase::kGenerate, 2, 0, 4e-4, 3e-4, 5e-4, 20}};
  EXPECT_EQ(table.rows, expected);
}

TEST(CostTableFile, WritesWhatItReadsBackToTheBit) {
  const test::TempDir folder;
  const CostTable table = {
      "native 1.0",
      "a box",
      {{"attention/none", Phase::kGenerate, 3, 7, 1.0 / 3.0, 0.1, 0.7, 11},
       {"ffn/w1536", Phase::kPrefill, 1, 128, 2.0 / 7.0, 2.0 / 7.0, 2.0 / 7.0, 0}}};
  save_cost_table(folder / "costs.json", table);
  EXPECT_EQ(load_cost_table(folder / "costs.json"), table);
  const std::string first = read_text_file(folder / "costs.json");
  save_cost_table(folder / "costs.json", load_cost_table(folder / "costs.json"));
  EXPECT_EQ(read_text_file(folder / "costs.json"), first);
}

struct BadTable {
  std::string text;
  const char* message;
};

TEST(CostTableFile, RefusesBrokenTablesByRow) {
  const std::string row = kGoodRow;
  const auto with = [&row](const std::string& from, const std::string& to) {
    std::string changed = row;
    changed.replace(changed.find(from), from.size(), to);
    return table_with_rows(
        R"({"subblock": "fixed", "phase": "prefill", "batch": 1, "context": 1, "seconds": 1}, )" +
        changed);
  };
  const BadTable cases[] = {
      {"", "t.json"},
      {"[]", "found array, expected an object"},
      {R"({"format": "puzzle-problem", "version": 1, "rows": []})", "format puzzle-problem"},
      {R"({"format": "puzzle-costs", "version": 2, "rows": []})", "version 2, expected"},
      {R"({"format": "puzzle-costs", "version": 1})", "\"rows\" must be a list"},
      {table_with_rows(""), "at least one row"},
      {R"({"format": "puzzle-costs", "version": 1, "row": []})", "unknown key \"row\""},
      {table_with_rows("7"), "row 0: found number"},
      {table_with_rows(row + ", " + row),
       "row 1: ffn/w8 generate of batch 1 at context 0 is already in row 0"},
      {with("ffn/w8", "ffn/kv8"), "row 1: sub-block 'ffn/kv8'"},
      {with("ffn/w8", "mlp/w8"), "expected attention/"},
      {with("generate", "decode"), "row 1: phase 'decode'"},
      {with("\"batch\": 1", "\"batch\": 0"), "row 1: \"batch\" is 0, expected 1"},
      {with("\"batch\": 1", "\"batch\": 1.5"), "row 1: \"batch\""},
      {with("\"context\": 0", "\"context\": -1"), "row 1: \"context\" is -1"},
      {with("\"context\": 0", "\"context\": 99999999999999"), "expected 0 … 2^40"},
      {with("generate", "prefill"), "row 1: \"context\" is 0, expected 1"},
      {with("0.5", "-0.5"), "row 1: \"seconds\" is -0.5"},
      {with("0.5", "\"0.5\""), "row 1: \"seconds\""},
      {with(", \"seconds\": 0.5", ""), "row 1: \"seconds\" is missing"},
      {with("0.5", "0.5, \"p10_s\": 0.6"), "do not enclose seconds 0.5"},
      {with("0.5", "0.5, \"p90_s\": 0.4"), "do not enclose"},
      {with("0.5", "0.5, \"sample\": 4"), "unknown key \"sample\"; did you mean samples?"},
      {with("0.5", "0.5, \"samples\": -4"), "\"samples\" is -4"},
  };
  for (const BadTable& bad : cases) {
    SCOPED_TRACE(bad.text);
    EXPECT_PUZZLE_ERROR((void)parse_cost_table(bad.text, "t.json"), ErrorKind::kFormat,
                        bad.message);
  }
}

TEST(CostTableFile, NamesAFileThatIsNotThere) {
  EXPECT_PUZZLE_ERROR((void)load_cost_table("/nowhere/costs.json"), ErrorKind::kIo,
                      "/nowhere/costs.json");
}

}  // namespace
}  // namespace puzzle
