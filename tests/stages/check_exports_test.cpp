// `puzzle export --check` as a stage: exported files in the real engines, beside files that are not
// the child's.
#include "puzzle/stages/check_exports.h"

#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/data/token_file.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/model/checkpoint.h"
#include "stages/exported_model.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

struct CheckRun {
  explicit CheckRun(LoadedModel model)
      : parent(std::move(model)), text(own_pages(folder.path(), *parent.tokenizer)) {
    server.threads = 2;
    server.program = "xllamacpp";
  }

  static TokenPart own_pages(const fs::path& folder, const Tokenizer& tokenizer) {
    write_text_file(folder / "text.txt", read_text_file(PUZZLE_SOURCE_DIR "/LICENSE"));
    DataOptions data;
    data.sources = {(folder / "text.txt").string()};
    data.window = 64;
    data.group_windows = 1;
    data.calibration_tokens = data.scoring_tokens = data.validation_tokens = 64;
    data.test_tokens = 640;
    return split_tokens(load_token_file(folder / "data", data, tokenizer), data).test;
  }

  ExportResult write(const ModelWeights& child, const ExportOptions& options) {
    return export_child(context, parent,
                        {.child = &child, .key = options.types, .name = "child", .license = "mit"},
                        options);
  }
  std::vector<ExportCheck> check(const ModelWeights& child, const ExportResult& exported,
                                 const ExportOptions& options) {
    return check_exports(context, parent, child, exported, options, text, server);
  }

  test::TempDir folder;
  LoadedModel parent;
  TokenPart text;
  RunDb db{folder / "run.db"};
  SingleCommunicator communicator;
  RunContext context{folder.path(), db, communicator};
  LlamaServerOptions server;
};

LoadedModel tiny_parent() {
  ModelSpec spec = test::tiny_spec(3);
  spec.vocab_size = test::kVocab;
  return {test::tokenizer_source(), "parent-key", random_model(spec, 1), Geometry(spec),
          load_tokenizer(tokenizer_path(test::tokenizer_source()))};
}

ModelSpec tiny_child_spec() {
  ModelSpec spec = test::tiny_spec(4);
  spec.vocab_size = test::kVocab;
  spec.layers = {parse_block("none/w96"), parse_block("kv2/linear"), parse_block("linear/none"),
                 parse_block("kv4/w50")};
  return spec;
}

TEST(CheckExports, FilesAgreeWithTheirChildAndWithNoOther) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  if (!test::has_module("transformers")) {
    GTEST_SKIP() << PUZZLE_PYTHON " has no transformers";
  }
  CheckRun run(tiny_parent());
  const ModelWeights child = random_model(tiny_child_spec(), 2);
  ExportOptions options;
  options.formats = {"gguf", "hf"};
  options.types = "f32";
  options.hf_dtype = "bfloat16";
  const ExportResult exported = run.write(child, options);
  const std::vector<ExportCheck> checks = run.check(child, exported, options);
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_EQ(checks[0].file, "child.gguf");
  EXPECT_EQ(checks[1].file, "child-hf");
  for (const ExportCheck& check : checks) {
    EXPECT_TRUE(check.agrees()) << export_checks_text(checks);
    EXPECT_EQ(check.tokens, 4 * 64);
  }
  require_agreement(checks);

  // The files of one child, taken for another's.
  ModelWeights other = child;
  other.layers[3].ffn.down = child.layers[3].ffn.down * 1.01;
  const std::vector<ExportCheck> wrong = run.check(other, exported, options);
  for (const ExportCheck& check : wrong) {
    EXPECT_FALSE(check.agrees()) << check.file << " " << check.found.largest;
  }
  EXPECT_PUZZLE_ERROR(require_agreement(wrong), ErrorKind::kFormat, "child.gguf: log-prob");
  EXPECT_THAT(export_checks_text(wrong), testing::HasSubstr(": differs\n"));
  EXPECT_EQ(export_checks_json(wrong).at(1).at("agrees"), false);
}

