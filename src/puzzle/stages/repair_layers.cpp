#include "puzzle/stages/repair_layers.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/layer_half.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/token_weights.h"
#include "puzzle/tensor/ridge.h"
#include "puzzle/tensor/tensor_file.h"
#include "puzzle/tensor/with_place.h"

namespace puzzle {
namespace {

// Parent's and child's states of one part, walking together.
struct StatePair {
  HeldStates parent;
  HeldStates child;

  // What the child's sub-block has to add to its own state.
  [[nodiscard]] at::Tensor target(std::int64_t batch, const at::Tensor& bias) const {
    const at::Tensor y = parent.states(batch) - child.states(batch);
    return bias.defined() ? y - bias : y;
  }
  [[nodiscard]] std::int64_t memory_bytes() const {
    return parent.memory_bytes() + child.memory_bytes();
  }
};

class Repairer {
 public:
  Repairer(RunContext& context, const LoadedModel& parent, LoadedModel child,
           const TokenPart& calibration, const TokenPart& validation, const RepairOptions& options,
           std::filesystem::path folder)
      : context_(context),
        parent_(parent),
        child_(std::move(child)),
        options_(options),
        folder_(std::move(folder)),
        validation_(make_states(validation, options.state_memory_mib << 20)),
        calibration_(make_states(
            calibration, (options.state_memory_mib << 20) - validation_.child.memory_bytes())),
        feature_bytes_(2 * (options.state_memory_mib << 20) - validation_.memory_bytes() -
                       calibration_.memory_bytes()),
        calibration_tokens_(calibration_.child.num_windows() * calibration.window()) {}

  // The refitted child, and how many matrices changed.
  std::pair<ModelWeights, std::int64_t> run() {
    Progress progress("repair", child_.weights.spec.num_layers(), "layers");
    std::int64_t refitted = 0;
    for (std::size_t i = 0; i < child_.weights.layers.size(); ++i) {
      const std::string place = fmt::format("repair, layer {}", i);
      refitted += with_place(place, [&] { return repair_layer(i, place); });
      progress.advance(1);
    }
    return {child_.weights, refitted};
  }

 private:
  // `bytes`: held in memory at most, of parent and child each.
  [[nodiscard]] StatePair make_states(const TokenPart& part, std::int64_t bytes) const {
    const RankShare share = rank_share(context_.communicator);
    const StateMemory memory{.bytes = bytes, .spill_folder = context_.folder};
    return {HeldStates(parent_, part, share, options_.batch_tokens, memory),
            HeldStates(child_, part, share, options_.batch_tokens, memory)};
  }

  std::int64_t repair_layer(std::size_t index, const std::string& place) {
    const std::filesystem::path file = layer_file(folder_, static_cast<std::int64_t>(index));
    const bool is_done =
        context_.communicator.all_reduce_max(std::filesystem::exists(file) ? 1.0 : 0.0) > 0.0;
    LayerWeights& layer = child_.weights.layers[index];
    is_parent_so_far_ = is_parent_so_far_ && is_same(layer, parent_.weights.layers[index]);
    if (is_parent_so_far_) {  // no error to undo yet
      walk_together(index);
      return 0;
    }
    std::int64_t refitted = 0;
    std::vector<TensorToWrite> changed;
    for (const Half half : {Half::kAttention, Half::kFfn}) {
      if (is_none(layer, half)) {
        advance_parent(index, half);
        continue;
      }
      const std::string half_place = place + ", " + half_name(half);
      if (const auto correction = is_done ? stored(file, input_name(half), correction_like())
                                          : input_correction(layer, half, half_place)) {
        refitted += correct_inputs(layer, half, *correction);
        changed.push_back(tensor_to_write(input_name(half), *correction));
      }
      advance_parent(index, half);
      std::optional<at::Tensor> matrix =
          is_done ? stored(file, half_name(half), half_matrix(layer, half))
                  : refit(layer, half, half_place);
      if (matrix.has_value()) {
        ++refitted;
        changed.push_back(tensor_to_write(half_name(half), *matrix));
        set_half_matrix(layer, half, *std::move(matrix));
      }
      advance_child(layer, half);
    }
    if (!is_done && context_.communicator.is_first()) {
      make_folder(folder_);
      write_safetensors(file, std::move(changed), {});
    }
    return refitted;
  }

  static bool is_same(const LayerWeights& a, const LayerWeights& b) {
    const auto tensors_of = [](const LayerWeights& layer) {
      std::vector<at::Tensor> tensors;
      visit_tensors(layer, ConstTensorVisitor([&](const std::string&, const at::Tensor& tensor) {
                      tensors.push_back(tensor);
                    }));
      return tensors;
    };
    return a.spec() == b.spec() &&
           std::ranges::equal(tensors_of(a), tensors_of(b),
                              [](const auto& x, const auto& y) { return at::equal(x, y); });
  }

