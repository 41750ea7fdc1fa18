// Exports of small random children: in a real llama.cpp and in real transformers they compute what
// the native decoder computes.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "puzzle/arch/lowering.h"
#include "puzzle/base/file.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/gguf_quant.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/export_child.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/hf_export.h"
#include "puzzle/stages/model_card.h"
#include "stages/exported_model.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

using test::gguf_options;
using test::kTokens;
using test::kVocab;
using test::llama_cpp_log_probs;
using test::log_probs;
using test::native_logits;
using test::round_weights;
using test::server_options;
using test::some_tokens;
using test::token_ids;
using test::tokenizer_source;

const std::vector<AttentionSpec> kAttentions = {AttentionSpec::gqa(2), AttentionSpec::linear(),
                                                AttentionSpec::none()};
const std::vector<FfnSpec> kFfns = {FfnSpec::swiglu(96), FfnSpec::linear(), FfnSpec::none()};

BlockSpec pair_of(std::int64_t i) {
  const auto index = static_cast<std::size_t>(i % 9);
  return {kAttentions[index % 3], kFfns[index / 3]};
}

// Child i of nine: every pair of kinds stands first, in the middle and last in one of them, with
// other rotary scalings, biases and heads as they go.
ModelSpec child_spec(std::int64_t i) {
  ModelSpec spec = test::tiny_spec();
  spec.name = fmt::format("child-{}", i);
  spec.vocab_size = kVocab;
  spec.layers = {pair_of(i),
                 pair_of(i + 3),
                 {AttentionSpec::gqa(1), FfnSpec::swiglu(50)},
                 pair_of(i + 7),
                 pair_of(2 * i + 4)};
  spec.tie_embeddings = i % 3 == 0;
  spec.attention_bias = i % 2 == 0;
  spec.attention_output_bias = i % 4 == 0;
  spec.mlp_bias = i % 5 == 0;
  spec.rope.kind = std::vector{RopeKind::kDefault, RopeKind::kLlama3, RopeKind::kYarn,
                               RopeKind::kLinear}[static_cast<std::size_t>(i % 4)];
  if (spec.rope.kind != RopeKind::kDefault) {
    spec.rope.factor = 4.0;
    spec.rope.original_context = spec.rope.kind == RopeKind::kLinear ? 0 : 32;
  }
  return spec;
}

// --------------------------------------------------------------------------------------- llama.cpp

TEST(ExportToLlamaCpp, EveryBlockInEveryPositionComputesTheSame) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  std::set<BlockSpec> first, last;
  double worst = 0.0;
  for (std::int64_t i = 0; i < 9; ++i) {
    const ModelWeights child = random_model(child_spec(i), 100 + i);
    SCOPED_TRACE(fmt::format("child {}", i));
    first.insert(child.spec.layers.front());
    last.insert(child.spec.layers.back());
    const fs::path file = folder / fmt::format("child-{}.gguf", i);
    write_model_gguf(file, child, gguf_options("f32"));
    const at::Tensor got = llama_cpp_log_probs(file, child.head);
    const at::Tensor want = log_probs(native_logits(child));
    EXPECT_CLOSE(got, want, 5e-5);  // 4e-6 measured
    worst = std::max(worst, (got - want).abs().max().item<double>());
  }
  EXPECT_EQ(first.size(), 9U);
  EXPECT_EQ(last.size(), 9U);
  RecordProperty("largest_difference", fmt::format("{:.1e}", worst));
}

// Token by token through llama.cpp's cache, in its usual mode.
TEST(ExportToLlamaCpp, ScoresTokensInItsUsualMode) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  const ModelWeights child = random_model(child_spec(1), 5);
  write_model_gguf(folder / "child.gguf", child, gguf_options("f32"));
  const LlamaServer server(folder / "child.gguf", server_options());
  const std::vector<std::int32_t> tokens = token_ids();
  const std::vector<double> scores = server.token_log_probs(std::span(tokens).first(16));
  const at::Tensor want = log_probs(native_logits(child));
  ASSERT_EQ(scores.size(), 15U);
  for (std::int64_t t = 0; t < 15; ++t) {
    EXPECT_NEAR(scores[static_cast<std::size_t>(t)],
                want[t][tokens[static_cast<std::size_t>(t) + 1]].item<double>(), 5e-5)
        << t;
  }
}

