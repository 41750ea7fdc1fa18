#include "puzzle/app/recipe.h"

#include <algorithm>
#include <filesystem>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"
#include "puzzle/stages/search_problem.h"

namespace puzzle {

void Recipe::visit(OptionList& list) {
  list.add("model", model,
           "The parent: a .gguf file, a Hugging Face folder, or a llama2.c checkpoint.");
  list.add("run", run, "Folder of the run; everything is written below it.");
  list.add("license", license, "Licence of the parent, for the model cards of exports.");
  list.add("device", device, "cpu, cuda or cuda:N.");
  list.add("threads", threads, Range<std::int64_t>{0, 4096},
           "Threads of one process; 0 uses all cores.");
  list.add("seed", seed, Range<std::int64_t>{0, INT64_MAX},
           "Decides every random choice of the run.");
  list.add("train_blocks", train_blocks, "Whether distill-blocks is part of the run.");
  list.add("train_child", train_child, "Whether distill-child is part of the run.");
  list.add("compare", compare,
           Choices{{"paper-init", "uniform", "greedy", "max-parameters", "random", "depth-only",
                    "no-op-only"}},
           "Children at the same budgets to evaluate beside ours, before global distillation: "
           "paper-init is "
           "our architecture with the paper's initialisation, the others are search methods.");
  list.add("compare_distilled", compare_distilled,
           "Also run distill-child on each of them, as on our child and with the same tokens, and "
           "evaluate the result.");
  list.section("data", data);
  list.section("scenario", scenario);
  list.section("search_space", search_space);
  list.section("init_library", init_library);
  list.section("distill_blocks", distill_blocks);
  list.section("score", score);
  list.section("measure", measure);
  list.section("search", search);
  list.section("distill_child", distill_child);
  list.section("evaluate", evaluate);
  list.section("export_child", export_child);
  list.section("throughput", throughput);
  list.section("communicator", communicator);
}

void validate(const Recipe& recipe, const ModelSpec& parent) {
  std::vector<std::string> problems;
  const auto attempt = [&](const auto& check) {
    try {
      check();
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  };
  if (recipe.data.sources.empty()) {
    problems.emplace_back("data.sources is empty; name at least one corpus");
  }
  attempt([&] { (void)make_search_space(recipe.search_space, parent); });
  attempt([&] { (void)parse_export_target(recipe.search.target); });
  for (const std::string& budget : recipe.search.budgets) {
    attempt([&] { (void)parse_budget(budget); });
  }
  if (recipe.compare_distilled && (!recipe.train_child || recipe.compare.empty())) {
    problems.emplace_back("compare_distilled needs train_child and something to compare");
  }
  if (recipe.data.window > parent.context_length) {
    problems.push_back(fmt::format("data.window is {}, the parent's context {}", recipe.data.window,
                                   parent.context_length));
  }
  if (recipe.measure.engine == "table" && !std::filesystem::exists(recipe.measure.table)) {
    problems.push_back(fmt::format("measure.table: there is no file '{}'", recipe.measure.table));
  }
  for (const auto* sets : {&recipe.evaluate.minimal_pairs, &recipe.evaluate.multiple_choice,
                           &recipe.evaluate.last_word}) {
    for (const std::string& path : *sets) {
      if (!std::filesystem::exists(path)) {
        problems.push_back(fmt::format("evaluate: there is no file or folder '{}'", path));
      }
    }
  }
  const bool gguf =
      std::find(recipe.export_child.formats.begin(), recipe.export_child.formats.end(), "gguf") !=
      recipe.export_child.formats.end();
  if (gguf && recipe.search.target == "nemotron-nas") {
    problems.emplace_back(
        "export_child.formats holds gguf, but search.target is nemotron-nas; use deci or native");
  }
  if (!problems.empty()) {
    fail(ErrorKind::kUsage, "recipe: {}", join(problems, "; "));
  }
}

}  // namespace puzzle
