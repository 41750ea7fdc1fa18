#include "puzzle/engine/roofline.h"

#include <gtest/gtest.h>

#include "puzzle/base/options.h"
#include "puzzle/engine/cost_model.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

// Round numbers, so that the expected times can be written out.
Hardware round_hardware() {
  return {.name = "round",
          .peak_f32_flops_per_s = 0.0,
          .peak_half_flops_per_s = 1e6,
          .peak_fp8_flops_per_s = 2e6,
          .peak_quantized_flops_per_s = 5e5,
          .memory_bandwidth_bytes_per_s = 1e6,
          .compute_efficiency = 0.5,
          .bandwidth_efficiency = 0.25,
          .overhead_s = 3.0};
}

// D 16, 4 heads of 8, vocabulary 100.
ModelSpec small_spec() {
  ModelSpec spec;
  spec.hidden_size = 16;
  spec.num_heads = 4;
  spec.head_dim = 8;
  spec.vocab_size = 100;
  spec.layers = {{AttentionSpec::gqa(2), FfnSpec::swiglu(24)}};
  return spec;
}

constexpr WeightTypes kHalf = {DType::kF16, DType::kF16, DType::kF32, DType::kF16};

TEST(Roofline, AStepOfOneSequenceIsBoundByItsWeights) {
  const RooflineQuery step{Phase::kGenerate, 1, 10};
  // FFN: three 24 x 16 halves, a norm of 16 floats, the hidden state in and out.
  const double ffn_bytes = 3 * 24 * 16 * 2 + 16 * 4 + 2 * 16 * 2;
  EXPECT_NEAR(subblock_seconds(round_hardware(), small_spec(), FfnSpec::swiglu(24), step, kHalf),
              ffn_bytes / 0.25e6 + 3.0, 1e-12);
  // Attention: q 32 x 16, k and v 16 x 16, o 16 x 32; KV 2 x 2 x 8 halves for 11 positions.
  const double attention_bytes = (32 * 16 * 2 + 16 * 16 * 2) * 2 + 16 * 4 + 11 * 64 + 2 * 16 * 2;
  EXPECT_NEAR(subblock_seconds(round_hardware(), small_spec(), AttentionSpec::gqa(2), step, kHalf),
              attention_bytes / 0.25e6 + 3.0, 1e-12);
  // The head, and one row in and out.
  EXPECT_NEAR(fixed_seconds(round_hardware(), small_spec(), step, kHalf),
              (100 * 16 * 2 + 2 * 16 * 2) / 0.25e6 + 3.0, 1e-12);
}

TEST(Roofline, ALongPromptIsBoundByArithmetic) {
  const RooflineQuery prompt{Phase::kPrefill, 4, 100};
  const double tokens = 400;
  EXPECT_NEAR(subblock_seconds(round_hardware(), small_spec(), FfnSpec::swiglu(24), prompt, kHalf),
              6 * tokens * 24 * 16 / 0.5e6 + 3.0, 1e-9);
  // 2 flops per weight and token, and 2 x 2 x 8 per head and pair of positions.
  const double pairs = 4 * (100.0 * 101.0 / 2);
  const double flops = 2 * tokens * (2 * 32 * 16 + 2 * 16 * 16) + 4 * pairs * 32;
  EXPECT_NEAR(
      subblock_seconds(round_hardware(), small_spec(), AttentionSpec::gqa(2), prompt, kHalf),
      flops / 0.5e6 + 3.0, 1e-9);
}

TEST(Roofline, WhatIsLeftOutTakesNoTime) {
  const RooflineQuery step{Phase::kGenerate, 1, 10};
  EXPECT_EQ(subblock_seconds(round_hardware(), small_spec(), FfnSpec::none(), step, kHalf), 0.0);
  EXPECT_EQ(subblock_seconds(round_hardware(), small_spec(), AttentionSpec::none(), step, kHalf),
            0.0);
}

TEST(Roofline, TimesRiseWithTheContextOnlyWhereThereIsACache) {
  const auto at = [](const AttentionSpec& attention, std::int64_t context) {
    return subblock_seconds(round_hardware(), small_spec(), attention,
                            {Phase::kGenerate, 8, context}, kHalf);
  };
  EXPECT_GT(at(AttentionSpec::gqa(4), 200), at(AttentionSpec::gqa(4), 100));
  EXPECT_GT(at(AttentionSpec::gqa(4), 200), at(AttentionSpec::gqa(1), 200));
  EXPECT_EQ(at(AttentionSpec::linear(), 200), at(AttentionSpec::linear(), 100));
}

TEST(Roofline, PicksThePeakByTheWeightsType) {
  const Hardware hardware = round_hardware();
  EXPECT_EQ(hardware.peak_flops_per_s(DType::kBF16), 1e6);
  EXPECT_EQ(hardware.peak_flops_per_s(DType::kF8E4M3), 2e6);
  EXPECT_EQ(hardware.peak_flops_per_s(DType::kQ4_1), 5e5);
  EXPECT_PUZZLE_ERROR((void)hardware.peak_flops_per_s(DType::kF32), ErrorKind::kUsage,
                      "hardware round: no peak for F32 weights");
  EXPECT_PUZZLE_ERROR((void)hardware_preset("a100-sxm").peak_flops_per_s(DType::kF8E4M3),
                      ErrorKind::kUsage, "no peak for F8_E4M3");
}

