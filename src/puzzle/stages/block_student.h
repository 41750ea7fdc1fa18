// One variant of a layer under block-local distillation, and what all variants of the layer share.
//
// A student is a whole block of which one half or both are trained:
//   kAttention  own attention, the parent's FFN frozen behind it
//   kFfn        own FFN behind the parent's attention
//   kBlock      both halves its own
// Norms are never trained (see distill_blocks.h).
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/model/decoder.h"
#include "puzzle/model/initialize.h"
#include "puzzle/stages/block_loss.h"
#include "puzzle/train/adamw.h"

namespace puzzle {

// One batch's pass through the parent's layer. Shape letters: B windows, T tokens, D hidden.
struct SharedBatch {
  at::Tensor input_BTD;  // entering the layer
  at::Tensor mid_BTD;    // after the parent's attention
  ParentPass parent;
  PassContext pass;
  BlockTarget target;        // the parent's block output
  at::Tensor delta_norm2{};  // Σ‖Δparent‖², fp64 scalar; Δ = output − input
};

// Makes no gradients.
[[nodiscard]] SharedBatch run_shared(const LayerWeights& parent, const Geometry& geometry,
                                     const at::Tensor& input_BTD, const PassContext& pass,
                                     BlockLoss loss);

enum class StudentRole { kAttention, kFfn, kBlock };

struct StudentRates {
  double kv = 0.0;      // attention that is not linear
  double ffn = 0.0;     // FFN that is not linear
  double linear = 0.0;  // either
};

// Sums over held-out batches; fp64 scalars on the device.
struct StudentErrors {
  at::Tensor loss_numerator;
  at::Tensor error2;  // Σ‖Δparent − Δ‖²

  void add(const SharedBatch& batch, const at::Tensor& output_BTD);
};

class BlockStudent {
 public:
  // `name` as in VariantRow; `start` shares its tensors and is never written to; the frozen half
  // must be the parent's. `geometry` must outlive the student. Weights must be fp32.
  BlockStudent(std::string name, StudentRole role, LayerWeights start, const LayerWeights& parent,
               const Geometry& geometry, const StudentRates& rates, const AdamWOptions& options);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] StudentRole role() const { return role_; }
  [[nodiscard]] const LayerWeights& start() const { return start_; }
  // What training made of it; tensors require no gradient.
  [[nodiscard]] LayerWeights trained() const;

  // One update at `factor` times the peak rates. Returns the loss before it, a detached fp64 scalar
  // on the device.
  at::Tensor train_step(const SharedBatch& batch, double factor);

  // Add the errors of the present weights, or of the starting ones, to `errors`.
  void add_errors(const SharedBatch& batch, StudentErrors& errors) const;
  void add_start_errors(const SharedBatch& batch, StudentErrors& errors) const;

 private:
  // One half with its own optimiser; a pair has two, each at the rate of its kind.
  struct Half {
    AdamW optimizer;
    double peak_rate;
  };

  [[nodiscard]] at::Tensor output(const LayerWeights& block, const SharedBatch& batch) const;

  std::string name_;
  StudentRole role_;
  LayerWeights start_;
  LayerWeights block_;
  const Geometry& geometry_;
  bool shares_attention_input_;
  bool shares_ffn_input_;
  std::vector<Half> halves_;
};

}  // namespace puzzle
