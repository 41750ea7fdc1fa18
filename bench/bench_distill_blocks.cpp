// Block-local distillation of all variants of one layer in the middle of the real parent: layer-
// major (one parent layer per batch, every variant trained from its tensors) against a pass of its
// own for each variant, with its own parent run from the embeddings to the layer. Both take the
// same steps on the same batches, in turns, so that other load on the machine meets both.
//
// `layer_major_per_s`, `one_by_one_per_s`: training tokens per second through all variants;
// `ratio`: the first over the second (the target is 3).
#include <chrono>
#include <memory>
#include <vector>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <c10/core/GradMode.h>

#include "puzzle/model/initialize.h"
#include "puzzle/stages/block_plan.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

constexpr std::int64_t kBenchWindows = 4;
constexpr std::int64_t kBenchWindow = 256;
constexpr std::int64_t kBenchSteps = 3;  // the first of them, as a warm-up, is not timed

// Speed does not depend on the values, so the cheapest initialisation will do.
LayerWeights cheap_start(const ModelSpec& spec, const LayerWeights& own, const BlockSpec& block) {
  LayerWeights start = own;
  if (block.attention != own.attention.spec) {
    if (block.attention.kind == AttentionKind::kGqa) {
      start.attention = pool_kv_heads(spec, own.attention, block.attention.kv_heads);
    } else {
      start.attention = {};
      start.attention.spec = block.attention;
      start.attention.norm = own.attention.norm;
      start.attention.linear = paper_linear_attention(spec, own.attention);
    }
  }
  if (block.ffn != own.ffn.spec) {
    if (block.ffn.kind == FfnKind::kSwiglu) {
      start.ffn = keep_channels(own.ffn, at::arange(block.ffn.width),
                                own.ffn.down.narrow(1, 0, block.ffn.width));
    } else {
      start.ffn = {};
      start.ffn.spec = block.ffn;
      start.ffn.norm = own.ffn.norm;
      start.ffn.linear = paper_linear_ffn(own.ffn);
    }
  }
  return start;
}

std::vector<std::unique_ptr<LayerStudent>> make_students(const LoadedModel& parent,
                                                         std::int64_t layer) {
  const ModelSpec& spec = parent.weights.spec;
  const auto plan = plan_students(spec, make_search_space({}, spec), {});
  const LayerWeights& own = parent.weights.layers[static_cast<std::size_t>(layer)];
  std::vector<std::unique_ptr<LayerStudent>> students;
  for (const PlannedStudent& planned : plan[static_cast<std::size_t>(layer)]) {
    students.push_back(std::make_unique<BlockStudent>(
        planned.name(), planned.role, cheap_start(spec, own, planned.block), own, parent.geometry,
        StudentRates{1e-4, 1e-4, 1e-4}, AdamWOptions{}));
  }
  return students;
}

template <class Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void all_variants_of_a_layer(benchmark::State& state) {
  const std::filesystem::path file =
      std::filesystem::path(PUZZLE_SOURCE_DIR) / ".cache/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(file)) {
    state.SkipWithError("the parent is not there; run tools/setup.sh");
    return;
  }
  set_num_threads(0);
  const c10::NoGradGuard no_grad;
  const LoadedModel parent = open_model(file, at::kCPU, at::kFloat);
  const ModelWeights& weights = parent.weights;
  const std::int64_t layer = weights.spec.num_layers() / 2;
  const LayerWeights& own = weights.layers[static_cast<std::size_t>(layer)];
  std::vector<std::unique_ptr<LayerStudent>> together = make_students(parent, layer);
  std::vector<std::unique_ptr<LayerStudent>> alone = make_students(parent, layer);
  const PassContext pass = make_pass(parent.geometry, kBenchWindow, at::kFloat, at::kCPU);
  at::Generator generator = at::detail::createCPUGenerator(1);
  const auto run_to_layer = [&](const at::Tensor& tokens) {
    return apply_layers(weights, parent.geometry, embed(weights, tokens), pass, 0, layer);
  };

  double layer_major = 0.0, one_by_one = 0.0;
  for (auto _ : state) {
    for (std::int64_t step = 0; step < kBenchSteps; ++step) {
      const at::Tensor tokens = at::randint(weights.spec.vocab_size, {kBenchWindows, kBenchWindow},
                                            generator, at::TensorOptions().dtype(at::kLong));
      const at::Tensor held = run_to_layer(tokens);
      const double together_s = seconds_of([&] {
        const SharedBatch batch =
            run_shared(own, parent.geometry, held, pass, BlockLoss::kTokenMse);
        for (const auto& student : together) {
          benchmark::DoNotOptimize(student->train_step(batch, 1.0));
        }
      });
      const double alone_s = seconds_of([&] {
        for (const auto& student : alone) {
          const SharedBatch batch =
              run_shared(own, parent.geometry, run_to_layer(tokens), pass, BlockLoss::kTokenMse);
          benchmark::DoNotOptimize(student->train_step(batch, 1.0));
        }
      });
      layer_major += step == 0 ? 0.0 : together_s;
      one_by_one += step == 0 ? 0.0 : alone_s;
    }
  }
  const auto tokens = static_cast<double>((kBenchSteps - 1) * kBenchWindows * kBenchWindow);
  state.counters["variants"] = static_cast<double>(together.size());
  state.counters["layer_major_per_s"] = tokens / layer_major;
  state.counters["one_by_one_per_s"] = tokens / one_by_one;
  state.counters["ratio"] = one_by_one / layer_major;
  state.SetLabel(describe_device(at::kCPU));
}

BENCHMARK(all_variants_of_a_layer)->Unit(benchmark::kSecond)->Iterations(1);

}  // namespace
}  // namespace puzzle

BENCHMARK_MAIN();
