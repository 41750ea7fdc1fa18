// The stages of Pipeline that look at what was made: evaluate, export, throughput.
#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/pipeline.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/throughput_rows.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

// The smallest space that holds an architecture.
SearchSpace space_of(const Architecture& architecture, const ModelSpec& parent) {
  SearchSpace space;
  for (std::size_t i = 0; i < architecture.size(); ++i) {
    LayerSpace layer{{parent.layers[i].attention}, {parent.layers[i].ffn}};
    if (architecture[i].attention != layer.attention.front()) {
      layer.attention.push_back(architecture[i].attention);
    }
    if (architecture[i].ffn != layer.ffn.front()) {
      layer.ffn.push_back(architecture[i].ffn);
    }
    space.layers.push_back(std::move(layer));
  }
  return space;
}

std::string model_label(const std::string& name) {
  static const std::map<std::string, std::string> kLabels = {
      {Pipeline::kChild, "Our child"},
      {"child-assembled", "Our child as assembled"},
      {"child-repaired", "Our child after repair, before global distillation"},
      {"child-trained", "Our child after global distillation, before its second repair"},
      {"paper-init", "Our architecture, the paper's initialisation"},
      {"uniform", "Best uniform child"},
      {"greedy", "Greedy child"},
      {"max-parameters", "Maximum-parameters child"},
      {"random", "Random child"},
      {"depth-only", "Depth-only child"},
      {"no-op-only", "No-op-only child"}};
  if (name.ends_with(Pipeline::kDistilledSuffix)) {
    return model_label(name.substr(0, name.size() - Pipeline::kDistilledSuffix.size())) +
           ", after global distillation";
  }
  const auto found = kLabels.find(name);
  return found == kLabels.end() ? name : found->second;
}

// Embedding and head that distillation left alone are held once for all children.
void share_equal_ends(ModelWeights& child, const ModelWeights& parent) {
  if (at::equal(child.embedding, parent.embedding)) {
    child.embedding = parent.embedding;
  }
  if (at::equal(child.head, parent.head)) {
    child.head = parent.head;
  }
}

}  // namespace

std::string Pipeline::weights_key(const Library& library, const Architecture& architecture) {
  KeyBuilder key;
  key.add("library", library.key);
  for (const BlockSpec& block : architecture) {
    key.add("block", block.name());
  }
  return key.key();
}

Pipeline::Library Pipeline::paper_library(const Architecture& architecture) {
  InitLibraryOptions options = recipe_.init_library;
  options.init = "paper";
  const InitLibraryResult result =
      init_library(*context_, *parent_, space_of(architecture, parent_->weights.spec),
                   parts_->calibration, parts_->validation, options, LibraryRole::kBaseline);
  return {result.folder, result.key};
}

std::vector<Pipeline::Compared> Pipeline::compared_children() {
  std::vector<Compared> compared;
  for (const std::string& name : recipe_.compare) {
    const bool is_ours = name == kPaperInit;
    if (const FoundArchitecture* found = found_.find(is_ours ? kChild : name)) {
      compared.push_back({name, found, is_ours ? paper_library(found->layers) : library_});
    }
  }
  return compared;
}

// Made as our child is, but that the paper's initialisation is not repaired: the paper has no such
// stage.
Pipeline::ChildState Pipeline::distilled(const Compared& compared) {
  const AssembleResult assembled = assemble(
      *context_, *parent_,
      {compared.library.folder, compared.library.key, compared.found->layers, compared.name});
  ChildState state{compared.name, assembled.folder, assembled.key};
  if (recipe_.repair_child && compared.name != kPaperInit) {
    const std::string name = compared.name + std::string(kRepairedSuffix);
    const RepairResult repaired = repair(*context_, *parent_, {state.folder, state.key, name},
                                         repair_text(), parts_->validation, recipe_.repair);
    state = {name, repaired.folder, repaired.key};
  }
  const std::string name = compared.name + std::string(kDistilledSuffix);
  const DistillChildResult result =
      distill_child(*context_, *parent_, {state.folder, state.key, name}, parts_->train,
                    parts_->validation, recipe_.distill_child);
  return {name, result.folder, result.key};
}

void Pipeline::evaluate_stage() {
  std::vector<std::pair<std::string, ModelWeights>> children;
  std::vector<std::string> keys;
  const auto add_state = [&](const ChildState& state) {
    ModelWeights weights = load_model(state.folder, context_->type);
    move_to(weights, context_->device, context_->type);
    share_equal_ends(weights, parent_->weights);
    children.emplace_back(state.name, std::move(weights));
    keys.push_back(state.key);
  };
  if (context_->communicator.is_first() && !is_cell_) {  // curves of what another recipe trained
    for (const std::string& name : comparable_names()) {
      if (!recipe_.compare_distilled ||
          std::ranges::find(recipe_.compare, name) == recipe_.compare.end()) {
        db_->set_current(RunTable::kCurves, "distill-child/" + name + std::string(kDistilledSuffix),
                         {});
      }
    }
  }
  add_state(child_);
  if (!is_cell_) {
    for (const ChildState& state : before_) {
      add_state(state);
    }
  }
  for (const Compared& compared : compared_children()) {
    children.emplace_back(compared.name, make_child(parent_->weights, compared.library.folder,
                                                    compared.found->layers));
    keys.push_back(weights_key(compared.library, compared.found->layers));
    if (recipe_.compare_distilled) {
      add_state(distilled(compared));
    }
  }
  std::vector<NamedModel> models;
  for (std::size_t i = 0; i < children.size(); ++i) {
    models.push_back({children[i].first, keys[i], &children[i].second});
  }
  (void)evaluate(*context_, *parent_, models, parts_->test, recipe_.evaluate);
}

