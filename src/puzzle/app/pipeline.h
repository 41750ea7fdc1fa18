// The order of the stages and what each hands to the next. Every stage skips what is there already
// for the same inputs, so running up to a stage and running on later are the same run.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/app/recipe.h"
#include "puzzle/app/run_result.h"
#include "puzzle/base/folder_lock.h"
#include "puzzle/stages/assemble.h"
#include "puzzle/stages/check_exports.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class Pipeline {
 public:
  struct Stage {
    std::string name;  // also the verb
    std::string help;
    void (Pipeline::*run)();
  };
  // In the order in which they run; the verbs of the same names run up to theirs.
  static const std::vector<Stage>& stages();

  // What the child is called below children/, unless told otherwise.
  static constexpr const char* kChild = "child";
  // What is added to a child's name for its earlier states.
  static constexpr std::string_view kAssembledSuffix = "-assembled";
  static constexpr std::string_view kRepairedSuffix = "-repaired";
  static constexpr std::string_view kTrainedSuffix = "-trained";
  // Of a content key, in the names of folders that are named after their content.
  static constexpr std::size_t kFolderKeyLength = 12;
  // What `compare_distilled` adds to the name of a compared child.
  static constexpr std::string_view kDistilledSuffix = "-distilled";

  // Whether the last run into this folder went all the way: to the report, or through a grid.
  [[nodiscard]] static bool is_finished(const RunDb& db);
  static void record_finished(RunDb& db);

  // Takes the run folder for itself, removes what killed writers left there, writes recipe.yaml and
  // the facts of the run. Throws as validate() and FolderLock.
  Pipeline(const Recipe& recipe, Communicator& communicator, const std::string& command);
  // One of several recipes that run in one folder, up to evaluate at most (compare.h): its child
  // has a name of its own and is evaluated alone, what it starts from is named after its content,
  // so that recipes that come to the same share it, and settings that decide nothing are let pass.
  Pipeline(const Recipe& recipe, Communicator& communicator, const std::string& command,
           std::string child_name);
  ~Pipeline();

  // Runs every stage up to and including `last`, and records seconds and peak memory of each that
  // had something to do. What libtorch or the system throws comes out as Error with the stage's
  // name. Stages that time files and fail do not keep the report from being written. Throws as
  // check_programs() before the first stage.
  void run_until(const std::string& last);

  // After a run up to evaluate: what the search chose, and the child as it was evaluated.
  [[nodiscard]] const FoundArchitecture& chosen() const { return *found_.find(kChild); }
  [[nodiscard]] const std::string& child_key() const { return child_.key; }
  [[nodiscard]] const std::filesystem::path& child_folder() const { return child_.folder; }
  // What became of its budgets.
  [[nodiscard]] std::vector<BudgetOutcome> outcomes() const;
  // After a run up to export, on the first rank: the files in the engines they are for.
  [[nodiscard]] std::vector<ExportCheck> check_exports() const;
  [[nodiscard]] const LoadedModel& parent() const { return *parent_; }
  [[nodiscard]] const TokenParts& parts() const { return *parts_; }
  [[nodiscard]] RunContext& context() { return *context_; }

  // What a script wants to know of the stage that ran last; see run_summary().
  [[nodiscard]] nlohmann::json summary() const;
  // The same for people: speed, size, budgets, quality. Needs a run up to the report.
  [[nodiscard]] std::string result_text() const;
  // The table of the stage `scenarios`.
  [[nodiscard]] std::string scenarios_text() const;

 private:
  struct Library {
    std::filesystem::path folder;
    std::string key;
  };

  // A child on disk, after one of the stages that make it.
  struct ChildState {
    std::string name;  // below children/
    std::filesystem::path folder;
    std::string key;
  };

  // A child to compare ours with.
  struct Compared {
    std::string name;
    const FoundArchitecture* found = nullptr;
    Library library;
  };

  Pipeline(const Recipe& complete_recipe, std::string child_name, bool is_cell,
           Communicator& communicator, const std::string& command);

  void init_library_stage();
  void distill_blocks_stage();
  void score_stage();
  void measure_stage();
  void search_stage();
  void assemble_stage();
  void repair_stage();
  void distill_child_stage();
  void evaluate_stage();
  void export_stage();
  void throughput_stage();
  void scenarios_stage();
  void report_stage();

  // Content of a child made of a library's blocks.
  [[nodiscard]] static std::string weights_key(const Library& library,
                                               const Architecture& architecture);
  // Where a state of the child before its last goes, below children/; `content_key` is of all that
  // it is made of.
  [[nodiscard]] std::string state_name(std::string_view suffix,
                                       const std::string& content_key) const;
  // Where distill-child puts the child, below children/.
  [[nodiscard]] std::string trained_folder() const;
  [[nodiscard]] const TokenPart& repair_text() const;
  // Puts the repaired child in the place of the one there is.
  void repair_to(const std::string& folder_name, const std::string& name);
  [[nodiscard]] ScoreOptions score_options() const;
  [[nodiscard]] ChildSource child_source() const;
  // Scores exactly what the search chooses on estimates, until its choice stands (score_chosen).
  void settle_scores();
  void forget_results();
  void open_folder();
  void record_facts(const std::string& command);
  void check_training_text(const std::string& last) const;
  void check_questions(const std::string& last) const;
  [[nodiscard]] std::shared_ptr<const TokenFile> token_file(Communicator& communicator) const;
  void run_stage(const Stage& stage);
  void finish();
  [[nodiscard]] Library paper_library(const Architecture& architecture);
  [[nodiscard]] std::vector<Compared> compared_children();
  [[nodiscard]] ChildState distilled(const Compared& compared);
  void record_models();

  Recipe recipe_;
  std::string child_name_;
  bool is_cell_ = false;  // one of several recipes in one folder
  std::string last_;
  std::optional<FolderLock> lock_;  // rank 0's
  std::unique_ptr<RunDb> db_;
  std::unique_ptr<RunContext> context_;
  std::unique_ptr<LoadedModel> parent_;
  std::unique_ptr<TokenParts> parts_;
  SearchSpace space_;
  Library library_;
  MeasureResult measured_;
  SearchResult found_;
  std::vector<ChildState> before_;  // our child as assembled, repaired, …; not its last state
  ChildState child_;                // the last state so far
  ExportResult exported_;
  std::filesystem::path parent_gguf_;  // what the child's file is compared with
};

[[nodiscard]] std::vector<std::string> stage_names();
// Position of a stage in Pipeline::stages(); an unknown name is Error(kInternal).
[[nodiscard]] std::size_t stage_index(const std::string& name);

}  // namespace puzzle