  void walk_together(std::size_t index) {
    for (StatePair* pair : {&calibration_, &validation_}) {
      pair->parent.advance(parent_.weights.layers[index]);
      for (std::int64_t b = 0; b < pair->child.num_batches(); ++b) {
        pair->child.replace(b, pair->parent.states(b));
      }
    }
  }

  static std::optional<at::Tensor> stored(const std::filesystem::path& file,
                                          const std::string& name, const at::Tensor& like) {
    const SafetensorsFile tensors(file);
    if (tensors.find_tensor(name) == nullptr) {
      return std::nullopt;
    }
    return read_tensor_like(tensors, name, like);
  }

  static std::string input_name(Half half) { return std::string(half_name(half)) + ".input"; }

  // [D, D] in the child's type.
  [[nodiscard]] at::Tensor correction_like() const {
    const std::int64_t hidden = parent_.weights.spec.hidden_size;
    return at::empty({hidden, hidden}, parent_.weights.embedding.options());
  }

  // M of repair.h: the best of the grid on held-out tokens, nothing where none is better than no
  // correction or where no matrix but the output matrix reads the input. Both states are those that
  // enter the sub-block.
  std::optional<at::Tensor> input_correction(LayerWeights& layer, Half half,
                                             const std::string& place) {
    std::int64_t matrices = 0;
    visit_input_matrices(layer, half, [&](at::Tensor&) { ++matrices; });
    if (matrices == 0 || !options_.inputs) {
      return std::nullopt;
    }
    const auto drift = [&](const StatePair& pair, std::int64_t batch, const at::Tensor& xn) {
      return half_input(layer, half, parent_.geometry, pair.parent.states(batch)) - xn;
    };
    const std::int64_t hidden = parent_.weights.spec.hidden_size;
    Gram gram(hidden, hidden, parent_.weights.embedding.device());
    for (std::int64_t b = 0; b < calibration_.child.num_batches(); ++b) {
      const at::Tensor xn = half_input(layer, half, parent_.geometry, calibration_.child.states(b));
      gram.add(xn, drift(calibration_, b, xn), at::Tensor());
    }
    gram.visit_sums([&](at::Tensor& sum) { context_.communicator.all_reduce_sum(sum); });
    const at::Tensor none = at::zeros_like(correction_like());
    std::vector<at::Tensor> candidates = {none};
    for (const double lambda : options_.lambdas) {
      candidates.push_back(solve_ridge(gram, lambda, place).weight.to(none.options()));
    }
    std::vector<double> errors(candidates.size(), 0.0);
    for (std::int64_t b = 0; b < validation_.child.num_batches(); ++b) {
      const at::Tensor xn = half_input(layer, half, parent_.geometry, validation_.child.states(b));
      const at::Tensor y = drift(validation_, b, xn);
      for (std::size_t c = 0; c < candidates.size(); ++c) {
        errors[c] +=
            squared_norms(y - at::linear(xn, candidates[c])).sum(at::kDouble).item<double>();
      }
    }
    return best_candidate(candidates, errors, place + ", input");
  }

  // W ← W(I + M); how many matrices that are.
  static std::int64_t correct_inputs(LayerWeights& layer, Half half, const at::Tensor& correction) {
    std::int64_t matrices = 0;
    visit_input_matrices(layer, half, [&](at::Tensor& matrix) {
      matrix = matrix + at::mm(matrix, correction);
      ++matrices;
    });
    return matrices;
  }

  // The candidate of the least error, summed over ranks; nothing for the first, which is the state
  // of things.
  std::optional<at::Tensor> best_candidate(const std::vector<at::Tensor>& candidates,
                                           std::vector<double>& errors, const std::string& place) {
    for (double& error : errors) {
      error = context_.communicator.all_reduce_sum(error);
      if (!std::isfinite(error)) {
        fail(ErrorKind::kNumeric, "{}: hidden states on held-out tokens are not finite", place);
      }
    }
    const auto best = std::min_element(errors.begin(), errors.end()) - errors.begin();
    log_debug("{}: held-out error {:.4g} -> {:.4g}, ridge {} of {}", place, errors.front(),
              errors[static_cast<std::size_t>(best)], best, errors.size() - 1);
    return best == 0 ? std::nullopt
                     : std::optional(candidates[static_cast<std::size_t>(best)].contiguous());
  }

  void advance_parent(std::size_t index, Half half) {
    for (StatePair* pair : {&calibration_, &validation_}) {
      for (std::int64_t b = 0; b < pair->parent.num_batches(); ++b) {
        pair->parent.replace(b, apply_half(parent_.weights.layers[index], half, parent_.geometry,
                                           pair->parent.states(b), pair->parent.pass(b)));
      }
    }
  }