TEST(Roofline, PresetsAreCompleteMachines) {
  for (const std::string& name : hardware_preset_names()) {
    const Hardware hardware = hardware_preset(name);
    EXPECT_EQ(hardware.name, name);
    EXPECT_GT(hardware.peak_flops_per_s(DType::kF16), 0.0) << name;
    EXPECT_GT(hardware.memory_bandwidth_bytes_per_s, 1e9) << name;
    EXPECT_GT(hardware.compute_efficiency, 0.0) << name;
    EXPECT_LE(hardware.bandwidth_efficiency, 1.0) << name;
  }
  EXPECT_PUZZLE_ERROR((void)hardware_preset("h200"), ErrorKind::kUsage, "expected one of h100-sxm");
}

TEST(Roofline, OptionsChangeWhatTheyName) {
  HardwareOptions options;
  OptionList list;
  list.section("hardware", options);
  list.set("hardware.preset", "rtx-4090", "test");
  list.set("hardware.bandwidth_gb_per_s", "500", "test");
  const Hardware hardware = make_hardware(options);
  EXPECT_DOUBLE_EQ(hardware.memory_bandwidth_bytes_per_s, 5e11);
  EXPECT_DOUBLE_EQ(hardware.peak_half_flops_per_s,
                   hardware_preset("rtx-4090").peak_half_flops_per_s);
  EXPECT_PUZZLE_ERROR(list.set("hardware.preset", "abacus", "test"), ErrorKind::kUsage, "abacus");
}

TEST(Roofline, RowsFeedTheCostModel) {
  const RooflineGrid grid{
      {AttentionSpec::gqa(2), AttentionSpec::none()},
      {FfnSpec::swiglu(24)},
      {{Phase::kPrefill, 2, 64}, {Phase::kGenerate, 2, 64}, {Phase::kGenerate, 2, 128}}};
  const std::vector<MeasuredCost> rows =
      roofline_costs(round_hardware(), small_spec(), grid, kHalf);
  EXPECT_EQ(rows.size(), 12U);
  const CostModel model(rows, "roofline");
  const Prediction prediction =
      model.predict(small_spec().layers, {.batch = 2, .prompt_tokens = 64, .generated_tokens = 2});
  const auto sum = [](Phase phase) {
    const RooflineQuery query{phase, 2, 64};
    return subblock_seconds(round_hardware(), small_spec(), AttentionSpec::gqa(2), query, kHalf) +
           subblock_seconds(round_hardware(), small_spec(), FfnSpec::swiglu(24), query, kHalf) +
           fixed_seconds(round_hardware(), small_spec(), query, kHalf);
  };
  EXPECT_DOUBLE_EQ(prediction.seconds.prefill_s, sum(Phase::kPrefill));
  EXPECT_DOUBLE_EQ(prediction.seconds.generation_s, sum(Phase::kGenerate));
}

// Parent of the paper: 80 layers of 8 KV heads and width 28672 at D 8192.
TEST(Roofline, PutsLlama70BOnAnH100WhereThePaperMeasuredIt) {
  ModelSpec spec;
  spec.hidden_size = 8192;
  spec.num_heads = 64;
  spec.head_dim = 128;
  spec.vocab_size = 128256;
  spec.layers.assign(80, {AttentionSpec::gqa(8), FfnSpec::swiglu(28672)});
  constexpr WeightTypes kFp8 = {DType::kF8E4M3, DType::kF8E4M3, DType::kF32, DType::kF8E4M3};
  const RooflineGrid grid{
      {AttentionSpec::gqa(8)},
      {FfnSpec::swiglu(28672)},
      {{Phase::kPrefill, 128, 128}, {Phase::kGenerate, 128, 128}, {Phase::kGenerate, 128, 256}}};
  const Prediction prediction =
      CostModel(roofline_costs(hardware_preset("h100-sxm"), spec, grid, kFp8), "roofline")
          .predict(spec.layers, {.batch = 128, .prompt_tokens = 128, .generated_tokens = 128});
  // 2645 generated tokens/s, TP 1, 128/128 (the Puzzle paper); a roofline is right within a factor
  // of two.
  const double generated_per_s = 128.0 * 128.0 / prediction.seconds.total_s();
  EXPECT_GT(generated_per_s, 2645.0 / 2);
  EXPECT_LT(generated_per_s, 2645.0 * 2);
}

TEST(Roofline, RefusesImpossibleQueries) {
  EXPECT_PUZZLE_ERROR((void)subblock_seconds(round_hardware(), small_spec(), FfnSpec::swiglu(24),
                                             {Phase::kPrefill, 1, 0}, kHalf),
                      ErrorKind::kUsage, "context 0 of prefill");
  Hardware broken = round_hardware();
  broken.bandwidth_efficiency = 0.0;
  EXPECT_PUZZLE_ERROR((void)fixed_seconds(broken, small_spec(), {Phase::kGenerate, 1, 1}, kHalf),
                      ErrorKind::kUsage, "bandwidth 0 bytes/s");
}

}  // namespace
}  // namespace puzzle
