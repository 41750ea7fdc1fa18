// The stage: files, folders, cards; in real transformers its folders compute what the native
// decoder computes.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "puzzle/base/file.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/export_child.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/hf_export.h"
#include "puzzle/stages/model_card.h"
#include "stages/exported_model.h"
#include "stages/small_children.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

using test::child_spec;
using test::kVocab;
using test::save_expected;
using test::tokenizer_source;

struct ExportRun {
  test::TempDir folder;
  RunDb db{folder / "run.db"};
  SingleCommunicator communicator;
  RunContext context{folder.path(), db, communicator};
  LoadedModel parent = loaded_parent();

  static LoadedModel loaded_parent() {
    ModelSpec spec = test::tiny_spec(5);
    spec.name = "Tiny \"Parent\"";
    spec.vocab_size = kVocab;
    return {tokenizer_source(), "parent-key", random_model(spec, 1), Geometry(spec),
            load_tokenizer(tokenizer_path(tokenizer_source()))};
  }

  ExportResult run(const ModelWeights& child, const std::string& key, const std::string& name,
                   const std::vector<std::string>& formats = {"gguf", "hf"}) {
    ExportOptions options;
    options.formats = formats;
    options.types = "f32";
    return export_child(context, parent,
                        {.child = &child, .key = key, .name = name, .license = "apache-2.0"},
                        options);
  }
};

TEST(ExportToTransformers, EveryBlockInEveryPositionComputesTheSame) {
  ExportRun run;
  std::string command =
      "'" PUZZLE_PYTHON "' '" PUZZLE_SOURCE_DIR "/tests/stages/check_hf_export.py'";
  for (std::int64_t i = 0; i < 9; ++i) {
    ModelSpec spec = child_spec(i);
    spec.qk_norm = i % 2 == 1;  // which no GGUF of ours holds
    if (i == 4) {
      spec.layers[2].ffn = FfnSpec::swiglu(256);  // as ffn_mult
    }
    const ModelWeights child = random_model(spec, 200 + i);
    const auto result =
        run.run(child, fmt::format("key {}", i), fmt::format("child-{}", i), {"hf"});
    const fs::path expected = run.folder / fmt::format("expected-{}.safetensors", i);
    save_expected(expected, child);
    command += fmt::format(" '{}' '{}'", result.folders.at("hf").string(), expected.string());
  }
  const fs::path log = run.folder / "log.txt";
  const int status = std::system((command + " > '" + log.string() + "' 2>&1").c_str());
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << PUZZLE_PYTHON " has no transformers";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0) << read_text_file(log);
}

TEST(ExportChild, SkipsWhatIsThereAndReplacesAnotherChild) {
  ExportRun run;
  const ModelWeights one = random_model(child_spec(1), 1);
  const ModelWeights two = random_model(child_spec(1), 2);
  const ExportResult result = run.run(one, "one", "child");
  EXPECT_EQ(result.gguf, run.folder / "exports/child.gguf");
  EXPECT_EQ(result.folders.at("hf"), run.folder / "exports/child-hf");
  const auto gguf_bytes = fs::file_size(result.gguf);
  EXPECT_EQ(run.db.stages_of("export").size(), 2U);

  const auto holds = [&](const ModelWeights& child) {
    return at::equal(load_model(result.gguf, at::kFloat).final_norm, child.final_norm) &&
           at::equal(load_model(result.folders.at("hf"), at::kFloat).final_norm, child.final_norm);
  };
  EXPECT_TRUE(holds(one));
  const auto written = fs::last_write_time(result.gguf);
  const auto hf_written = fs::last_write_time(result.folders.at("hf") / "model.safetensors");
  run.run(one, "one", "child");
  EXPECT_EQ(fs::file_size(result.gguf), gguf_bytes);
  EXPECT_EQ(fs::last_write_time(result.gguf), written);
  EXPECT_EQ(fs::last_write_time(result.folders.at("hf") / "model.safetensors"), hf_written);

  run.run(two, "two", "child");
  EXPECT_TRUE(holds(two));
  run.run(one, "one", "child");  // recorded as done, but the file has become another's
  EXPECT_TRUE(holds(one));
  fs::remove(result.gguf);
  fs::remove(result.folders.at("hf") / "config.json");
  run.run(one, "one", "child");
  EXPECT_TRUE(holds(one));
}

