#include "puzzle/stages/evaluate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/data/eval_batches.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kEvaluateVersion = 2;
constexpr const char* kTextTask = "held-out text";

at::Tensor batch_hidden(const ModelWeights& model, const Geometry& geometry,
                        const at::Tensor& tokens_BT, const at::Tensor& mask) {
  const at::Tensor x = embed(model, tokens_BT);
  PassContext pass = make_pass(geometry, x.size(1), x.scalar_type(), x.device());
  pass.mask = mask;
  const at::Tensor last = apply_layers(model, geometry, x, pass, 0, model.spec.num_layers());
  return final_hidden(model, last).reshape({-1, last.size(-1)});
}

// Sums over this rank's units (windows or questions) of one quantity; a ratio of sums and its
// standard error by the delta method, units being independent.
class RatioOfSums {
 public:
  void add(double numerator, double denominator) {
    numerators_.push_back(numerator);
    denominators_.push_back(denominator);
  }

  struct Result {
    double value = 0.0;
    double standard_error = 0.0;
    std::int64_t count = 0;
  };

  [[nodiscard]] Result result(Communicator& communicator) const {
    double n = 0;
    double d = 0;
    for (std::size_t i = 0; i < numerators_.size(); ++i) {
      n += numerators_[i];
      d += denominators_[i];
    }
    n = communicator.all_reduce_sum(n);
    d = communicator.all_reduce_sum(d);
    const double units = communicator.all_reduce_sum(static_cast<double>(numerators_.size()));
    const double ratio = d > 0 ? n / d : 0.0;
    double square = 0;
    for (std::size_t i = 0; i < numerators_.size(); ++i) {
      const double residual = numerators_[i] - ratio * denominators_[i];
      square += residual * residual;
    }
    square = communicator.all_reduce_sum(square);
    const double error = units > 1 && d > 0 ? std::sqrt(square * units / (units - 1.0)) / d : 0.0;
    return {ratio, error, static_cast<std::int64_t>(d)};
  }

 private:
  std::vector<double> numerators_;
  std::vector<double> denominators_;
};

class RowWriter {
 public:
  RowWriter(std::string key, std::string model, std::string task)
      : key_(std::move(key)), model_(std::move(model)), task_(std::move(task)) {}

  void add(const std::string& metric, double value, double error, std::int64_t count) {
    if (std::isnan(value) || std::isnan(error)) {
      fail(ErrorKind::kNumeric,
           "evaluate: {} on {}: {} is not a number; the model gives non-finite values", model_,
           task_, metric);
    }
    rows_.push_back({key_, model_, task_, metric, value, error, count});
  }
  void add(const std::string& metric, const RatioOfSums::Result& result) {
    add(metric, result.value, result.standard_error, result.count);
  }
  [[nodiscard]] const std::vector<EvaluationRow>& rows() const { return rows_; }

 private:
  std::string key_;
  std::string model_;
  std::string task_;
  std::vector<EvaluationRow> rows_;
};

// Bytes of the tokens that each window has to predict, i.e. of its labels.
std::vector<double> window_bytes(const Tokenizer& tokenizer, const TokenBatch& batch) {
  std::vector<double> bytes;
  for (std::int64_t b = 0; b < batch.num_windows(); ++b) {
    const at::Tensor row = batch.labels_BT[b].to(at::kCPU, at::kInt).contiguous();
    double sum = 0;
    for (std::int64_t t = 0; t < row.size(0); ++t) {
      const std::int32_t label = row.const_data_ptr<std::int32_t>()[t];
      sum += label < 0 ? 0.0 : static_cast<double>(tokenizer.token_bytes(label).size());
    }
    bytes.push_back(sum);
  }
  return bytes;
}

