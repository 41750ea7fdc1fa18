// Every cell of docs/engines.md: a small random model with that block at that position, exported in
// that format, computes in llama.cpp or transformers what the native decoder computes; a format
// that refuses it throws.
#include <cstdlib>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "puzzle/arch/engine_table.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/arch/padded_model.h"
#include "puzzle/base/file.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/hf_export.h"
#include "stages/exported_model.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

using test::llama_cpp_log_probs;
using test::log_probs;
using test::native_logits;
using test::save_expected;
using test::tokenizer_source;

// One model that stands for some cells, and what it is called.
struct CellModel {
  std::string name;
  ModelSpec spec;
};

// Blocks at three positions at once; those that the target refuses are the parent's.
struct PackedModels {
  std::vector<CellModel> models;
  std::size_t held = 0;            // cells that are in one of them
  std::vector<CellModel> refused;  // one per refused cell
  std::vector<std::string> reasons;
};

PackedModels pack_cells(ExportTarget target, const EngineModel& parent) {
  const std::vector<BlockSpec> blocks = engine_blocks();
  const std::size_t count = blocks.size();
  std::set<std::pair<LayerPosition, BlockSpec>> covered;
  PackedModels packed;
  for (std::size_t i = 0; i < count; ++i) {
    ModelSpec spec = parent.spec;
    bool holds_any = false;
    for (const LayerPosition position : kLayerPositions) {
      const std::size_t shift = 5 * layer_at(position);
      const BlockSpec& block = blocks[(i + shift) % count];
      const EngineCell cell = engine_cell(target, parent.spec, position, block);
      const std::string name =
          fmt::format("{}-{}-{}", i, layer_position_name(position), export_target_name(target));
      covered.emplace(position, block);
      if (cell.kind == CellKind::kRefused) {
        ModelSpec alone = parent.spec;
        alone.layers[layer_at(position)] = block;
        packed.refused.push_back({name, alone});
        packed.reasons.push_back(cell.words);
      } else {
        spec.layers[layer_at(position)] = block;
        holds_any = true;
        ++packed.held;
      }
    }
    if (holds_any) {
      packed.models.push_back({fmt::format("{}-{}", export_target_name(target), i), spec});
    }
  }
  EXPECT_EQ(covered.size(), 3 * count);
  return packed;
}

// What the model's file does to a block is what the table says of the cell.
void expect_written_as_listed(ExportTarget target, const EngineModel& parent,
                              const ModelSpec& spec) {
  const std::vector<LoweredBlock> lowered = lower_model(target, spec);
  for (const LayerPosition position : kLayerPositions) {
    const std::size_t layer = layer_at(position);
    const EngineCell cell = engine_cell(target, parent.spec, position, spec.layers[layer]);
    EXPECT_EQ(lowered[layer], cell.lowered)
        << layer_position_name(position) << " " << spec.layers[layer].name();
  }
}

GgufExport cell_gguf(ExportTarget target) {
  GgufExport options = test::gguf_options("f32");
  options.target = target;
  return options;
}

HfExport cell_folder(const ModelSpec& parent, const ModelSpec& child) {
  return {.card = {.name = "cell", .license = "", .parent = parent, .child = child, .types = {}},
          .parent = tokenizer_source(),
          .type = at::kFloat,
          .content_key = "cell"};
}

// A child of each model that the target holds, with what is linear where it holds that.
std::vector<CellModel> whole_models(ExportTarget target) {
  std::vector<CellModel> models;
  for (const EngineModel& model : engine_models()) {
    ModelSpec spec = model.spec;
    spec.layers[0] = {AttentionSpec::gqa(2), FfnSpec::none()};
    spec.layers[2] = {AttentionSpec::none(), FfnSpec::swiglu(96)};
    const BlockSpec last = spec.layers[3];
    spec.layers[3] = {AttentionSpec::linear(), FfnSpec::linear()};
    if (refusal(target, spec)) {
      spec.layers[3] = last;
    }
    if (!refusal(target, spec)) {
      models.push_back({fmt::format("{}-{}", export_target_name(target), models.size()), spec});
    }
  }
  return models;
}

const std::vector<std::string> kModelsByBlock = {"Llama", "Qwen3, tied"};

// ------------------------------------------------------------------------------------- llama.cpp

