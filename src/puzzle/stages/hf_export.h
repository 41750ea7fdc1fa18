// A child as a Hugging Face folder, in one of three forms.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/arch/lowering.h"
#include "puzzle/model/weights.h"
#include "puzzle/stages/model_card.h"

namespace puzzle {

struct HfFormat {
  std::string_view name;  // of export_child.formats; the folder is exports/<child>-<name>
  ExportTarget target;
};
// hf           nemotron-nas with the Python that transformers runs (trust_remote_code)
// hf-padded    a uniform plain model of the parent's family (arch/padded_model.h), which stock
//              transformers loads
// hf-anymodel  hf's weights with a config.json for Model-Optimizer and vLLM's AnyModel
[[nodiscard]] const std::vector<HfFormat>& hf_formats();
// Null for a name that is none of them.
[[nodiscard]] const HfFormat* find_hf_format(std::string_view name);

struct HfExport {
  ModelCard card;
  std::filesystem::path parent;                   // whose tokenizer and model_type these are
  c10::ScalarType type = c10::ScalarType::Float;  // of the weights; also kHalf, kBFloat16
  std::string content_key;                        // see held_hf_key()
};

// Everything in the folder; config.json comes last. Throws Error(kUsage) where the format cannot
// hold the child (refusal()), before anything is written; Error(kIo).
void write_hf_export(const HfFormat& format, const std::filesystem::path& folder,
                     const ModelWeights& child, const HfExport& options);

// The content_key of a whole folder; empty where there is none.
[[nodiscard]] std::string held_hf_key(const std::filesystem::path& folder);

// The Python files that let transformers (trust_remote_code) load a nemotron-nas folder, by name.
[[nodiscard]] std::string remote_code_file(const std::string& name);
inline constexpr const char* kRemoteCodeFiles[] = {"configuration_decilm.py", "modeling_decilm.py"};

}  // namespace puzzle
