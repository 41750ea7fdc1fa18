// One child under global distillation: trainable weights, loss, optimiser, saved state. The loop
// around it is in distill_child.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/stages/distill_child.h"

namespace puzzle {

// Means over the tokens of a batch times its weight, on the device, detached.
struct StepLosses {
  at::Tensor total;
  at::Tensor kl;  // 0 where it is no part of the loss
};

// Type of matrix products for weights of type `weights` on a device.
[[nodiscard]] c10::ScalarType compute_type(const DistillChildOptions& options,
                                           c10::ScalarType weights, const c10::Device& device);

class ChildTrainer {
 public:
  // Clones what is trained of `child`; the rest is shared.
  ChildTrainer(const LoadedModel& parent, const ModelWeights& child,
               const DistillChildOptions& options);

  // Adds the gradients of one micro-batch, whose share of the step's tokens is `weight`.
  [[nodiscard]] StepLosses add_gradients(const TokenBatch& batch, double weight);
  // All-reduces gradients if the group is larger than one, then updates.
  void update(Communicator& communicator, double learning_rate);

  [[nodiscard]] const ModelWeights& child() const { return child_; }
  void save_state(const std::filesystem::path& file,
                  const std::map<std::string, std::string>& metadata) const;
  // Returns the metadata. Throws Error(kFormat) for the state of another child.
  std::map<std::string, std::string> load_state(const std::filesystem::path& file,
                                                std::int64_t* steps);
  // What is trained, and nothing else.
  void save_weights(const std::filesystem::path& file) const;
  void load_weights(const std::filesystem::path& file);

 private:
  [[nodiscard]] at::Tensor loss(const TokenBatch& batch, StepLosses& parts) const;

  [[nodiscard]] at::Tensor apply_parent(std::size_t layer, const at::Tensor& x_BTD,
                                        const PassContext& pass) const;
  [[nodiscard]] at::Tensor apply_child(std::size_t layer, const at::Tensor& x_BTD,
                                       const PassContext& pass) const;

  const LoadedModel& parent_;
  DistillChildOptions options_;
  c10::ScalarType type_;                     // of matrix products
  std::vector<LayerWeights> parent_layers_;  // with matrices in type_
  at::Tensor parent_head_;                   // in type_
  at::Tensor child_head_;                    // in type_; undefined where it is trained
  ModelWeights child_;
  AdamW optimizer_;
};

}  // namespace puzzle
