// The README of an exported child: what it was made from, under which licence, what is in each
// layer, how to run it. Markdown with the front matter that model hubs read.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/model_spec.h"
#include "puzzle/results/facts.h"

namespace puzzle {

struct ModelCard {
  std::string name;     // of the files
  std::string license;  // of the parent, which the child inherits; empty = not known
  ModelSpec parent;
  ModelSpec child;
  WeightTypes types;                    // as stored
  std::optional<ChildMaking> making{};  // unset = not known; the card then says nothing of it
};

// The licence that a model's own files name: general.license of a .gguf, `license` in the front
// matter of a folder's README.md (`license_name` where that says "other"). Empty where they name
// none, or "unknown" or "other" alone.
[[nodiscard]] std::string license_of(const std::filesystem::path& model);

// For exports/<name>.gguf of this architecture: runs in llama.cpp. Throws as lower_model.
[[nodiscard]] std::string make_gguf_card(const ModelCard& card, ExportTarget target);
// For exports/<name>-hf/: runs in transformers.
[[nodiscard]] std::string make_hf_card(const ModelCard& card);
// For exports/<name>-hf-padded/: runs wherever its class does. Throws as lower_model.
[[nodiscard]] std::string make_padded_card(const ModelCard& card);
// For exports/<name>-hf-anymodel/: Model-Optimizer, vLLM's AnyModel.
[[nodiscard]] std::string make_any_model_card(const ModelCard& card);

}  // namespace puzzle
