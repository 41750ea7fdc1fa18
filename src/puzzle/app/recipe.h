// A recipe: every option of a run, one section per stage (docs/options.md lists them all).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/base/options.h"
#include "puzzle/data/data_options.h"
#include "puzzle/dist/communicator.h"
#include "puzzle/stages/distill_blocks.h"
#include "puzzle/stages/distill_child.h"
#include "puzzle/stages/evaluate.h"
#include "puzzle/stages/export_child.h"
#include "puzzle/stages/init_library.h"
#include "puzzle/stages/measure.h"
#include "puzzle/stages/repair.h"
#include "puzzle/stages/scenario_table.h"
#include "puzzle/stages/score.h"
#include "puzzle/stages/search.h"
#include "puzzle/stages/throughput.h"

namespace puzzle {

// In `compare`: our own architecture with the paper's initialisation.
inline constexpr const char* kPaperInit = "paper-init";

// What a child can be compared with: another start of its own architecture, or another search.
[[nodiscard]] std::vector<std::string> comparable_names();

struct Recipe {
  std::string model;  // the parent
  std::string run = "runs/puzzle";
  std::string license;  // of the parent, for model cards
  std::string device = "cpu";
  std::int64_t threads = 0;  // 0 = all cores
  std::int64_t seed = 0;
  bool train_blocks = true;     // distill-blocks
  bool repair_child = true;     // repair
  bool train_child = true;      // distill-child
  bool repair_trained = false;  // repair again after distill-child
  std::vector<std::string> compare = {kPaperInit, "uniform", "greedy"};
  bool compare_distilled = false;

  DataOptions data;
  Scenario scenario;
  SearchSpaceOptions search_space;
  InitLibraryOptions init_library;
  DistillBlocksOptions distill_blocks;
  ScoreOptions score;
  TimedEngine engine;  // sections llama_server and timing
  MeasureOptions measure;
  SearchOptions search;
  RepairOptions repair;
  DistillChildOptions distill_child;
  EvaluateOptions evaluate;
  ExportOptions export_child;
  ThroughputOptions throughput;
  ScenarioTableOptions scenarios;
  CommunicatorOptions communicator;

  void visit(OptionList& list);
};

}  // namespace puzzle
