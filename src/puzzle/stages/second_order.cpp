#include "puzzle/stages/second_order.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/progress.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/model/nested_ffn.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/layer_gradients.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {
namespace {

// Times the median norm of its window from which on a token is a giant.
constexpr double kGiantNorm = 10.0;

// What is estimated of a block.
enum Quantity : std::int64_t { kLinear, kPerSequence, kPerToken, kNumQuantities };

class SecondOrderEstimator {
 public:
  SecondOrderEstimator(RunContext& context, const LoadedModel& parent,
                       const SecondOrderInput& input, const TokenPart& part)
      : context_(context),
        parent_(parent),
        input_(input),
        part_(part),
        units_(independent_units(part)) {
    for (const SecondOrderLayer& layer : input.layers) {
      sums_.push_back(
          at::zeros({std::ssize(layer.blocks), kNumQuantities, units_.count}, at::kDouble));
      giant_changes_.emplace_back(layer.evaluated.size(), 0.0);
    }
  }

  [[nodiscard]] std::int64_t first_layer() const {
    const auto first =
        std::find_if(input_.layers.begin(), input_.layers.end(),
                     [](const SecondOrderLayer& layer) { return !layer.blocks.empty(); });
    return first - input_.layers.begin();
  }

  // Windows [first, first + count) of the part.
  void add_windows(std::int64_t first, std::int64_t count, Progress& progress) {
    const TokenBatch batch = part_.slice(first, count).to(context_.device);
    const PassContext pass = batch_pass(parent_.geometry, batch, parent_.weights.embedding);
    GradientWalk walk;
    walk.tokens_BT = batch.tokens_BT;
    walk.pass = &pass;
    walk.uniforms_BTS = window_uniforms(input_.seed, first, count, part_.window(), input_.samples);
    walk.first_layer = first_layer();
    if (input_.with_kl) {
      walk.parent_final_ND = final_rows(parent_.weights, parent_.geometry,
                                        embed(parent_.weights, batch.tokens_BT), pass);
      walk.parent_head_VD = parent_.weights.head;
    }
    (void)walk_gradients(*input_.model, parent_.geometry, walk,
                         [&](const LayerGradients& gradients) {
                           add_layer(gradients, pass, first);
                           progress.advance(count, fmt::format("layer {}", gradients.layer));
                         });
  }

  // Of all ranks.
  [[nodiscard]] std::vector<std::vector<BlockEstimate>> result() {
    std::vector<std::vector<BlockEstimate>> layers;
    std::vector<SecondOrderEstimates> second_order;
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      context_.communicator.all_reduce_sum(sums_[i]);
      for (double& change : giant_changes_[i]) {
        change = context_.communicator.all_reduce_max(change);
      }
      std::vector<BlockEstimate>& estimates = layers.emplace_back();
      const std::vector<EstimatedBlock>& blocks = input_.layers[i].blocks;
      for (std::size_t b = 0; b < blocks.size(); ++b) {
        const at::Tensor sums = sums_[i][static_cast<std::int64_t>(b)];
        if (!at::isfinite(sums).all().item<bool>()) {
          fail(ErrorKind::kNumeric, "{}: layer {}, {}: the block gives non-finite activations",
               input_.name, i, blocks[b].block.name());
        }
        estimates.push_back(
            {.block = blocks[b].block,
             .first_order = mean_of(sums[kLinear]),
             .second_order = {mean_of(sums[kPerSequence]), mean_of(sums[kPerToken])},
             .combined = {},
             .giant_change = giant_change(i, blocks[b])});
        second_order.push_back(estimates.back().second_order);
      }
    }
    const std::vector<ScoreValue> combined = combine_estimates(second_order);
    auto next = combined.begin();
    for (std::vector<BlockEstimate>& estimates : layers) {
      for (BlockEstimate& estimate : estimates) {
        estimate.combined = *next++;
      }
    }
    return layers;
  }

 private:
  // Takes the evaluated blocks' outputs in any order and makes ⟨g, δ⟩ of them, some at a time.
  class Products {
   public:
    // `directions_SBTD`: sampled gradients, then the KL's if there is one.
    Products(const LayerGradients& gradients, const at::Tensor& directions_SBTD,
             std::vector<double>& giant_changes)
        : output_BTD_(gradients.output_BTD),
          directions_BTDS_(directions_SBTD.permute({1, 2, 3, 0})),
          norms_BT_(at::linalg_vector_norm(output_BTD_, 2, {-1})),
          is_ordinary_BT_(norms_BT_ <=
                          kGiantNorm * std::get<0>(norms_BT_.median(-1, /*keepdim=*/true))),
          giant_changes_(giant_changes),
          products_(giant_changes.size()) {}

