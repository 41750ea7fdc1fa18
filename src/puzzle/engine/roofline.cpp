#include "puzzle/engine/roofline.h"

#include <algorithm>

#include "puzzle/base/error.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr double kActivationBytes = 2.0;

// Peaks: dense, with fp32 accumulation, from the vendor's data sheets:
//   NVIDIA H100 Tensor Core GPU data sheet (SXM5), A100 data sheet (80 GB SXM), Ada GPU
//   architecture white paper (RTX 4090). GPUs multiply integer-quantised weights as halves after
//   decoding them.
// Efficiencies and overhead are our guesses for well-tuned serving engines: matrix kernels reach
// about 70 % of dense peaks and 80 % of the bandwidth; a sub-block is some three to five kernels of
// which a captured graph hides most of the launch. The CPU is two AVX2 cores of a rented machine;
// efficiencies fit llama.cpp's 277 prompt and 140 generated tokens/s of SmolLM2-135M Q4_1.
std::vector<Hardware> all_hardware_presets() {
  return {
      {.name = "h100-sxm",
       .peak_f32_flops_per_s = 66.9e12,
       .peak_half_flops_per_s = 989.4e12,
       .peak_fp8_flops_per_s = 1978.9e12,
       .peak_quantized_flops_per_s = 989.4e12,
       .memory_bandwidth_bytes_per_s = 3.35e12,
       .compute_efficiency = 0.7,
       .bandwidth_efficiency = 0.8,
       .overhead_s = 5e-6},
      {.name = "a100-sxm",
       .peak_f32_flops_per_s = 19.5e12,
       .peak_half_flops_per_s = 312e12,
       .peak_fp8_flops_per_s = 0.0,
       .peak_quantized_flops_per_s = 312e12,
       .memory_bandwidth_bytes_per_s = 2.039e12,
       .compute_efficiency = 0.7,
       .bandwidth_efficiency = 0.8,
       .overhead_s = 5e-6},
      {.name = "rtx-4090",
       .peak_f32_flops_per_s = 82.6e12,
       .peak_half_flops_per_s = 165.2e12,
       .peak_fp8_flops_per_s = 330.3e12,
       .peak_quantized_flops_per_s = 165.2e12,
       .memory_bandwidth_bytes_per_s = 1.008e12,
       .compute_efficiency = 0.7,
       .bandwidth_efficiency = 0.8,
       .overhead_s = 5e-6},
      {.name = "cpu",
       .peak_f32_flops_per_s = 192e9,
       .peak_half_flops_per_s = 192e9,
       .peak_fp8_flops_per_s = 0.0,
       .peak_quantized_flops_per_s = 192e9,
       .memory_bandwidth_bytes_per_s = 20e9,
       .compute_efficiency = 0.35,
       .bandwidth_efficiency = 0.7,
       .overhead_s = 10e-6},
  };
}

struct RooflineWork {
  double bytes = 0.0;
  double flops = 0.0;
  DType matrix = DType::kF32;
};

double roofline_seconds(const Hardware& hardware, const RooflineWork& work) {
  const double bandwidth = hardware.memory_bandwidth_bytes_per_s * hardware.bandwidth_efficiency;
  const double peak = hardware.peak_flops_per_s(work.matrix) * hardware.compute_efficiency;
  if (bandwidth <= 0.0 || peak <= 0.0) {
    fail(ErrorKind::kUsage,
         "hardware {}: bandwidth {} bytes/s, peak {} flop/s, both must be positive", hardware.name,
         bandwidth, peak);
  }
  return std::max(work.bytes / bandwidth, work.flops / peak) + hardware.overhead_s;
}

std::int64_t new_tokens(const RooflineQuery& query) {
  return query.phase == Phase::kPrefill ? query.context : 1;
}

