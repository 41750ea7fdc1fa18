#include "puzzle/stages/export_child.h"

#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/stages/child_folder.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/model_card.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

constexpr int kExportVersion = 1;
constexpr const char* kHfKeyName = "puzzle_content_key";
constexpr const char* kRemoteCodeFiles[] = {"configuration_decilm.py", "modeling_decilm.py"};

c10::ScalarType export_scalar_type(const std::string& name) {
  for (const c10::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    if (torch_dtype_name(type) == name) {
      return type;
    }
  }
  fail(ErrorKind::kUsage, "export_child.hf_dtype '{}': expected float32, float16 or bfloat16",
       name);
}

DType stored_as(c10::ScalarType type) {
  return type == at::kFloat ? DType::kF32 : type == at::kHalf ? DType::kF16 : DType::kBF16;
}

// What a file of ours says it holds; nothing for any other file, or none.
std::optional<std::string> recorded_key(const std::function<std::string()>& read) {
  try {
    return read();
  } catch (const Error&) {
    return std::nullopt;  // absent or not ours: to be written
  }
}

std::optional<std::string> held_gguf_key(const fs::path& file) {
  return recorded_key([&] { return GgufFile(file).string_value("puzzle.content_key"); });
}

class Exporter {
 public:
  Exporter(RunContext& context, const LoadedModel& parent, const ExportInput& input,
           const ExportOptions& options)
      : context_(context), parent_(parent), input_(input), options_(options) {
    if (input.name.empty() || input.name.find('/') != std::string::npos) {
      fail(ErrorKind::kUsage, "export: '{}' is no name for a file", input.name);
    }
  }

  fs::path gguf_path() const { return context_.folder / "exports" / (input_.name + ".gguf"); }
  fs::path hf_path() const { return context_.folder / "exports" / (input_.name + "-hf"); }

  void write_gguf() const {
    const std::string key = key_of("gguf", options_.types);
    const fs::path file = gguf_path();
    const fs::path card = context_.folder / "exports" / (input_.name + ".md");
    if (context_.db.has_stage(key) && held_gguf_key(file) == key && fs::exists(card)) {
      log_info("export: {} is there", file.string());
      return;
    }
    const Stopwatch watch;
    make_folder(file.parent_path());
    const WeightTypes types = gguf_weight_types(options_.types, parent_.path);
    write_deci_gguf(file, *input_.child,
                    {.name = input_.name,
                     .license = input_.license,
                     .parent_name = parent_.weights.spec.name,
                     .tokenizer_source = parent_.path,
                     .types = types,
                     .content_key = key});
    write_text_file(card, make_gguf_card(card_of(types)));
    record(key, file, fs::file_size(file), watch);
  }

  void write_hf() const {
    const std::string key = key_of("hf", options_.hf_dtype);
    const fs::path folder = hf_path();
    const fs::path weights = folder / "model.safetensors";
    const auto held = recorded_key([&] {
      const SafetensorsFile file(weights);
      const auto found = file.metadata().find(kHfKeyName);
      return found == file.metadata().end() ? std::string() : found->second;
    });
    if (context_.db.has_stage(key) && held == key && fs::exists(folder / "config.json")) {
      log_info("export: {} is there", folder.string());
      return;
    }
    const Stopwatch watch;
    const c10::ScalarType type = export_scalar_type(options_.hf_dtype);
    make_folder(folder);
    fs::remove(folder / "config.json");  // without it nobody takes the folder for a model
    for (const char* name : kRemoteCodeFiles) {
      write_text_file(folder / name, remote_code_file(name));
    }
    WeightTypes types;
    types.matrix = types.embedding = types.vector = stored_as(type);
    write_text_file(folder / "README.md", make_hf_card(card_of(types)));
    write_child_folder(folder, *input_.child, parent_.path, type, {{kHfKeyName, key}});
    record(key, folder, fs::file_size(weights), watch);
  }

