#include "puzzle/stages/child_changes.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/progress.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/layer_gradients.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/stages/score_estimates.h"

namespace puzzle {
namespace {

// How ⟨·, δ⟩ of a block is had: evaluated, or as the sum of two evaluated blocks'.
struct ChangedBlock {
  BlockSpec block;
  std::int64_t first = 0;  // positions in the layer's evaluated blocks
  std::int64_t second = -1;
};

// What is estimated of a block.
enum Quantity : std::int64_t { kLinear, kPerSequence, kPerToken, kNumQuantities };

struct ChangedLayer {
  std::vector<BlockSpec> evaluated;
  std::vector<ChangedBlock> blocks;
  LayerLibrary library;
  at::Tensor sums;  // [blocks, quantities, units], fp64, CPU
};

ChangedLayer plan_layer(const LayerSpace& space, const BlockSpec& own, LayerLibrary library) {
  ChangedLayer layer;
  layer.library = std::move(library);
  std::map<BlockSpec, std::int64_t> position;
  const auto evaluate = [&](const BlockSpec& block) {
    const auto [found, is_new] = position.try_emplace(block, std::ssize(layer.evaluated));
    if (is_new) {
      layer.evaluated.push_back(block);
    }
    return found->second;
  };
  for (const AttentionSpec& attention : space.attention) {
    for (const FfnSpec& ffn : space.ffn) {
      const BlockSpec block{attention, ffn};
      if (block == own) {
        continue;
      }
      const bool is_half = attention == own.attention || ffn == own.ffn;
      if (is_half || layer.library.coupled.contains(block)) {
        layer.blocks.push_back({block, evaluate(block)});
      } else {
        layer.blocks.push_back(
            {block, evaluate({attention, own.ffn}), evaluate({own.attention, ffn})});
      }
    }
  }
  return layer;
}

class ChangeEstimator {
 public:
  ChangeEstimator(RunContext& context, const LoadedModel& parent,
                  const std::filesystem::path& library_folder, const SearchSpace& space,
                  const Architecture& child, const TokenPart& part, const ChangeOptions& options)
      : context_(context),
        parent_(parent),
        child_(make_child(parent.weights, library_folder, child)),
        part_(part),
        options_(options),
        units_(independent_units(part)) {
    for (std::size_t i = 0; i < child.size(); ++i) {
      const auto file = layer_file(library_folder, static_cast<std::int64_t>(i));
      LayerLibrary library =
          std::filesystem::exists(file)
              ? load_layer_library(file, parent.weights.spec, context.device, context.type)
              : LayerLibrary{};
      layers_.push_back(plan_layer(space.layers[i], child[i], std::move(library)));
      layers_.back().sums =
          at::zeros({std::ssize(layers_.back().blocks), kNumQuantities, units_.count}, at::kDouble);
    }
  }

  void add_windows(std::int64_t first, std::int64_t count, Progress& progress) {
    const TokenBatch batch = part_.slice(first, count).to(context_.device);
    const at::Tensor& embedding = parent_.weights.embedding;
    PassContext pass =
        make_pass(parent_.geometry, part_.window(), embedding.scalar_type(), embedding.device());
    pass.mask = batch.attention_mask();
    GradientWalk walk;
    walk.tokens_BT = batch.tokens_BT;
    walk.pass = &pass;
    walk.uniforms_BTS =
        window_uniforms(derive_seed(static_cast<std::uint64_t>(context_.seed), "search/changes"),
                        first, count, part_.window(), options_.samples);
    const at::Tensor last =
        apply_layers(parent_.weights, parent_.geometry, embed(parent_.weights, batch.tokens_BT),
                     pass, 0, parent_.weights.spec.num_layers());
    walk.parent_final_ND = final_hidden(parent_.weights, last).reshape({-1, last.size(-1)});
    walk.parent_head_VD = parent_.weights.head;
    (void)walk_gradients(child_, parent_.geometry, walk, [&](const LayerGradients& gradients) {
      add_layer(gradients, pass, first);
      progress.advance(count, fmt::format("layer {}", gradients.layer));
    });
  }