// Rows of 256 and 512 hold super-blocks, the others fall back.
ModelSpec super_block_spec() {
  ModelSpec spec = child_spec(1);
  spec.hidden_size = 256;
  spec.head_dim = 64;
  spec.layers = {{AttentionSpec::gqa(2), FfnSpec::swiglu(512)},
                 {AttentionSpec::gqa(1), FfnSpec::linear()},
                 {AttentionSpec::linear(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(4), FfnSpec::none()}};
  return spec;
}

// llama.cpp rounds the inputs of block types to 8 bits, which is the larger part of what remains.
TEST(ExportToLlamaCpp, SuperBlocksComputeWhatTheyDecodeTo) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  const auto mean_difference = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().mean().item<double>();
  };
  double of_8_bits = 0.0;
  for (const auto& [name, dtype] :
       {std::pair{"q8_0", DType::kQ8_0}, {"q4_k", DType::kQ4_K}, {"q6_k", DType::kQ6_K}}) {
    SCOPED_TRACE(name);
    ModelWeights child = random_model(super_block_spec(), 11);
    const GgufExport options = gguf_options(name);
    write_model_gguf(folder / "child.gguf", child, options);
    EXPECT_EQ(GgufFile(folder / "child.gguf").tensor("blk.0.ffn_down.weight").dtype, dtype);
    const at::Tensor plain = log_probs(native_logits(child));
    round_weights(child, options.types);
    const at::Tensor got = llama_cpp_log_probs(folder / "child.gguf", child.head);
    const at::Tensor want = log_probs(native_logits(child));
    EXPECT_CLOSE(got, want, 0.25);
    const double difference = mean_difference(got, want);
    if (dtype == DType::kQ8_0) {
      of_8_bits = difference;
    } else {
      EXPECT_LT(difference, 2.0 * of_8_bits);
      EXPECT_LT(difference, 0.6 * mean_difference(plain, want));
    }
    RecordProperty(name,
                   fmt::format("{:.1e} mean, {:.1e} at most to what it decodes to; {:.1e} mean "
                               "from there to the model",
                               difference, (got - want).abs().max().item<double>(),
                               mean_difference(plain, want)));
  }
}

// -------------------------------------------------------------------------------------------- GGUF

TEST(DeciGguf, OurLoaderReadsBackTheRoundedWeights) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
  ModelSpec spec = child_spec(0);
  spec.layers = {{AttentionSpec::none(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(2), FfnSpec::swiglu(50)},
                 {AttentionSpec::linear(), FfnSpec::linear()},
                 {AttentionSpec::gqa(1), FfnSpec::none()}};
  spec.tie_embeddings = false;
  const test::TempDir folder;
  for (const char* name : {"f32", "f16", "bf16", "q8_0", "q5_0", "q4_0", "q4_1", "q4_k", "q6_k"}) {
    SCOPED_TRACE(name);
    ModelWeights child = random_model(spec, 3);
    const GgufExport options = gguf_options(name);
    write_model_gguf(folder / "child.gguf", child, options);
    round_weights(child, options.types);
    const ModelWeights back = load_model(folder / "child.gguf", at::kFloat);
    EXPECT_EQ(back.spec.layers, child.spec.layers);
    EXPECT_EQ(back.spec.rope, child.spec.rope);
    EXPECT_TRUE(back.spec.attention_bias && back.spec.attention_output_bias && back.spec.mlp_bias);
    EXPECT_CLOSE(native_logits(back), native_logits(child), 1e-6);
  }
}

