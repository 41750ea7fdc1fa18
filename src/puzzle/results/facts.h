// Facts about a run that are no table: parent, machine, versions, recipe, seed. They live in
// run.db's meta table under the names below.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/arch/model_spec.h"
#include "puzzle/results/machine.h"

namespace puzzle {

class RunDb;
struct StageRecord;

struct ParentFacts {
  std::string name;
  std::string license;      // empty = the file does not say
  std::string weights_key;  // content key of the weights
  std::int64_t parameters = 0;
  std::int64_t file_bytes = 0;  // 0 = not one file
  std::int64_t hidden_size = 0;
  std::int64_t num_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  Architecture blocks;  // one per layer

  bool operator==(const ParentFacts&) const = default;
};

// The fields that a ModelSpec knows; the rest is the caller's.
[[nodiscard]] ParentFacts parent_facts(const ModelSpec& spec);

// What changed the weights of a whole child after it was assembled.
enum class ChildStep { kRepair, kDistillation };

// How a child's weights came about. What was tried and not kept is left out.
struct ChildMaking {
  bool blocks_trained = false;     // distill-blocks improved variants of the library
  std::vector<ChildStep> steps{};  // in order

  bool operator==(const ChildMaking&) const = default;
};

// From what their stages recorded: `state_keys` are the content keys of the child as assembled and
// after each step, in order. Whether blocks were trained is that of the current library.
[[nodiscard]] ChildMaking child_making(const RunDb& db, const std::vector<std::string>& state_keys);
// The step that a stage recorded, if it is one and was kept.
[[nodiscard]] std::optional<ChildStep> kept_step(const StageRecord& record);
// "repaired in closed form, then distilled from the parent"; empty for none.
[[nodiscard]] std::string steps_text(const std::vector<ChildStep>& steps);

struct RunFacts {
  std::string version;      // of this program
  std::string build;        // compiler, torch and solver versions; for people
  std::string recipe_yaml;  // resolved: every option with its value
  std::int64_t seed = 0;
  std::string command;  // as started
  std::string
      llama_cpp{};  // its version; empty until a stage has asked it. put_facts leaves it alone
};

// Written once at the start of a run; the machine's row is replaced if the run moved.
void put_facts(RunDb& db, const RunFacts& facts);
void put_engine_version(RunDb& db, const std::string& llama_cpp);
void put_parent(RunDb& db, const ParentFacts& parent);
void put_machine(RunDb& db, const MachineFacts& machine);

// Empty where a run has not come that far. Throw Error(kFormat) for damaged values.
[[nodiscard]] RunFacts load_facts(const RunDb& db);
[[nodiscard]] std::optional<ParentFacts> load_parent(const RunDb& db);
[[nodiscard]] std::optional<MachineFacts> load_machine(const RunDb& db);

}  // namespace puzzle