// The test text under the parent and, if given, one child.
std::vector<EvaluationRow> evaluate_text(RunContext& context, const LoadedModel& parent,
                                         const NamedModel* child, const TokenPart& part,
                                         const EvaluateOptions& options, const std::string& key,
                                         Progress& progress) {
  RatioOfSums loss;
  RatioOfSums difference;
  RatioOfSums bits;
  RatioOfSums kl;
  RatioOfSums top1;
  const IndexRange share =
      share_of(part.num_windows(), {context.communicator.rank(), context.communicator.size()});
  for (std::int64_t first = share.begin; first < share.end; first += options.batch_windows) {
    const std::int64_t count = std::min(options.batch_windows, share.end - first);
    const TokenBatch batch = part.slice(first, count).to(context.device);
    const at::Tensor mask = batch.attention_mask();
    const HeadInput p{batch_hidden(parent.weights, parent.geometry, batch.tokens_BT, mask),
                      parent.weights.head};
    const HeadInput q =
        child == nullptr
            ? p
            : HeadInput{batch_hidden(*child->weights, parent.geometry, batch.tokens_BT, mask),
                        child->weights->head};
    const TokenLosses losses =
        token_losses(child == nullptr ? nullptr : &p, q, batch.labels_BT.reshape({-1}));
    const auto per_window = [&](const at::Tensor& values) {
      return values.to(at::kDouble).reshape({count, -1}).sum(-1).to(at::kCPU);
    };
    const at::Tensor labels = per_window(batch.labels_BT.reshape({-1}).ge(0));
    const at::Tensor nll = per_window(losses.nll);
    const std::vector<double> bytes = window_bytes(*parent.tokenizer, batch);
    const auto tokens = static_cast<double>(part.window());
    for (std::int64_t b = 0; b < count; ++b) {
      loss.add(nll[b].item<double>(), labels[b].item<double>());
      bits.add(nll[b].item<double>() / std::log(2.0), bytes[static_cast<std::size_t>(b)]);
    }
    if (child != nullptr) {
      const at::Tensor parent_nll = per_window(losses.parent_nll);
      const at::Tensor window_kl = per_window(losses.kl);
      const at::Tensor agree = per_window(losses.top1_agree);
      for (std::int64_t b = 0; b < count; ++b) {
        difference.add((nll[b] - parent_nll[b]).item<double>(), labels[b].item<double>());
        kl.add(window_kl[b].item<double>(), tokens);
        top1.add(agree[b].item<double>(), tokens);
      }
    }
    progress.advance(count);
  }
  RowWriter writer(key, child == nullptr ? "parent" : child->name, kTextTask);
  const auto mean = loss.result(context.communicator);
  writer.add("loss", mean);
  writer.add("perplexity", std::exp(mean.value), std::exp(mean.value) * mean.standard_error,
             mean.count);
  writer.add("bits_per_byte", bits.result(context.communicator));
  if (child != nullptr) {
    const auto paired = difference.result(context.communicator);
    writer.add("loss_minus_parent", paired);
    writer.add("kl", kl.result(context.communicator));
    writer.add("top1", top1.result(context.communicator));
    const double retention = std::exp(-paired.value);
    writer.add("retention", retention, retention * paired.standard_error, paired.count);
  }
  return writer.rows();
}

// Scores of this rank's questions; the others' stay at zero and are added by the all-reduce.
std::vector<std::vector<ChoiceScore>> score_questions(RunContext& context,
                                                      const ModelWeights& model,
                                                      const Geometry& geometry, const EvalSet& set,
                                                      Progress& progress) {
  std::vector<std::vector<ChoiceScore>> scores(set.questions.size());
  for (std::size_t q = 0; q < scores.size(); ++q) {
    scores[q].resize(set.questions[q].choices.size());
  }
  const auto batches = make_eval_batches(set);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    progress.advance(std::ssize(batches[i].rows));
    if (static_cast<int>(i) % context.communicator.size() != context.communicator.rank()) {
      continue;
    }
    const EvalBatch& batch = batches[i];
    const at::Tensor labels = batch.labels_BT.reshape({-1}).to(context.device);
    // Only the continuation's positions go through the head.
    const at::Tensor wanted = labels.ge(0).nonzero().squeeze(1);
    const at::Tensor hidden =
        batch_hidden(model, geometry, batch.tokens_BT.to(context.device), at::Tensor())
            .index_select(0, wanted);
    const at::Tensor picked = labels.index_select(0, wanted);
    const auto chunked = [&](std::int64_t first, std::int64_t count) {
      return at::linear(hidden.narrow(0, first, count), model.head).to(at::kFloat);
    };
    at::Tensor nll =
        at::zeros({labels.size(0)}, at::TensorOptions(context.device).dtype(at::kFloat));
    at::Tensor is_top =
        at::zeros({labels.size(0)}, at::TensorOptions(context.device).dtype(at::kBool));
    constexpr std::int64_t kChunk = 256;
    for (std::int64_t first = 0; first < wanted.size(0); first += kChunk) {
      const std::int64_t count = std::min(kChunk, wanted.size(0) - first);
      const at::Tensor logits = chunked(first, count);
      const at::Tensor target = picked.narrow(0, first, count);
      const at::Tensor index = wanted.narrow(0, first, count);
      nll.index_copy_(0, index,
                      -at::log_softmax(logits, -1).gather(1, target.unsqueeze(1)).squeeze(1));
      is_top.index_copy_(0, index, logits.argmax(-1).eq(target));
    }
    add_choice_scores(batch, nll.to(at::kCPU).reshape(batch.labels_BT.sizes()),
                      is_top.to(at::kCPU).reshape(batch.labels_BT.sizes()), scores);
  }
  if (context.communicator.size() > 1) {
    std::int64_t total = 0;
    for (const auto& question : scores) {
      total += std::ssize(question);
    }
    at::Tensor flat = at::zeros({total, 2}, at::TensorOptions(at::kDouble));
    auto* data = flat.data_ptr<double>();
    std::int64_t k = 0;
    for (const auto& question : scores) {
      for (const ChoiceScore& choice : question) {
        data[2 * k] = choice.log_likelihood;
        data[2 * k++ + 1] = choice.is_greedy ? 1.0 : 0.0;
      }
    }
    context.communicator.all_reduce_sum(flat);
    data = flat.data_ptr<double>();
    k = 0;
    for (auto& question : scores) {
      for (ChoiceScore& choice : question) {
        choice = {data[2 * k], data[2 * k + 1] > 0.5};
        ++k;
      }
    }
  }
  return scores;
}