TEST(Engines, EveryGgufCellComputesTheSameInLlamaCpp) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  std::uint64_t seed = 300;
  const auto run = [&](ExportTarget target, const CellModel& model) {
    SCOPED_TRACE(model.name);
    const ModelWeights child = random_model(model.spec, seed++);
    write_model_gguf(folder / "cell.gguf", child, cell_gguf(target));
    EXPECT_CLOSE(llama_cpp_log_probs(folder / "cell.gguf", child.head),
                 log_probs(native_logits(child)), 5e-5);
  };
  std::size_t held = 0;
  std::size_t wholes = 0;
  for (const ExportTarget target : {ExportTarget::kDeci, ExportTarget::kOpenElm}) {
    for (const std::string& name : kModelsByBlock) {
      const EngineModel& parent = find_engine_model(name);
      const PackedModels packed = pack_cells(target, parent);
      held += packed.held;
      for (const CellModel& model : packed.models) {
        expect_written_as_listed(target, parent, model.spec);
        run(target, model);
      }
    }
    for (const CellModel& model : whole_models(target)) {
      run(target, model);
      ++wholes;
    }
  }
  // deci: all 16 pairs in 3 places, of Llama; openelm: the 9 without anything linear, of Qwen3.
  EXPECT_EQ(held, 16U * 3U + 9U * 3U);
  EXPECT_EQ(wholes, 5U + 1U);
}

// ---------------------------------------------------------------------------------- transformers

TEST(Engines, EveryFolderCellComputesTheSameInTransformers) {
  const test::TempDir folder;
  std::string list;
  std::size_t held = 0;
  const auto add = [&](const HfFormat& format, const CellModel& model, const ModelSpec& parent) {
    const ModelWeights child = random_model(model.spec, 500 + list.size());
    const fs::path out = folder / model.name;
    write_hf_export(format, out, child, cell_folder(parent, child.spec));
    save_expected(out / "expected.safetensors.logits", child);
    list += fmt::format("{} {} {}\n", format.name, out.string(),
                        (out / "expected.safetensors.logits").string());
  };
  for (const HfFormat& format : hf_formats()) {
    for (const std::string& name : kModelsByBlock) {
      const EngineModel& parent = find_engine_model(name);
      PackedModels packed = pack_cells(format.target, parent);
      held += packed.held;
      for (CellModel& model : packed.models) {
        expect_written_as_listed(format.target, parent, model.spec);
        model.name += parent.spec.qk_norm ? "-qwen3" : "-llama";
        add(format, model, parent.spec);
      }
    }
    for (CellModel& model : whole_models(format.target)) {
      model.name += "-whole";
      add(format, model, model.spec);
    }
  }
  // Of two parents; what is linear neither in anymodel nor in a padded Qwen3.
  EXPECT_EQ(held, (6U * 16U - 3U * 7U) * 3U);
  write_text_file(folder / "list.txt", list);
  const std::string command =
      fmt::format("'{}' '{}/tests/stages/check_engine_cells.py' '{}' > '{}' 2>&1", PUZZLE_PYTHON,
                  PUZZLE_SOURCE_DIR, (folder / "list.txt").string(), (folder / "log.txt").string());
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << PUZZLE_PYTHON " has no transformers";
  }
  const std::string log = read_text_file(folder / "log.txt");
  EXPECT_EQ(WEXITSTATUS(status), 0) << log;
  RecordProperty("largest_differences", log);
}

// --------------------------------------------------------------------------------------- refused

TEST(Engines, RefusedCellsThrowBeforeAnythingIsWritten) {
  const test::TempDir folder;
  std::size_t refused = 0;
  const auto expect_refused = [&](ExportTarget target, const CellModel& model,
                                  const std::string& reason) {
    SCOPED_TRACE(fmt::format("{} {}", model.name, model.spec.name));
    const ModelWeights child = random_model(model.spec, 1);
    const fs::path out = folder / model.name;
    if (is_gguf_target(target)) {
      EXPECT_PUZZLE_ERROR(write_model_gguf(out, child, cell_gguf(target)), ErrorKind::kUsage,
                          reason);
    }
    for (const HfFormat& format : hf_formats()) {
      if (format.target == target) {
        EXPECT_PUZZLE_ERROR(
            write_hf_export(format, out, child, cell_folder(model.spec, child.spec)),
            ErrorKind::kUsage, reason);
      }
    }
    EXPECT_FALSE(fs::exists(out));
    ++refused;
  };
  for (const ExportTarget target : all_export_targets()) {
    for (const std::string& name : kModelsByBlock) {
      const PackedModels packed = pack_cells(target, find_engine_model(name));
      for (std::size_t i = 0; i < packed.refused.size(); ++i) {
        expect_refused(target, packed.refused[i], packed.reasons[i]);
      }
    }
    for (const EngineModel& model : engine_models()) {
      if (const auto reason = refusal(target, model.spec)) {
        expect_refused(target, {"whole", model.spec}, *reason);
      }
    }
  }
  // 7 pairs hold something linear, in 3 places: anymodel refuses them of both parents, padded and
  // openelm of Qwen3. deci refuses all of Qwen3, openelm all of Llama. Whole models: deci two
  // Qwen3 and the yarn with other betas, openelm all but the tied Qwen3.
  EXPECT_EQ(refused, 4U * 7U * 3U + 2U * 16U * 3U + 3U + 7U);
}