  // Of all ranks, the same on each.
  [[nodiscard]] BlockChanges result() {
    std::vector<SecondOrderEstimates> second_order;
    for (ChangedLayer& layer : layers_) {
      context_.communicator.all_reduce_sum(layer.sums);
      for (std::int64_t b = 0; b < std::ssize(layer.blocks); ++b) {
        second_order.push_back({mean_of(layer, b, kPerSequence), mean_of(layer, b, kPerToken)});
      }
    }
    const std::vector<ScoreValue> combined = combine_estimates(second_order);
    BlockChanges changes;
    std::size_t next = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const ChangedLayer& layer = layers_[i];
      std::map<std::string, ScoreValue>& here = changes.emplace_back();
      here[child_.spec.layers[i].name()] = {};
      for (std::size_t b = 0; b < layer.blocks.size(); ++b) {
        const std::string name = layer.blocks[b].block.name();
        const ScoreValue first = mean_of(layer, static_cast<std::int64_t>(b), kLinear);
        const ScoreValue& second = combined[next++];
        here[name] = {first.value + second.value,
                      std::hypot(first.standard_error, second.standard_error)};
        if (!std::isfinite(here[name].value)) {
          fail(ErrorKind::kNumeric, "search: layer {}, {}: the block gives non-finite activations",
               i, name);
        }
      }
    }
    return changes;
  }

 private:
  // ⟨g, δ⟩ of the evaluated blocks, [C, S + 1, B, T]: sampled gradients, then the KL's.
  [[nodiscard]] at::Tensor products(const ChangedLayer& layer, const LayerGradients& gradients,
                                    const PassContext& pass) const {
    const at::Tensor directions_BTSD =
        at::cat({gradients.sampled_SBTD, gradients.kl_BTD.unsqueeze(0)}).permute({1, 2, 0, 3});
    const at::Tensor changes_BTCD = at::stack(output_changes(layer, gradients, pass), 2);
    return at::matmul(changes_BTCD, directions_BTSD.transpose(-1, -2))
        .to(at::kFloat)
        .permute({2, 3, 0, 1});
  }

  // δ of the evaluated blocks, [B, T, D] each. Those with the child's attention share its output.
  [[nodiscard]] std::vector<at::Tensor> output_changes(const ChangedLayer& layer,
                                                       const LayerGradients& gradients,
                                                       const PassContext& pass) const {
    const LayerWeights& own = child_.layers[static_cast<std::size_t>(gradients.layer)];
    const bool shares = !layer.library.coupled.contains(own.spec());
    at::Tensor middle;
    std::vector<at::Tensor> changes;
    for (const BlockSpec& block : layer.evaluated) {
      const LayerWeights weights =
          make_block(parent_.weights, layer.library, gradients.layer, block);
      at::Tensor output;
      if (shares && block.attention == own.attention.spec &&
          !layer.library.coupled.contains(block)) {
        if (!middle.defined()) {
          middle = apply_attention(own.attention, parent_.geometry, gradients.input_BTD, pass);
        }
        output = apply_ffn(weights.ffn, parent_.geometry, middle);
      } else {
        output = apply_layer(weights, parent_.geometry, gradients.input_BTD, pass);
      }
      changes.push_back(output - gradients.output_BTD);
    }
    return changes;
  }

  void add_layer(const LayerGradients& gradients, const PassContext& pass, std::int64_t first) {
    ChangedLayer& layer = layers_[static_cast<std::size_t>(gradients.layer)];
    if (layer.blocks.empty()) {
      return;
    }
    const at::Tensor evaluated = products(layer, gradients, pass);
    for (std::size_t b = 0; b < layer.blocks.size(); ++b) {
      const ChangedBlock& block = layer.blocks[b];
      const at::Tensor a = block.second < 0 ? evaluated[block.first]
                                            : evaluated[block.first] + evaluated[block.second];
      const at::Tensor sampled = a.slice(0, 0, options_.samples);  // [S, B, T]
      const at::Tensor sums = layer.sums[static_cast<std::int64_t>(b)];
      add(sums[kLinear], a[options_.samples].sum(-1, false, at::kDouble), first);
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

  [[nodiscard]] ScoreValue mean_of(const ChangedLayer& layer, std::int64_t block,
                                   Quantity quantity) const {
    const at::Tensor sums = layer.sums[block][quantity];
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
  ModelWeights child_;
  const TokenPart& part_;
  const ChangeOptions& options_;
  WindowUnits units_;
  std::vector<ChangedLayer> layers_;
};

}  // namespace

BlockChanges estimate_changes(RunContext& context, const LoadedModel& parent,
                              const std::filesystem::path& library_folder, const SearchSpace& space,
                              const Architecture& child, const TokenPart& part,
                              const ChangeOptions& options) {
  const c10::NoGradGuard no_grad;
  ChangeEstimator estimator(context, parent, library_folder, space, child, part, options);
  const IndexRange share =
      share_of(part.num_windows(), {context.communicator.rank(), context.communicator.size()});
  Progress progress("search: changes", share.count() * parent.weights.spec.num_layers(),
                    "layer passes back");
  for (std::int64_t first = share.begin; first < share.end; first += options.batch_windows) {
    estimator.add_windows(first, std::min(options.batch_windows, share.end - first), progress);
  }
  return estimator.result();
}

}  // namespace puzzle
