// The native decoder against a real llama.cpp on the real parent: SmolLM2-135M-Instruct, exported
// in F32 and scored token by token in llama.cpp's usual mode. Half a minute: label "slow".
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <span>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/model/decoder.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/tensor/device.h"
#include "puzzle/text/tokenizer.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

constexpr std::size_t kParentWindow = 128;
constexpr std::size_t kParentWindows = 4;

// Of tokens 1 … T-1, each given all before, in nats.
double native_mean_nll(const ModelWeights& model, std::span<const std::int32_t> tokens) {
  const c10::NoGradGuard no_grad;
  const at::Tensor ids =
      at::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
  const at::Tensor logits = forward_logits(model, Geometry(model.spec), ids)[0];
  const at::Tensor log_probs = at::log_softmax(logits.to(at::kDouble), -1).slice(0, 0, -1);
  return -log_probs.gather(1, ids[0].slice(0, 1).unsqueeze(1)).mean().item<double>();
}

TEST(ExportParent, LlamaCppAndTheNativeDecoderAgreeOnTheMeanNll) {
  const auto text_path = test::shared_data("wikitext-2/valid.txt");
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  PUZZLE_REQUIRE_FILE(text_path);
  if (std::system("'" PUZZLE_PYTHON "' -c 'import xllamacpp' > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << PUZZLE_PYTHON " has no xllamacpp";
  }
  set_num_threads(0);
  const test::TempDir folder;
  const std::filesystem::path file = folder / "parent-f32.gguf";
  const ModelWeights parent = load_model(test::parent_gguf(), at::kFloat);
  write_model_gguf(file, parent,
                   {.name = "parent",
                    .license = "apache-2.0",
                    .parent_name = "",
                    .tokenizer_source = test::parent_gguf(),
                    .types = gguf_weight_types("f32", test::parent_gguf())});
  const auto tokenizer = load_tokenizer(test::parent_gguf());
  const std::vector<std::int32_t> ids =
      tokenizer->encode(read_text_file(text_path).substr(0, 20'000));
  ASSERT_GE(ids.size(), kParentWindow * kParentWindows);

  LlamaServerOptions options;
  options.program = "xllamacpp";
  options.context_tokens = 256;
  const LlamaServer server(file, options);
  for (std::size_t w = 0; w < kParentWindows; ++w) {
    const auto window = std::span(ids).subspan(w * kParentWindow, kParentWindow);
    const std::vector<double> log_probs = server.token_log_probs(window);
    ASSERT_EQ(log_probs.size(), kParentWindow - 1);
    const double nll = -std::accumulate(log_probs.begin(), log_probs.end(), 0.0) /
                       static_cast<double>(log_probs.size());
    EXPECT_NEAR(native_mean_nll(parent, window), nll, 5e-4) << "window " << w;
  }
}

}  // namespace
}  // namespace puzzle
