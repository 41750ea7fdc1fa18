// From measured rows to the time of a scenario: piecewise linear in the context length, a sum over
// sub-blocks, plus the fixed rest.
//
// A scenario is b sequences of P prompt tokens and G generated ones. The first generated token
// comes out of prefill, so there are G - 1 steps, with P, P + 1, …, P + G - 2 tokens cached:
//
//   prefill                 prefill(b, P)
//   generation              Σ_{n = 0 … G-2} step(b, P + n)
//   generation throughput   b (G - 1) / generation
//   total throughput        b (P + G) / (prefill + generation)
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "puzzle/engine/measured_cost.h"

namespace puzzle {

// One point of a scenario (arch/scenario.h) with its batch size chosen.
struct Workload {
  std::int64_t batch = 1;               // b
  std::int64_t prompt_tokens = 128;     // P >= 1
  std::int64_t generated_tokens = 128;  // G >= 1
};

struct PhaseSeconds {
  double prefill_s = 0.0;
  double generation_s = 0.0;  // all G - 1 steps

  [[nodiscard]] double total_s() const { return prefill_s + generation_s; }
};

// Tokens per second; 0 where there is no time to divide by (G = 1).
[[nodiscard]] double generation_tokens_per_s(const Workload& workload, double generation_s);
[[nodiscard]] double total_tokens_per_s(const Workload& workload, double total_s);

struct Prediction {
  PhaseSeconds seconds;
  double generation_tokens_per_s = 0.0;
  double total_tokens_per_s = 0.0;
  // "attention/kv3 generate: context 64 … 1024 measured, 2048 … 2100 asked for": what had to be
  // extrapolated by more than known_beyond().
  std::vector<std::string> extrapolated;
};

class CostModel {
 public:
  // Rows of one engine and machine, in any order. Throws Error(kFormat) for two rows of one
  // sub-block, phase, batch and context, or a time that is negative or not finite. `place` opens
  // messages.
  CostModel(const std::vector<MeasuredCost>& rows, std::string place);

  // Seconds at one context length: linear between the neighbouring rows, beyond the ends linear
  // through the last two, never below 0. With a single row a prompt is taken to cost in proportion
  // to its length, and a step the same at any length. A sub-block "…/none" without rows costs 0.
  // Otherwise throws Error(kUsage) where the sub-block has no rows for the phase and batch, naming
  // the batches it has.
  [[nodiscard]] double seconds(std::string_view subblock, Phase phase, std::int64_t batch,
                               std::int64_t context) const;
  [[nodiscard]] PhaseSeconds workload_seconds(std::string_view subblock,
                                              const Workload& workload) const;
  // How far beyond the measured contexts a line through them is trusted, in tokens.
  [[nodiscard]] static std::int64_t known_beyond(std::int64_t shortest, std::int64_t longest) {
    return (longest - shortest) / 4;
  }
  // Every layer's sub-blocks, and "fixed".
  [[nodiscard]] Prediction predict(const Architecture& layers, const Workload& workload) const;

 private:
  using CurveKey = std::tuple<std::string, Phase, std::int64_t>;  // sub-block, phase, batch
  using Curve = std::map<std::int64_t, double>;                   // context -> seconds

  // Null for a sub-block "none" without rows.
  [[nodiscard]] const Curve* find_curve(std::string_view subblock, Phase phase,
                                        std::int64_t batch) const;
  void note_extrapolation(std::string_view subblock, const Workload& workload,
                          std::set<std::string>& notes) const;

  std::string place_;
  std::map<CurveKey, Curve> curves_;
};

}  // namespace puzzle
