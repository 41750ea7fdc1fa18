#include "puzzle/app/pipeline.h"

#include <algorithm>
#include <functional>
#include <map>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/version.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/data/token_file.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/facts.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/library.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

std::string resolved_yaml(const Recipe& recipe) {
  Recipe copy = recipe;
  OptionList list;
  copy.visit(list);
  return list.to_yaml();
}

std::string child_weights_key(const std::string& library_key, const Architecture& architecture) {
  KeyBuilder key;
  key.add("library", library_key);
  for (const BlockSpec& block : architecture) {
    key.add("block", block.name());
  }
  return key.key();
}

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

// What `compare_distilled` adds to the name of a compared child.
constexpr std::string_view kDistilledSuffix = "-distilled";

std::string model_label(const std::string& name) {
  static const std::map<std::string, std::string> kLabels = {
      {"child", "Our child"},
      {"child-before", "Our child before global distillation"},
      {"paper-init", "Our architecture, the paper's initialisation"},
      {"uniform", "Best uniform child"},
      {"greedy", "Greedy child"},
      {"max-parameters", "Maximum-parameters child"},
      {"random", "Random child"},
      {"depth-only", "Depth-only child"},
      {"no-op-only", "No-op-only child"}};
  if (name.ends_with(kDistilledSuffix)) {
    return model_label(name.substr(0, name.size() - kDistilledSuffix.size())) +
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

const std::vector<std::string>& stage_names() {
  static const std::vector<std::string> kNames = {
      "init-library",  "distill-blocks", "score",  "measure",    "search", "assemble",
      "distill-child", "evaluate",       "export", "throughput", "report"};
  return kNames;
}

Pipeline::Pipeline(const Recipe& recipe, Communicator& communicator, const std::string& command)
    : recipe_(recipe) {
  if (recipe_.model.empty()) {
    fail(ErrorKind::kUsage, "recipe: model is empty; name the parent");
  }
  validate(recipe_, load_model_spec(recipe_.model));
  for (const std::string& name : recipe_.compare) {
    const auto& baselines = recipe_.search.baselines;
    if (name != "paper-init" &&
        std::find(baselines.begin(), baselines.end(), name) == baselines.end()) {
      recipe_.search.baselines.push_back(name);
    }
  }
  set_num_threads(recipe_.threads);
  make_deterministic();
  const std::filesystem::path folder = recipe_.run;
  const c10::Device device = parse_device(recipe_.device);
  communicator.agree("recipe", resolved_yaml(recipe_));
  if (communicator.is_first()) {
    make_folder(folder);
    write_text_file(folder / "recipe.yaml", resolved_yaml(recipe_));
  }
  communicator.barrier();
  db_ = communicator.is_first() ? std::make_unique<RunDb>(folder / "run.db") : nullptr;
  communicator.barrier();
  if (!db_) {
    db_ = std::make_unique<RunDb>(folder / "run.db", RunDbMode::kRead);
  }
  context_ = std::make_unique<RunContext>(
      RunContext{folder, *db_, communicator, device, c10::ScalarType::Float, recipe_.seed});
  parent_ = std::make_unique<LoadedModel>(open_model(recipe_.model, device, context_->type));
  space_ = make_search_space(recipe_.search_space, parent_->weights.spec);
  if (communicator.is_first()) {
    put_facts(*db_, {.version = kPuzzleVersion,
                     .build = build_description(),
                     .recipe_yaml = resolved_yaml(recipe_),
                     .seed = recipe_.seed,
                     .command = command});
    put_machine(*db_, read_machine());
    ParentFacts facts = parent_facts(parent_->weights.spec);
    facts.license = recipe_.license;
    facts.weights_key = parent_->key;
    if (std::filesystem::is_regular_file(recipe_.model)) {
      facts.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(recipe_.model));
    }
    put_parent(*db_, facts);
    (void)load_token_file(folder / "data", recipe_.data, *parent_->tokenizer);
  }
  communicator.barrier();
  parts_ = std::make_unique<TokenParts>(split_tokens(
      load_token_file(folder / "data", recipe_.data, *parent_->tokenizer), recipe_.data));
}

Pipeline::~Pipeline() = default;

void Pipeline::run_until(const std::string& last) {
  const std::map<std::string, void (Pipeline::*)()> stages = {
      {"init-library", &Pipeline::init_library_stage},
      {"distill-blocks", &Pipeline::distill_blocks_stage},
      {"score", &Pipeline::score_stage},
      {"measure", &Pipeline::measure_stage},
      {"search", &Pipeline::search_stage},
      {"assemble", &Pipeline::assemble_stage},
      {"distill-child", &Pipeline::distill_child_stage},
      {"evaluate", &Pipeline::evaluate_stage},
      {"export", &Pipeline::export_stage},
      {"throughput", &Pipeline::throughput_stage},
      {"report", &Pipeline::report_stage}};
  for (const std::string& name : stage_names()) {
    const Stopwatch watch;
    (this->*stages.at(name))();
    log_debug("{} took {:.1f} s", name, watch.seconds());
    if (name == last) {
      return;
    }
  }
}

void Pipeline::init_library_stage() {
  const InitLibraryResult result = init_library(*context_, *parent_, space_, parts_->calibration,
                                                parts_->validation, recipe_.init_library);
  library_ = {result.folder, result.key};
}

void Pipeline::distill_blocks_stage() {
  if (!recipe_.train_blocks) {
    return;
  }
  const DistillBlocksResult result =
      distill_blocks(*context_, *parent_, {library_.folder, library_.key}, space_, parts_->train,
                     parts_->validation, recipe_.distill_blocks);
  library_ = {result.folder, result.key};
}

void Pipeline::score_stage() {
  (void)score(*context_, *parent_, {library_.folder, library_.key}, space_, parts_->scoring,
              recipe_.score);
}

void Pipeline::measure_stage() {
  measured_ = measure(*context_, *parent_, space_, recipe_.scenario, recipe_.measure);
}

void Pipeline::search_stage() {
  found_ = search(*context_, *parent_, space_, recipe_.scenario, measured_.rows, recipe_.search);
  for (const FoundArchitecture& found : found_.found) {
    log_info("search: {}: predicted damage {:.4f} nats, {:.1f} % of the parent's parameters",
             found.name, found.objective,
             100.0 * found.costs.at("parameters") /
                 static_cast<double>(
                     model_cost(parent_->weights.spec, ExportTarget::kNative, WeightTypes{})
                         .parameters));
  }
}

void Pipeline::assemble_stage() {
  assembled_ = assemble(*context_, *parent_,
                        {library_.folder, library_.key, found_.find("child")->layers,
                         recipe_.train_child ? "child-before" : "child"});
  child_folder_ = assembled_.folder;
  child_key_ = assembled_.key;
}

void Pipeline::distill_child_stage() {
  if (!recipe_.train_child) {
    return;
  }
  const DistillChildResult result =
      distill_child(*context_, *parent_, {assembled_.folder, assembled_.key, "child"},
                    parts_->train, parts_->validation, recipe_.distill_child);
  child_folder_ = result.folder;
  child_key_ = result.key;
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
    const bool is_ours = name == "paper-init";
    if (const FoundArchitecture* found = found_.find(is_ours ? "child" : name)) {
      compared.push_back({name, found, is_ours ? paper_library(found->layers) : library_});
    }
  }
  return compared;
}