TEST(CheckExports, BlockTypesAreComparedWithWhatTheyDecodeTo) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  CheckRun run(tiny_parent());
  const ModelWeights child = random_model(tiny_child_spec(), 2);
  ExportOptions options;
  options.types = "q4_0";
  const std::vector<ExportCheck> checks = run.check(child, run.write(child, options), options);
  EXPECT_TRUE(checks.at(0).agrees()) << export_checks_text(checks);
  EXPECT_GT(checks[0].found.largest, 1e-3);  // inputs in 8 bits
}

TEST(CheckExports, AMissingEngineIsNamed) {
  CheckRun run(tiny_parent());
  run.server.program = "no-such-llama-server";
  ModelSpec spec = tiny_child_spec();
  spec.layers = {parse_block("none/w96"), parse_block("kv2/w32")};
  const ModelWeights child = random_model(spec, 2);
  ExportOptions options;
  options.types = "f32";
  options.formats = {"gguf", "hf-anymodel"};
  const std::vector<ExportCheck> checks = run.check(child, run.write(child, options), options);
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_THAT(checks[0].problem, testing::HasSubstr("no-such-llama-server"));
  EXPECT_FALSE(checks[1].has_engine);
  EXPECT_THAT(export_checks_text(checks),
              testing::HasSubstr("child-hf-anymodel (F32): not run: Model-Optimizer"));
  EXPECT_PUZZLE_ERROR(require_agreement(checks), ErrorKind::kIo, "no-such-llama-server");
  require_agreement({checks[1]});
}

TEST(CheckExports, AFolderThatTransformersRefusesIsAProblem) {
  if (!test::has_module("transformers")) {
    GTEST_SKIP() << PUZZLE_PYTHON " has no transformers";
  }
  CheckRun run(tiny_parent());
  const ModelWeights child = random_model(tiny_child_spec(), 2);
  ExportOptions options;
  options.formats = {"hf"};
  const ExportResult exported = run.write(child, options);
  const fs::path config = exported.folders.at("hf") / "config.json";
  Json changed = load_json(config);
  changed["block_configs"][0]["attention"]["no_op"] = false;  // whose weights are not there
  changed["block_configs"][0]["attention"]["n_heads_in_group"] = 1;
  save_json(config, changed);
  const std::vector<ExportCheck> checks = run.check(child, exported, options);
  EXPECT_FALSE(checks[0].agrees());
  EXPECT_THAT(checks[0].problem, testing::HasSubstr("layers.0.self_attn"));
  EXPECT_PUZZLE_ERROR(require_agreement(checks), ErrorKind::kIo, "child-hf: ");
}

// A part without text: the sentence of our own.
TEST(CheckExports, WithoutTextOfARunASentenceOfItsOwnIsTaken) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  CheckRun run(tiny_parent());
  run.text = run.text.first_tokens(0);
  ASSERT_EQ(run.text.num_windows(), 0);
  const ModelWeights child = random_model(tiny_child_spec(), 2);
  ExportOptions options;
  options.types = "f32";
  const std::vector<ExportCheck> checks = run.check(child, run.write(child, options), options);
  EXPECT_GT(checks.at(0).tokens, 32);
  EXPECT_TRUE(checks[0].agrees()) << export_checks_text(checks);
}

// The tolerances are those of a real model: thirty layers, 49152 tokens.
TEST(CheckExportsOfRealParent, StaysWithinWhatEachTypeExplains) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  PUZZLE_REQUIRE_LLAMA_CPP();
  CheckRun run(open_model(test::parent_gguf(), c10::kCPU, at::kFloat));
  for (const std::string& type : gguf_type_names()) {
    ExportOptions options;
    options.types = type;
    if (type == "f16") {
      options.formats = {"gguf", "hf"};
      options.hf_dtype = "float16";
    }
    const std::vector<ExportCheck> checks =
        run.check(run.parent.weights, run.write(run.parent.weights, options), options);
    for (const ExportCheck& check : checks) {
      EXPECT_TRUE(check.agrees()) << export_checks_text(checks);
      EXPECT_GT(check.found.largest, check.expected.largest / 50.0) << export_checks_text(checks);
      EXPECT_GT(check.found.kl, check.expected.kl / 1e5) << export_checks_text(checks);
      RecordProperty(check.file + " " + type,
                     fmt::format("{:.2g}, KL {:.2g}", check.found.largest, check.found.kl));
    }
  }
}

}  // namespace
}  // namespace puzzle
