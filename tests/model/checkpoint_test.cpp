#include "puzzle/model/checkpoint.h"

#include <cstring>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/tiny_gguf.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/base/json.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/safetensors.h"
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

// The folder's file with one more tensor.
void write_with_extra(const std::filesystem::path& folder, const ModelWeights& model,
                      const std::string& name) {
  write_folder(folder, model);
  const float values[] = {1.0F, 2.0F};
  std::vector<TensorToWrite> tensors;
  const SafetensorsFile file(folder / "model.safetensors");
  for (const StoredTensor& tensor : file.tensors()) {
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes, {}});
  }
  tensors.push_back({name, DType::kF32, {2}, std::as_bytes(std::span(values)), {}});
  write_safetensors(folder / "model.safetensors", std::move(tensors));
}

TEST(Checkpoint, AFolderWithWeightsThatItsConfigurationDoesNotNameIsRefused) {
  const test::TempDir folder;
  ModelSpec spec = test::tiny_spec(2);
  spec.tie_embeddings = true;
  const ModelWeights model = random_model(spec, 5);
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "model.layers.1.self_attn.q_norm.weight",
        "model.layers.2.input_layernorm.weight", "score.weight"}) {
    write_with_extra(folder.path(), model, name);
    EXPECT_PUZZLE_ERROR((void)load_model(folder.path(), at::kFloat), ErrorKind::kFormat,
                        fmt::format("tensor {} has no place in the model", name));
  }
  for (const char* name : {"model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"}) {
    write_with_extra(folder.path(), model, name);
    EXPECT_TRUE(at::equal(load_model(folder.path(), at::kFloat).head, model.embedding));
  }
  spec.tie_embeddings = false;
  write_folder(folder.path(), model);  // without a head of its own
  save_json(folder / "config.json", make_nemotron_nas_config(spec, "float32"));
  EXPECT_PUZZLE_ERROR((void)load_model(folder.path(), at::kFloat), ErrorKind::kFormat,
                      "there is no tensor lm_head.weight");
}

// Calls `change` with each tensor of a small GGUF file, and leaves out those without a name.
void write_changed_gguf(const std::filesystem::path& path,
                        const std::function<void(TensorToWrite&)>& change) {
  const std::filesystem::path plain = path.string() + ".plain";
  test::TinyGguf().write(plain);
  const GgufFile file(plain);
  GgufWriter writer;
  for (const auto& [key, value] : file.metadata()) {
    writer.add_value(key, value);
  }
  std::vector<TensorToWrite> tensors;
  for (const StoredTensor& stored : file.tensors()) {
    TensorToWrite tensor{stored.name, stored.dtype, stored.shape, stored.bytes, {}};
    change(tensor);
    if (!tensor.name.empty()) {
      writer.add_tensor(std::move(tensor));
    }
  }
  writer.write(path);
}

TEST(Checkpoint, AGgufFileWithWrongTensorsIsRefusedByTheirNames) {
  const test::TempDir folder;
  const std::filesystem::path path = folder / "model.gguf";
  const struct {
    const char* tensor;
    std::function<void(TensorToWrite&)> change;
    const char* message;
  } cases[] = {
      {"blk.1.ffn_up.weight", [](TensorToWrite& t) { t.name.clear(); },
       "there is no tensor blk.1.ffn_up.weight"},
      {"output_norm.weight", [](TensorToWrite& t) { t.name.clear(); },
       "there is no tensor output_norm.weight"},
      {"blk.0.attn_k.weight",
       [](TensorToWrite& t) {
         t.shape[0] /= 2;
         t.bytes = t.bytes.first(t.bytes.size() / 2);
       },
       "tensor blk.0.attn_k.weight is [8, 32], expected [16, 32]"},
      {"blk.1.attn_norm.weight", [](TensorToWrite& t) { t.shape = {4, 8}; },
       "tensor blk.1.attn_norm.weight is [4, 8], expected [32]"},
      {"blk.0.ffn_gate.weight",
       [](TensorToWrite& t) {
         t.dtype = DType::kIQ4_NL;
         t.bytes = t.bytes.first(64 * 18);
       },
       "model.gguf: tensor blk.0.ffn_gate.weight: its type IQ4_NL cannot be read"},
      {"blk.0.ffn_gate.weight", [](TensorToWrite& t) { t.name = "blk.0.ffn_gate_exps.weight"; },
       "tensor blk.0.ffn_gate_exps.weight is not supported"},
  };
  for (const auto& entry : cases) {
    SCOPED_TRACE(entry.message);
    write_changed_gguf(path, [&](TensorToWrite& tensor) {
      if (tensor.name == entry.tensor) {
        entry.change(tensor);
      }
    });
    EXPECT_PUZZLE_ERROR((void)load_model(path, at::kFloat), ErrorKind::kFormat, entry.message);
  }
  write_changed_gguf(path, [](TensorToWrite&) {});
  EXPECT_EQ(load_model(path, at::kFloat).layers.size(), 2U);
}

