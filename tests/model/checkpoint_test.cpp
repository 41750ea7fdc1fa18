#include "puzzle/model/checkpoint.h"

#include <fstream>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/base/json.h"
#include "puzzle/model/decoder.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

void write_folder(const std::filesystem::path& folder, const ModelWeights& model) {
  save_weights(folder / "model.safetensors", model, at::kFloat, {{"who", "test"}});
  save_json(folder / "config.json", make_nemotron_nas_config(model.spec, "float32"));
}

TEST(Checkpoint, AHeterogeneousModelComesBackBitForBit) {
  const test::TempDir folder;
  ModelSpec spec = test::tiny_spec(4);
  spec.layers[1] = {AttentionSpec::gqa(1), FfnSpec::linear()};
  spec.layers[2] = {AttentionSpec::linear(), FfnSpec::none()};
  spec.layers[3] = {AttentionSpec::none(), FfnSpec::swiglu(32)};
  const ModelWeights model = random_model(spec, 5);
  write_folder(folder.path(), model);
  const ModelWeights back = load_model(folder.path(), at::kFloat);
  EXPECT_EQ(back.spec.layers, spec.layers);
  const at::Tensor tokens = at::arange(12).reshape({1, 12});
  EXPECT_TRUE(at::equal(forward_logits(back, Geometry(back.spec), tokens),
                        forward_logits(model, Geometry(spec), tokens)));
}

TEST(Checkpoint, ContentKeyFollowsTheWeights) {
  const test::TempDir folder;
  ModelWeights model = test::tiny_model();
  write_folder(folder.path(), model);
  const std::string before = model_content_key(folder.path());
  EXPECT_EQ(model_content_key(folder.path()), before);
  model.final_norm = model.final_norm * 2;
  write_folder(folder.path(), model);
  EXPECT_NE(model_content_key(folder.path()), before);
}

TEST(Checkpoint, SaysWhichTensorHasWhichShape) {
  const test::TempDir folder;
  ModelWeights model = test::tiny_model();
  model.layers[1].ffn.up = at::zeros({8, 64});
  write_folder(folder.path(), model);
  EXPECT_PUZZLE_ERROR((void)load_model(folder.path(), at::kFloat), ErrorKind::kFormat,
                      "tensor model.layers.1.mlp.up_proj.weight is [8, 64], expected [96, 64]");
}

TEST(Checkpoint, RefusesWhatIsNoModel) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR((void)load_model_spec(folder / "absent"), ErrorKind::kIo, "no such file");
  std::ofstream(folder / "model.pt") << "x";
  EXPECT_PUZZLE_ERROR((void)load_model_spec(folder / "model.pt"), ErrorKind::kUsage, ".gguf");
  std::ofstream(folder / "model.bin") << "too short";
  EXPECT_PUZZLE_ERROR((void)load_model_spec(folder / "model.bin"), ErrorKind::kFormat, "too short");
}

TEST(Checkpoint, InterleavedRowsAreAPermutationThatUndoesItself) {
  const at::Tensor rows = at::arange(24).reshape({12, 2});
  const at::Tensor there = to_interleaved_rows(rows, 6);
  // Within each head of 6 rows: new row 2j + s is old row 3s + j.
  for (std::int64_t head = 0; head < 2; ++head) {
    for (std::int64_t j = 0; j < 3; ++j) {
      for (std::int64_t s = 0; s < 2; ++s) {
        EXPECT_TRUE(at::equal(there[head * 6 + 2 * j + s], rows[head * 6 + 3 * s + j]));
      }
    }
  }
  EXPECT_TRUE(at::equal(from_interleaved_rows(there, 6), rows));
}

TEST(Checkpoint, TheTrainedTinyModelPredictsItsStories) {
  const auto path = test::shared_data("tinyllamas/stories260K.bin");
  PUZZLE_REQUIRE_FILE(path);
  const c10::NoGradGuard no_grad;
  const ModelWeights model = load_model(path, at::kFloat);
  EXPECT_EQ(model.spec.num_layers(), 5);
  EXPECT_EQ(model.spec.layers[0].name(), "kv4/w172");
  // llama2.c's own greedy start after BOS is "Once upon a time"; a wrong rotary order would not
  // give it.
  const Geometry geometry(model.spec);
  DecodeState state(model, geometry, 1, 8);
  at::Tensor token = at::ones({1, 1}, at::TensorOptions(at::kLong));
  std::vector<std::int64_t> ids;
  for (int step = 0; step < 4; ++step) {
    token = state.append(token).argmax(-1, /*keepdim=*/true);
    ids.push_back(token.item<std::int64_t>());
  }
  EXPECT_EQ(ids, (std::vector<std::int64_t>{403, 407, 261, 378}));
}

}  // namespace
}  // namespace puzzle
