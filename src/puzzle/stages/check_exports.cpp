#include "puzzle/stages/check_exports.h"

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/engine/transformers_model.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/gguf_in_engine.h"
#include "puzzle/stages/hf_export.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSampledWindows = 4;
constexpr std::int64_t kSampledTokens = 64;  // of each
constexpr std::int64_t kScoredTokens = 24;   // token by token in llama-server's usual mode
constexpr const char* kOwnSentence =
    "The old lighthouse keeper climbed the stairs every evening, lit the lamp, and wrote down what "
    "the sea had brought: three planks, a blue bottle, and once, in 1911, a letter that nobody had "
    "ever opened.";

using Sequences = std::vector<std::vector<std::int32_t>>;

Sequences sample_sequences(const TokenPart& text, const Tokenizer& tokenizer, std::int64_t seed) {
  if (text.num_windows() == 0) {
    return {tokenizer.encode(kOwnSentence)};
  }
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::set<std::int64_t> windows;
  while (std::ssize(windows) < std::min(kSampledWindows, text.num_windows())) {
    windows.insert(
        static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(text.num_windows())));
  }
  Sequences sequences;
  for (const std::int64_t window : windows) {
    const at::Tensor row = text.slice(window, 1)
                               .tokens_BT[0]
                               .narrow(0, 0, std::min(kSampledTokens, text.window()))
                               .to(at::kInt)
                               .contiguous();
    sequences.emplace_back(row.const_data_ptr<std::int32_t>(),
                           row.const_data_ptr<std::int32_t>() + row.numel());
  }
  return sequences;
}

std::int64_t num_tokens(const Sequences& sequences) {
  std::int64_t sum = 0;
  for (const auto& sequence : sequences) {
    sum += std::ssize(sequence);
  }
  return sum;
}

at::Tensor to_log_probs(const at::Tensor& logits) {
  return at::log_softmax(logits.to(at::kDouble), -1);
}

// [all tokens, V]
at::Tensor native_log_probs(const ModelWeights& model, const Sequences& sequences) {
  const c10::NoGradGuard no_grad;
  const Geometry geometry(model.spec);
  std::vector<at::Tensor> parts;
  for (const auto& sequence : sequences) {
    const at::Tensor tokens = at::tensor(sequence).to(at::kLong).unsqueeze(0);
    parts.push_back(to_log_probs(forward_logits(model, geometry, tokens).squeeze(0)));
  }
  return at::cat(parts);
}

// A NaN counts as infinitely far, another shape as well.
LogProbDifference difference_of(const at::Tensor& engine, const at::Tensor& native) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  if (engine.sizes() != native.sizes()) {
    return {kFar, kFar};
  }
  const at::Tensor difference = (native - engine).nan_to_num(kFar, kFar, -kFar);
  return {difference.abs().max().item<double>(),
          (native.exp() * difference).sum(-1).mean().item<double>()};
}

ModelWeights as_stored(ModelWeights model, const WeightTypes& types) {
  const c10::NoGradGuard no_grad;
  visit_tensors(model, TensorVisitor([&](const std::string& name, at::Tensor& tensor) {
                  const bool is_table =
                      name == "model.embed_tokens.weight" || name == "lm_head.weight";
                  const DType matrix = is_table ? types.embedding : types.matrix;
                  tensor = stored_values(tensor, tensor.dim() < 2 ? types.vector : matrix);
                }));
  if (model.spec.tie_embeddings) {
    model.head = model.embedding;
  }
  return model;
}

class ExportChecker {
 public:
  ExportChecker(const ModelWeights& child, Sequences sequences, const LlamaServerOptions& server)
      : child_(child), sequences_(std::move(sequences)), server_(server) {
    // Else rounding to halves in the attention hides other faults.
    server_.cache_type = "f32";
    server_.flash_attention = "off";
    server_.parallel = 1;
    server_.context_tokens = std::max(server_.context_tokens, kSampledTokens + kScoredTokens);
  }

  [[nodiscard]] ExportCheck gguf(const fs::path& file, const WeightTypes& types) const {
    ExportCheck check = begin(file, types.matrix);
    check.expected = expected_difference(types.matrix);
    attempt(check, [&] {
      check.engine = find_llama_server_version(server_);
      const at::Tensor native = native_log_probs(as_stored(child_, types), sequences_);
      check.found = difference_of(gguf_log_probs(file), native);
      check.found.largest = std::max(check.found.largest, scored_difference(file, native));
    });
    return check;
  }

  [[nodiscard]] ExportCheck folder(const fs::path& path, const HfFormat& format, DType type) const {
    ExportCheck check = begin(path, type);
    if (format.target == ExportTarget::kAnyModel) {
      check.has_engine = false;
      check.problem =
          "Model-Optimizer and vLLM's AnyModel read it, which this program does not run";
      return check;
    }
    check.expected = expected_difference(DType::kF32);
    attempt(check, [&] {
      WeightTypes types;
      types.matrix = types.embedding = types.vector = type;
      const TransformersLogits logits = transformers_logits(path, sequences_);
      check.engine = logits.engine;
      const at::Tensor engine = to_log_probs(
          at::tensor(logits.values).reshape({num_tokens(sequences_), logits.vocab_size}));
      check.found = difference_of(engine, native_log_probs(as_stored(child_, types), sequences_));
    });
    return check;
  }

