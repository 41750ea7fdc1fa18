#include "puzzle/stages/hf_export.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/arch/padded_model.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/child_folder.h"
#include "puzzle/stages/padded_export.h"

namespace puzzle {
namespace {

constexpr const char* kHfKeyName = "puzzle_content_key";

std::string hf_card(ExportTarget target, const ModelCard& card) {
  switch (target) {
    case ExportTarget::kPadded:
      return make_padded_card(card);
    case ExportTarget::kAnyModel:
      return make_any_model_card(card);
    default:
      return make_hf_card(card);
  }
}

Json hf_config(ExportTarget target, const ModelSpec& child, const HfExport& options) {
  const std::string dtype = torch_dtype_name(options.type);
  switch (target) {
    case ExportTarget::kPadded:
      return make_plain_config(padded_spec(child), dtype, hf_model_type(options.parent));
    case ExportTarget::kAnyModel:
      return make_any_model_config(child, dtype, hf_model_type(options.parent));
    default:
      return make_nemotron_nas_config(child, dtype);
  }
}

}  // namespace

const std::vector<HfFormat>& hf_formats() {
  static const std::vector<HfFormat> kFormats = {{"hf", ExportTarget::kNemotronNas},
                                                 {"hf-padded", ExportTarget::kPadded},
                                                 {"hf-anymodel", ExportTarget::kAnyModel}};
  return kFormats;
}

const HfFormat* find_hf_format(std::string_view name) {
  const auto& formats = hf_formats();
  const auto found = std::find_if(formats.begin(), formats.end(),
                                  [&](const HfFormat& format) { return format.name == name; });
  return found == formats.end() ? nullptr : &*found;
}

void write_hf_export(const HfFormat& format, const std::filesystem::path& folder,
                     const ModelWeights& child, const HfExport& options) {
  if (const auto reason = refusal(format.target, child.spec)) {
    fail(ErrorKind::kUsage, "{} cannot hold the child: {}", format.name, *reason);
  }
  make_folder(folder);
  std::filesystem::remove(folder / "config.json");  // without it nobody takes it for a model
  if (format.target == ExportTarget::kNemotronNas) {
    for (const char* name : kRemoteCodeFiles) {
      write_text_file(folder / name, remote_code_file(name));
    }
  }
  write_text_file(folder / "README.md", hf_card(format.target, options.card));
  const std::map<std::string, std::string> metadata = {{kHfKeyName, options.content_key}};
  write_model_folder(folder, hf_config(format.target, child.spec, options), options.parent,
                     [&](const std::filesystem::path& file) {
                       if (format.target == ExportTarget::kPadded) {
                         write_padded_weights(file, child, options.type, metadata);
                       } else {
                         save_weights(file, child, options.type, metadata);
                       }
                     });
}

std::string held_hf_key(const std::filesystem::path& folder) {
  const std::filesystem::path weights = folder / "model.safetensors";
  if (!std::filesystem::exists(folder / "config.json") || !std::filesystem::exists(weights)) {
    return "";
  }
  try {
    const SafetensorsFile file(weights);
    const auto found = file.metadata().find(kHfKeyName);
    return found == file.metadata().end() ? "" : found->second;
  } catch (const Error&) {
    return "";  // not ours: to be written
  }
}

}  // namespace puzzle