TEST(DeciGguf, SuperBlocksReadBackAndFallBackByRow) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
  const test::TempDir folder;
  ModelWeights child = random_model(super_block_spec(), 3);
  const GgufExport options = gguf_options("q4_k");
  write_model_gguf(folder / "child.gguf", child, options);
  const GgufFile file(folder / "child.gguf");
  EXPECT_EQ(file.tensor("token_embd.weight").dtype, DType::kQ6_K);
  EXPECT_EQ(file.tensor("blk.0.attn_q.weight").dtype, DType::kQ4_K);
  EXPECT_EQ(file.tensor("blk.2.ffn_down.weight").dtype, DType::kQ5_0);  // rows of 96
  std::int64_t bytes = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    bytes += static_cast<std::int64_t>(tensor.bytes.size());
  }
  EXPECT_EQ(model_cost(child.spec, ExportTarget::kDeci, options.types).weight_bytes, bytes);
  round_weights(child, options.types);
  const ModelWeights back = load_model(folder / "child.gguf", at::kFloat);
  EXPECT_EQ(back.spec.layers, child.spec.layers);
  EXPECT_CLOSE(native_logits(back), native_logits(child), 1e-6);
}

TEST(DeciGguf, NamesParentLicenceAndContent) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
  const test::TempDir folder;
  GgufExport options = gguf_options("q4_1");
  options.content_key = "0123";
  write_model_gguf(folder / "child.gguf", random_model(child_spec(0), 3), options);
  const GgufFile file(folder / "child.gguf");
  EXPECT_EQ(file.string_value("general.name"), "tiny child");
  EXPECT_EQ(file.string_value("general.license"), "mit");
  EXPECT_EQ(file.string_value("general.base_model.0.name"), "tiny parent");
  EXPECT_EQ(file.string_value("puzzle.content_key"), "0123");
  EXPECT_EQ(std::ssize(file.string_list("tokenizer.ggml.tokens")), kVocab);
  // The 4-bit types leave the embedding in 8 bits; "like-parent" then takes both from the file.
  const WeightTypes types = gguf_weight_types("like-parent", folder / "child.gguf");
  EXPECT_EQ(types.matrix, DType::kQ4_1);
  EXPECT_EQ(types.embedding, DType::kQ8_0);
  EXPECT_EQ(gguf_weight_types("like-parent", tokenizer_source()).matrix, DType::kF16);
  EXPECT_PUZZLE_ERROR((void)gguf_weight_types("q3_k", ""), ErrorKind::kUsage,
                      "GGUF type 'q3_k': expected like-parent, f32");
}

TEST(DeciGguf, RefusesAModelWithoutAttention) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
  ModelSpec spec = child_spec(0);
  spec.layers.assign(2, {AttentionSpec::linear(), FfnSpec::swiglu(96)});
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR(
      write_model_gguf(folder / "child.gguf", random_model(spec, 3), gguf_options("f32")),
      ErrorKind::kUsage, "no layer has GQA attention");
  EXPECT_FALSE(fs::exists(folder / "child.gguf"));
}

// ------------------------------------------------------------------------------------------- stage

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

void save_expected(const fs::path& file, const ModelWeights& child) {
  const at::Tensor tokens = some_tokens();
  const at::Tensor logits = native_logits(child).contiguous();
  std::vector<TensorToWrite> tensors(2);
  tensors[0].name = "tokens";
  tensors[0].dtype = DType::kI64;
  tensors[0].shape = {kTokens};
  tensors[0].bytes = std::as_bytes(std::span(tokens.const_data_ptr<std::int64_t>(), kTokens));
  tensors[1].name = "logits";
  tensors[1].dtype = DType::kF32;
  tensors[1].shape = {kTokens, kVocab};
  tensors[1].bytes = std::as_bytes(
      std::span(logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.numel())));
  write_safetensors(file, std::move(tensors));
}

