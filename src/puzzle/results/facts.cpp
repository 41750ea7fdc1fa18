#include "puzzle/results/facts.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

constexpr const char* kParentMeta = "parent";
constexpr const char* kMachineMeta = "machine";
constexpr const char* kVersionMeta = "version";
constexpr const char* kBuildMeta = "build";
constexpr const char* kRecipeMeta = "recipe";
constexpr const char* kSeedMeta = "seed";
constexpr const char* kCommandMeta = "command";
constexpr const char* kLlamaCppMeta = "llama.cpp";

std::string meta_place(const RunDb& db, const char* name) {
  return fmt::format("{}: meta {}", db.path().string(), name);
}

Json parent_to_json(const ParentFacts& parent) {
  return {{"name", parent.name},
          {"license", parent.license},
          {"weights_key", parent.weights_key},
          {"parameters", parent.parameters},
          {"file_bytes", parent.file_bytes},
          {"hidden_size", parent.hidden_size},
          {"num_heads", parent.num_heads},
          {"head_dim", parent.head_dim},
          {"vocab_size", parent.vocab_size},
          {"blocks", block_names(parent.blocks)}};
}

Architecture parse_blocks(const Json& value, const std::string& place) {
  const auto blocks = value.find("blocks");
  if (blocks == value.end() || !blocks->is_array()) {
    fail(ErrorKind::kFormat, "{}: \"blocks\" is no list, expected one block name per layer", place);
  }
  Architecture architecture;
  for (const Json& block : *blocks) {
    if (!block.is_string()) {
      fail(ErrorKind::kFormat, "{}: {} in \"blocks\" is no block name", place, block.dump());
    }
    architecture.push_back(parse_block(block.get<std::string>()));
  }
  return architecture;
}

}  // namespace

ParentFacts parent_facts(const ModelSpec& spec) {
  ParentFacts parent;
  parent.name = spec.name;
  parent.parameters = num_parameters(spec);
  parent.hidden_size = spec.hidden_size;
  parent.num_heads = spec.num_heads;
  parent.head_dim = spec.head_dim;
  parent.vocab_size = spec.vocab_size;
  parent.blocks = spec.layers;
  return parent;
}

std::optional<ChildStep> kept_step(const StageRecord& record) {
  const auto counts = [&record](const char* member) {
    const std::string place = record.stage + " " + record.what;
    // A record that does not say is one of a step that was made.
    return json_int(parse_json(record.detail_json, place), member, place, 1) > 0;
  };
  if (record.stage == "repair" && counts("refitted")) {
    return ChildStep::kRepair;
  }
  if (record.stage == "distill-child" && counts("best_step")) {
    return ChildStep::kDistillation;
  }
  return std::nullopt;
}

ChildMaking child_making(const RunDb& db, const std::vector<std::string>& state_keys) {
  ChildMaking making;
  making.blocks_trained = std::ranges::any_of(db.variants(), [](const VariantRow& row) {
    return row.stage == "distill-blocks" && row.kept == "after";
  });
  for (const std::string& key : state_keys) {
    const std::optional<StageRecord> record = db.find_stage(key);
    if (const auto step = record ? kept_step(*record) : std::nullopt; step.has_value()) {
      making.steps.push_back(*step);
    }
  }
  return making;
}

std::string steps_text(const std::vector<ChildStep>& steps) {
  std::vector<std::string> words;
  words.reserve(steps.size());
  for (const ChildStep step : steps) {
    words.emplace_back(step == ChildStep::kRepair ? "repaired in closed form"
                                                  : "distilled from the parent");
  }
  return join(words, ", then ");
}

void put_facts(RunDb& db, const RunFacts& facts) {
  RunTransaction transaction(db);
  db.put_meta(kVersionMeta, facts.version);
  db.put_meta(kBuildMeta, facts.build);
  db.put_meta(kRecipeMeta, facts.recipe_yaml);
  db.put_meta(kSeedMeta, fmt::format("{}", facts.seed));
  db.put_meta(kCommandMeta, facts.command);
  transaction.commit();
}

void put_engine_version(RunDb& db, const std::string& llama_cpp) {
  db.put_meta(kLlamaCppMeta, llama_cpp);
}

void put_parent(RunDb& db, const ParentFacts& parent) {
  db.put_meta(kParentMeta, parent_to_json(parent).dump());
}

void put_machine(RunDb& db, const MachineFacts& machine) {
  db.put_meta(kMachineMeta, to_json(machine).dump());
}

RunFacts load_facts(const RunDb& db) {
  RunFacts facts;
  facts.version = db.meta(kVersionMeta).value_or("");
  facts.build = db.meta(kBuildMeta).value_or("");
  facts.recipe_yaml = db.meta(kRecipeMeta).value_or("");
  facts.command = db.meta(kCommandMeta).value_or("");
  facts.llama_cpp = db.meta(kLlamaCppMeta).value_or("");
  const std::string seed = db.meta(kSeedMeta).value_or("0");
  const auto number = parse_number<decltype(facts.seed)>(seed);
  if (!number) {
    fail(ErrorKind::kFormat, "{} is {}, expected a whole number", meta_place(db, kSeedMeta), seed);
  }
  facts.seed = *number;
  return facts;
}

std::optional<ParentFacts> load_parent(const RunDb& db) {
  const std::optional<std::string> text = db.meta(kParentMeta);
  if (!text.has_value()) {
    return std::nullopt;
  }
  const std::string place = meta_place(db, kParentMeta);
  const Json value = parse_json(*text, place);
  ParentFacts parent;
  parent.name = json_string(value, "name", place);
  parent.license = json_string(value, "license", place);
  parent.weights_key = json_string(value, "weights_key", place);
  parent.parameters = json_int(value, "parameters", place);
  parent.file_bytes = json_int(value, "file_bytes", place);
  parent.hidden_size = json_int(value, "hidden_size", place);
  parent.num_heads = json_int(value, "num_heads", place);
  parent.head_dim = json_int(value, "head_dim", place);
  parent.vocab_size = json_int(value, "vocab_size", place);
  parent.blocks = parse_blocks(value, place);
  return parent;
}

std::optional<MachineFacts> load_machine(const RunDb& db) {
  const std::optional<std::string> text = db.meta(kMachineMeta);
  if (!text.has_value()) {
    return std::nullopt;
  }
  const std::string place = meta_place(db, kMachineMeta);
  return parse_machine(parse_json(*text, place), place);
}

}  // namespace puzzle
