#include "puzzle/stages/child_folder.h"

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/text/tokenizer_files.h"

namespace puzzle {

std::string torch_dtype_name(c10::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "float32";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    default:
      fail(ErrorKind::kInternal, "no model is stored as {}", c10::toString(type));
  }
}

void write_model_folder(const std::filesystem::path& folder, const Json& config,
                        const std::filesystem::path& tokenizer_source,
                        const std::function<void(const std::filesystem::path&)>& write_weights) {
  make_folder(folder);
  std::filesystem::remove(folder / "config.json");
  write_weights(folder / "model.safetensors");
  for (const auto& [name, content] : load_hf_tokenizer_files(tokenizer_path(tokenizer_source))) {
    write_text_file(folder / name, content);
  }
  save_json(folder / "config.json", config);
}

void write_child_folder(const std::filesystem::path& folder, const ModelWeights& child,
                        const std::filesystem::path& tokenizer_source, c10::ScalarType stored_type,
                        const std::map<std::string, std::string>& metadata) {
  write_model_folder(
      folder, make_nemotron_nas_config(child.spec, torch_dtype_name(stored_type)), tokenizer_source,
      [&](const std::filesystem::path& file) { save_weights(file, child, stored_type, metadata); });
}

bool holds_child(const std::filesystem::path& folder, const std::string& key) {
  const std::filesystem::path weights = folder / "model.safetensors";
  if (!std::filesystem::exists(folder / "config.json") || !std::filesystem::exists(weights)) {
    return false;
  }
  const SafetensorsFile file(weights);
  const auto held = file.metadata().find("puzzle.key");
  return held != file.metadata().end() && held->second == key;
}

Json finished_child(RunContext& context, const std::filesystem::path& folder,
                    const std::string& key) {
  Json detail;
  if (context.communicator.is_first() && holds_child(folder, key)) {
    if (const auto record = context.db.find_stage(key)) {
      detail = record_detail(context.db, *record);
    }
  }
  return parse_json(context.communicator.broadcast_string(detail.dump(), 0), "rank 0's message");
}

}  // namespace puzzle
