#include "puzzle/stages/evaluate_long_text.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/interrupt.h"
#include "puzzle/base/progress.h"
#include "puzzle/results/sum_ratio.h"
#include "puzzle/stages/evaluation_rows.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {
namespace {

constexpr std::int64_t kBatchTokens = 16'384;
constexpr const char* kFound = "found_fraction";
constexpr const char* kNats = "answer_nats";
constexpr const char* kRetention = "retention";
constexpr const char* kPaired = "_minus_parent";

// Samples whose prompts have the same number of tokens, in the set's order.
using SampleGroup = std::vector<std::size_t>;

std::vector<SampleGroup> equal_lengths(const LongTextSet& set) {
  std::map<std::int64_t, SampleGroup> by_length;
  for (std::size_t i = 0; i < set.samples.size(); ++i) {
    by_length[set.samples[i].encoded.num_context].push_back(i);
  }
  std::vector<SampleGroup> groups;
  for (const auto& [length, samples] : by_length) {
    const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(1, kBatchTokens / length));
    for (std::size_t begin = 0; begin < samples.size(); begin += rows) {
      const std::size_t end = std::min(samples.size(), begin + rows);
      groups.emplace_back(samples.begin() + static_cast<std::ptrdiff_t>(begin),
                          samples.begin() + static_cast<std::ptrdiff_t>(end));
    }
  }
  return groups;
}

// The answers of one group, with the prompts' keys and values computed once.
class GroupAnswers {
 public:
  GroupAnswers(const ModelWeights& model, const Geometry& geometry, const Tokenizer& tokenizer,
               const LongTextSet& set, const SampleGroup& group)
      : model_(model),
        tokenizer_(tokenizer),
        set_(set),
        group_(group),
        state_(model, geometry, std::ssize(group), capacity()) {
    const std::int64_t length = sample(0).encoded.num_context;
    at::Tensor prompts = at::empty({std::ssize(group), length}, at::kLong);
    for (std::size_t b = 0; b < group.size(); ++b) {
      const std::vector<std::int32_t>& ids = sample(b).encoded.ids;
      std::copy(ids.begin(), ids.begin() + length,
                prompts.mutable_data_ptr<std::int64_t>() + static_cast<std::int64_t>(b) * length);
    }
    first_logits_ = state_.append(prompts);
  }

  // Minus the log-likelihood of each answer. Leaves the state where it was.
  [[nodiscard]] std::vector<double> answer_nats() const {
    // A copy has the same cache, but its own length; what it writes behind the prompts is
    // overwritten before it is read.
    DecodeState state = state_;
    std::vector<double> nats(group_.size(), 0.0);
    at::Tensor logits = first_logits_;
    for (std::int64_t step = 0;; ++step) {
      throw_if_interrupted();
      std::vector<std::int64_t> next(group_.size(), 0);
      bool has_more = false;
      const at::Tensor log_p = at::log_softmax(logits.to(at::kFloat), -1);
      for (std::size_t b = 0; b < group_.size(); ++b) {
        const EvalChoice& choice = sample(b).encoded;
        const std::int64_t place = choice.num_context + step;
        if (place < std::ssize(choice.ids)) {
          next[b] = choice.ids[static_cast<std::size_t>(place)];
          nats[b] -= log_p[static_cast<std::int64_t>(b)][next[b]].item<double>();
          has_more = has_more || place + 1 < std::ssize(choice.ids);
        }
      }
      if (!has_more) {
        return nats;
      }
      logits = state.append(column(next));
    }
  }

  [[nodiscard]] std::vector<double> found() {
    std::vector<double> found(group_.size(), 0.0);
    std::vector<std::vector<std::int32_t>> made(group_.size());
    std::vector<bool> done(group_.size(), false);
    const std::vector<std::int64_t>& ends = model_.spec.eos_tokens;
    at::Tensor logits = first_logits_;
    while (true) {
      throw_if_interrupted();
      const at::Tensor top = logits.argmax(-1).to(at::kCPU).contiguous();
      std::vector<std::int64_t> next(top.const_data_ptr<std::int64_t>(),
                                     top.const_data_ptr<std::int64_t>() + top.numel());
      for (std::size_t b = 0; b < group_.size(); ++b) {
        if (done[b]) {
          continue;
        }
        done[b] = std::find(ends.begin(), ends.end(), next[b]) != ends.end();
        if (!done[b]) {
          made[b].push_back(static_cast<std::int32_t>(next[b]));
          found[b] = found_fraction(tokenizer_.decode_bytes(made[b]), sample(b).text.expected);
          done[b] = found[b] == 1.0 || std::ssize(made[b]) == sample(b).max_new_tokens;
        }
      }
      if (std::all_of(done.begin(), done.end(), [](bool is_done) { return is_done; })) {
        return found;
      }
      logits = state_.append(column(next));
    }
  }

 private:
  [[nodiscard]] const LongTextSample& sample(std::size_t b) const {
    return set_.samples[group_[b]];
  }
  [[nodiscard]] std::int64_t capacity() const {
    std::int64_t tokens = 0;
    for (std::size_t b = 0; b < group_.size(); ++b) {
      tokens = std::max({tokens, sample(b).encoded.num_context + sample(b).max_new_tokens,
                         std::ssize(sample(b).encoded.ids)});
    }
    return tokens;
  }
  static at::Tensor column(const std::vector<std::int64_t>& tokens) {
    return at::tensor(tokens, at::TensorOptions(at::kLong)).unsqueeze(1);
  }

