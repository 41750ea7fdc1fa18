// One forward pass of the native decoder over 8 × 512 tokens of the real parent, logits included.
// Prints the seconds of each pass, one a line, when it reads a line on stdin:
// bench/forward_vs_transformers.py drives it in turn with transformers.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/model/checkpoint.h"
#include "puzzle/model/decoder.h"
#include "puzzle/tensor/device.h"

int main(int argc, char** argv) {
  using namespace puzzle;  // NOLINT(google-build-using-namespace): a program of one function
  if (argc != 2) {
    std::fputs("usage: bench_forward MODEL\n", stderr);
    return 2;
  }
  const c10::NoGradGuard no_grad;
  set_num_threads(0);
  keep_freed_memory();  // as the program does
  const ModelWeights model = load_model(argv[1], at::kFloat);
  const Geometry geometry(model.spec);
  const at::Tensor tokens = (at::arange(8 * 512) * 7919).remainder(40000).reshape({8, 512});
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor logits = forward_logits(model, geometry, tokens);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%.6f %.6f\n", took.count(), logits[7][511][0].item<double>());
    std::fflush(stdout);
  }
  return 0;
}