 private:
  [[nodiscard]] ExportCheck begin(const fs::path& path, DType type) const {
    ExportCheck check;
    check.file = path.filename().string();
    check.type = dtype_name(type);
    check.tokens = num_tokens(sequences_);
    return check;
  }

  template <class Run>
  static void attempt(ExportCheck& check, Run&& run) {
    try {
      run();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kIo && error.kind() != ErrorKind::kFormat) {
        throw;
      }
      check.problem = error.what();
    }
  }

  // The whole vocabulary, through the file's head as it decodes.
  [[nodiscard]] at::Tensor gguf_log_probs(const fs::path& file) const {
    const LlamaServer server(file, server_, LlamaServerMode::kHiddenStates);
    const at::Tensor head = gguf_head(file);
    std::vector<at::Tensor> parts;
    for (const auto& sequence : sequences_) {
      parts.push_back(to_log_probs(engine_hidden_states(server, sequence).matmul(head.t())));
    }
    return at::cat(parts);
  }

  // The tokens that do follow, through llama.cpp's own head and cache.
  [[nodiscard]] double scored_difference(const fs::path& file, const at::Tensor& native) const {
    const LlamaServer server(file, server_);
    const std::vector<std::int32_t>& sequence = sequences_.front();
    const auto count = std::min(static_cast<std::size_t>(kScoredTokens), sequence.size());
    const std::vector<double> scores = server.token_log_probs({sequence.data(), count});
    double largest = 0.0;
    for (std::size_t t = 0; t < scores.size(); ++t) {
      const double want = native[static_cast<std::int64_t>(t)][sequence[t + 1]].item<double>();
      largest = std::max(largest, std::abs(scores[t] - want));
    }
    return largest;
  }

  const ModelWeights& child_;
  Sequences sequences_;
  LlamaServerOptions server_;
};

}  // namespace

LogProbDifference expected_difference(DType matrix) {
  switch (matrix) {
    case DType::kF32:
      return {2e-3, 1e-7};
    case DType::kF16:
      return {0.5, 1e-5};
    case DType::kBF16:
      return {3.0, 1e-3};
    default:
      return {30.0, 5e-2};
  }
}

std::vector<ExportCheck> check_exports(const RunContext& context, const LoadedModel& parent,
                                       const ModelWeights& child, const ExportResult& exported,
                                       const ExportOptions& options, const TokenPart& text,
                                       const LlamaServerOptions& server) {
  const ExportChecker checker(child, sample_sequences(text, *parent.tokenizer, context.seed),
                              server);
  std::vector<ExportCheck> checks;
  if (!exported.gguf.empty()) {
    checks.push_back(checker.gguf(exported.gguf, gguf_weight_types(options.types, parent.path)));
  }
  for (const auto& [format, folder] : exported.folders) {
    checks.push_back(
        checker.folder(folder, *find_hf_format(format), dtype_of_torch_name(options.hf_dtype)));
  }
  return checks;
}

std::string export_checks_text(const std::vector<ExportCheck>& checks) {
  std::string text;
  for (const ExportCheck& check : checks) {
    if (!check.problem.empty()) {
      text += fmt::format("{} ({}): not run: {}\n", check.file, check.type, check.problem);
      continue;
    }
    text += fmt::format(
        "{} ({}): {}, {} tokens: log-probabilities differ by at most {:.2g} (expected up to "
        "{:.2g}), "
        "KL {:.2g} (up to {:.2g}): {}\n",
        check.file, check.type, check.engine, check.tokens, check.found.largest,
        check.expected.largest, check.found.kl, check.expected.kl,
        check.agrees() ? "agrees" : "differs");
  }
  return text;
}

Json export_checks_json(const std::vector<ExportCheck>& checks) {
  Json list = Json::array();
  for (const ExportCheck& check : checks) {
    Json entry = {{"file", check.file}, {"type", check.type}, {"agrees", check.agrees()}};
    if (check.problem.empty()) {
      entry.update(Json{{"engine", check.engine},
                        {"tokens", check.tokens},
                        {"largest_difference", check.found.largest},
                        {"largest_expected", check.expected.largest},
                        {"kl", check.found.kl},
                        {"kl_expected", check.expected.kl}});
    } else {
      entry["problem"] = check.problem;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

void require_agreement(const std::vector<ExportCheck>& checks) {
  std::vector<std::string> not_run;
  std::vector<std::string> differing;
  for (const ExportCheck& check : checks) {
    if (!check.problem.empty()) {
      if (check.has_engine) {
        not_run.push_back(fmt::format("{}: {}", check.file, check.problem));
      }
    } else if (!check.agrees()) {
      differing.push_back(
          fmt::format("{}: log-probabilities in {} differ from the native decoder's by up to "
                      "{:.2g}, KL {:.2g}; "
                      "{} explains {:.2g} and {:.2g}",
                      check.file, check.engine, check.found.largest, check.found.kl, check.type,
                      check.expected.largest, check.expected.kl));
    }
  }
  if (!differing.empty()) {
    fail(ErrorKind::kFormat, "export --check: {}", join(differing, "; "));
  }
  if (!not_run.empty()) {
    fail(ErrorKind::kIo, "export --check: {}", join(not_run, "; "));
  }
}

}  // namespace puzzle