void Pipeline::evaluate_stage() {
  std::vector<std::pair<std::string, ModelWeights>> children;
  std::vector<std::string> keys;
  const auto add_trained = [&](const std::string& name, const std::filesystem::path& folder,
                               const std::string& key) {
    children.emplace_back(name, load_model(folder, context_->type));
    share_equal_ends(children.back().second, parent_->weights);
    keys.push_back(key);
  };
  const auto add_untrained = [&](const std::string& name, const Library& library,
                                 const Architecture& layers) {
    children.emplace_back(name, make_child(parent_->weights, library.folder, layers));
    keys.push_back(child_weights_key(library.key, layers));
  };
  const Architecture& ours = found_.find("child")->layers;
  add_trained("child", child_folder_, child_key_);
  if (recipe_.train_child) {
    add_untrained("child-before", library_, ours);
  }
  for (const Compared& compared : compared_children()) {
    add_untrained(compared.name, compared.library, compared.found->layers);
    if (recipe_.compare_distilled) {
      const AssembleResult start = assemble(
          *context_, *parent_,
          {compared.library.folder, compared.library.key, compared.found->layers, compared.name});
      const std::string name = compared.name + std::string(kDistilledSuffix);
      const DistillChildResult result =
          distill_child(*context_, *parent_, {start.folder, start.key, name}, parts_->train,
                        parts_->validation, recipe_.distill_child);
      add_trained(name, result.folder, result.key);
    }
  }
  std::vector<NamedModel> models;
  for (std::size_t i = 0; i < children.size(); ++i) {
    move_to(children[i].second, context_->device, context_->type);
    models.push_back({children[i].first, keys[i], &children[i].second});
  }
  (void)evaluate(*context_, *parent_, models, parts_->test, recipe_.evaluate);
}