  void advance_child(const LayerWeights& layer, Half half) {
    for (StatePair* pair : {&calibration_, &validation_}) {
      for (std::int64_t b = 0; b < pair->child.num_batches(); ++b) {
        const at::Tensor x = pair->child.states(b);
        const bool is_kept = pair == &calibration_ && !kept_features_.empty();
        pair->child.replace(
            b, is_kept ? x + half_output(layer, half, kept_features_[static_cast<std::size_t>(b)])
                       : apply_half(layer, half, parent_.geometry, x, pair->child.pass(b)));
      }
    }
    kept_features_.clear();
  }

  // Of one calibration batch; kept for advance_child() if all of them fit the memory limit.
  at::Tensor calibration_features(const LayerWeights& layer, Half half, std::int64_t batch) {
    at::Tensor features =
        half_features(layer, half, parent_.geometry, calibration_.child.states(batch),
                      calibration_.child.pass(batch));
    if (keeps_features_) {
      kept_features_.push_back(features);
    }
    return features;
  }

  // The best of the grid on held-out tokens; nothing where the matrix there is is better.
  std::optional<at::Tensor> refit(const LayerWeights& layer, Half half, const std::string& place) {
    const at::Tensor& current = half_matrix(layer, half);
    const double median = median_norm2(place);
    keeps_features_ =
        calibration_tokens_ * current.size(1) * current.element_size() <= feature_bytes_;
    Gram gram(current.size(1), current.size(0), current.device());
    for (std::int64_t b = 0; b < calibration_.child.num_batches(); ++b) {
      gram.add(calibration_features(layer, half, b), calibration_.target(b, half_bias(layer, half)),
               token_weights(calibration_.parent.states(b), options_.token_weights, median));
    }
    gram.visit_sums([&](at::Tensor& sum) { context_.communicator.all_reduce_sum(sum); });
    std::vector<at::Tensor> candidates = {current};
    for (const double lambda : options_.lambdas) {
      candidates.push_back(refit_ridge(gram, current, lambda, place).weight.to(current.options()));
    }
    std::vector<double> errors = heldout_errors(layer, half, candidates, median);
    return best_candidate(candidates, errors, place);
  }

  std::vector<double> heldout_errors(const LayerWeights& layer, Half half,
                                     const std::vector<at::Tensor>& candidates, double median) {
    std::vector<double> errors(candidates.size(), 0.0);
    for (std::int64_t b = 0; b < validation_.child.num_batches(); ++b) {
      const at::Tensor x = half_features(layer, half, parent_.geometry, validation_.child.states(b),
                                         validation_.child.pass(b));
      const at::Tensor y = validation_.target(b, half_bias(layer, half));
      const at::Tensor weights =
          token_weights(validation_.parent.states(b), options_.token_weights, median);
      for (std::size_t c = 0; c < candidates.size(); ++c) {
        const at::Tensor squares = squared_norms(y - at::linear(x, candidates[c]));
        errors[c] +=
            (weights.defined() ? squares * weights : squares).sum(at::kDouble).item<double>();
      }
    }
    return errors;
  }

  // Of the parent's ‖h‖² over all calibration tokens.
  double median_norm2(const std::string& place) {
    if (options_.token_weights != "damped") {
      return 0.0;
    }
    std::vector<float> norms;
    for (std::int64_t b = 0; b < calibration_.parent.num_batches(); ++b) {
      const at::Tensor batch =
          squared_norms(calibration_.parent.states(b)).to(at::kCPU, at::kFloat).contiguous();
      norms.insert(norms.end(), batch.const_data_ptr<float>(),
                   batch.const_data_ptr<float>() + batch.numel());
    }
    return median_over_ranks(norms, context_.communicator, place);
  }

  RunContext& context_;
  const LoadedModel& parent_;
  LoadedModel child_;
  const RepairOptions& options_;
  std::filesystem::path folder_;  // finished layers
  StatePair validation_;
  StatePair calibration_;
  std::int64_t feature_bytes_;       // what the states leave of the memory limit
  std::int64_t calibration_tokens_;  // of this rank
  bool is_parent_so_far_ = true;     // the child's layers before the one at hand are the parent's
  bool keeps_features_ = false;
  std::vector<at::Tensor> kept_features_;  // of the half at hand; empty if they do not fit
};

}  // namespace

std::pair<ModelWeights, std::int64_t> repair_layers(RunContext& context, const LoadedModel& parent,
                                                    LoadedModel child, const TokenPart& calibration,
                                                    const TokenPart& validation,
                                                    const RepairOptions& options,
                                                    std::filesystem::path folder) {
  return Repairer(context, parent, std::move(child), calibration, validation, options,
                  std::move(folder))
      .run();
}

}  // namespace puzzle