// The small GGUF file in two parts; `scale` multiplies what stands in the second.
void write_split_gguf(const std::filesystem::path& folder, float scale) {
  test::TinyGguf().write(folder / "whole.gguf");
  const GgufFile file(folder / "whole.gguf");
  const auto count = file.tensors().size();
  std::vector<std::vector<float>> scaled;
  for (std::uint16_t part = 0; part < 2; ++part) {
    GgufWriter writer;
    if (part == 0) {
      for (const auto& [key, value] : file.metadata()) {
        writer.add_value(key, value);
      }
    }
    writer.add_value("split.no", part).add_value("split.count", std::uint16_t{2});
    writer.add_value("split.tensors.count", static_cast<std::int32_t>(count));
    for (std::size_t i = part * count / 2; i < (part + 1U) * count / 2; ++i) {
      const StoredTensor& stored = file.tensors()[i];
      auto& values = scaled.emplace_back(stored.bytes.size() / sizeof(float));
      std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
      for (float& value : values) {
        value *= part == 0 ? 1.0F : scale;
      }
      writer.add_tensor(
          {stored.name, stored.dtype, stored.shape, std::as_bytes(std::span(values)), {}});
    }
    writer.write(folder / (part == 0 ? "m-00001-of-00002.gguf" : "m-00002-of-00002.gguf"));
  }
}

TEST(Checkpoint, ASplitGgufFileIsOneModel) {
  const test::TempDir folder;
  const std::filesystem::path first = folder / "m-00001-of-00002.gguf";
  write_split_gguf(folder.path(), 1.0F);
  const ModelWeights whole = load_model(folder / "whole.gguf", at::kFloat);
  const ModelWeights split = load_model(first, at::kFloat);
  const at::Tensor tokens = at::arange(12).reshape({1, 12});
  EXPECT_TRUE(at::equal(forward_logits(split, Geometry(split.spec), tokens),
                        forward_logits(whole, Geometry(whole.spec), tokens)));
  const std::string key = model_content_key(first);
  EXPECT_EQ(model_content_key(first), key);
  write_split_gguf(folder.path(), 2.0F);
  EXPECT_NE(model_content_key(first), key);
}

TEST(Checkpoint, ALlama2cFileOfAnotherLengthIsRefused) {
  const auto path = test::shared_data("tinyllamas/stories260K.bin");
  PUZZLE_REQUIRE_FILE(path);
  const test::TempDir folder;
  const std::filesystem::path copy = folder / "model.bin";
  std::filesystem::copy_file(path, copy);
  const auto size = std::filesystem::file_size(copy);
  std::filesystem::resize_file(copy, size + 4);
  EXPECT_PUZZLE_ERROR((void)load_model(copy, at::kFloat), ErrorKind::kFormat,
                      "4 bytes after the last tensor");
  std::filesystem::resize_file(copy, size - 4);
  EXPECT_PUZZLE_ERROR((void)load_model(copy, at::kFloat), ErrorKind::kFormat, "is it truncated?");
}

TEST(Checkpoint, RefusesWhatIsNoModel) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR((void)load_model_spec(folder / "absent"), ErrorKind::kIo, "no such file");
  EXPECT_PUZZLE_ERROR((void)load_model_spec(folder.path()), ErrorKind::kIo, "holds no model");
  std::ofstream(folder / "run.db") << "x";
  EXPECT_PUZZLE_ERROR((void)load_model_spec(folder.path()), ErrorKind::kIo,
                      "children are made below " + (folder / "children").string());
  std::filesystem::create_directories(folder / "children/child");
  EXPECT_PUZZLE_ERROR((void)load_model(folder.path(), at::kFloat), ErrorKind::kIo,
                      "its child is in " + (folder / "children/child").string());
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
