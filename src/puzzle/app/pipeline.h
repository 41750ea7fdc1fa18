// The order of the stages and what each hands to the next. Every stage skips what is there already
// for the same inputs, so running up to a stage and running on later are the same run.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/app/recipe.h"
#include "puzzle/stages/assemble.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// In the order in which they run; the verbs of the same names run up to theirs.
[[nodiscard]] const std::vector<std::string>& stage_names();

class Pipeline {
 public:
  // Opens the run folder, writes recipe.yaml and the facts of the run. Throws as validate().
  Pipeline(const Recipe& recipe, Communicator& communicator, const std::string& command);
  ~Pipeline();

  // Runs every stage up to and including `last`.
  void run_until(const std::string& last);

  // What a script wants to know: budgets, architecture, quality, speed, files.
  [[nodiscard]] nlohmann::json summary() const;
  [[nodiscard]] const RunDb& db() const { return *db_; }

 private:
  struct Library {
    std::filesystem::path folder;
    std::string key;
  };

  // A child to compare ours with.
  struct Compared {
    std::string name;
    const FoundArchitecture* found = nullptr;
    Library library;
  };

  void init_library_stage();
  void distill_blocks_stage();
  void score_stage();
  void measure_stage();
  void search_stage();
  void assemble_stage();
  void distill_child_stage();
  void evaluate_stage();
  void export_stage();
  void throughput_stage();
  void report_stage();

  [[nodiscard]] Library paper_library(const Architecture& architecture);
  [[nodiscard]] std::vector<Compared> compared_children();
  void record_models();

  Recipe recipe_;
  std::unique_ptr<RunDb> db_;
  std::unique_ptr<RunContext> context_;
  std::unique_ptr<LoadedModel> parent_;
  std::unique_ptr<TokenParts> parts_;
  SearchSpace space_;
  Library library_;
  MeasureResult measured_;
  SearchResult found_;
  AssembleResult assembled_;
  std::filesystem::path child_folder_;
  std::string child_key_;
  ExportResult exported_;
  std::filesystem::path parent_gguf_;  // what the child's file is compared with
};

}  // namespace puzzle