FlopsQuery flops_query(const RooflineQuery& query) {
  const std::int64_t lowest = query.phase == Phase::kPrefill ? 1 : 0;
  if (query.batch < 1 || query.context < lowest) {
    fail(ErrorKind::kUsage, "roofline: batch {} and context {} of {}, expected at least 1 and {}",
         query.batch, query.context, phase_name(query.phase), lowest);
  }
  return {.batch = query.batch,
          .new_tokens = new_tokens(query),
          .cached_tokens = query.phase == Phase::kPrefill ? 0 : query.context};
}

// Hidden state of the new tokens, read and written.
double hidden_bytes(const ModelSpec& spec, const RooflineQuery& query) {
  return 2.0 * kActivationBytes * static_cast<double>(query.batch) *
         static_cast<double>(new_tokens(query)) * static_cast<double>(spec.hidden_size);
}

double override_or(double value, double preset) { return value > 0.0 ? value : preset; }

MeasuredCost roofline_row(const std::string& subblock, const RooflineQuery& query, double seconds) {
  return {subblock, query.phase, query.batch, query.context, seconds, seconds, seconds, 0};
}

}  // namespace

double Hardware::peak_flops_per_s(DType matrix) const {
  const bool is_f8 = matrix == DType::kF8E4M3 || matrix == DType::kF8E5M2;
  const bool is_half = matrix == DType::kF16 || matrix == DType::kBF16;
  double peak = 0.0;
  if (is_quantized(matrix)) {
    peak = peak_quantized_flops_per_s;
  } else if (is_f8) {
    peak = peak_fp8_flops_per_s;
  } else if (is_half) {
    peak = peak_half_flops_per_s;
  } else if (matrix == DType::kF32) {
    peak = peak_f32_flops_per_s;
  }
  if (peak <= 0.0) {
    fail(ErrorKind::kUsage,
         "hardware {}: no peak for {} weights (tflops: f32 {:g}, half {:g}, fp8 {:g}, quantized "
         "{:g})",
         name, dtype_name(matrix), peak_f32_flops_per_s / 1e12, peak_half_flops_per_s / 1e12,
         peak_fp8_flops_per_s / 1e12, peak_quantized_flops_per_s / 1e12);
  }
  return peak;
}

std::vector<std::string> hardware_preset_names() {
  std::vector<std::string> names;
  for (const Hardware& hardware : all_hardware_presets()) {
    names.push_back(hardware.name);
  }
  return names;
}

Hardware hardware_preset(std::string_view name) {
  for (const Hardware& hardware : all_hardware_presets()) {
    if (hardware.name == name) {
      return hardware;
    }
  }
  fail(ErrorKind::kUsage, "hardware '{}' is not known, expected one of {}", name,
       join(hardware_preset_names(), ", "));
}

void HardwareOptions::visit(OptionList& list) {
  const Range<double> any{0.0, 1e9};
  list.add("preset", preset, Choices{hardware_preset_names()},
           "Machine to start from; 0 below keeps its value.");
  list.add("f32_tflops", f32_tflops, any, "Dense peak for F32 weights, TFLOP/s.");
  list.add("half_tflops", half_tflops, any, "Dense peak for F16 and BF16 weights, TFLOP/s.");
  list.add("fp8_tflops", fp8_tflops, any, "Dense peak for F8 weights, TFLOP/s.");
  list.add("quantized_tflops", quantized_tflops, any, "Peak for GGUF's block types, TFLOP/s.");
  list.add("bandwidth_gb_per_s", bandwidth_gb_per_s, any, "Memory bandwidth, 10^9 bytes/s.");
  list.add("compute_efficiency", compute_efficiency, Range<double>{0.0, 1.0},
           "Share of the peak that kernels reach.");
  list.add("bandwidth_efficiency", bandwidth_efficiency, Range<double>{0.0, 1.0},
           "Share of the bandwidth that kernels reach.");
  list.add("overhead_us", overhead_us, any, "Microseconds per sub-block and pass for launches.");
}