  const ModelWeights& model_;
  const Tokenizer& tokenizer_;
  const LongTextSet& set_;
  const SampleGroup& group_;
  DecodeState state_;
  at::Tensor first_logits_;  // [B, V]
};

// Mean of one metric over rows of several tasks; count is the sum of theirs, 0 without any.
RatioOfSums::Result mean_over_tasks(const std::vector<EvaluationRow>& rows,
                                    const std::string& metric) {
  RatioOfSums::Result result{};
  double tasks = 0.0;
  double squares = 0.0;
  for (const EvaluationRow& row : rows) {
    if (row.metric == metric) {
      result.value += row.value;
      squares += row.standard_error * row.standard_error;
      result.count += row.count;
      tasks += 1.0;
    }
  }
  if (tasks > 0.0) {
    result.value /= tasks;
    result.standard_error = std::sqrt(squares) / tasks;
  }
  return result;
}

}  // namespace

LongTextScores score_long_text(RunContext& context, const ModelWeights& model,
                               const Geometry& geometry, const Tokenizer& tokenizer,
                               const LongTextSet& set, Progress& progress) {
  const c10::NoGradGuard no_grad;
  LongTextScores scores{std::vector<double>(set.samples.size(), 0.0),
                        std::vector<double>(set.samples.size(), 0.0)};
  const std::vector<SampleGroup> groups = equal_lengths(set);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const SampleGroup& group = groups[g];
    progress.advance(std::ssize(group));
    if (static_cast<int>(g) % context.communicator.size() != context.communicator.rank()) {
      continue;
    }
    GroupAnswers answers(model, geometry, tokenizer, set, group);
    const std::vector<double> nats = answers.answer_nats();
    const std::vector<double> found = answers.found();
    for (std::size_t b = 0; b < group.size(); ++b) {
      scores.answer_nats[group[b]] = nats[b];
      scores.found[group[b]] = found[b];
    }
  }
  sum_over_ranks(scores.found, context.communicator);
  sum_over_ranks(scores.answer_nats, context.communicator);
  return scores;
}

std::vector<double> to_numbers(const LongTextScores& scores) {
  std::vector<double> numbers = scores.found;
  numbers.insert(numbers.end(), scores.answer_nats.begin(), scores.answer_nats.end());
  return numbers;
}

LongTextScores scores_from_numbers(const LongTextSet& set, const std::vector<double>& numbers) {
  PUZZLE_CHECK(numbers.size() == 2 * set.samples.size(), "{}: {} numbers", set.name,
               numbers.size());
  const auto middle = numbers.begin() + std::ssize(set.samples);
  return {{numbers.begin(), middle}, {middle, numbers.end()}};
}

std::vector<EvaluationRow> long_text_rows(const LongTextSet& set, const LongTextScores& scores,
                                          const LongTextScores* parent, const std::string& model,
                                          const std::string& key) {
  EvaluationRowWriter writer(key, model, set.name);
  const auto count = std::ssize(scores.found);
  const auto add = [&](const std::string& metric, const std::vector<double>& values) {
    const SampleMean mean = mean_of_samples(values);
    writer.add(metric, mean.mean, mean.standard_error, count);
    return mean;
  };
  const SampleMean found = add(kFound, scores.found);
  (void)add(kNats, scores.answer_nats);
  if (parent != nullptr) {
    const SampleMean less =
        add(std::string(kFound) + kPaired, differences(scores.found, parent->found));
    (void)add(std::string(kNats) + kPaired, differences(scores.answer_nats, parent->answer_nats));
    const SampleMean before = mean_of_samples(parent->found);
    if (before.mean > 0.0) {
      writer.add(kRetention, found.mean / before.mean,
                 ratio_error(found.mean, before.mean,
                             {found.standard_error, before.standard_error, less.standard_error}),
                 count);
    }
  }
  return writer.rows();
}

std::vector<EvaluationRow> mean_long_text_rows(const std::vector<EvaluationRow>& rows,
                                               const std::vector<EvaluationRow>& parent_rows,
                                               const std::string& task, const std::string& model,
                                               const std::string& key) {
  EvaluationRowWriter writer(key, model, task);
  const auto add = [&](const std::string& metric) {
    const RatioOfSums::Result mean = mean_over_tasks(rows, metric);
    if (mean.count > 0) {
      writer.add(metric, mean);
    }
    return mean;
  };
  const auto found = add(kFound);
  (void)add(kNats);
  const auto less = add(std::string(kFound) + kPaired);
  (void)add(std::string(kNats) + kPaired);
  const auto before = mean_over_tasks(parent_rows, kFound);
  if (before.value > 0.0) {
    writer.add(kRetention, found.value / before.value,
               ratio_error(found.value, before.value,
                           {found.standard_error, before.standard_error, less.standard_error}),
               found.count);
  }
  return writer.rows();
}

}  // namespace puzzle
