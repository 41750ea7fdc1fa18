// One candidate of replace-one scoring on the real parent: as `score` does it (layers before the
// variant are shared, the parent's distribution is computed once for all candidates of a layer)
// against a full forward pass of parent and candidate with their KL for each. Layers are sampled
// evenly; both ways take turns.
//
// `shared_s`, `full_s`: seconds per candidate; `ratio`: the first over the second (the target is
// 0.6).
#include <chrono>
#include <filesystem>
#include <functional>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <c10/core/GradMode.h>

#include "puzzle/stages/run_context.h"
#include "puzzle/tensor/device.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kWindows = 4;
constexpr std::int64_t kWindow = 256;
constexpr std::int64_t kCandidates = 7;  // per layer
// Layers in the middle of equal stretches: their mean depth is that of all layers.
constexpr std::int64_t kSampledLayers = 5;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

HeadInput head_input(const LoadedModel& model, const at::Tensor& x_BTD) {
  return {final_hidden(model.weights, x_BTD).reshape({-1, x_BTD.size(-1)}), model.weights.head};
}

void bench_score(benchmark::State& state) {
  const c10::NoGradGuard no_grad;
  set_num_threads(0);
  const auto path =
      std::filesystem::path(PUZZLE_SOURCE_DIR) / ".cache/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) {
    state.SkipWithError("the parent is not there: tools/setup.sh --with-parent");
    return;
  }
  const LoadedModel parent = open_model(path, c10::Device(c10::kCPU), c10::ScalarType::Float);
  const std::int64_t layers = parent.weights.spec.num_layers();
  const at::Tensor tokens =
      (at::arange(kWindows * kWindow) * 7919).remainder(40000).reshape({kWindows, kWindow});
  const at::Tensor embedded = embed(parent.weights, tokens);
  const PassContext pass = make_pass(parent.geometry, kWindow, at::kFloat, embedded.device());
  double shared_s = 0;
  double full_s = 0;
  std::int64_t candidates = 0;
  for (auto _ : state) {
    for (std::int64_t sample = 0; sample < kSampledLayers; ++sample) {
      const std::int64_t layer = (2 * sample + 1) * layers / (2 * kSampledLayers);
      const at::Tensor entering =
          apply_layers(parent.weights, parent.geometry, embedded, pass, 0, layer);
      const HeadInput target = head_input(
          parent, apply_layers(parent.weights, parent.geometry, entering, pass, layer, layers));
      // Any variant costs at most what the parent's own block does.
      const LayerWeights& block = parent.weights.layers[static_cast<std::size_t>(layer)];
      shared_s += seconds_of([&] {
        std::vector<HeadInput> finals;
        for (std::int64_t c = 0; c < kCandidates; ++c) {
          const at::Tensor x = apply_layer(block, parent.geometry, entering, pass);
          finals.push_back(head_input(
              parent, apply_layers(parent.weights, parent.geometry, x, pass, layer + 1, layers)));
        }
        benchmark::DoNotOptimize(token_losses(&target, finals, {}));
      });
      full_s += static_cast<double>(kCandidates) * seconds_of([&] {
                  const auto whole = [&] {
                    return head_input(parent,
                                      apply_layers(parent.weights, parent.geometry,
                                                   embed(parent.weights, tokens), pass, 0, layers));
                  };
                  const HeadInput p = whole();
                  benchmark::DoNotOptimize(token_losses(&p, whole(), {}));
                });
      candidates += kCandidates;
    }
  }
  state.counters["shared_s"] = shared_s / static_cast<double>(candidates);
  state.counters["full_s"] = full_s / static_cast<double>(candidates);
  state.counters["ratio"] = shared_s / full_s;
}
BENCHMARK(bench_score)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace puzzle

BENCHMARK_MAIN();
