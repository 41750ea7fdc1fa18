#include "puzzle/app/recipe.h"

namespace puzzle {

std::vector<std::string> comparable_names() {
  std::vector<std::string> names = {kPaperInit};
  for (const std::string& method : search_methods()) {
    if (method != SearchOptions{}.method) {
      names.push_back(method);
    }
  }
  return names;
}

void Recipe::visit(OptionList& list) {
  list.add("model", model,
           "The parent: a .gguf file, a Hugging Face folder, or a llama2.c checkpoint.");
  list.add("run", run, "Folder of the run; everything is written below it.");
  list.add(
      "license", license,
      "Licence of the parent, for the model cards of exports; empty reads it from the parent's "
      "files.");
  list.add("device", device, "cpu, cuda or cuda:N.");
  list.add("threads", threads, Range<std::int64_t>{0, 4096},
           "Threads of one process; 0 uses all cores, or in a group of ranks what their launcher "
           "gave each.");
  list.add("seed", seed, Range<std::int64_t>{0, INT64_MAX},
           "Decides the random choices of training and search; data.seed and the seeds of "
           "question sets and long texts decide those of the data.");
  list.add("train_blocks", train_blocks, "Whether distill-blocks is part of the run.");
  list.add("repair_child", repair_child,
           "Whether repair, the closed-form refit of the assembled child, is part of the run.");
  list.add("train_child", train_child, "Whether distill-child is part of the run.");
  list.add(
      "repair_trained", repair_trained,
      "Whether distill-child is followed by another repair, kept if the held-out KL falls by more "
      "than its standard error.");
  list.add("compare", compare, Choices{comparable_names()},
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
  list.section("llama_server", engine.llama_server);
  list.section("timing", engine.timing);
  list.section("measure", measure);
  list.section("search", search);
  list.section("repair", repair);
  list.section("distill_child", distill_child);
  list.section("evaluate", evaluate);
  list.section("export_child", export_child);
  list.section("throughput", throughput);
  list.section("scenarios", scenarios);
  list.section("communicator", communicator);
}

}  // namespace puzzle
