// Times of a machine one does not have: each sub-block takes as long as the slower of its memory
// traffic and its arithmetic, plus a constant for launching kernels.
//
//   seconds = max(bytes / (bandwidth e_b), flops / (peak e_c)) + overhead
//   bytes   = weights + KV cache read and written + hidden state in and out, in 2-byte activations
//
// Peaks are those of one device without sparsity. Communication between devices is not modelled:
// describe one device, or one that stands for several.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/arch/cost.h"
#include "puzzle/engine/measured_cost.h"

namespace puzzle {

class OptionList;

struct Hardware {
  std::string name;
  double peak_f32_flops_per_s = 0.0;        // 0: the machine has no such units
  double peak_half_flops_per_s = 0.0;       // F16 and BF16
  double peak_fp8_flops_per_s = 0.0;        // F8 weights and activations
  double peak_quantized_flops_per_s = 0.0;  // integer-quantised weights (GGUF blocks)
  double memory_bandwidth_bytes_per_s = 0.0;
  double compute_efficiency = 1.0;    // e_c: share of the peak that real kernels reach
  double bandwidth_efficiency = 1.0;  // e_b
  double overhead_s = 0.0;            // per sub-block and forward pass: launches, synchronisation

  // The peak that products with weights of this type run at. Throws Error(kUsage) where there is
  // none, naming the machine and the types it has.
  [[nodiscard]] double peak_flops_per_s(DType matrix) const;
};

[[nodiscard]] std::vector<std::string> hardware_preset_names();
// Throws Error(kUsage) for an unknown name.
[[nodiscard]] Hardware hardware_preset(std::string_view name);

// A preset, and what differs from it (0 = as in the preset). Units as in data sheets.
struct HardwareOptions {
  std::string preset = "h100-sxm";
  double f32_tflops = 0.0;
  double half_tflops = 0.0;
  double fp8_tflops = 0.0;
  double quantized_tflops = 0.0;
  double bandwidth_gb_per_s = 0.0;
  double compute_efficiency = 0.0;
  double bandwidth_efficiency = 0.0;
  double overhead_us = 0.0;

  void visit(OptionList& list);
};
[[nodiscard]] Hardware make_hardware(const HardwareOptions& options);

// What is timed: a whole prompt of `context` tokens, or one step after `context` cached tokens.
struct RooflineQuery {
  Phase phase = Phase::kPrefill;
  std::int64_t batch = 1;
  std::int64_t context = 1;
};

// A sub-block that is left out takes no time, overhead included.
[[nodiscard]] double subblock_seconds(const Hardware& hardware, const ModelSpec& spec,
                                      const AttentionSpec& attention, const RooflineQuery& query,
                                      const WeightTypes& types);
[[nodiscard]] double subblock_seconds(const Hardware& hardware, const ModelSpec& spec,
                                      const FfnSpec& ffn, const RooflineQuery& query,
                                      const WeightTypes& types);
// Embedding rows and the head, which runs on one position per sequence in either phase.
[[nodiscard]] double fixed_seconds(const Hardware& hardware, const ModelSpec& spec,
                                   const RooflineQuery& query, const WeightTypes& types);

// Rows for cost_model.h: every sub-block and the fixed rest at every query; samples = 0.
struct RooflineGrid {
  std::vector<AttentionSpec> attention;
  std::vector<FfnSpec> ffn;
  std::vector<RooflineQuery> queries;
};
[[nodiscard]] std::vector<MeasuredCost> roofline_costs(const Hardware& hardware,
                                                       const ModelSpec& spec,
                                                       const RooflineGrid& grid,
                                                       const WeightTypes& types);

}  // namespace puzzle