void Pipeline::export_stage() {
  const ModelWeights child = load_model(child_.folder, context_->type);
  std::vector<std::string> state_keys;
  for (const ChildState& state : before_) {
    state_keys.push_back(state.key);
  }
  state_keys.push_back(child_.key);
  exported_ = export_child(*context_, *parent_,
                           {.child = &child,
                            .key = child_.key,
                            .name = "child",
                            .license = recipe_.license,
                            .state_keys = state_keys},
                           recipe_.export_child);
  parent_gguf_ = exported_.gguf.empty()
                     ? std::filesystem::path(recipe_.model)
                     : export_parent(*context_, *parent_, recipe_.license, recipe_.export_child);
  if (context_->communicator.is_first()) {
    record_models();
  }
}

std::vector<ExportCheck> Pipeline::check_exports() const {
  const ModelWeights child = load_model(child_.folder, c10::ScalarType::Float);
  return puzzle::check_exports(*context_, *parent_, child, exported_, recipe_.export_child,
                               parts_->test, recipe_.engine.llama_server);
}

void Pipeline::record_models() {
  const WeightTypes types = deployed_types(recipe_.search.types, recipe_.scenario, parent_->path);
  const ExportTarget target = parse_export_target(recipe_.search.target);
  std::vector<ModelRow> rows;
  std::vector<std::string> keys;
  const auto add = [&](const std::string& name, const std::string& role, const Architecture& layers,
                       const std::string& architecture, const std::filesystem::path& file) {
    const ModelSpec spec = with_layers(parent_->weights.spec, layers);
    const bool is_parent = name == "parent";
    const PartCost cost = model_cost(spec, is_parent ? ExportTarget::kNative : target, types);
    ModelRow row;
    row.key =
        KeyBuilder().add("model", name).add("child", child_.key).add("search", found_.key).key();
    row.name = name;
    row.role = role;
    row.label = is_parent ? parent_->weights.spec.name : model_label(name);
    row.architecture = architecture;
    row.parameters = cost.parameters;
    row.weight_bytes = cost.weight_bytes;
    row.kv_bytes_per_token = cost.kv_bytes_per_token;
    if (!file.empty() && std::filesystem::is_regular_file(file)) {
      row.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(file));
      row.detail_json = Json{{"file", file.filename().string()}}.dump();
    }
    keys.push_back(row.key);
    rows.push_back(std::move(row));
  };
  add("parent", "parent", parent_->weights.spec.layers, "", parent_gguf_);
  const Architecture& ours = found_.find(kChild)->layers;
  add("child", "child", ours, "child", exported_.gguf);
  for (const ChildState& state : before_) {
    add(state.name, "before", ours, "child", "");
  }
  for (const std::string& name : recipe_.compare) {
    if (const FoundArchitecture* found =
            name == kPaperInit ? found_.find(kChild) : found_.find(name)) {
      add(name, "baseline", found->layers, found->name, "");
      if (recipe_.compare_distilled) {
        add(name + std::string(kDistilledSuffix), "baseline", found->layers, found->name, "");
      }
    }
  }
  db_->put(rows);
  db_->set_current(RunTable::kModels, "export", keys);
}

void Pipeline::throughput_stage() {
  if (exported_.gguf.empty() || !recipe_.throughput.enabled) {
    if (context_->communicator.is_first()) {
      db_->set_current(RunTable::kThroughput, "throughput", {});
      db_->set_current(RunTable::kEvaluations, "throughput", {});
    }
    return;
  }
  std::vector<TimedFile> files;
  const FoundArchitecture* child = found_.find(kChild);
  const auto add = [&](const std::string& name, const std::filesystem::path& file,
                       const Architecture& layers) {
    TimedFile timed{name, file, std::nullopt, child->batch};
    // Another engine's times, or those of other types, say nothing about this file in llama.cpp.
    // Rank 0 has the times, and times the files.
    if (context_->communicator.is_first() && measured_.engine == "llama-server" &&
        is_stored_as(file,
                     deployed_types(recipe_.measure.types, recipe_.scenario, parent_->path))) {
      timed.prediction = CostModel(measured_.rows, "measured costs")
                             .predict(layers, {child->batch, recipe_.scenario.prompt_tokens,
                                               recipe_.scenario.generated_tokens});
    }
    files.push_back(std::move(timed));
  };
  add("parent", parent_gguf_, parent_->weights.spec.layers);
  add("child", exported_.gguf, child->layers);
  measure_throughput(*context_, files, recipe_.scenario, parts_->test, recipe_.throughput,
                     recipe_.engine);
}

void Pipeline::scenarios_stage() {
  if (exported_.gguf.empty() || !recipe_.scenarios.enabled) {
    if (context_->communicator.is_first()) {
      db_->set_current(RunTable::kThroughput, kScenarioScope, {});
    }
    return;
  }
  MeasureOptions costs = recipe_.measure;
  costs.types = recipe_.export_child.types;
  measure_scenarios(*context_, *parent_,
                    {{"parent", parent_gguf_, parent_->weights.spec.layers},
                     {"child", exported_.gguf, chosen().layers}},
                    parts_->test, recipe_.scenario, recipe_.scenarios, std::move(costs),
                    recipe_.engine);
}

}  // namespace puzzle
