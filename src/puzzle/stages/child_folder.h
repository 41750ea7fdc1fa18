// A child on disk as a Hugging Face folder: config.json, model.safetensors, tokenizer files.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/model/weights.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// Written so that a reader never sees half of it: an earlier child's config.json goes first, then
// come the weights, config.json last, each by rename.
// `tokenizer_source` is the parent (a folder, a .gguf or a llama2.c checkpoint); `write_weights` is
// called with the path of model.safetensors. Throws Error(kIo).
void write_model_folder(const std::filesystem::path& folder, const nlohmann::json& config,
                        const std::filesystem::path& tokenizer_source,
                        const std::function<void(const std::filesystem::path&)>& write_weights);

// The same in nemotron-nas; `metadata` goes into the safetensors header.
void write_child_folder(const std::filesystem::path& folder, const ModelWeights& child,
                        const std::filesystem::path& tokenizer_source, c10::ScalarType stored_type,
                        const std::map<std::string, std::string>& metadata);

// Whether the folder is a whole child whose weights were written with "puzzle.key" = `key`. A
// folder keeps its name when options change, so that it exists says nothing about what it holds.
[[nodiscard]] bool holds_child(const std::filesystem::path& folder, const std::string& key);

// What the stage of that key recorded of the child (record_detail), on every rank; null if it has
// not finished or the folder holds another child.
[[nodiscard]] nlohmann::json finished_child(RunContext& context,
                                            const std::filesystem::path& folder,
                                            const std::string& key);

// "float32", "float16", "bfloat16".
[[nodiscard]] std::string torch_dtype_name(c10::ScalarType type);

}  // namespace puzzle
