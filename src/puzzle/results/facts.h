// Facts about a run that are no table: parent, machine, versions, recipe, seed. They live in
// run.db's meta table under the names below.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "puzzle/arch/model_spec.h"
#include "puzzle/results/machine.h"

namespace puzzle {

class RunDb;

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