bool is_right(const EvalSet& set, std::size_t q, const std::vector<ChoiceScore>& choices) {
  if (set.kind == EvalKind::kLastWord) {
    return choices.front().is_greedy;
  }
  const auto best = std::max_element(
      choices.begin(), choices.end(),
      [](const auto& a, const auto& b) { return a.log_likelihood < b.log_likelihood; });
  return best - choices.begin() == set.questions[q].answer;
}

using Scores = std::vector<std::vector<ChoiceScore>>;

std::vector<EvaluationRow> question_rows(const EvalSet& set, const Scores& scores,
                                         const Scores* parent, const std::string& model,
                                         const std::string& key) {
  RowWriter writer(key, model, set.name);
  const EvalSummary summary = summarize_scores(set, scores);
  writer.add("accuracy", summary.accuracy, summary.accuracy_stderr, summary.num_questions);
  if (set.kind == EvalKind::kMultipleChoice) {
    writer.add("accuracy_norm", summary.accuracy_per_byte, summary.accuracy_per_byte_stderr,
               summary.num_questions);
  }
  writer.add("answer_nats", summary.answer_nats, summary.answer_nats_stderr, summary.num_questions);
  if (parent != nullptr) {
    const auto n = static_cast<double>(scores.size());
    double sum = 0;
    double square = 0;
    for (std::size_t q = 0; q < scores.size(); ++q) {
      const double d = static_cast<double>(is_right(set, q, scores[q])) -
                       static_cast<double>(is_right(set, q, (*parent)[q]));
      sum += d;
      square += d * d;
    }
    const double mean = sum / n;
    const double error = n > 1 ? std::sqrt(std::max(0.0, square / n - mean * mean) / (n - 1)) : 0.0;
    writer.add("accuracy_minus_parent", mean, error, summary.num_questions);
    const EvalSummary before = summarize_scores(set, *parent);
    if (before.accuracy > 0) {
      writer.add("retention", summary.accuracy / before.accuracy, error / before.accuracy,
                 summary.num_questions);
    }
  }
  return writer.rows();
}

std::string evaluation_key(const LoadedModel& parent, const NamedModel* child,
                           const std::string& content) {
  KeyBuilder key;
  key.add("stage", "evaluate").add("version", kEvaluateVersion).add("parent", parent.key);
  key.add("child", child == nullptr ? "" : child->key)
      .add("name", child == nullptr ? "" : child->name);
  key.add("content", content);
  key.add("type", c10::toString(parent.weights.embedding.scalar_type()));
  return key.key();
}

class Evaluator {
 public:
  Evaluator(RunContext& context, const LoadedModel& parent, const std::vector<NamedModel>& children)
      : context_(context), parent_(parent) {
    models_.push_back(nullptr);
    for (const NamedModel& child : children) {
      models_.push_back(&child);
    }
  }

