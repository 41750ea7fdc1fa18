#include "puzzle/stages/export_child.h"

#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/child_folder.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/hf_export.h"
#include "puzzle/stages/model_card.h"
#include "puzzle/stages/weight_types.h"
#include "puzzle/text/tokenizer_files.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

constexpr int kExportVersion = 2;

c10::ScalarType export_scalar_type(const std::string& name) {
  for (const c10::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    if (torch_dtype_name(type) == name) {
      return type;
    }
  }
  fail(ErrorKind::kUsage, "export_child.hf_dtype '{}': expected float32, float16 or bfloat16",
       name);
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

// An export carries the chat template, which a tokenizer's own key leaves out.
void add_tokenizer_to_key(KeyBuilder& key, const Tokenizer& tokenizer) {
  key.add("tokenizer", tokenizer.content_key()).add("chat template", tokenizer.chat_template());
}

std::vector<std::string> export_formats() {
  std::vector<std::string> names = {"gguf", "gguf-openelm"};
  for (const HfFormat& format : hf_formats()) {
    names.emplace_back(format.name);
  }
  return names;
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

  [[nodiscard]] fs::path gguf_path() const {
    return context_.folder / "exports" / (input_.name + ".gguf");
  }
  [[nodiscard]] fs::path folder_of(const HfFormat& format) const {
    return context_.folder / "exports" / fmt::format("{}-{}", input_.name, format.name);
  }

  void write_gguf(ExportTarget target) const {
    const std::string key =
        key_of(target == ExportTarget::kOpenElm ? "gguf-openelm" : "gguf", options_.types);
    const fs::path file = gguf_path();
    const fs::path card = context_.folder / "exports" / (input_.name + ".md");
    if (context_.db.has_stage(key) && held_gguf_key(file) == key && fs::exists(card)) {
      log_info("export: {} is there", file.string());
      return;
    }
    const Stopwatch watch;
    make_folder(file.parent_path());
    const WeightTypes types = gguf_weight_types(options_.types, parent_.path);
    write_model_gguf(file, *input_.child,
                     {.name = input_.name,
                      .license = input_.license,
                      .parent_name = parent_.weights.spec.name,
                      .tokenizer_source = parent_.path,
                      .types = types,
                      .target = target,
                      .content_key = key});
    write_text_file(card, make_gguf_card(card_of(types), target));
    record(key, file, fs::file_size(file), watch);
  }

  void write_hf(const HfFormat& format) const {
    const std::string key = key_of(std::string(format.name), options_.hf_dtype);
    const fs::path folder = folder_of(format);
    if (context_.db.has_stage(key) && held_hf_key(folder) == key) {
      log_info("export: {} is there", folder.string());
      return;
    }
    const Stopwatch watch;
    const c10::ScalarType type = export_scalar_type(options_.hf_dtype);
    WeightTypes types;
    types.matrix = types.embedding = types.vector = dtype_of_torch_name(options_.hf_dtype);
    write_hf_export(
        format, folder, *input_.child,
        {.card = card_of(types), .parent = parent_.path, .type = type, .content_key = key});
    record(key, folder, fs::file_size(folder / "model.safetensors"), watch);
  }

 private:
  [[nodiscard]] std::string key_of(const std::string& format, const std::string& types) const {
    KeyBuilder key;
    key.add("stage", "export").add("version", kExportVersion).add("parent", parent_.key);
    key.add("child", input_.key).add("name", input_.name).add("license", input_.license);
    key.add("parent name", parent_.weights.spec.name).add("format", format).add("types", types);
    if (parent_.tokenizer != nullptr) {
      add_tokenizer_to_key(key, *parent_.tokenizer);
      if (find_hf_format(format) != nullptr) {
        for (const auto& [name, content] : load_hf_tokenizer_files(tokenizer_path(parent_.path))) {
          key.add(name, content);
        }
      }
    }
    if (format != "hf" && find_hf_format(format) != nullptr) {
      key.add("model type", hf_model_type(parent_.path));
    }
    if (format == "hf") {
      for (const char* name : kRemoteCodeFiles) {
        key.add(name, remote_code_file(name));
      }
    }
    return key.key();
  }

  [[nodiscard]] ModelCard card_of(const WeightTypes& types) const {
    return {.name = input_.name,
            .license = input_.license,
            .parent = parent_.weights.spec,
            .child = input_.child->spec,
            .types = types,
            .making = input_.state_keys.empty()
                          ? std::nullopt
                          : std::optional(child_making(context_.db, input_.state_keys))};
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
  list.add("formats", formats, Choices{export_formats()},
           "gguf: llama.cpp; gguf-openelm: llama.cpp for tied models with norms of q and k; hf: a "
           "transformers folder with its own code; hf-padded: a plain model "
           "of the parent's class, for everything that reads it, without the savings; hf-anymodel: "
           "Model-Optimizer and vLLM's AnyModel. docs/engines.md says what each holds.");
  std::vector<std::string> type_names = gguf_type_names();
  type_names.insert(type_names.begin(), "like-parent");
  list.add("types", types, Choices{type_names}, "Numeric type of the matrices in the gguf.");
  list.add("hf_dtype", hf_dtype, Choices{{"float32", "float16", "bfloat16"}},
           "Numeric type of the hf folders' weights.");
}

ExportResult export_child(RunContext& context, const LoadedModel& parent, const ExportInput& input,
                          const ExportOptions& options) {
  PUZZLE_CHECK(input.child != nullptr, "export of no model");
  const Exporter exporter(context, parent, input, options);
  const std::optional<ExportTarget> gguf_target = gguf_format_target(options.formats);
  ExportResult result;
  for (const std::string& format : options.formats) {
    if (is_gguf_format(format)) {
      result.gguf = exporter.gguf_path();
    } else if (const HfFormat* folder = find_hf_format(format)) {
      result.folders[format] = exporter.folder_of(*folder);
    } else {
      fail(ErrorKind::kUsage, "export_child.formats: '{}', expected one of {}", format,
           join(export_formats(), ", "));
    }
  }
  if (context.communicator.is_first()) {
    if (!result.gguf.empty()) {
      exporter.write_gguf(*gguf_target);
    }
    for (const auto& [format, folder] : result.folders) {
      exporter.write_hf(*find_hf_format(format));
    }
  }
  context.communicator.barrier();
  return result;
}

fs::path export_parent(RunContext& context, const LoadedModel& parent, const std::string& license,
                       const ExportOptions& options) {
  const WeightTypes types = gguf_weight_types(options.types, parent.path);
  if (parent.path.extension() == ".gguf" && is_stored_as(parent.path, types)) {
    return parent.path;
  }
  const fs::path file = context.folder / "exports" / "parent.gguf";
  const ExportTarget target = gguf_format_target(options.formats).value_or(ExportTarget::kDeci);
  if (context.communicator.is_first()) {
    KeyBuilder key;
    key.add("stage", "export parent").add("version", kExportVersion).add("parent", parent.key);
    key.add("license", license).add("name", parent.weights.spec.name);
    key.add("matrix", dtype_name(types.matrix)).add("embedding", dtype_name(types.embedding));
    add_tokenizer_to_key(key, *parent.tokenizer);
    if (target != ExportTarget::kDeci) {
      key.add("target", export_target_name(target));
    }
    if (held_gguf_key(file) != key.key()) {
      make_folder(file.parent_path());
      write_model_gguf(file, parent.weights,
                       {.name = parent.weights.spec.name,
                        .license = license,
                        .parent_name = "",
                        .tokenizer_source = parent.path,
                        .types = types,
                        .target = target,
                        .content_key = key.key()});
      log_info("export: {}, the parent in the child's types", file.string());
    }
  }
  context.communicator.barrier();
  return file;
}

}  // namespace puzzle
