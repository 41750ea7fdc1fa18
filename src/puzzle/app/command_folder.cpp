// report, clean: verbs on the folder of a run.
#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <system_error>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/pipeline.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/folder_lock.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/comparison.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

void check_is_run(const fs::path& run) {
  if (!fs::exists(run / "run.db")) {
    fail(ErrorKind::kUsage, "{}: holds no run.db; expected the folder of a run", run.string());
  }
}

void add_report(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto folder = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("report", "Write report.html of a run, finished or not");
  verb->add_option("run", *folder, "Folder of the run")->required();
  verb->callback([folder, &global, &selected] {
    selected.run = [folder, &global] {
      const fs::path run = *folder;
      check_is_run(run);
      const RunDb db(run / "run.db", RunDbMode::kRead);
      const fs::path page = run / "report.html";
      write_report(db, page);
      if (global.json) {
        Json result = db.dump_json({.rows = RowSet::kCurrent});
        result["report"] = page.string();
        print_json(global, result);
      } else {
        print_text(page.string() + "\n");
      }
    };
  });
}

// Folders below children/ that comparisons name as the children of their cells.
std::set<std::string> compared_folders(const RunDb& db) {
  std::set<std::string> names;
  for (const Comparison& comparison : load_comparisons(db)) {
    for (const ComparedCell& cell : comparison.cells) {
      names.insert(fs::path(cell.folder).filename().string());
    }
  }
  return names;
}

// Whether a folder below children/ is an earlier state of the children of a grid's cells, which are
// named after their content, or have trained and go on.
bool is_start_of_cells(const std::string& name, const std::set<std::string>& cells) {
  if (cells.contains(name)) {
    return false;
  }
  if (name.ends_with(Pipeline::kTrainedSuffix)) {
    return cells.contains(name.substr(0, name.size() - Pipeline::kTrainedSuffix.size()));
  }
  return !cells.empty() &&
         std::ranges::any_of(std::array{Pipeline::kAssembledSuffix, Pipeline::kRepairedSuffix},
                             [&](std::string_view suffix) {
                               return name.starts_with(std::string(suffix.substr(1)) + "-");
                             });
}

// What only the stages of a run read. Children that were trained stay, those they started from go.
std::vector<fs::path> unneeded_paths(const fs::path& run, const RunDb& db) {
  std::vector<fs::path> paths;
  for (const char* name : {"library", "data", "measure"}) {
    if (fs::exists(run / name)) {
      paths.push_back(run / name);
    }
  }
  const fs::path children = run / "children";
  if (!fs::exists(children)) {
    return paths;
  }
  const std::set<std::string> cells = compared_folders(db);
  for (const auto& entry : fs::directory_iterator(children)) {
    const std::string name = entry.path().filename().string();
    std::string base = name;
    for (const std::string_view suffix :
         {Pipeline::kAssembledSuffix, Pipeline::kRepairedSuffix, Pipeline::kTrainedSuffix}) {
      if (name.ends_with(suffix)) {
        base.resize(name.size() - suffix.size());
      }
    }
    const auto exists = [&](std::string_view suffix) {
      return fs::exists(children / (base + std::string(suffix)));
    };
    // A compared child's first state bears its bare name, ours the last one.
    const bool is_ours = exists(Pipeline::kAssembledSuffix);
    const bool is_start =
        (is_ours && base != name && exists("")) || (!is_ours && exists(Pipeline::kDistilledSuffix));
    const std::string extension = entry.path().extension().string();
    if (is_start || is_start_of_cells(name, cells) || extension.starts_with(".training-") ||
        extension.starts_with(".repair-")) {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Removes as much as it can, then throws Error(kIo) naming what it could not.
std::vector<std::string> clean(const fs::path& run, const RunDb& db) {
  std::vector<std::string> removed;
  std::vector<std::string> failures;
  for (const fs::path& path : unneeded_paths(run, db)) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) {
      failures.push_back(path.string() + ": " + error.message());
    } else {
      removed.push_back(path.string());
    }
  }
  for (const fs::path& path : remove_stale_temporaries(run)) {
    removed.push_back(path.string());
  }
  if (!failures.empty()) {
    fail(ErrorKind::kIo, "{}: cannot remove {}", run.string(), join(failures, ", "));
  }
  return removed;
}

void add_clean(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto folder = std::make_shared<std::string>();
  auto force = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand(
      "clean",
      "Remove what a finished run no longer needs: library, tokens, training states, the children "
      "that training started from. What stays is the child, its files and the report; stages that "
      "are asked for later (`scenarios`, `export --check`) make the library anew");
  verb->add_option("run", *folder, "Folder of the run")->required();
  verb->add_flag("--force", *force, "Also where the run has not finished: its work is lost");
  verb->callback([folder, force, &global, &selected] {
    selected.run = [folder, force, &global] {
      const fs::path run = *folder;
      check_is_run(run);
      const FolderLock lock(run);
      const RunDb db(run / "run.db", RunDbMode::kRead);
      if (!Pipeline::is_finished(db) && !*force) {
        fail(ErrorKind::kUsage,
             "{}: the run has not finished, and what would be removed is what it goes on from; "
             "finish it with `puzzle run` (or, in a folder of `puzzle compare`, all of its grids), "
             "or --force",
             run.string());
      }
      const std::vector<std::string> removed = clean(run, db);
      if (global.json) {
        print_json(global, {{"removed", removed}});
      } else {
        for (const std::string& path : removed) {
          print_text(path + "\n");
        }
      }
    };
  });
}

}  // namespace

void add_folder_commands(CLI::App& app, GlobalOptions& global, Action& selected) {
  add_report(app, global, selected);
  add_clean(app, global, selected);
}

}  // namespace puzzle
