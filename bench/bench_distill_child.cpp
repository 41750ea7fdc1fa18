// Steps of global distillation of the real parent into a child of its own architecture, matrix
// products in float32 and in bfloat16, in turns, so that other load on the machine meets both.
//
// `float32_per_s`, `bfloat16_per_s`: training tokens per second, the fastest of the steps timed;
// `ratio`: the second over the first.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "puzzle/dist/single_communicator.h"
#include "puzzle/stages/child_trainer.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

constexpr std::int64_t kBenchWindows = 4;
constexpr std::int64_t kBenchWindow = 256;
constexpr int kBenchSteps = 4;

DistillChildOptions computing_in(const char* type) {
  DistillChildOptions options;
  options.compute = type;
  return options;
}

double step_seconds(ChildTrainer& trainer, const TokenBatch& batch) {
  SingleCommunicator alone;
  const auto start = std::chrono::steady_clock::now();
  (void)trainer.add_gradients(batch, 1.0);
  trainer.update(alone, 1e-6);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void training_steps(benchmark::State& state) {
  const std::filesystem::path file =
      std::filesystem::path(PUZZLE_SOURCE_DIR) / ".cache/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(file)) {
    state.SkipWithError("the parent is not there; run tools/setup.sh --with-parent");
    return;
  }
  set_num_threads(0);
  keep_freed_memory();  // as the program does
  const LoadedModel parent = open_model(file, c10::kCPU, at::kFloat);
  ChildTrainer exact(parent, parent.weights, computing_in("float32"));
  ChildTrainer mixed(parent, parent.weights, computing_in("bfloat16"));
  TokenBatch batch;
  batch.tokens_BT = (at::arange(kBenchWindows * kBenchWindow) * 7919)
                        .remainder(40000)
                        .reshape({kBenchWindows, kBenchWindow});
  batch.labels_BT = batch.tokens_BT;
  batch.document_ids_BT = at::zeros_like(batch.tokens_BT);
  batch.cross_documents = true;
  double exact_seconds = std::numeric_limits<double>::max();
  double mixed_seconds = exact_seconds;
  for (auto _ : state) {
    (void)step_seconds(exact, batch);  // warm-up: makes the optimiser's moments
    (void)step_seconds(mixed, batch);
    for (int i = 0; i < kBenchSteps; ++i) {
      exact_seconds = std::min(exact_seconds, step_seconds(exact, batch));
      mixed_seconds = std::min(mixed_seconds, step_seconds(mixed, batch));
    }
  }
  constexpr double kTokens = kBenchWindows * kBenchWindow;
  state.counters["float32_per_s"] = kTokens / exact_seconds;
  state.counters["bfloat16_per_s"] = kTokens / mixed_seconds;
  state.counters["ratio"] = exact_seconds / mixed_seconds;
}
BENCHMARK(training_steps)->Unit(benchmark::kSecond)->Iterations(1);

}  // namespace
}  // namespace puzzle

BENCHMARK_MAIN();