Hardware make_hardware(const HardwareOptions& options) {
  Hardware hardware = hardware_preset(options.preset);
  const Hardware preset = hardware;
  hardware.peak_f32_flops_per_s =
      override_or(options.f32_tflops * 1e12, preset.peak_f32_flops_per_s);
  hardware.peak_half_flops_per_s =
      override_or(options.half_tflops * 1e12, preset.peak_half_flops_per_s);
  hardware.peak_fp8_flops_per_s =
      override_or(options.fp8_tflops * 1e12, preset.peak_fp8_flops_per_s);
  hardware.peak_quantized_flops_per_s =
      override_or(options.quantized_tflops * 1e12, preset.peak_quantized_flops_per_s);
  hardware.memory_bandwidth_bytes_per_s =
      override_or(options.bandwidth_gb_per_s * 1e9, preset.memory_bandwidth_bytes_per_s);
  hardware.compute_efficiency = override_or(options.compute_efficiency, preset.compute_efficiency);
  hardware.bandwidth_efficiency =
      override_or(options.bandwidth_efficiency, preset.bandwidth_efficiency);
  hardware.overhead_s = override_or(options.overhead_us * 1e-6, preset.overhead_s);
  return hardware;
}

double subblock_seconds(const Hardware& hardware, const ModelSpec& spec,
                        const AttentionSpec& attention, const RooflineQuery& query,
                        const WeightTypes& types) {
  if (attention.kind == AttentionKind::kNone) {
    return 0.0;
  }
  const FlopsQuery flops = flops_query(query);
  const PartCost cost = attention_cost(spec, attention, types);
  // New entries are written; a step also reads all those cached before it.
  const double kv_tokens = static_cast<double>(flops.new_tokens + flops.cached_tokens);
  const double kv_bytes =
      static_cast<double>(query.batch) * kv_tokens * static_cast<double>(cost.kv_bytes_per_token);
  return roofline_seconds(
      hardware, {static_cast<double>(cost.weight_bytes) + kv_bytes + hidden_bytes(spec, query),
                 static_cast<double>(attention_flops(spec, attention, flops)), types.matrix});
}

double subblock_seconds(const Hardware& hardware, const ModelSpec& spec, const FfnSpec& ffn,
                        const RooflineQuery& query, const WeightTypes& types) {
  if (ffn.kind == FfnKind::kNone) {
    return 0.0;
  }
  const FlopsQuery flops = flops_query(query);
  const PartCost cost = ffn_cost(spec, ffn, types);
  return roofline_seconds(hardware,
                          {static_cast<double>(cost.weight_bytes) + hidden_bytes(spec, query),
                           static_cast<double>(ffn_flops(spec, ffn, flops)), types.matrix});
}

double fixed_seconds(const Hardware& hardware, const ModelSpec& spec, const RooflineQuery& query,
                     const WeightTypes& types) {
  flops_query(query);  // checks it
  const double elements =
      static_cast<double>(spec.vocab_size) * static_cast<double>(spec.hidden_size);
  const DTypeInfo& type = dtype_info(types.embedding);
  const double head_bytes =
      elements * static_cast<double>(type.block_bytes) / static_cast<double>(type.block_elements);
  const FlopsQuery last_position{.batch = query.batch, .new_tokens = 1, .cached_tokens = 0};
  return roofline_seconds(hardware,
                          {head_bytes + hidden_bytes(spec, query),
                           static_cast<double>(head_flops(spec, last_position)), types.embedding});
}

std::vector<MeasuredCost> roofline_costs(const Hardware& hardware, const ModelSpec& spec,
                                         const RooflineGrid& grid, const WeightTypes& types) {
  std::vector<MeasuredCost> rows;
  for (const RooflineQuery& query : grid.queries) {
    for (const AttentionSpec& attention : grid.attention) {
      rows.push_back(roofline_row(subblock_name(attention), query,
                                  subblock_seconds(hardware, spec, attention, query, types)));
    }
    for (const FfnSpec& ffn : grid.ffn) {
      rows.push_back(roofline_row(subblock_name(ffn), query,
                                  subblock_seconds(hardware, spec, ffn, query, types)));
    }
    rows.push_back(roofline_row(std::string(kFixedSubblock), query,
                                fixed_seconds(hardware, spec, query, types)));
  }
  return rows;
}

}  // namespace puzzle