    void add(std::size_t position, const at::Tensor& output_BTD) {
      positions_.push_back(position);
      changes_.push_back(output_BTD - output_BTD_);
      if (std::ssize(changes_) == kSecondOrderBlocksAtOnce) {
        flush();
      }
    }

    // [S (+ 1), B, T] each.
    std::vector<at::Tensor> finish() {
      flush();
      return std::move(products_);
    }

   private:
    void flush() {
      if (changes_.empty()) {
        return;
      }
      const at::Tensor changes_BTCD = at::stack(changes_, 2);
      const at::Tensor products_CSBT =
          at::matmul(changes_BTCD, directions_BTDS_).to(at::kFloat).permute({2, 3, 0, 1});
      const at::Tensor ratios_BTC =
          at::linalg_vector_norm(changes_BTCD, 2, {-1}) / norms_BT_.unsqueeze(-1);
      const at::Tensor largest_C = ratios_BTC.masked_fill(is_ordinary_BT_.unsqueeze(-1), 0.0)
                                       .amax({0, 1})
                                       .to(at::kCPU, at::kDouble);
      for (std::size_t i = 0; i < positions_.size(); ++i) {
        const auto c = static_cast<std::int64_t>(i);
        products_[positions_[i]] = products_CSBT[c];
        double& largest = giant_changes_[positions_[i]];
        largest = std::max(largest, largest_C[c].item<double>());
      }
      positions_.clear();
      changes_.clear();
    }

    at::Tensor output_BTD_;
    at::Tensor directions_BTDS_;
    at::Tensor norms_BT_;
    at::Tensor is_ordinary_BT_;
    std::vector<double>& giant_changes_;
    std::vector<at::Tensor> products_;
    std::vector<std::size_t> positions_;  // of the changes held
    std::vector<at::Tensor> changes_;
  };

  [[nodiscard]] at::Tensor directions_SBTD(const LayerGradients& gradients) const {
    return input_.with_kl ? at::cat({gradients.sampled_SBTD, gradients.kl_BTD.unsqueeze(0)})
                          : gradients.sampled_SBTD;
  }