// ------------------------------------------------------------------------------------ our reader

TEST(Engines, OurReaderLoadsEveryFolderBackAsAParent) {
  const test::TempDir folder;
  ModelSpec spec = find_engine_model("Qwen2").spec;
  spec.layers = {{AttentionSpec::none(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(2), FfnSpec::none()},
                 {AttentionSpec::none(), FfnSpec::none()},
                 {AttentionSpec::gqa(4), FfnSpec::swiglu(512)}};
  const ModelWeights child = random_model(spec, 9);
  const auto back = [&](const char* name) {
    write_hf_export(*find_hf_format(name), folder / name, child, cell_folder(spec, spec));
    return load_model(folder / name, at::kFloat);
  };
  const ModelWeights any = back("hf-anymodel");
  EXPECT_EQ(any.spec, spec);
  EXPECT_TRUE(at::equal(native_logits(any), native_logits(child)));
  EXPECT_EQ(held_hf_key(folder / "hf-anymodel"), "cell");
  EXPECT_EQ(hf_model_type(folder / "hf-anymodel"), "qwen2");

  const ModelWeights padded = back("hf-padded");
  EXPECT_EQ(padded.spec.layers, Architecture(3, {AttentionSpec::gqa(4), FfnSpec::swiglu(512)}));
  EXPECT_CLOSE(native_logits(padded), native_logits(child), 1e-5);
  EXPECT_EQ(hf_model_type(folder / "hf-padded"), "qwen2");
  EXPECT_FALSE(fs::exists(folder / "hf-padded/modeling_decilm.py"));
}

TEST(Engines, APaddedModelIsOfTheParentsClass) {
  const test::TempDir folder;
  ModelSpec spec = find_engine_model("Llama").spec;
  spec.layers[1] = {AttentionSpec::linear(), FfnSpec::none()};
  const ModelWeights child = random_model(spec, 9);
  HfExport options = cell_folder(spec, spec);
  fs::create_directories(folder / "parent");
  write_text_file(folder / "parent/config.json", R"({"model_type": "mistral"})");
  const HfFormat& format = *find_hf_format("hf-padded");
  const auto type_of = [&](const ModelSpec& of) {
    return make_plain_config(padded_spec(of), "float32", hf_model_type(folder / "parent"))
        .at("architectures")
        .at(0)
        .get<std::string>();
  };
  // A linear sub-block needs biases in the FFN, which only Llama's class has.
  EXPECT_EQ(type_of(spec), "LlamaForCausalLM");
  EXPECT_EQ(type_of(find_engine_model("Llama").spec), "MistralForCausalLM");
  EXPECT_EQ(type_of(find_engine_model("Qwen2").spec), "Qwen2ForCausalLM");
  EXPECT_EQ(type_of(find_engine_model("Qwen3, untied").spec), "Qwen3ForCausalLM");

  for (const c10::ScalarType type : {at::kHalf, at::kBFloat16}) {
    options.type = type;
    write_hf_export(format, folder / "out", child, options);
    ModelWeights rounded = child;
    visit_tensors(rounded, TensorVisitor([type](const std::string&, at::Tensor& tensor) {
                    tensor = tensor.to(type).to(at::kFloat);
                  }));
    // The rewrite of what is linear adds no error of its own.
    EXPECT_CLOSE(native_logits(load_model(folder / "out", at::kFloat)), native_logits(rounded),
                 1e-5);
  }
}

}  // namespace
}  // namespace puzzle