  void text(const TokenPart& part, const EvaluateOptions& options) {
    Progress progress("evaluate: text", part.num_windows() * std::ssize(models_), "windows");
    for (const NamedModel* model : models_) {
      const std::string key = evaluation_key(parent_, model, part.content_key());
      if (is_done(key)) {
        progress.skip(part.num_windows());
        continue;
      }
      put(evaluate_text(context_, parent_, model, part, options, key, progress));
    }
  }

  void questions(EvalKind kind, const std::vector<std::string>& paths,
                 const EvalSetOptions& options) {
    for (const std::string& path : paths) {
      const EvalSet set = load_eval_set(kind, path, *parent_.tokenizer, options);
      std::int64_t rows = 0;
      for (const EvalQuestion& question : set.questions) {
        rows += std::ssize(question.choices);
      }
      Progress progress("evaluate: " + set.name, rows * std::ssize(models_), "choices");
      std::optional<Scores> parent_scores;
      for (const NamedModel* model : models_) {
        const std::string key = evaluation_key(parent_, model, set.content_key);
        if (is_done(key)) {
          progress.skip(rows);
          continue;
        }
        if (!parent_scores) {
          parent_scores =
              score_questions(context_, parent_.weights, parent_.geometry, set, progress);
        }
        if (model == nullptr) {
          put(question_rows(set, *parent_scores, nullptr, "parent", key));
        } else {
          const Scores scores =
              score_questions(context_, *model->weights, parent_.geometry, set, progress);
          put(question_rows(set, scores, &*parent_scores, model->name, key));
        }
      }
    }
  }

  [[nodiscard]] const std::vector<std::string>& keys() const { return keys_; }

 private:
  bool is_done(const std::string& key) {
    keys_.push_back(key);
    const double mine =
        context_.communicator.is_first() && context_.db.has(RunTable::kEvaluations, key) ? 1.0
                                                                                         : 0.0;
    return context_.communicator.all_reduce_max(mine) > 0.0;
  }

  void put(const std::vector<EvaluationRow>& rows) {
    if (context_.communicator.is_first()) {
      context_.db.put(rows);
    }
  }

  RunContext& context_;
  const LoadedModel& parent_;
  std::vector<const NamedModel*> models_;  // null = the parent
  std::vector<std::string> keys_;
};

}  // namespace

void EvaluateOptions::visit(OptionList& list) {
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the test part to use; 0 uses all of it.");
  list.add("minimal_pairs", minimal_pairs, "Minimal-pair sets (BLiMP .jsonl files or folders).");
  list.add("multiple_choice", multiple_choice,
           "Multiple-choice sets: .jsonl with context, choices and answer.");
  list.add("last_word", last_word,
           "Texts whose last word is to be predicted (LAMBADA): .jsonl or .txt.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per forward pass.");
  list.section("sets", sets);
}

std::vector<std::string> evaluate(RunContext& context, const LoadedModel& parent,
                                  const std::vector<NamedModel>& children, const TokenPart& test,
                                  const EvaluateOptions& options) {
  const c10::NoGradGuard no_grad;
  const TokenPart part = options.num_tokens > 0 ? test.first_tokens(options.num_tokens) : test;
  if (part.num_windows() == 0) {
    fail(ErrorKind::kUsage, "evaluate: the test part has no windows; set data.test_tokens");
  }
  Evaluator evaluator(context, parent, children);
  evaluator.text(part, options);
  evaluator.questions(EvalKind::kMinimalPairs, options.minimal_pairs, options.sets);
  evaluator.questions(EvalKind::kMultipleChoice, options.multiple_choice, options.sets);
  evaluator.questions(EvalKind::kLastWord, options.last_word, options.sets);
  if (context.communicator.is_first()) {
    context.db.set_current(RunTable::kEvaluations, "evaluate", evaluator.keys());
  }
  return evaluator.keys();
}

at::Tensor window_nll(const ModelWeights& model, const Geometry& geometry,
                      const TokenBatch& batch) {
  const c10::NoGradGuard no_grad;
  const HeadInput input{batch_hidden(model, geometry, batch.tokens_BT, batch.attention_mask()),
                        model.head};
  return token_losses(nullptr, input, batch.labels_BT.reshape({-1}))
      .nll.reshape(batch.labels_BT.sizes());
}

}  // namespace puzzle
