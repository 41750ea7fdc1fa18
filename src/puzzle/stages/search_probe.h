// What a search asks of real models: rank 0 asks, all ranks compute, run.db remembers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/search_space.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/child_changes.h"
#include "puzzle/stages/child_meter.h"
#include "puzzle/stages/rank_lead.h"
#include "puzzle/stages/score_table.h"

namespace puzzle {

// KL(parent ‖ child) of a whole child, measured.
struct MeasuredKl {
  std::vector<double> unit_sums;    // nats, by unit of the text (independent_windows.h)
  std::vector<double> unit_tokens;  // the same for all children of one text

  // Nats per token.
  [[nodiscard]] ScoreValue mean() const;
  // The difference to another child on the same text, paired unit by unit.
  [[nodiscard]] ScoreValue minus(const MeasuredKl& other) const;
  [[nodiscard]] std::int64_t tokens() const;
};

// What whole children are made of and measured on.
struct ChildSource {
  std::filesystem::path library_folder;
  std::string library_key;
  const TokenPart* validation = nullptr;  // decides between whole children
  const TokenPart* scoring = nullptr;     // for estimates around a child
};

struct ProbeOptions {
  std::int64_t num_tokens = 0;  // of the validation part; 0 = all
  std::int64_t batch_windows = 8;
  std::int64_t state_mib = 1024;      // kept states of one child, per rank
  std::int64_t estimate_tokens = 0;   // of the scoring part; 0 = all
  std::int64_t estimate_samples = 4;  // labels drawn per position
};

class SearchProbe {
 public:
  // Computes nothing before it is asked to. `source` may lack its parts if it never is.
  SearchProbe(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
              const ChildSource& source, const ProbeOptions& options);

  // On all ranks: rank 0 runs `lead`, which may ask; its result, or its Error, on every rank.
  nlohmann::json lead(const std::function<nlohmann::json()>& lead);

  // The following on rank 0, inside lead(). What run.db holds of the same contents is not computed
  // again. Throw Error(kUsage) for a variant that the library does not hold.

  // `base`: a child whose first layers many of `children` share; its states are kept. Throws
  // Error(kNumeric) for a child whose KL is not finite.
  [[nodiscard]] std::vector<MeasuredKl> measure(const std::vector<Architecture>& children,
                                                const Architecture& base);
  [[nodiscard]] MeasuredKl measure(const Architecture& child) {
    return measure({child}, child).front();
  }

  // To be called now and then while rank 0 works alone (KeepStep in rank_lead.h).
  void keep_step();

  // Second-order estimates for every block of the space around a child (child_changes.h).
  [[nodiscard]] BlockChanges changes(const Architecture& child);

 private:
  nlohmann::json work(const nlohmann::json& request);
  [[nodiscard]] nlohmann::json measure_here(const nlohmann::json& request);
  [[nodiscard]] nlohmann::json changes_here(const nlohmann::json& request);
  [[nodiscard]] std::string measured_key(const Architecture& child);
  [[nodiscard]] std::string changes_key(const Architecture& child);
  [[nodiscard]] TokenPart text() const;
  [[nodiscard]] TokenPart estimate_text() const;
  [[nodiscard]] MeasuredKl as_measured(const std::vector<double>& unit_sums) const;

  RunContext& context_;
  const LoadedModel& parent_;
  const SearchSpace& space_;
  ChildSource source_;
  ProbeOptions options_;
  std::unique_ptr<ChildMeter> meter_;
  RankLead ranks_;
};

}  // namespace puzzle
