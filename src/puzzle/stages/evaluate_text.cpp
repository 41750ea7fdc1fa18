#include "puzzle/stages/evaluate_text.h"

#include <algorithm>
#include <cmath>
#include <span>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/progress.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/stages/evaluation_rows.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

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

at::Tensor sum_per_window(const at::Tensor& values, std::int64_t windows) {
  return values.to(at::kDouble).reshape({windows, -1}).sum(-1).to(at::kCPU);
}

// What a batch gives for every model alike.
struct BatchFacts {
  std::span<const std::int64_t> units;  // that the windows count to
  at::Tensor num_labels;                // [B] fp64, host
  std::vector<double> bytes;
};

class TextSums {
 public:
  explicit TextSums(std::int64_t num_units)
      : loss_(num_units),
        difference_(num_units),
        bits_(num_units),
        bits_difference_(num_units),
        kl_(num_units),
        top1_(num_units) {}

  // `nll` and the like: [B·T] as token_losses() gives them.
  void add(const BatchFacts& facts, const at::Tensor& nll) {
    const std::int64_t windows = facts.num_labels.size(0);
    const at::Tensor sums = sum_per_window(nll, windows);
    for (std::int64_t b = 0; b < windows; ++b) {
      const auto w = static_cast<std::size_t>(b);
      loss_.add(facts.units[w], sums[b].item<double>(), facts.num_labels[b].item<double>());
      bits_.add(facts.units[w], sums[b].item<double>() / std::log(2.0), facts.bytes[w]);
    }
  }

  void add_against_parent(const BatchFacts& facts, const TokenLosses& losses) {
    add(facts, losses.nll);
    const std::int64_t windows = facts.num_labels.size(0);
    const auto tokens = static_cast<double>(losses.nll.size(0)) / static_cast<double>(windows);
    const at::Tensor differences = sum_per_window(losses.nll - losses.parent_nll, windows);
    const at::Tensor kl = sum_per_window(losses.kl, windows);
    const at::Tensor agree = sum_per_window(losses.top1_agree, windows);
    for (std::int64_t b = 0; b < windows; ++b) {
      const auto w = static_cast<std::size_t>(b);
      const std::int64_t unit = facts.units[w];
      const auto difference = differences[b].item<double>();
      difference_.add(unit, difference, facts.num_labels[b].item<double>());
      bits_difference_.add(unit, difference / std::log(2.0), facts.bytes[w]);
      kl_.add(unit, kl[b].item<double>(), tokens);
      top1_.add(unit, agree[b].item<double>(), tokens);
    }
  }

  // Rows of the parent itself.
  [[nodiscard]] EvaluationRowWriter parent_rows(const std::string& key, const std::string& model,
                                                Communicator& communicator) const {
    EvaluationRowWriter writer(key, model, kTextTask);
    const auto mean = loss_.result(communicator);
    writer.add("loss", mean);
    writer.add("perplexity", std::exp(mean.value), std::exp(mean.value) * mean.standard_error,
               mean.count);
    writer.add("bits_per_byte", bits_.result(communicator));
    return writer;
  }

  // Rows of a child; `first` is another child to give the difference to, or null.
  [[nodiscard]] EvaluationRowWriter child_rows(const std::string& key, const std::string& model,
                                               const TextSums* first,
                                               Communicator& communicator) const {
    EvaluationRowWriter writer = parent_rows(key, model, communicator);
    const auto paired = difference_.result(communicator);
    writer.add("loss_minus_parent", paired);
    writer.add("bits_per_byte_minus_parent", bits_difference_.result(communicator));
    writer.add("kl", kl_.result(communicator));
    writer.add("top1", top1_.result(communicator));
    const double retention = std::exp(-paired.value);
    writer.add("retention", retention, retention * paired.standard_error, paired.count);
    if (first != nullptr) {
      writer.add("kl_minus_first", kl_.minus(first->kl_, communicator));
    }
    return writer;
  }

  [[nodiscard]] UnitSums kl(Communicator& communicator) const { return kl_.by_unit(communicator); }

 private:
  RatioOfSums loss_;
  RatioOfSums difference_;
  RatioOfSums bits_;
  RatioOfSums bits_difference_;
  RatioOfSums kl_;
  RatioOfSums top1_;
};

// After the final norm, [B·T, D].
at::Tensor batch_hidden(const ModelWeights& model, const Geometry& geometry,
                        const TokenBatch& batch) {
  const at::Tensor x = embed(model, batch.tokens_BT);
  return final_rows(model, geometry, x, batch_pass(geometry, batch, x));
}

}  // namespace

std::vector<TextResult> evaluate_text(RunContext& context, const LoadedModel& parent,
                                      const std::vector<TextModel>& models, const TokenPart& part,
                                      std::int64_t batch_windows) {
  const c10::NoGradGuard no_grad;
  const WindowUnits units = independent_units(part);
  std::vector<TextSums> sums(models.size(), TextSums(units.count));
  Progress progress("evaluate: text", part.num_windows() * (std::ssize(models) + 1), "passes");
  const IndexRange share = share_of(part.num_windows(), rank_share(context.communicator));
  for (std::int64_t first = share.begin; first < share.end; first += batch_windows) {
    const std::int64_t count = std::min(batch_windows, share.end - first);
    const TokenBatch batch = part.slice(first, count).to(context.device);
    const at::Tensor labels = batch.labels_BT.reshape({-1});
    const BatchFacts facts{
        std::span(units.unit_of_window)
            .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
        sum_per_window(labels.ge(0), count), window_bytes(*parent.tokenizer, batch)};
    const HeadInput p{batch_hidden(parent.weights, parent.geometry, batch), parent.weights.head};
    progress.advance(count);
    std::vector<HeadInput> children;
    for (const auto& [model, key] : models) {
      if (model != nullptr) {
        children.push_back(
            {batch_hidden(*model->weights, parent.geometry, batch), model->weights->head});
      }
      progress.advance(count);
    }
    const std::vector<TokenLosses> losses = token_losses(&p, children, labels);
    auto next = losses.begin();
    for (std::size_t m = 0; m < models.size(); ++m) {
      if (models[m].model != nullptr) {
        sums[m].add_against_parent(facts, *next++);
      } else {
        sums[m].add(facts, losses.empty() ? token_losses(nullptr, p, labels).nll
                                          : losses.front().parent_nll);
      }
    }
  }
  const TextSums* of_first = nullptr;  // child
  std::vector<TextResult> results;
  for (std::size_t m = 0; m < models.size(); ++m) {
    const auto& [model, key] = models[m];
    if (model == nullptr) {
      results.push_back({sums[m].parent_rows(key, kParentModel, context.communicator).rows(), {}});
      continue;
    }
    results.push_back({sums[m].child_rows(key, model->name, of_first, context.communicator).rows(),
                       sums[m].kl(context.communicator)});
    if (of_first == nullptr) {
      of_first = &sums[m];
    }
  }
  return results;
}

}  // namespace puzzle
