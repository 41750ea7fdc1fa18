#include "puzzle/stages/file_quality.h"

#include <algorithm>
#include <optional>

#include <ATen/ATen.h>

#include "puzzle/base/progress.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/stages/gguf_in_engine.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr const char* kHiddenTask = "quantised file";
constexpr const char* kLogProbTask = "quantised file, llama.cpp's log-probabilities";

std::vector<std::int32_t> window_tokens(const TokenPart& part, std::int64_t window) {
  const at::Tensor row = part.slice(window, 1).tokens_BT.reshape({-1}).to(at::kInt).contiguous();
  return {row.const_data_ptr<std::int32_t>(), row.const_data_ptr<std::int32_t>() + row.numel()};
}

LlamaServerOptions window_server(const LlamaServerOptions& options, const TokenPart& part) {
  LlamaServerOptions server = options;
  server.context_tokens = std::max(server.context_tokens, part.window() + 8);
  return server;
}

// After the final norm: [windows · T, D].
at::Tensor file_hidden(const TimedFile& file, const TokenPart& part,
                       const LlamaServerOptions& options) {
  const LlamaServer server(file.file, window_server(options, part), LlamaServerMode::kHiddenStates);
  std::vector<at::Tensor> states;
  Progress progress("throughput: quality of " + file.model, part.num_windows(), "windows");
  for (std::int64_t w = 0; w < part.num_windows(); ++w) {
    states.push_back(engine_hidden_states(server, window_tokens(part, w)));
    progress.advance();
  }
  return at::cat(states);
}

// -log p of every label, 0 where there is none: [windows · T].
at::Tensor file_losses(const TimedFile& file, const TokenPart& part,
                       const LlamaServerOptions& options) {
  const LlamaServer server(file.file, window_server(options, part));
  std::vector<at::Tensor> losses;
  Progress progress("throughput: log-probabilities of " + file.model, part.num_windows(),
                    "windows");
  for (std::int64_t w = 0; w < part.num_windows(); ++w) {
    std::vector<double> log_probs = server.token_log_probs(window_tokens(part, w));
    log_probs.push_back(0.0);  // the last position has no next token
    losses.push_back(-at::tensor(log_probs, at::TensorOptions(at::kDouble)));
    progress.advance();
  }
  return at::cat(losses);
}

// Means over counted tokens with their standard errors over groups of windows.
class MeanRows {
 public:
  MeanRows(const char* task, const TokenPart& part, std::string key)
      : task_(task), key_(std::move(key)), units_(independent_units(part)) {}

  void add(const TimedFile& file, const std::string& metric, const at::Tensor& values_N,
           const at::Tensor& counted_N) {
    RatioOfSums ratio(units_.count);
    ratio.add_windows(units_.unit_of_window, values_N, counted_N);
    const RatioOfSums::Result mean = ratio.result();
    rows_.push_back({key_, file.model, task_, metric, mean.value, mean.standard_error, mean.count});
  }
  [[nodiscard]] std::vector<EvaluationRow> take() { return std::move(rows_); }

 private:
  const char* task_;
  std::string key_;
  WindowUnits units_;
  std::vector<EvaluationRow> rows_;
};

at::Tensor labels_of(const TokenPart& part) {
  return part.slice(0, part.num_windows()).labels_BT.reshape({-1});
}

}  // namespace

std::vector<EvaluationRow> hidden_state_quality(const std::vector<TimedFile>& files,
                                                const TokenPart& part,
                                                const LlamaServerOptions& server,
                                                const std::string& key) {
  MeanRows rows(kHiddenTask, part, key);
  const at::Tensor labels = labels_of(part);
  const at::Tensor labelled = labels.ge(0);
  const at::Tensor all = at::ones_like(labelled);
  std::optional<HeadInput> first;
  for (const TimedFile& file : files) {
    const HeadInput input{file_hidden(file, part, server), gguf_head(file.file)};
    const TokenLosses losses = token_losses(first ? &*first : nullptr, input, labels);
    rows.add(file, "loss", losses.nll, labelled);
    if (first) {
      rows.add(file, "kl", losses.kl, all);
      rows.add(file, "top1", losses.top1_agree, all);
      rows.add(file, "loss_minus_parent", losses.nll - losses.parent_nll, labelled);
    } else {
      first = input;
    }
  }
  return rows.take();
}

std::vector<EvaluationRow> log_prob_quality(const std::vector<TimedFile>& files,
                                            const TokenPart& part, const LlamaServerOptions& server,
                                            const std::string& key) {
  MeanRows rows(kLogProbTask, part, key);
  const at::Tensor labelled = labels_of(part).ge(0);
  std::optional<at::Tensor> first;
  for (const TimedFile& file : files) {
    const at::Tensor losses = file_losses(file, part, server);
    rows.add(file, "loss", losses, labelled);
    if (first) {
      rows.add(file, "loss_minus_parent", losses - *first, labelled);
    } else {
      first = losses;
    }
  }
  return rows.take();
}

}  // namespace puzzle