TEST(ExportToTransformers, EveryBlockInEveryPositionComputesTheSame) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
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
  PUZZLE_REQUIRE_FILE(tokenizer_source());
  ExportRun run;
  const ModelWeights one = random_model(child_spec(1), 1);
  const ModelWeights two = random_model(child_spec(1), 2);
  const ExportResult result = run.run(one, "one", "child");
  EXPECT_EQ(result.gguf, run.folder / "exports/child.gguf");
  EXPECT_EQ(result.folders.at("hf"), run.folder / "exports/child-hf");
  EXPECT_EQ(result.gguf_bytes, static_cast<std::int64_t>(fs::file_size(result.gguf)));
  EXPECT_EQ(run.db.stages_of("export").size(), 2U);

  const auto holds = [&](const ModelWeights& child) {
    return at::equal(load_model(result.gguf, at::kFloat).final_norm, child.final_norm) &&
           at::equal(load_model(result.folders.at("hf"), at::kFloat).final_norm, child.final_norm);
  };
  EXPECT_TRUE(holds(one));
  const auto written = fs::last_write_time(result.gguf);
  const auto hf_written = fs::last_write_time(result.folders.at("hf") / "model.safetensors");
  EXPECT_EQ(run.run(one, "one", "child").gguf_bytes, result.gguf_bytes);
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
  PUZZLE_REQUIRE_FILE(tokenizer_source());
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
  }
  EXPECT_THAT(gguf, testing::HasSubstr("llama-server -m child.gguf"));
  EXPECT_THAT(gguf, testing::HasSubstr("- layer 2: empty, left out"));
  EXPECT_THAT(gguf, testing::HasSubstr("- layer 0: no attention, stored as a matrix of zeros"));
  EXPECT_THAT(hf, testing::HasSubstr("trust_remote_code=True"));
  EXPECT_THAT(hf, testing::HasSubstr("vLLM does not load a first layer without attention"));
}

TEST(ExportChild, EveryFolderSaysWhatItIs) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
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
  PUZZLE_REQUIRE_FILE(tokenizer_source());
  ExportRun run;
  const ModelWeights child = random_model(child_spec(1), 1);
  EXPECT_PUZZLE_ERROR(run.run(child, "one", "child", {"onnx"}), ErrorKind::kUsage,
                      "'onnx', expected one of gguf, ");
  EXPECT_PUZZLE_ERROR(run.run(child, "one", "a/b"), ErrorKind::kUsage, "'a/b' is no name");
  EXPECT_PUZZLE_ERROR((void)remote_code_file("setup.py"), ErrorKind::kUsage,
                      "remote code 'setup.py'");
}

// A file with one layer's matrices in one type and more of them in another.
void write_mixed_gguf(const fs::path& file, DType few, DType many, DType embedding) {
  GgufWriter writer;
  const auto add = [&](const std::string& name, DType type) {
    writer.add_tensor({.name = name,
                       .dtype = type,
                       .shape = {2, 256},
                       .bytes = {},
                       .produce = [type](const ByteSink& sink) {
                         sink(std::vector<std::byte>(2 * 256 / dtype_info(type).block_elements *
                                                     dtype_info(type).block_bytes));
                       }});
  };
  add("token_embd.weight", embedding);
  add("blk.0.ffn_up.weight", few);
  add("blk.0.ffn_down.weight", many);
  add("blk.1.ffn_up.weight", many);
  writer.write(file);
}

TEST(DeciGguf, LikeParentIsTheTypeOfMostMatricesIfItCanBeWritten) {
  const test::TempDir folder;
  const fs::path file = folder / "m.gguf";
  write_mixed_gguf(file, DType::kQ4_1, DType::kQ8_0, DType::kQ8_0);
  EXPECT_EQ(gguf_weight_types("like-parent", file).matrix, DType::kQ8_0);
  write_mixed_gguf(file, DType::kQ6_K, DType::kQ4_K, DType::kQ6_K);
  EXPECT_EQ(gguf_weight_types("like-parent", file).matrix, DType::kQ4_K);
  EXPECT_EQ(gguf_weight_types("like-parent", file).embedding, DType::kQ6_K);
  write_mixed_gguf(file, DType::kQ8_0, DType::kQ5_K, DType::kQ8_0);
  EXPECT_PUZZLE_ERROR((void)gguf_weight_types("like-parent", file), ErrorKind::kUsage,
                      "matrices of m.gguf are Q5_K, which is read but not written; name a type");
  write_mixed_gguf(file, DType::kQ4_0, DType::kQ4_0, DType::kQ3_K);
  EXPECT_PUZZLE_ERROR((void)gguf_weight_types("like-parent", file), ErrorKind::kUsage,
                      "token embedding of m.gguf are Q3_K");
}

TEST(ExportChild, TheParentBesideItIsOfTheChildsTypesAndContent) {
  PUZZLE_REQUIRE_FILE(tokenizer_source());
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
