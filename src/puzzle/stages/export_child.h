// Stage `export`: a child for other people's engines.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct ExportOptions {
  std::vector<std::string> formats = {"gguf"};  // gguf: llama.cpp's deci; the others: hf_formats()
  std::string types = "like-parent";            // of the gguf; see gguf_weight_types()
  std::string hf_dtype = "float32";             // of the hf folders

  void visit(OptionList& list);
};

struct ExportInput {
  const ModelWeights* child = nullptr;
  std::string key;      // content of the weights
  std::string name;     // files are exports/<name>.gguf and exports/<name>-<format>/
  std::string license;  // of the parent; empty = not known
  // Of the child as it was assembled and after each step since, for the card; empty = not known.
  std::vector<std::string> state_keys{};
};

struct ExportResult {
  std::filesystem::path gguf;                            // empty if not asked for
  std::map<std::string, std::filesystem::path> folders;  // by format, those that were asked for
};

// Writes what is missing. Each export comes with a model card that names the parent and its
// licence. Throws Error(kUsage) where a format cannot hold the child.
ExportResult export_child(RunContext& context, const LoadedModel& parent, const ExportInput& input,
                          const ExportOptions& options);

// The parent as a .gguf in the types of the child's, to be timed beside it: its own file where that
// is stored so, else exports/parent.gguf, which is written where it does not hold just that
// already. Throws Error(kUsage) where the format's architecture cannot hold the parent.
[[nodiscard]] std::filesystem::path export_parent(RunContext& context, const LoadedModel& parent,
                                                  const std::string& license,
                                                  const ExportOptions& options);

}  // namespace puzzle
