#include "puzzle/stages/assemble.h"

#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/stages/child_folder.h"

namespace puzzle {
namespace {

constexpr std::int64_t kAssembleVersion = 1;

std::string assemble_key(const LoadedModel& parent, const AssembleInput& input) {
  KeyBuilder key;
  key.add("stage", "assemble").add("version", kAssembleVersion);
  key.add("parent", parent.key).add("library", input.library_key).add("name", input.name);
  if (parent.tokenizer) {  // its files lie beside the child; their own key leaves this one out
    key.add("chat template", parent.tokenizer->chat_template());
  }
  for (const BlockSpec& block : input.architecture) {
    key.add("block", block.name());
  }
  return key.key();
}

}  // namespace

AssembleResult assemble(RunContext& context, const LoadedModel& parent,
                        const AssembleInput& input) {
  const Stopwatch watch;
  AssembleResult result{context.folder / "children" / input.name, assemble_key(parent, input)};
  if (context.communicator.is_first() &&
      !(context.db.has_stage(result.key) && holds_child(result.folder, result.key))) {
    const ModelWeights child = make_child(parent.weights, input.library_folder, input.architecture);
    write_child_folder(result.folder, child, parent.path, context.type,
                       {{"puzzle.parent", parent.key}, {"puzzle.key", result.key}});
    context.db.put(
        {.key = result.key, .stage = "assemble", .what = input.name, .seconds = watch.seconds()});
    log_info("assemble: {} in {}", input.name, result.folder.string());
  }
  context.communicator.barrier();
  return result;
}

}  // namespace puzzle