void Pipeline::export_stage() {
  const ModelWeights child = load_model(child_folder_, context_->type);
  exported_ = export_child(
      *context_, *parent_,
      {.child = &child, .key = child_key_, .name = "child", .license = recipe_.license},
      recipe_.export_child);
  // A parent that is no GGUF is written as one, in the child's types, so that both can be timed
  // alike.
  parent_gguf_ = recipe_.model;
  if (parent_gguf_.extension() != ".gguf" && !exported_.gguf.empty()) {
    parent_gguf_ = context_->folder / "exports" / "parent.gguf";
    if (context_->communicator.is_first() && !std::filesystem::exists(parent_gguf_)) {
      write_deci_gguf(parent_gguf_, parent_->weights,
                      {.name = parent_->weights.spec.name,
                       .license = recipe_.license,
                       .parent_name = "",
                       .tokenizer_source = parent_->path,
                       .types = gguf_weight_types(recipe_.export_child.types, parent_->path)});
    }
  }
  if (context_->communicator.is_first()) {
    record_models();
  }
}

void Pipeline::record_models() {
  const WeightTypes types = gguf_weight_types(recipe_.export_child.types, parent_->path);
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
        KeyBuilder().add("model", name).add("child", child_key_).add("search", found_.key).key();
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
  const Architecture& ours = found_.find("child")->layers;
  add("child", "child", ours, "child", exported_.gguf);
  if (recipe_.train_child) {
    add("child-before", "before", ours, "child", "");
  }
  for (const std::string& name : recipe_.compare) {
    if (const FoundArchitecture* found =
            name == "paper-init" ? found_.find("child") : found_.find(name)) {
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
  if (exported_.gguf.empty()) {
    return;
  }
  std::vector<TimedFile> files;
  const FoundArchitecture* child = found_.find("child");
  const auto add = [&](const std::string& name, const std::filesystem::path& file,
                       const Architecture& layers) {
    TimedFile timed{name, file, std::nullopt, child->batch};
    if (!measured_.rows.empty()) {
      timed.prediction = CostModel(measured_.rows, "measured costs")
                             .predict(layers, {child->batch, recipe_.scenario.prompt_tokens,
                                               recipe_.scenario.generated_tokens});
    }
    files.push_back(std::move(timed));
  };
  add("parent", parent_gguf_, parent_->weights.spec.layers);
  add("child", exported_.gguf, child->layers);
  measure_throughput(*context_, files, recipe_.scenario, parts_->test, recipe_.throughput);
}

void Pipeline::report_stage() {
  if (context_->communicator.is_first()) {
    const std::filesystem::path file = context_->folder / "report.html";
    write_report(*db_, file);
    log_info("report: {}", file.string());
  }
  context_->communicator.barrier();
}

Json Pipeline::summary() const {
  Json result = {{"run", context_->folder.string()}};
  Json architectures = Json::object();
  for (const ArchitectureRow& row : db_->architectures()) {
    architectures[row.name] = {{"blocks", row.blocks},
                               {"objective", row.objective},
                               {"costs", parse_json(row.costs_json, "run.db")}};
  }
  result["architectures"] = architectures;
  Json evaluations = Json::object();
  for (const EvaluationRow& row : db_->evaluations()) {
    evaluations[row.model][row.task][row.metric] = {
        {"value", row.value}, {"standard_error", row.standard_error}, {"count", row.count}};
  }
  result["evaluations"] = evaluations;
  Json throughput = Json::object();
  for (const ThroughputRow& row : db_->throughput()) {
    throughput[row.model] = {
        {"prefill_s", row.measured_prefill_s.value_or(0.0)},
        {"generation_tokens_per_s", row.measured_generation_per_s.value_or(0.0)}};
  }
  result["throughput"] = throughput;
  if (!exported_.gguf.empty()) {
    result["gguf"] = exported_.gguf.string();
  }
  return result;
}

}  // namespace puzzle