  // Of the evaluated blocks, [S (+ 1), B, T] each. Those with the model's attention share its
  // output, and widths of one nested FFN also their activations.
  [[nodiscard]] std::vector<at::Tensor> evaluate(const LayerGradients& gradients,
                                                 const PassContext& pass) {
    const auto index = static_cast<std::size_t>(gradients.layer);
    const LayerWeights& own = input_.model->layers[index];
    const LayerLibrary library = input_.library(gradients.layer);
    const bool shares = !library.coupled.contains(own.spec());
    const std::vector<BlockSpec>& blocks = input_.layers[index].evaluated;
    at::Tensor middle;
    std::map<const NestedFfn*, std::map<std::int64_t, std::size_t>> widths;  // positions in blocks
    Products products(gradients, directions_SBTD(gradients), giant_changes_[index]);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const BlockSpec& block = blocks[i];
      const bool has_middle =
          shares && block.attention == own.attention.spec && !library.coupled.contains(block);
      if (has_middle && !middle.defined()) {
        middle = apply_attention(own.attention, parent_.geometry, gradients.input_BTD, pass);
      }
      if (const NestedFfn* nested = has_middle ? nested_of(library, index, block.ffn) : nullptr) {
        widths[nested][block.ffn.width] = i;
        continue;
      }
      const LayerWeights weights = make_block(parent_.weights, library, gradients.layer, block);
      products.add(i, has_middle
                          ? apply_ffn(weights.ffn, parent_.geometry, middle)
                          : apply_layer(weights, parent_.geometry, gradients.input_BTD, pass));
    }
    for (const auto& [nested, positions] : widths) {
      add_nested(*nested, positions, middle, products);
    }
    return products.finish();
  }

  // What an FFN of the layer is made from, where that is a nested one.
  [[nodiscard]] const NestedFfn* nested_of(const LayerLibrary& library, std::size_t layer,
                                           const FfnSpec& ffn) const {
    const bool is_of_library = ffn.kind == FfnKind::kSwiglu && !library.ffn.contains(ffn) &&
                               ffn != parent_.weights.layers[layer].ffn.spec;
    return is_of_library ? library.find_nested(ffn.width) : nullptr;
  }

  void add_nested(const NestedFfn& nested, const std::map<std::int64_t, std::size_t>& positions,
                  const at::Tensor& middle, Products& products) const {
    std::vector<std::int64_t> widths;
    std::vector<std::size_t> targets;
    for (const auto& [width, position] : positions) {
      widths.push_back(width);
      targets.push_back(position);
    }
    const NestedFfn here = on_device(nested, middle.device());
    NestedForward(here).visit(ffn_input(here.whole, parent_.geometry, middle), widths,
                              [&](std::size_t index, const at::Tensor& y) {
                                products.add(targets[index], middle + y.to(middle.scalar_type()));
                              });
  }

  void add_layer(const LayerGradients& gradients, const PassContext& pass, std::int64_t first) {
    const auto index = static_cast<std::size_t>(gradients.layer);
    const std::vector<EstimatedBlock>& blocks = input_.layers[index].blocks;
    if (blocks.empty()) {
      return;
    }
    const std::vector<at::Tensor> evaluated = evaluate(gradients, pass);
    const auto product = [&](std::int64_t position) {
      return evaluated[static_cast<std::size_t>(position)];
    };
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const EstimatedBlock& block = blocks[b];
      const at::Tensor a =
          block.second < 0 ? product(block.first) : product(block.first) + product(block.second);
      const at::Tensor sampled = a.slice(0, 0, input_.samples);  // [S, B, T]
      const at::Tensor sums = sums_[index][static_cast<std::int64_t>(b)];
      if (input_.with_kl) {
        add(sums[kLinear], a[input_.samples].sum(-1, false, at::kDouble), first);
      }
      add(sums[kPerSequence], sampled.sum(-1, false, at::kDouble).square().mean(0).mul(0.5), first);
      add(sums[kPerToken], sampled.square().sum(-1, false, at::kDouble).mean(0).mul(0.5), first);
    }
  }

  // [B] values of windows `first`, … to the units they belong to.
  void add(const at::Tensor& sums, const at::Tensor& values, std::int64_t first) const {
    const at::Tensor values_B = values.to(at::kCPU).contiguous();
    for (std::int64_t w = 0; w < values_B.numel(); ++w) {
      sums.mutable_data_ptr<double>()[units_.unit_of_window[static_cast<std::size_t>(first + w)]] +=
          values_B.const_data_ptr<double>()[w];
    }
  }

  [[nodiscard]] double giant_change(std::size_t layer, const EstimatedBlock& block) const {
    const std::vector<double>& changes = giant_changes_[layer];
    const double first = changes[static_cast<std::size_t>(block.first)];
    return block.second < 0 ? first
                            : std::max(first, changes[static_cast<std::size_t>(block.second)]);
  }

  [[nodiscard]] ScoreValue mean_of(const at::Tensor& sums) const {
    RatioOfSums ratio(units_.count);
    for (std::int64_t u = 0; u < units_.count; ++u) {
      ratio.add(u, sums.const_data_ptr<double>()[u], 0.0);
    }
    for (const std::int64_t unit : units_.unit_of_window) {
      ratio.add(unit, 0.0, static_cast<double>(part_.window()));
    }
    const RatioOfSums::Result result = ratio.result();
    return {result.value, result.standard_error};
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const SecondOrderInput& input_;
  const TokenPart& part_;
  WindowUnits units_;
  std::vector<at::Tensor> sums_;  // by layer [blocks, quantities, units], fp64, CPU
  std::vector<std::vector<double>> giant_changes_;  // by layer and evaluated block
};

}  // namespace

std::vector<std::vector<BlockEstimate>> estimate_second_order(RunContext& context,
                                                              const LoadedModel& parent,
                                                              const SecondOrderInput& input,
                                                              const TokenPart& part) {
  const c10::NoGradGuard no_grad;
  SecondOrderEstimator estimator(context, parent, input, part);
  const IndexRange share = share_of(part.num_windows(), rank_share(context.communicator));
  Progress progress(input.name,
                    share.count() * (std::ssize(input.layers) - estimator.first_layer()),
                    "layer passes back");
  for (std::int64_t first = share.begin; first < share.end; first += input.batch_windows) {
    estimator.add_windows(first, std::min(input.batch_windows, share.end - first), progress);
  }
  return estimator.result();
}

}  // namespace puzzle