 private:
  std::string key_of(const std::string& format, const std::string& types) const {
    KeyBuilder key;
    key.add("stage", "export").add("version", kExportVersion).add("parent", parent_.key);
    key.add("child", input_.key).add("name", input_.name).add("license", input_.license);
    key.add("parent name", parent_.weights.spec.name).add("format", format).add("types", types);
    if (parent_.tokenizer != nullptr) {
      key.add("tokenizer", parent_.tokenizer->content_key());
    }
    if (format == "hf") {
      for (const char* name : kRemoteCodeFiles) {
        key.add(name, remote_code_file(name));
      }
    }
    return key.key();
  }

  ModelCard card_of(const WeightTypes& types) const {
    return {.name = input_.name,
            .license = input_.license,
            .parent = parent_.weights.spec,
            .child = input_.child->spec,
            .types = types};
  }

  void record(const std::string& key, const fs::path& path, std::uintmax_t bytes,
              const Stopwatch& watch) const {
    log_info("export: {}, {}", path.string(), human_bytes(static_cast<double>(bytes)));
    StageRecord row;
    row.key = key;
    row.stage = "export";
    row.what = path.filename().string();
    row.seconds = watch.seconds();
    row.detail_json = Json({{"file", row.what}, {"bytes", bytes}}).dump();
    context_.db.put(row);
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const ExportInput& input_;
  const ExportOptions& options_;
};

}  // namespace

void ExportOptions::visit(OptionList& list) {
  list.add("formats", formats, Choices{{"gguf", "hf"}},
           "gguf: llama.cpp; hf: a transformers folder with its own code.");
  list.add("types", types, Choices{{"like-parent", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"}},
           "Numeric type of the matrices in the gguf.");
  list.add("hf_dtype", hf_dtype, Choices{{"float32", "float16", "bfloat16"}},
           "Numeric type of the hf folder's weights.");
}

ExportResult export_child(RunContext& context, const LoadedModel& parent, const ExportInput& input,
                          const ExportOptions& options) {
  PUZZLE_CHECK(input.child != nullptr, "export of no model");
  const Exporter exporter(context, parent, input, options);
  ExportResult result;
  for (const std::string& format : options.formats) {
    if (format == "gguf") {
      result.gguf = exporter.gguf_path();
    } else if (format == "hf") {
      result.hf_folder = exporter.hf_path();
    } else {
      fail(ErrorKind::kUsage, "export_child.formats: '{}', expected gguf or hf", format);
    }
  }
  std::string bytes;
  if (context.communicator.is_first()) {
    if (!result.gguf.empty()) {
      exporter.write_gguf();
      bytes = std::to_string(fs::file_size(result.gguf));
    }
    if (!result.hf_folder.empty()) {
      exporter.write_hf();
    }
  }
  bytes = context.communicator.broadcast_string(bytes, 0);
  result.gguf_bytes = bytes.empty() ? 0 : std::stoll(bytes);
  return result;
}

fs::path export_parent(RunContext& context, const LoadedModel& parent, const std::string& license,
                       const ExportOptions& options) {
  const WeightTypes types = gguf_weight_types(options.types, parent.path);
  if (parent.path.extension() == ".gguf" && is_stored_as(parent.path, types)) {
    return parent.path;
  }
  const fs::path file = context.folder / "exports" / "parent.gguf";
  if (context.communicator.is_first()) {
    KeyBuilder key;
    key.add("stage", "export parent").add("version", kExportVersion).add("parent", parent.key);
    key.add("license", license).add("name", parent.weights.spec.name);
    key.add("matrix", dtype_name(types.matrix)).add("embedding", dtype_name(types.embedding));
    key.add("tokenizer", parent.tokenizer->content_key());
    if (held_gguf_key(file) != key.key()) {
      make_folder(file.parent_path());
      write_deci_gguf(file, parent.weights,
                      {.name = parent.weights.spec.name,
                       .license = license,
                       .parent_name = "",
                       .tokenizer_source = parent.path,
                       .types = types,
                       .content_key = key.key()});
      log_info("export: {}, the parent in the child's types", file.string());
    }
  }
  context.communicator.barrier();
  return file;
}

}  // namespace puzzle