TEST(ExportChild, CardsNameParentLicenceAndLayers) {
  ExportRun run;
  ModelSpec spec = child_spec(1);
  spec.layers = {{AttentionSpec::none(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(2), FfnSpec::none()},
                 {AttentionSpec::none(), FfnSpec::none()},
                 {AttentionSpec::linear(), FfnSpec::linear()}};
  const ExportResult result = run.run(random_model(spec, 1), "one", "child");
  const std::string gguf = read_text_file(run.folder / "exports/child.md");
  const std::string hf = read_text_file(result.folders.at("hf") / "README.md");
  for (const std::string& card : {gguf, hf}) {
    EXPECT_THAT(card, testing::StartsWith("---\nlicense: apache-2.0\n"
                                          "base_model: \"Tiny \\\"Parent\\\"\"\n"));
    EXPECT_THAT(card, testing::HasSubstr("| 0 | none | width 96 |"));
    EXPECT_THAT(card, testing::HasSubstr("| 1 | 2 KV heads | none |"));
    EXPECT_THAT(card, testing::HasSubstr("| 3 | linear | linear |"));
    EXPECT_THAT(card, testing::Not(testing::HasSubstr("distill"))) << "not known to be";
  }
  EXPECT_THAT(gguf, testing::HasSubstr("llama-server -m child.gguf"));
  EXPECT_THAT(gguf, testing::HasSubstr("- layer 2: empty, left out"));
  EXPECT_THAT(gguf, testing::HasSubstr("- layer 0: no attention, stored as a matrix of zeros"));
  EXPECT_THAT(hf, testing::HasSubstr("trust_remote_code=True"));
  EXPECT_THAT(hf, testing::HasSubstr("vLLM does not load a first layer without attention"));
}

TEST(ExportChild, CardsSayWhatWasDoneToTheWeights) {
  ModelCard card;
  card.name = "child";
  card.parent = card.child = test::tiny_spec(2);
  const auto expect = [&](const ChildMaking& making, const std::string& tags,
                          const std::string& sentence) {
    card.making = making;
    for (const std::string& text : {make_gguf_card(card, ExportTarget::kDeci), make_hf_card(card),
                                    make_padded_card(card), make_any_model_card(card)}) {
      EXPECT_THAT(text, testing::HasSubstr("tags: [puzzle, pruning" + tags + "]\n"));
      EXPECT_THAT(text, testing::HasSubstr("made from the parent's weights" + sentence + "\n\n"));
    }
  };
  expect({}, "", ".");
  expect({.steps = {ChildStep::kRepair}}, "", "; then the whole was repaired in closed form.");
  expect({.steps = {ChildStep::kDistillation}}, ", distillation",
         "; then the whole was distilled from the parent.");
  expect({.blocks_trained = true}, ", distillation",
         " and trained, layer by layer, to do what the parent's do.");
}

TEST(ExportChild, EveryFolderSaysWhatItIs) {
  ExportRun run;
  ModelSpec spec = child_spec(1);
  spec.attention_bias = spec.attention_output_bias = false;
  spec.layers = {{AttentionSpec::none(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(2), FfnSpec::none()},
                 {AttentionSpec::none(), FfnSpec::none()}};
  const auto card_of = [&](const ModelWeights& child, const std::string& format) {
    const std::string key = fmt::format("{} layers", child.spec.num_layers());
    const ExportResult result = run.run(child, key, "child", {format});
    EXPECT_EQ(result.folders.at(format), run.folder / ("exports/child-" + format));
    return read_text_file(result.folders.at(format) / "README.md");
  };
  const std::string any = card_of(random_model(spec, 1), "hf-anymodel");
  EXPECT_THAT(any, testing::HasSubstr("`block_configs`"));
  EXPECT_THAT(any, testing::HasSubstr("| 1 | 2 KV heads | none |"));
  EXPECT_THAT(any, testing::Not(testing::HasSubstr("trust_remote_code")));

  spec.layers.push_back({AttentionSpec::linear(), FfnSpec::linear()});
  const std::string padded = card_of(random_model(spec, 1), "hf-padded");
  EXPECT_THAT(padded, testing::HasSubstr("all 4 layers have 2 KV heads and an FFN of width 96"));
  EXPECT_THAT(padded, testing::HasSubstr("- layer 2: empty, left out of the file"));
  EXPECT_THAT(padded, testing::HasSubstr("- layers 0, 3: no attention, or linear, stored as one of "
                                         "zeros"));
  EXPECT_THAT(padded, testing::HasSubstr("- layer 3: linear FFN, stored as a gated one"));
  EXPECT_THAT(padded, testing::Not(testing::HasSubstr("trust_remote_code")));
  EXPECT_PUZZLE_ERROR(card_of(random_model(spec, 1), "hf-anymodel"), ErrorKind::kUsage,
                      "hf-anymodel cannot hold the child: layer 3: a linear sub-block");
}

TEST(ExportChild, RefusesUnknownFormatsAndNames) {
  ExportRun run;
  const ModelWeights child = random_model(child_spec(1), 1);
  EXPECT_PUZZLE_ERROR(run.run(child, "one", "child", {"onnx"}), ErrorKind::kUsage,
                      "'onnx', expected one of gguf, ");
  EXPECT_PUZZLE_ERROR(run.run(child, "one", "a/b"), ErrorKind::kUsage, "'a/b' is no name");
  EXPECT_PUZZLE_ERROR((void)remote_code_file("setup.py"), ErrorKind::kUsage,
                      "remote code 'setup.py'");
}

TEST(ExportChild, TheParentBesideItIsOfTheChildsTypesAndContent) {
  ExportRun run;
  ExportOptions options;
  options.types = "f16";
  const auto types_of = [](const fs::path& file) {
    return gguf_weight_types("like-parent", file).matrix;
  };
  const fs::path file = export_parent(run.context, run.parent, "mit", options);
  EXPECT_EQ(file, run.folder / "exports/parent.gguf");
  EXPECT_EQ(types_of(file), DType::kF16);
  const auto written = fs::last_write_time(file);
  EXPECT_EQ(export_parent(run.context, run.parent, "mit", options), file);
  EXPECT_EQ(fs::last_write_time(file), written);
  options.types = "f32";  // another recipe in the same folder
  EXPECT_EQ(types_of(export_parent(run.context, run.parent, "mit", options)), DType::kF32);
  run.parent.key = "another parent's";
  run.parent.weights = random_model(run.parent.weights.spec, 2);
  EXPECT_TRUE(at::equal(
      load_model(export_parent(run.context, run.parent, "mit", options), at::kFloat).embedding,
      run.parent.weights.embedding));

  // A parent that is such a file already is taken as it is.
  fs::copy(file, run.folder / "own.gguf");
  run.parent.path = run.folder / "own.gguf";
  EXPECT_EQ(export_parent(run.context, run.parent, "mit", options), run.parent.path);
  options.types = "q8_0";
  EXPECT_EQ(types_of(export_parent(run.context, run.parent, "mit", options)), DType::kQ8_0);
}

TEST(ExportChild, ReadsTheLicenceFromTheParentsFiles) {
  const test::TempDir folder;
  GgufWriter writer;
  writer.add_string("general.license", "apache-2.0");
  writer.write(folder / "m.gguf");
  EXPECT_EQ(license_of(folder / "m.gguf"), "apache-2.0");
  const auto with_readme = [&](const std::string& text) {
    make_folder(folder / "hf");
    write_text_file(folder / "hf/README.md", text);
    return license_of(folder / "hf");
  };
  EXPECT_EQ(with_readme("---\ntags: [x]\nlicense: llama3.1\n---\nlicense: no\n"), "llama3.1");
  EXPECT_EQ(with_readme("---\nlicense: \"mit\"\n---\n"), "mit");
  EXPECT_EQ(with_readme("---\nlicense: other\nlicense_name: my-own\n---\n"), "my-own");
  EXPECT_EQ(with_readme("---\nlicense: other\n---\n"), "");
  EXPECT_EQ(with_readme("license: mit\n"), "");
  EXPECT_EQ(license_of(folder / "nowhere"), "");
}

}  // namespace
}  // namespace puzzle
